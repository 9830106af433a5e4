from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from apps.agents.models import Agent, AgentVersion
from apps.agents.services.registry import SCRIPT_SPEC
from apps.agents.types import AgentKind, VersionState
from apps.core.rest.strict import StrictSerializer


@extend_schema_field(SCRIPT_SPEC)
class SpecField(serializers.DictField):
    """A version's spec; the registry checks it against the same schema, and more."""


class AgentSerializer(serializers.ModelSerializer[Agent]):
    current = serializers.IntegerField(
        source="current.number",
        default=None,
        allow_null=True,
        help_text="The number of the released version that new runs use.",
    )
    kind = serializers.ChoiceField(choices=AgentKind.choices)
    links = serializers.SerializerMethodField()

    class Meta:
        model = Agent
        fields = [
            "id",
            "slug",
            "title",
            "description",
            "kind",
            "current",
            "created_at",
            "updated_at",
            "links",
        ]
        read_only_fields = fields

    def get_links(self, agent: Agent) -> dict[str, str]:
        return {
            "self": f"/api/agents/{agent.pk}",
            "versions": f"/api/agents/{agent.pk}/versions",
            "runs": f"/api/runs?agent={agent.pk}",
        }


class AgentDetailSerializer(AgentSerializer):
    input_schema = serializers.SerializerMethodField(
        help_text="JSON Schema of the input the current version takes; null before a release."
    )

    class Meta(AgentSerializer.Meta):
        fields = [*AgentSerializer.Meta.fields, "input_schema"]
        read_only_fields = fields

    def get_input_schema(self, agent: Agent) -> dict[str, Any] | None:
        if agent.current is None:
            return None
        schema: dict[str, Any] = agent.current.spec.get("input_schema") or {"type": "object"}
        return schema


class AgentRequestSerializer(StrictSerializer):
    slug = serializers.SlugField(max_length=64, help_text="Unique in the organization.")
    title = serializers.CharField(max_length=120)
    description = serializers.CharField(max_length=4000, default="", allow_blank=True)
    kind = serializers.ChoiceField(choices=AgentKind.choices, default=AgentKind.SCRIPT)


class AgentChangeSerializer(StrictSerializer):
    title = serializers.CharField(max_length=120, required=False)
    description = serializers.CharField(max_length=4000, required=False, allow_blank=True)


class AgentFilterSerializer(serializers.Serializer[Any]):
    kind = serializers.ChoiceField(choices=AgentKind.choices, required=False)


class VersionSummarySerializer(serializers.ModelSerializer[AgentVersion]):
    state = serializers.ChoiceField(choices=VersionState.choices)
    released_by = serializers.CharField(
        source="released_by.username", default=None, allow_null=True
    )

    class Meta:
        model = AgentVersion
        fields = ["id", "number", "state", "created_at", "released_at", "released_by"]
        read_only_fields = fields


class VersionSerializer(VersionSummarySerializer):
    spec = serializers.DictField(help_text="Files, command, input schema, artifacts and limits.")

    class Meta(VersionSummarySerializer.Meta):
        fields = [*VersionSummarySerializer.Meta.fields, "spec"]
        read_only_fields = fields


class DraftRequestSerializer(StrictSerializer):
    spec = SpecField(help_text="See docs/reference/api.md, Agent versions.")


class ReleaseRequestSerializer(StrictSerializer):
    version = serializers.IntegerField(min_value=1, help_text="The number of the version.")
