from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from apps.core.rest.strict import StrictSerializer
from apps.sandboxes.models import Environment, HostImage, Sandbox
from apps.sandboxes.services.offers import Offer
from apps.sandboxes.types import EGRESS_SCHEMA, LIMITS_SCHEMA, EgressMode, SandboxState


@extend_schema_field(LIMITS_SCHEMA)
class LimitsField(serializers.DictField):
    """What is asked for of the sandbox's size; the rest is the profile's."""


@extend_schema_field(EGRESS_SCHEMA)
class EgressField(serializers.DictField):
    """How much of the network it reaches."""


class EnvironmentChangeSerializer(StrictSerializer):
    description = serializers.CharField(max_length=500, required=False, allow_blank=True)
    profile = serializers.CharField(
        max_length=40, required=False, help_text="One that hosts offer: /api/sandboxes/profiles."
    )
    limits = LimitsField(required=False, help_text="Within the profile's maxima.")
    egress = EgressField(required=False, help_text="`none`, `allowlist` with `allow`, or `open`.")
    variables = serializers.DictField(
        child=serializers.CharField(max_length=8192, allow_blank=True, trim_whitespace=False),
        required=False,
        help_text="Plain: whoever sees the environment sees them. Replaces all there were.",
    )


class EnvironmentRequestSerializer(EnvironmentChangeSerializer):
    name = serializers.CharField(
        max_length=40,
        help_text="Lower-case letters, digits and dashes. It cannot be changed later.",
    )
    project = serializers.CharField(
        max_length=64,
        required=False,
        allow_null=True,
        help_text="Id or slug; the whole organization's without one.",
    )


class CloneRequestSerializer(StrictSerializer):
    name = serializers.CharField(max_length=40)
    project = serializers.CharField(
        max_length=64, required=False, allow_null=True, help_text="Id or slug; none for all."
    )


class _ProjectSerializer(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    slug = serializers.CharField()
    name = serializers.CharField()


class EnvironmentSerializer(serializers.ModelSerializer[Environment]):
    """What scripts run in."""

    project = _ProjectSerializer(allow_null=True, help_text="Null: the whole organization's.")
    limits = LimitsField()
    egress = EgressField(source="recipe.egress")
    variables = serializers.DictField(child=serializers.CharField())
    links = serializers.SerializerMethodField()

    class Meta:
        model = Environment
        fields = [
            "id",
            "name",
            "description",
            "project",
            "is_default",
            "profile",
            "limits",
            "egress",
            "variables",
            "created_at",
            "updated_at",
            "links",
        ]
        read_only_fields = fields

    def get_links(self, environment: Environment) -> dict[str, str]:
        this = f"/api/sandboxes/environments/{environment.pk}"
        return {
            "self": this,
            "clone": f"{this}/clone",
            "default": f"{this}/default",
            "page": f"/integrations/sandboxes/environments/{environment.pk}",
        }


class EnvironmentFilterSerializer(serializers.Serializer[Any]):
    project = serializers.CharField(
        max_length=64, required=False, help_text="Those that can be named there; id or slug."
    )
    name = serializers.CharField(max_length=40, required=False)


class ProfileSerializer(serializers.Serializer[Offer]):
    """A profile as every host that has it will honor it."""

    name = serializers.CharField()
    image = serializers.CharField()
    hosts = serializers.ListField(child=serializers.CharField())
    egress = serializers.ChoiceField(choices=EgressMode.values, help_text="The most of it.")
    gets = LimitsField(help_text="What a sandbox has that asks for nothing.")
    most = LimitsField(help_text="The most it may ask for.")


class ProfileListSerializer(serializers.Serializer[Any]):
    results = ProfileSerializer(many=True)


class ImageSerializer(serializers.ModelSerializer[HostImage]):
    """A sandbox image as a host's engine has it; one without a digest is missing there."""

    class Meta:
        model = HostImage
        fields = [
            "tag",
            "host",
            "source",
            "digest",
            "size",
            "built_at",
            "base",
            "is_current",
            "seen_at",
        ]
        read_only_fields = fields
        extra_kwargs = {
            "source": {"help_text": "The folder it is built from; empty for somebody else's."},
            "is_current": {"help_text": "Built from the files as they are now; null: unknown."},
        }


class ImageListSerializer(serializers.Serializer[Any]):
    results = ImageSerializer(many=True)


class KeptSerializer(serializers.Serializer[Sandbox]):
    """The workspace that was put away."""

    size = serializers.IntegerField(source="snapshot_size", help_text="Bytes of its archive.")
    files = serializers.IntegerField(source="snapshot_files")
    left_out = serializers.IntegerField(
        source="snapshot_left_out", help_text="Links, devices and the like: they are not kept."
    )


class InstanceSerializer(serializers.ModelSerializer[Sandbox]):
    """One sandbox, as the workers tell of it."""

    project = serializers.UUIDField(source="project_id", allow_null=True)
    run = serializers.UUIDField(source="run_id", allow_null=True)
    since = serializers.DateTimeField(help_text="When it came to be what it is.")
    kept = serializers.SerializerMethodField(help_text="Null unless it is `snapshotted`.")
    links = serializers.SerializerMethodField()

    class Meta:
        model = Sandbox
        fields = [
            "id",
            "state",
            "project",
            "run",
            "attempt",
            "profile",
            "image",
            "isolation",
            "host",
            "worker",
            "created_at",
            "since",
            "kept",
            "links",
        ]
        read_only_fields = fields

    @extend_schema_field(KeptSerializer(allow_null=True))
    def get_kept(self, sandbox: Sandbox) -> dict[str, Any] | None:
        if sandbox.state != SandboxState.SNAPSHOTTED:
            return None
        return dict(KeptSerializer(sandbox).data)

    def get_links(self, sandbox: Sandbox) -> dict[str, str]:
        return {"run": f"/api/runs/{sandbox.run_id}"} if sandbox.run_id else {}


class InstanceFilterSerializer(serializers.Serializer[Any]):
    project = serializers.CharField(max_length=64, required=False, help_text="Id or slug.")
    run = serializers.UUIDField(required=False)
    state = serializers.ChoiceField(
        choices=SandboxState.choices,
        required=False,
        help_text="Without it: those that there are, and those that failed in the last day.",
    )
