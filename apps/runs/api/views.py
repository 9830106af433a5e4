from __future__ import annotations

import re
from dataclasses import replace
from http import HTTPStatus
from typing import Any

from django.db.models import F, QuerySet
from django.http import HttpResponseBase
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.generics import ListAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.agents.models import Agent
from apps.agents.services import registry
from apps.core.errors import NotFound
from apps.core.rest import downloads
from apps.core.rest.negotiation import AnyAccept
from apps.core.rest.pagination import KeysetPagination
from apps.core.rest.problems import problems
from apps.core.rest.references import find
from apps.identity.models import User
from apps.identity.rest import actor
from apps.projects.models import Project
from apps.runs.api.examples import RUN, TASK
from apps.runs.api.filters import narrow
from apps.runs.api.serializers import (
    ArtifactSerializer,
    RunFilterSerializer,
    RunSerializer,
    SubmissionRequestSerializer,
    task_of,
)
from apps.runs.errors import KeyMissing
from apps.runs.models import Artifact, Run, RunQuerySet
from apps.runs.services import children, control, dependencies, letters, submission
from apps.runs.services.kin import Bond
from apps.runs.types import OnFailure, OnParentEnd, Priority, TaskSpec

_KEY = re.compile(r"[\x21-\x7e]{16,255}")
KEY_HEADER = OpenApiParameter(
    "Idempotency-Key",
    {"type": "string", "pattern": "^[!-~]{16,255}$"},
    OpenApiParameter.HEADER,
    required=True,
    description="16 to 255 visible ASCII characters of your choice, one per intention. Sending a "
    "request again with its key has no second effect; remembered for 7 days.",
)
ACCEPTED: dict[Any, Any] = {
    202: OpenApiResponse(RunSerializer, description="Accepted. `Location` names the run."),
    200: OpenApiResponse(
        RunSerializer,
        description="Accepted before under this key: the same run. `Idempotency-Replayed: true`.",
    ),
}


def idempotency_key(request: Request) -> str:
    key = request.headers.get("Idempotency-Key", "")
    if not _KEY.fullmatch(key):
        raise KeyMissing
    return key


def visible(request: Request) -> RunQuerySet:
    """Runs the caller may see, with what a run object shows and without what it does not."""
    return (
        Run.objects.visible_to(actor(request).user)
        .select_related("project", "agent_version__agent", "lease", "budget")
        .annotate(
            parent_public_id=F("child_of__parent__public_id"),
            root_public_id=F("child_of__root__public_id"),
        )
        .defer("spec", "trace", "agent_version__spec", "project__description")
    )


def found(request: Request, run_id: object) -> Run:
    return find(visible(request), run_id, what="run", id_field="public_id")


def accepted(request: Request, outcome: submission.Submission) -> Response:
    run = found(request, outcome.run.public_id)
    headers = {"Location": f"/api/runs/{run.public_id}"}
    if outcome.replayed:
        headers["Idempotency-Replayed"] = "true"
    status = HTTPStatus.OK if outcome.replayed else HTTPStatus.ACCEPTED
    return Response(RunSerializer(run).data, status=status, headers=headers)


def submit(request: Request) -> Response:
    key = idempotency_key(request)
    wanted = SubmissionRequestSerializer().read(request)
    by = actor(request)
    project = find(Project.objects.visible_to(by.user), wanted["project"], what="project")
    agent = find(Agent.objects.visible_to(by.user), wanted["agent"], what="agent")
    task = task_of(wanted)
    if "parent" in wanted:
        outcome = _submit_child(request, wanted, project=project, agent=agent, task=task)
        return accepted(request, outcome)
    if "version" in wanted:
        version = registry.version(agent, wanted["version"])
        outcome = submission.submit_version(
            by=by, project=project, version=version, task=task, key=key
        )
    else:
        outcome = submission.submit(by=by, project=project, agent=agent, task=task, key=key)
    return accepted(request, outcome)


def _submit_child(
    request: Request, wanted: dict[str, Any], *, project: Project, agent: Agent, task: TaskSpec
) -> submission.Submission:
    by = actor(request)
    parents = parents_seen_by(by.user)
    parent = find(parents, wanted["parent"], what="run", id_field="public_id")
    if "priority" not in request.data:
        task = replace(task, priority=Priority(parent.priority))
    return children.submit(
        by=by,
        bond=Bond(parent=parent, on_parent_end=OnParentEnd(wanted["on_parent_end"])),
        project=project,
        agent=registry.version(agent, wanted["version"]) if "version" in wanted else agent,
        task=task,
        key=idempotency_key(request),
    )


def parents_seen_by(user: User) -> RunQuerySet:
    """Runs under which the person may want to put others, with what these inherit."""
    return Run.objects.visible_to(user).select_related("project", "submitted_by", "agent_version")


_SUBMISSION: dict[str, Any] = {
    "tags": ["Runs"],
    "parameters": [KEY_HEADER],
    "request": SubmissionRequestSerializer,
    "responses": ACCEPTED | problems(400, 404, 409, 413, 415, 422),
    "examples": [TASK, RUN],
}


class RunSubmission(APIView):
    actions = {"post": "run.submit"}

    @extend_schema(
        operation_id="run_submit",
        summary="Submit a run",
        description="Stored before it is acknowledged: an accepted run is not lost.",
        **_SUBMISSION,
    )
    def post(self, request: Request) -> Response:
        return submit(request)


class NewestRuns(KeysetPagination):
    def first(self, rows: RunQuerySet, count: int) -> RunQuerySet:
        return rows.newest(count)


class RunCollection(ListAPIView[Run]):
    """Runs of the projects the caller may see, newest first."""

    serializer_class = RunSerializer
    pagination_class = NewestRuns
    actions = {"get": "run.read", "post": "run.submit"}

    def get_queryset(self) -> QuerySet[Run]:
        return narrow(visible(self.request), self.request)

    @extend_schema(
        operation_id="runs_list",
        summary="List runs",
        tags=["Runs"],
        parameters=[RunFilterSerializer],
        responses={200: RunSerializer(many=True), **problems(400, 404, 422)},
    )
    def get(self, request: Request) -> Response:
        return self.list(request)

    @extend_schema(
        operation_id="runs_submit",
        summary="Submit a run (the same as POST /api/run)",
        **_SUBMISSION,
    )
    def post(self, request: Request) -> Response:
        return submit(request)


class RunDetail(APIView):
    actions = {"get": "run.read"}

    @extend_schema(
        operation_id="runs_read",
        summary="Read a run",
        tags=["Runs"],
        responses={200: RunSerializer, **problems(404)},
        examples=[RUN],
    )
    def get(self, request: Request, run_id: str) -> Response:
        return Response(RunSerializer(found(request, run_id)).data)


class Cancel(APIView):
    actions = {"post": "run.cancel"}

    @extend_schema(
        operation_id="runs_cancel",
        summary="Cancel a run",
        description="At once while it waits; through its worker while it runs (`cancelling`). "
        "Cancelling twice is harmless.",
        tags=["Runs"],
        request=None,
        responses={202: RunSerializer, **problems(404, 409)},
    )
    def post(self, request: Request, run_id: str) -> Response:
        run = control.cancel(by=actor(request), run=found(request, run_id))
        body = RunSerializer(found(request, run.public_id)).data
        return Response(body, status=HTTPStatus.ACCEPTED)


class Rerun(APIView):
    actions = {"post": "run.rerun"}

    @extend_schema(
        operation_id="runs_rerun",
        summary="Run again, as a new run",
        description="The same input and files, the agent's current version.",
        tags=["Runs"],
        parameters=[KEY_HEADER],
        request=None,
        responses={**ACCEPTED, **problems(400, 404, 409, 422)},
    )
    def post(self, request: Request, run_id: str) -> Response:
        key = idempotency_key(request)
        run = found(request, run_id)
        return accepted(request, control.rerun(by=actor(request), run=run, key=key))


class Requeue(APIView):
    actions = {"post": "run.requeue"}

    @extend_schema(
        operation_id="runs_requeue",
        summary="Requeue a dead letter",
        description="A new run with the same input and files, on the agent's current version, takes "
        "the place of one that failed, expired or is dead. Asked twice it answers with the same run.",
        tags=["Dead letters"],
        request=None,
        responses={**ACCEPTED, **problems(404, 409, 422)},
    )
    def post(self, request: Request, run_id: str) -> Response:
        return accepted(request, control.requeue(by=actor(request), run=found(request, run_id)))


class Dismiss(APIView):
    actions = {"post": "run.requeue"}

    @extend_schema(
        operation_id="runs_dismiss",
        summary="Dismiss a dead letter",
        description="Nothing shall come of it. The run stays as it is.",
        tags=["Dead letters"],
        request=None,
        responses={200: RunSerializer, **problems(404, 409)},
    )
    def post(self, request: Request, run_id: str) -> Response:
        letters.dismiss(by=actor(request), run=found(request, run_id))
        return Response(RunSerializer(found(request, run_id)).data)


class DeadLetterCollection(ListAPIView[Run]):
    """Runs that failed, expired or are dead, and that nobody has requeued or dismissed."""

    serializer_class = RunSerializer
    pagination_class = NewestRuns
    actions = {"get": "run.read"}

    def get_queryset(self) -> QuerySet[Run]:
        dead = visible(self.request).filter(letter__isnull=False, letter__settled_at=None)
        return narrow(dead, self.request)

    @extend_schema(
        operation_id="dead_letters_list",
        summary="List dead letters",
        tags=["Dead letters"],
        parameters=[RunFilterSerializer],
        responses={200: RunSerializer(many=True), **problems(400, 404, 422)},
    )
    def get(self, request: Request) -> Response:
        return self.list(request)


class LinkSerializer(serializers.Serializer[Any]):
    id = serializers.UUIDField(source="run.public_id")
    name = serializers.CharField(source="run.name")
    state = serializers.CharField(source="run.state")
    on_failure = serializers.ChoiceField(choices=OnFailure.values)


class LinksSerializer(serializers.Serializer[Any]):
    depends_on = LinkSerializer(many=True, help_text="What it waits for.")
    dependents = LinkSerializer(many=True, help_text="What waits for it.")


class RunDependencies(APIView):
    actions = {"get": "run.read"}

    @extend_schema(
        operation_id="runs_dependencies",
        summary="Read what a run waits for, and what waits for it",
        description="As far as you can see it; at most 200 of each.",
        tags=["Runs"],
        responses={200: LinksSerializer, **problems(404)},
    )
    def get(self, request: Request, run_id: str) -> Response:
        links = dependencies.around(found(request, run_id), to=actor(request).user)
        return Response(LinksSerializer(links).data)


class ArtifactCollection(ListAPIView[Artifact]):
    """What a run left behind."""

    serializer_class = ArtifactSerializer
    actions = {"get": "run.read"}

    def get_queryset(self) -> QuerySet[Artifact]:
        return self._run().artifacts.all()

    def get_serializer_context(self) -> dict[str, Any]:
        return {**super().get_serializer_context(), "run": self._run()}

    def _run(self) -> Run:
        if not hasattr(self, "_found"):
            self._found = found(self.request, self.kwargs["run_id"])
        return self._found

    @extend_schema(
        operation_id="runs_artifacts_list",
        summary="List a run's artifacts",
        tags=["Runs"],
        responses={200: ArtifactSerializer(many=True), **problems(400, 404)},
    )
    def get(self, request: Request, run_id: str) -> Response:
        return self.list(request)


class ArtifactDownload(APIView):
    actions = {"get": "run.read"}
    content_negotiation_class = AnyAccept

    @extend_schema(
        operation_id="runs_artifacts_read",
        summary="Download an artifact",
        description="Always as an attachment: what an agent wrote never runs on this origin. "
        "The ETag is the SHA-256 of the content.",
        tags=["Runs"],
        responses={(200, "*/*"): bytes, 304: None, **problems(404, 410, 503)},
    )
    def get(self, request: Request, run_id: str, name: str) -> HttpResponseBase:
        run = found(request, run_id)
        artifact = None if "\0" in name else run.artifacts.filter(name=name).first()
        if artifact is None:
            raise NotFound(what="artifact", ref=name)
        return downloads.send(
            request._request,  # noqa: SLF001  # a download wants Django's own request, not DRF's
            sha256=artifact.sha256,
            name=artifact.name,
            size=artifact.size,
            media_type=artifact.media_type,
        )
