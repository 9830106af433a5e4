from __future__ import annotations

from http import HTTPStatus

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework.generics import ListAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.agents.api.serializers import (
    AgentChangeSerializer,
    AgentDetailSerializer,
    AgentFilterSerializer,
    AgentRequestSerializer,
    AgentSerializer,
    DraftRequestSerializer,
    ReleaseRequestSerializer,
    VersionSerializer,
    VersionSummarySerializer,
)
from apps.agents.models import Agent, AgentQuerySet, AgentVersion
from apps.agents.services import registry, removal
from apps.core.rest.problems import problems
from apps.core.rest.references import find
from apps.core.rest.strict import query
from apps.identity.rest import actor


def _visible(request: Request) -> AgentQuerySet:
    return Agent.objects.visible_to(actor(request).user).select_related("current")


class AgentCollection(ListAPIView[Agent]):
    """The agents of the caller's organization."""

    serializer_class = AgentSerializer
    actions = {"get": "agent.read", "post": "agent.manage"}

    def get_queryset(self) -> QuerySet[Agent]:
        wanted = query(AgentFilterSerializer, self.request.query_params)
        return _visible(self.request).filter(**wanted).defer("current__spec")

    @extend_schema(
        operation_id="agents_list",
        summary="List agents",
        tags=["Agents"],
        parameters=[AgentFilterSerializer],
        responses={200: AgentSerializer(many=True), **problems(400, 422)},
    )
    def get(self, request: Request) -> Response:
        return self.list(request)

    @extend_schema(
        operation_id="agents_register",
        summary="Register an agent",
        tags=["Agents"],
        request=AgentRequestSerializer,
        responses={201: AgentDetailSerializer, **problems(400, 409, 413, 415, 422)},
        examples=[
            OpenApiExample(
                "A script agent",
                request_only=True,
                value={"slug": "csv-report", "title": "CSV report", "kind": "script"},
            )
        ],
    )
    def post(self, request: Request) -> Response:
        wanted = AgentRequestSerializer().read(request)
        agent = registry.register(by=actor(request), **wanted)
        return Response(
            AgentDetailSerializer(agent).data,
            status=HTTPStatus.CREATED,
            headers={"Location": f"/api/agents/{agent.pk}"},
        )


class AgentDetail(APIView):
    actions = {"get": "agent.read", "patch": "agent.manage", "delete": "agent.manage"}

    @extend_schema(
        operation_id="agents_read",
        summary="Read an agent, by id or slug",
        tags=["Agents"],
        responses={200: AgentDetailSerializer, **problems(404)},
    )
    def get(self, request: Request, agent: str) -> Response:
        found = find(_visible(request), agent, what="agent")
        return Response(AgentDetailSerializer(found).data)

    @extend_schema(
        operation_id="agents_change",
        summary="Change an agent's title and description",
        tags=["Agents"],
        request=AgentChangeSerializer,
        responses={200: AgentDetailSerializer, **problems(400, 404, 413, 415, 422)},
    )
    def patch(self, request: Request, agent: str) -> Response:
        found = find(_visible(request), agent, what="agent")
        wanted = AgentChangeSerializer().read(request)
        registry.change(by=actor(request), agent=found, **wanted)
        return Response(AgentDetailSerializer(find(_visible(request), agent, what="agent")).data)

    @extend_schema(
        operation_id="agents_remove",
        summary="Delete an agent",
        description=(
            "Nothing new begins with it; its schedules, its limit and the roles over it go. Its runs stay, "
            "with log and receipt. "
            "Refused with `agent_in_use` while some of them are not over."
        ),
        tags=["Agents"],
        responses={204: None, **problems(404, 409)},
    )
    def delete(self, request: Request, agent: str) -> Response:
        found = find(_visible(request), agent, what="agent")
        removal.remove(by=actor(request), agent=found)
        return Response(status=HTTPStatus.NO_CONTENT)


class VersionCollection(ListAPIView[AgentVersion]):
    """The versions of one agent, newest first."""

    serializer_class = VersionSummarySerializer
    keyset = "number"
    actions = {"get": "agent.read", "post": "agent.manage"}

    def get_queryset(self) -> QuerySet[AgentVersion]:
        agent = find(_visible(self.request), self.kwargs["agent"], what="agent")
        return agent.versions.select_related("released_by").defer("spec")

    @extend_schema(
        operation_id="agents_versions_list",
        summary="List an agent's versions",
        tags=["Agents"],
        responses={200: VersionSummarySerializer(many=True), **problems(400, 404)},
    )
    def get(self, request: Request, agent: str) -> Response:
        return self.list(request)

    @extend_schema(
        operation_id="agents_versions_draft",
        summary="Add a version as a draft",
        tags=["Agents"],
        request=DraftRequestSerializer,
        responses={201: VersionSerializer, **problems(400, 404, 413, 415, 422)},
        examples=[
            OpenApiExample(
                "One file",
                request_only=True,
                value={
                    "spec": {
                        "entry": "main.py",
                        "files": {"main.py": "print('hello')\n"},
                        "command": ["python3", "main.py"],
                        "artifacts": ["*.txt"],
                        "timeout_s": 60,
                    }
                },
            )
        ],
    )
    def post(self, request: Request, agent: str) -> Response:
        found = find(_visible(request), agent, what="agent")
        wanted = DraftRequestSerializer().read(request)
        version = registry.draft(by=actor(request), agent=found, spec=wanted["spec"])
        return Response(
            VersionSerializer(version).data,
            status=HTTPStatus.CREATED,
            headers={"Location": f"/api/agents/{found.pk}/versions/{version.number}"},
        )


class VersionDetail(APIView):
    actions = {"get": "agent.read"}

    @extend_schema(
        operation_id="agents_versions_read",
        summary="Read one version with its files",
        tags=["Agents"],
        responses={200: VersionSerializer, **problems(404)},
    )
    def get(self, request: Request, agent: str, number: int) -> Response:
        found = find(_visible(request), agent, what="agent")
        return Response(VersionSerializer(registry.version(found, number)).data)


class Release(APIView):
    actions = {"post": "agent.manage"}

    @extend_schema(
        operation_id="agents_release",
        summary="Release a version; naming an older one rolls back",
        tags=["Agents"],
        request=ReleaseRequestSerializer,
        responses={200: AgentDetailSerializer, **problems(400, 404, 413, 415, 422)},
    )
    def post(self, request: Request, agent: str) -> Response:
        found = find(_visible(request), agent, what="agent")
        wanted = ReleaseRequestSerializer().read(request)
        version = registry.version(found, wanted["version"])
        released = registry.release(by=actor(request), version=version)
        return Response(AgentDetailSerializer(released).data)
