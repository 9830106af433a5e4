from __future__ import annotations

from typing import Any

from rest_framework import serializers

from apps.core.rest.strict import StrictSerializer
from apps.identity.matrix import SCOPES
from apps.identity.models import ApiToken
from apps.identity.types import Role


class TokenSerializer(serializers.ModelSerializer[ApiToken]):
    """A token without its value, which nobody can show again."""

    prefix = serializers.SerializerMethodField(
        help_text="How the value begins: enough to recognise it in a file."
    )
    scopes = serializers.ListField(child=serializers.CharField())

    class Meta:
        model = ApiToken
        fields = [
            "id",
            "name",
            "prefix",
            "scopes",
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
    scope = serializers.ChoiceField(
        choices=["organization", "project"], help_text="Where the role holds."
    )
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
