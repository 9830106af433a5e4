"""Limits over HTTP: what is set and how it stands, setting and removing; pausing an agent; a queue's cap."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.agents.models import Agent
from apps.core.errors import NotFound
from apps.core.rest.problems import problems
from apps.core.rest.references import find
from apps.core.rest.strict import StrictSerializer
from apps.identity import policy
from apps.identity.rest import actor
from apps.projects.models import Project
from apps.runs.api.queues import QueueSerializer, lane_of, priority_of
from apps.runs.api.serializers import ConcurrencyKeyField
from apps.runs.limit_models import Limit
from apps.runs.services import limits
from apps.runs.services.gates import Rate
from apps.runs.services.limits import About, Standing
from apps.runs.types import LimitScope

_MOST = 1_000_000


class RateSerializer(StrictSerializer):
    """So many starts at once, and as many again in each `seconds`."""

    count = serializers.IntegerField(min_value=1, max_value=_MOST)
    seconds = serializers.IntegerField(min_value=1, max_value=limits.LONGEST_RATE_S)


class LimitRequestSerializer(StrictSerializer):
    """The whole limit; what is left out is not limited."""

    cap = serializers.IntegerField(
        min_value=1,
        max_value=_MOST,
        required=False,
        allow_null=True,
        help_text="The most of its runs that are with workers at once.",
    )
    rate = RateSerializer(required=False, allow_null=True)
    queue_limit = serializers.IntegerField(
        min_value=1,
        max_value=1_000_000_000,
        required=False,
        allow_null=True,
        help_text="Of an organization: how many of its runs may wait; more are refused with 429.",
    )


class LimitSerializer(serializers.Serializer[Standing]):
    """A limit, and how it stands."""

    scope = serializers.ChoiceField(choices=LimitScope.choices, source="limit.scope")
    name = serializers.CharField(
        source="limit.name", help_text="Slug of the project or agent, or the key."
    )
    cap = serializers.IntegerField(source="limit.cap", allow_null=True)
    rate = RateSerializer(source="limit.rate", allow_null=True)
    queue_limit = serializers.IntegerField(source="limit.queue_limit", allow_null=True)
    paused_at = serializers.DateTimeField(source="limit.paused_at", allow_null=True)
    pause_reason = serializers.CharField(source="limit.pause_reason")
    in_use = serializers.IntegerField(
        allow_null=True, help_text="Places of the cap that are taken; null without a cap."
    )
    next_start_in_s = serializers.FloatField(
        allow_null=True, help_text="Until the rate lets one start; null when it is not what stops."
    )
    parked = serializers.IntegerField(help_text="Runs that wait for it, counted up to 1,000.")


class LimitListSerializer(serializers.Serializer[Any]):
    results = LimitSerializer(many=True)


class LimitCollection(APIView):
    actions = {"get": "queue.watch"}

    @extend_schema(
        operation_id="limits_list",
        summary="List limits and how they stand",
        description="All of the organization. Caps of queues are with the queues.",
        tags=["Limits"],
        responses={200: LimitListSerializer, **problems()},
    )
    def get(self, request: Request) -> Response:
        by = actor(request)
        policy.require(by, "queue.watch")
        return Response(LimitListSerializer({"results": limits.standing(by)}).data)


def _told(request: Request, limit: Limit) -> dict[str, Any]:
    found = limits.standing(actor(request), only=limit)
    return dict(LimitSerializer(found[0]).data)


class _Limit(APIView):
    """One limit, by what it is about."""

    actions = {"get": "queue.watch", "put": "limit.manage", "delete": "limit.manage"}

    def about(self, request: Request, ref: str) -> About:
        raise NotImplementedError

    def read(self, request: Request, ref: str = "") -> Response:
        by = actor(request)
        policy.require(by, "queue.watch")
        about = self.about(request, ref)
        limit = Limit.objects.visible_to(by.user).filter(gate=about.gate).first()
        if limit is None:
            raise NotFound(what="limit", ref=about.words)
        return Response(_told(request, limit))

    def write(self, request: Request, ref: str = "") -> Response:
        wanted = LimitRequestSerializer().read(request)
        rate = wanted.get("rate")
        limit = limits.put(
            by=actor(request),
            about=self.about(request, ref),
            cap=wanted.get("cap"),
            rate=Rate(**rate) if rate else None,
            queue_limit=wanted.get("queue_limit"),
        )
        return Response(_told(request, limit))

    def remove(self, request: Request, ref: str = "") -> Response:
        limits.remove(by=actor(request), about=self.about(request, ref))
        return Response(status=HTTPStatus.NO_CONTENT)


_READ: dict[str, Any] = {
    "tags": ["Limits"],
    "responses": {200: LimitSerializer, **problems(404)},
}
_WRITE: dict[str, Any] = {
    "tags": ["Limits"],
    "description": "In place of any limit it had. Takes effect at once: what was about to start is held "
    "against it, what runs counts and goes on.",
    "request": LimitRequestSerializer,
    "responses": {200: LimitSerializer, **problems(400, 404, 409, 413, 415, 422)},
    "examples": [
        OpenApiExample(
            "Three at once, ten a minute",
            request_only=True,
            value={"cap": 3, "rate": {"count": 10, "seconds": 60}},
        )
    ],
}
_REMOVE: dict[str, Any] = {"tags": ["Limits"], "responses": {204: None, **problems(404)}}


class OrganizationLimit(_Limit):
    def about(self, request: Request, ref: str) -> About:
        return limits.of_organization(actor(request).user.organization_id)

    @extend_schema(
        operation_id="limits_organization_read", summary="Read the organization's limit", **_READ
    )
    def get(self, request: Request) -> Response:
        return self.read(request)

    @extend_schema(
        operation_id="limits_organization_set", summary="Limit the organization", **_WRITE
    )
    def put(self, request: Request) -> Response:
        return self.write(request)

    @extend_schema(
        operation_id="limits_organization_remove",
        summary="Remove the organization's limit",
        **_REMOVE,
    )
    def delete(self, request: Request) -> Response:
        return self.remove(request)


class ProjectLimit(_Limit):
    def about(self, request: Request, ref: str) -> About:
        visible = Project.objects.visible_to(actor(request).user)
        return limits.of_project(find(visible, ref, what="project"))

    @extend_schema(operation_id="limits_projects_read", summary="Read a project's limit", **_READ)
    def get(self, request: Request, project: str) -> Response:
        return self.read(request, project)

    @extend_schema(operation_id="limits_projects_set", summary="Limit a project", **_WRITE)
    def put(self, request: Request, project: str) -> Response:
        return self.write(request, project)

    @extend_schema(
        operation_id="limits_projects_remove", summary="Remove a project's limit", **_REMOVE
    )
    def delete(self, request: Request, project: str) -> Response:
        return self.remove(request, project)


class AgentLimit(_Limit):
    def about(self, request: Request, ref: str) -> About:
        visible = Agent.objects.visible_to(actor(request).user)
        return limits.of_agent(find(visible, ref, what="agent"))

    @extend_schema(operation_id="limits_agents_read", summary="Read an agent's limit", **_READ)
    def get(self, request: Request, agent: str) -> Response:
        return self.read(request, agent)

    @extend_schema(operation_id="limits_agents_set", summary="Limit an agent", **_WRITE)
    def put(self, request: Request, agent: str) -> Response:
        return self.write(request, agent)

    @extend_schema(
        operation_id="limits_agents_remove", summary="Remove an agent's limit", **_REMOVE
    )
    def delete(self, request: Request, agent: str) -> Response:
        return self.remove(request, agent)


class KeyLimit(_Limit):
    def about(self, request: Request, ref: str) -> About:
        try:
            key = ConcurrencyKeyField().run_validation(ref)
        except serializers.ValidationError as error:
            raise NotFound(what="key", ref=ref) from error
        return limits.of_key(actor(request).user.organization_id, key)

    @extend_schema(
        operation_id="limits_keys_read", summary="Read the limit of a concurrency key", **_READ
    )
    def get(self, request: Request, key: str) -> Response:
        return self.read(request, key)

    @extend_schema(
        operation_id="limits_keys_set", summary="Limit the runs of a concurrency key", **_WRITE
    )
    def put(self, request: Request, key: str) -> Response:
        return self.write(request, key)

    @extend_schema(
        operation_id="limits_keys_remove",
        summary="Remove the limit of a concurrency key: then one runs at a time",
        **_REMOVE,
    )
    def delete(self, request: Request, key: str) -> Response:
        return self.remove(request, key)


class PauseRequestSerializer(StrictSerializer):
    reason = serializers.CharField(max_length=200, required=False, allow_blank=True)


class AgentPausedSerializer(serializers.Serializer[Any]):
    agent = serializers.CharField(help_text="Slug.")
    paused_at = serializers.DateTimeField(allow_null=True)
    pause_reason = serializers.CharField()


class _PausingAgent(APIView):
    actions = {"post": "agent.pause"}

    def answer(self, request: Request, ref: str, *, paused: bool, reason: str = "") -> Response:
        by = actor(request)
        agent = find(Agent.objects.visible_to(by.user), ref, what="agent")
        limit = limits.set_agent_paused(by=by, agent=agent, paused=paused, reason=reason)
        body = {
            "agent": agent.slug,
            "paused_at": limit.paused_at if limit else None,
            "pause_reason": limit.pause_reason if limit else "",
        }
        return Response(AgentPausedSerializer(body).data)


class AgentPause(_PausingAgent):
    @extend_schema(
        operation_id="agents_pause",
        summary="Pause an agent",
        description="Its runs are accepted and wait; those that are executed go on.",
        tags=["Agents"],
        request=PauseRequestSerializer,
        responses={200: AgentPausedSerializer, **problems(400, 404, 413, 415, 422)},
    )
    def post(self, request: Request, agent: str) -> Response:
        wanted = PauseRequestSerializer().read(request)
        return self.answer(request, agent, paused=True, reason=wanted.get("reason", ""))


class AgentResume(_PausingAgent):
    @extend_schema(
        operation_id="agents_resume",
        summary="Resume a paused agent",
        tags=["Agents"],
        request=None,
        responses={200: AgentPausedSerializer, **problems(404)},
    )
    def post(self, request: Request, agent: str) -> Response:
        return self.answer(request, agent, paused=False)


class CapRequestSerializer(StrictSerializer):
    cap = serializers.IntegerField(
        min_value=1, max_value=_MOST, allow_null=True, help_text="Null takes the cap away."
    )


class QueueCap(APIView):
    actions = {"put": "limit.manage"}

    @extend_schema(
        operation_id="queues_cap",
        summary="Cap a queue in one priority class",
        description="The most of its runs that are with workers at once.",
        tags=["Queues"],
        request=CapRequestSerializer,
        responses={200: QueueSerializer, **problems(400, 404, 413, 415, 422)},
    )
    def put(self, request: Request, queue: str, priority: str) -> Response:
        wanted = CapRequestSerializer().read(request)
        by = actor(request)
        chosen = priority_of(queue, priority)
        limits.cap_queue(by=by, queue=queue, priority=chosen, cap=wanted["cap"])
        return Response(QueueSerializer(lane_of(by, queue, chosen)).data)
