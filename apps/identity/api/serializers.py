from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from apps.core import clock
from apps.core.rest.strict import StrictSerializer
from apps.identity import allowed
from apps.identity.matrix import MATRIX, SCOPES
from apps.identity.models import ApiToken, Binding, Department, Proposal, User
from apps.identity.types import Role, Scope, UserKind


class TokenSerializer(serializers.ModelSerializer[ApiToken]):
    """A token without its value, which nobody can show again."""

    prefix = serializers.SerializerMethodField(
        help_text="How the value begins: enough to recognise it in a file."
    )
    scopes = serializers.ListField(child=serializers.CharField())
    allowed_networks = serializers.ListField(
        child=serializers.CharField(), help_text="Where it is taken from; empty: anywhere."
    )

    class Meta:
        model = ApiToken
        fields = [
            "id",
            "name",
            "prefix",
            "scopes",
            "allowed_networks",
            "created_at",
            "expires_at",
            "last_used_at",
            "revoked_at",
        ]
        read_only_fields = fields

    def get_prefix(self, token: ApiToken) -> str:
        return f"aos_pat_{token.key_id}"


class IssuedTokenSerializer(TokenSerializer):
    value = serializers.CharField(help_text="The token itself. Keep it: it is not shown again.")

    class Meta(TokenSerializer.Meta):
        fields = [*TokenSerializer.Meta.fields, "value"]
        read_only_fields = fields


class TokenRequestSerializer(StrictSerializer):
    name = serializers.CharField(max_length=80, help_text="What it is for.")
    scopes = serializers.ListField(
        child=serializers.ChoiceField(choices=SCOPES),
        min_length=1,
        max_length=len(SCOPES),
        help_text="What it may do, at most. It never does more than its owner may.",
    )
    lifetime_days = serializers.IntegerField(min_value=1, max_value=365, default=90)
    allowed_networks = serializers.ListField(
        child=serializers.CharField(max_length=43),
        max_length=allowed.MOST,
        default=list,
        help_text="Addresses or networks (CIDR) it may be used from; empty: anywhere.",
    )


class OrganizationSerializer(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    slug = serializers.SlugField()
    name = serializers.CharField()


class UserSerializer(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    username = serializers.CharField()
    name = serializers.CharField(source="get_full_name")
    email = serializers.CharField(help_text="Empty when none is known.")


class GrantSerializer(serializers.Serializer[Any]):
    scope = serializers.ChoiceField(choices=Scope.choices, help_text="Where the role holds.")
    scope_id = serializers.UUIDField()
    role = serializers.ChoiceField(choices=Role.choices)
    actions = serializers.ListField(
        child=serializers.CharField(),
        help_text="What may be done there. With a token: within the token's scopes.",
    )


class MeSerializer(serializers.Serializer[Any]):
    """Who asks, and what they may do where."""

    user = UserSerializer()
    organization = OrganizationSerializer()
    permissions = GrantSerializer(many=True)
    token = TokenSerializer(allow_null=True, help_text="The token used, or null for a session.")


class DepartmentBriefSerializer(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    name = serializers.CharField()


class PersonSerializer(serializers.ModelSerializer[User]):
    email = serializers.CharField(help_text="Empty when none is known.")
    departments = DepartmentBriefSerializer(many=True)
    has_second_factor = serializers.BooleanField()

    class Meta:
        model = User
        fields = [
            "id",
            "username",
            "email",
            "first_name",
            "last_name",
            "is_active",
            "has_second_factor",
            "departments",
            "last_login",
            "date_joined",
        ]
        read_only_fields = fields


class PeopleFilterSerializer(serializers.Serializer[Any]):
    active = serializers.BooleanField(required=False)
    username = serializers.CharField(required=False, max_length=150)
    department = serializers.UUIDField(required=False, help_text="The department's id.")


class PersonRequestSerializer(StrictSerializer):
    username = serializers.CharField(max_length=150)
    email = serializers.EmailField(max_length=254)
    password = serializers.CharField(
        max_length=4096,
        trim_whitespace=False,
        help_text="The first one. The person should change it after the first sign-in.",
    )
    first_name = serializers.CharField(max_length=150, default="", allow_blank=True)
    last_name = serializers.CharField(max_length=150, default="", allow_blank=True)


class PersonChangeSerializer(StrictSerializer):
    username = serializers.CharField(max_length=150, required=False)
    email = serializers.EmailField(max_length=254, required=False)
    first_name = serializers.CharField(max_length=150, required=False, allow_blank=True)
    last_name = serializers.CharField(max_length=150, required=False, allow_blank=True)


class ReasonSerializer(StrictSerializer):
    reason = serializers.CharField(max_length=200, default="", allow_blank=True)


class AccountSerializer(serializers.ModelSerializer[User]):
    """A service account."""

    name = serializers.CharField(source="first_name", help_text="What it is for.")
    departments = DepartmentBriefSerializer(many=True)
    created_at = serializers.DateTimeField(source="date_joined")

    class Meta:
        model = User
        fields = ["id", "username", "name", "is_active", "departments", "created_at"]
        read_only_fields = fields


class AccountRequestSerializer(StrictSerializer):
    username = serializers.CharField(max_length=150)
    name = serializers.CharField(
        max_length=150, default="", allow_blank=True, help_text="What it is for."
    )


class AccountChangeSerializer(StrictSerializer):
    name = serializers.CharField(max_length=150, required=False, allow_blank=True)


class DepartmentSerializer(serializers.ModelSerializer[Department]):
    members = serializers.IntegerField(source="members_count", help_text="How many.")

    class Meta:
        model = Department
        fields = ["id", "name", "members", "created_at", "updated_at"]
        read_only_fields = fields


class DepartmentRequestSerializer(StrictSerializer):
    name = serializers.CharField(max_length=120)


class MemberSerializer(serializers.ModelSerializer[User]):
    class Meta:
        model = User
        fields = ["id", "kind", "username", "first_name", "last_name", "is_active"]
        read_only_fields = fields


class SubjectSerializer(serializers.Serializer[Any]):
    kind = serializers.ChoiceField(choices=[*UserKind.values, "department"])
    id = serializers.UUIDField()
    name = serializers.CharField()


class BindingSerializer(serializers.ModelSerializer[Binding]):
    subject = serializers.SerializerMethodField()
    granted_by = serializers.CharField(
        source="granted_by.username",
        default=None,
        allow_null=True,
        help_text="Null when nobody did: at the founding.",
    )
    has_ended = serializers.SerializerMethodField()

    class Meta:
        model = Binding
        fields = [
            "id",
            "subject",
            "role",
            "scope",
            "scope_id",
            "expires_at",
            "has_ended",
            "reason",
            "granted_by",
            "created_at",
            "updated_at",
        ]
        read_only_fields = fields

    @extend_schema_field(SubjectSerializer)
    def get_subject(self, binding: Binding) -> dict[str, Any]:
        subject = binding.department or binding.user
        kind = "department" if binding.department else getattr(subject, "kind", "")
        return {"kind": kind, "id": getattr(subject, "pk", None), "name": str(subject)}

    def get_has_ended(self, binding: Binding) -> bool:
        return binding.expires_at is not None and binding.expires_at <= clock.now()


class BindingFilterSerializer(serializers.Serializer[Any]):
    user = serializers.UUIDField(required=False, help_text="Bindings of this user's own.")
    department = serializers.UUIDField(required=False)
    role = serializers.ChoiceField(choices=Role.choices, required=False)
    scope = serializers.ChoiceField(choices=Scope.choices, required=False)
    scope_id = serializers.UUIDField(required=False)


class BindingRequestSerializer(StrictSerializer):
    user = serializers.UUIDField(required=False, help_text="A person or a service account.")
    department = serializers.UUIDField(required=False)
    role = serializers.ChoiceField(choices=Role.choices)
    scope = serializers.ChoiceField(choices=Scope.choices, default=Scope.ORGANIZATION)
    place = serializers.CharField(
        max_length=64,
        default="",
        allow_blank=True,
        help_text="The project, agent or run, by id or slug; empty for the organization.",
    )
    expires_at = serializers.DateTimeField(default=None, allow_null=True)
    reason = serializers.CharField(max_length=200, default="", allow_blank=True)


class RevocationSerializer(serializers.Serializer[Any]):
    reason = serializers.CharField(max_length=200, default="", allow_blank=True)


class ProposalSerializer(serializers.ModelSerializer[Proposal]):
    user = MemberSerializer()
    requested_by = serializers.CharField(source="requested_by.username")
    decided_by = serializers.CharField(
        source="decided_by.username",
        default=None,
        allow_null=True,
        help_text="Null while it waits, and when it was decided from the shell.",
    )
    is_waiting = serializers.BooleanField(help_text="Open, and not ended by itself.")

    class Meta:
        model = Proposal
        fields = [
            "id",
            "user",
            "reason",
            "requested_by",
            "created_at",
            "expires_at",
            "state",
            "is_waiting",
            "decided_by",
            "decided_at",
            "why",
        ]
        read_only_fields = fields


class ProposalRequestSerializer(StrictSerializer):
    user = serializers.UUIDField(help_text="Who is to become an owner.")
    reason = serializers.CharField(max_length=200, default="", allow_blank=True)


class DeclineSerializer(StrictSerializer):
    why = serializers.CharField(max_length=200, default="", allow_blank=True)


class ActionSerializer(serializers.Serializer[Any]):
    action = serializers.CharField()
    summary = serializers.CharField(source="rule.summary")
    role = serializers.ChoiceField(
        choices=Role.choices, source="rule.role", help_text="The least role that may."
    )
    over = serializers.ListField(
        child=serializers.ChoiceField(choices=Scope.choices),
        source="rule.over",
        help_text="The places over which a binding grants it.",
    )
    anywhere = serializers.BooleanField(
        source="rule.anywhere", help_text="The role at any of these places is enough."
    )
    token_scope = serializers.CharField(source="rule.scope")
    audited = serializers.BooleanField(source="rule.audited")
    two_person = serializers.BooleanField(
        source="rule.two_person", help_text="Takes two people where AOS_TWO_PERSON is on."
    )
    step_up = serializers.BooleanField(source="rule.step_up")


class RoleSerializer(serializers.Serializer[Any]):
    role = serializers.ChoiceField(choices=Role.choices)
    actions = serializers.ListField(child=serializers.CharField())


class RolesSerializer(serializers.Serializer[Any]):
    """The permission matrix."""

    roles = RoleSerializer(many=True)
    actions = ActionSerializer(many=True)


class CheckQuerySerializer(serializers.Serializer[Any]):
    action = serializers.ChoiceField(choices=list(MATRIX))
    resource = serializers.CharField(max_length=80, default=Scope.ORGANIZATION.value)


class PlaceSerializer(serializers.Serializer[Any]):
    scope = serializers.ChoiceField(choices=Scope.choices)
    id = serializers.UUIDField()
    name = serializers.CharField()


class ThroughSerializer(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    role = serializers.ChoiceField(choices=Role.choices)
    scope = serializers.ChoiceField(choices=Scope.choices)
    scope_id = serializers.UUIDField()
    department = serializers.CharField(
        source="department.name",
        default=None,
        allow_null=True,
        help_text="Null for a binding of one's own.",
    )
    expires_at = serializers.DateTimeField(allow_null=True)


class CheckSerializer(serializers.Serializer[Any]):
    """Whether the caller may, and what makes it so."""

    action = serializers.CharField()
    resource = PlaceSerializer(source="place")
    allowed = serializers.BooleanField(source="verdict.is_allowed")
    code = serializers.CharField(
        source="verdict.code", help_text="The error one would get; empty when it is allowed."
    )
    why = serializers.CharField(source="verdict.why")
    through = ThroughSerializer(
        source="verdict.through",
        many=True,
        help_text="The bindings that grant it; when none does, those held here with a lesser role.",
    )
