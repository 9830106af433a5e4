"""Many runs at once over HTTP: submitting them, and acting on all that match."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Any, Final

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.generics import ListAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.agents.models import Agent
from apps.core.errors import AosError, NotFound
from apps.core.rest.problems import problems
from apps.core.rest.references import find
from apps.core.rest.strict import StrictSerializer
from apps.identity.models import User
from apps.identity.rest import actor
from apps.projects.models import Project
from apps.runs.api.filters import filter_of
from apps.runs.api.serializers import KinRequestSerializer, RunFilterSerializer, task_of
from apps.runs.api.views import KEY_HEADER, idempotency_key, parents_seen_by
from apps.runs.models import BulkAct, Run
from apps.runs.services import bulk, children, submission
from apps.runs.services.kin import Bond
from apps.runs.services.submission import Verdict, Wanted
from apps.runs.types import BulkState, BulkVerb, OnParentEnd, Priority

MOST: Final = 1000


class BulkSubmissionSerializer(StrictSerializer):
    runs = serializers.ListField(child=KinRequestSerializer(), min_length=1, max_length=MOST)


class AcceptedSerializer(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    name = serializers.CharField()


class RefusalSerializer(serializers.Serializer[Any]):
    """What the single request would have been answered."""

    code = serializers.CharField()
    title = serializers.CharField()
    detail = serializers.CharField()
    status = serializers.IntegerField()
    params = serializers.DictField()


class VerdictSerializer(serializers.Serializer[Any]):
    """One of the two is null."""

    index = serializers.IntegerField(help_text="Which of the runs that were sent, from 0.")
    run = AcceptedSerializer(allow_null=True)
    error = RefusalSerializer(allow_null=True)


class VerdictListSerializer(serializers.Serializer[Any]):
    accepted = serializers.IntegerField()
    refused = serializers.IntegerField()
    results = VerdictSerializer(many=True)


class BulkFilterSerializer(StrictSerializer, RunFilterSerializer):
    """As in the list of runs. Without a project it needs a role over the whole organization."""


class BulkPreviewRequestSerializer(StrictSerializer):
    act = serializers.ChoiceField(choices=BulkVerb.values)
    filter = BulkFilterSerializer()


class BulkRequestSerializer(BulkPreviewRequestSerializer):
    upto = serializers.UUIDField(
        required=False,
        allow_null=True,
        help_text="The newest run that is meant, as the preview named it: later ones are left alone.",
    )
    canary = serializers.IntegerField(
        min_value=1,
        max_value=1_000_000,
        required=False,
        allow_null=True,
        help_text="Stop after so many, the oldest first, until `proceed` or `stop`.",
    )


class BulkPreviewSerializer(serializers.Serializer[Any]):
    count = serializers.IntegerField(help_text="Runs that would be touched.")
    states = serializers.DictField(child=serializers.IntegerField())
    upto = serializers.UUIDField(allow_null=True, help_text="The newest of them.")


class RefusedRunSerializer(serializers.Serializer[Any]):
    run = serializers.UUIDField()
    name = serializers.CharField()
    reason = serializers.CharField()


class BulkActSerializer(serializers.Serializer[BulkAct]):
    """An act on many runs, and how far it has come."""

    id = serializers.UUIDField()
    act = serializers.ChoiceField(choices=BulkVerb.values, source="verb")
    state = serializers.ChoiceField(choices=BulkState.values)
    project = serializers.CharField(source="project.slug", allow_null=True, default=None)
    asked_by = serializers.CharField(source="asked_by.username")
    filter = serializers.DictField(source="wanted", child=serializers.CharField())
    matched = serializers.IntegerField(help_text="Runs that matched when it was asked for.")
    canary = serializers.IntegerField(allow_null=True)
    done = serializers.IntegerField()
    refused = serializers.IntegerField(help_text="Runs it could not be done to.")
    refusals = RefusedRunSerializer(many=True, help_text="The first twenty of them.")
    stop_reason = serializers.CharField()
    created_at = serializers.DateTimeField()
    finished_at = serializers.DateTimeField(allow_null=True)


class BulkSubmission(APIView):
    actions = {"post": "run.submit"}

    @extend_schema(
        operation_id="runs_bulk_submit",
        summary="Submit up to 1,000 runs",
        description="In one transaction: the answer names what is stored. Each is accepted or refused "
        "by itself, in the order they were sent. The whole body, at most 1 MiB, has one key.",
        tags=["Runs in bulk"],
        parameters=[KEY_HEADER],
        request=BulkSubmissionSerializer,
        responses={
            202: OpenApiResponse(VerdictListSerializer, description="What became of each."),
            200: OpenApiResponse(
                VerdictListSerializer,
                description="The same as before under this key. `Idempotency-Replayed: true`.",
            ),
            **problems(400, 409, 413, 415, 422),
        },
    )
    def post(self, request: Request) -> Response:
        key = idempotency_key(request)
        wanted = BulkSubmissionSerializer().read(request)["runs"]
        by = actor(request)
        body: Any = request.data
        found = _Found(by.user, wanted)
        told = children.submit_bulk(
            by=by,
            wanted=[
                found.wanted(task, sent) for task, sent in zip(wanted, body["runs"], strict=True)
            ],
            key=key,
            body=body,
        )
        return _verdicts(told)


class _Found:
    """The projects, agents and parents that tasks name, each looked up once."""

    def __init__(self, user: User, tasks: Sequence[dict[str, Any]]) -> None:
        self._user = user
        self._known: dict[tuple[type, str], Any] = {}
        named = {task["parent"] for task in tasks if "parent" in task}
        parents = parents_seen_by(user).filter(public_id__in=named) if named else ()
        self._parents = {run.public_id: run for run in parents}

    def wanted(self, task: dict[str, Any], sent: Mapping[str, Any]) -> Wanted | AosError:
        """A task as it is submitted, or the error of its place; ``sent`` is the task in its own words."""
        try:
            project = self._one(Project, task["project"], "project")
            agent = self._one(Agent, task["agent"], "agent")
            parent = self._parent(task)
        except NotFound as error:
            return error
        spec = task_of(task)
        if parent is None:
            return Wanted(project=project, agent=agent, task=spec)
        if "priority" not in sent:
            spec = replace(spec, priority=Priority(parent.priority))
        bond = Bond(parent=parent, on_parent_end=OnParentEnd(task["on_parent_end"]))
        return Wanted(project=project, agent=agent, task=spec, under=bond)

    def _one(self, model: Any, ref: str, what: str) -> Any:
        if (model, ref) not in self._known:
            self._known[model, ref] = _look_up(model, self._user, what, ref)
        found = self._known[model, ref]
        if isinstance(found, NotFound):
            raise found
        return found

    def _parent(self, task: dict[str, Any]) -> Run | None:
        if "parent" not in task:
            return None
        if task["parent"] not in self._parents:
            raise NotFound(what="run", ref=str(task["parent"]))
        return self._parents[task["parent"]]


def _look_up(model: Any, user: User, what: str, ref: str) -> Any:
    try:
        return find(model.objects.visible_to(user), ref, what=what)
    except NotFound as error:
        return error


def _verdicts(told: submission.Bulk) -> Response:
    results = [_verdict(index, each) for index, each in enumerate(told.verdicts)]
    accepted = sum(each["run"] is not None for each in results)
    body = {"accepted": accepted, "refused": len(results) - accepted, "results": results}
    status = HTTPStatus.OK if told.replayed else HTTPStatus.ACCEPTED
    headers = {"Idempotency-Replayed": "true"} if told.replayed else {}
    return Response(body, status=status, headers=headers)


def _verdict(index: int, verdict: Verdict) -> dict[str, Any]:
    run = {"id": verdict.run_id, "name": verdict.name} if verdict.run_id else None
    return {"index": index, "run": run, "error": verdict.refusal}


class BulkPreview(APIView):
    actions = {"post": "run.bulk"}

    @extend_schema(
        operation_id="runs_bulk_preview",
        summary="Count the runs an act would touch",
        description="Changes nothing. Name `upto` in the act itself, and it touches what was counted.",
        tags=["Runs in bulk"],
        request=BulkPreviewRequestSerializer,
        responses={200: BulkPreviewSerializer, **problems(400, 404, 422)},
    )
    def post(self, request: Request) -> Response:
        wanted = BulkPreviewRequestSerializer().read(request)
        by = actor(request)
        found = bulk.preview(
            by=by, verb=BulkVerb(wanted["act"]), wanted=filter_of(by.user, wanted["filter"])
        )
        return Response(BulkPreviewSerializer(found).data)


class BulkActCollection(ListAPIView[BulkAct]):
    serializer_class = BulkActSerializer
    actions = {"get": "run.read", "post": "run.bulk"}

    def get_queryset(self) -> QuerySet[BulkAct]:
        return _visible(self.request)

    @extend_schema(
        operation_id="runs_bulk_list",
        summary="List acts on many runs",
        tags=["Runs in bulk"],
        responses={200: BulkActSerializer(many=True), **problems(400)},
    )
    def get(self, request: Request) -> Response:
        return self.list(request)

    @extend_schema(
        operation_id="runs_bulk_act",
        summary="Cancel or re-run all runs that match",
        description="The engine does it batch by batch, as you, and the act says how far it has come.",
        tags=["Runs in bulk"],
        parameters=[KEY_HEADER],
        request=BulkRequestSerializer,
        responses={202: BulkActSerializer, 200: BulkActSerializer, **problems(400, 404, 409, 422)},
    )
    def post(self, request: Request) -> Response:
        key = idempotency_key(request)
        wanted = BulkRequestSerializer().read(request)
        by = actor(request)
        upto = wanted.get("upto")
        if upto is not None:
            find(Run.objects.visible_to(by.user), upto, what="run", id_field="public_id")
        act, replayed = bulk.begin(
            by=by,
            verb=BulkVerb(wanted["act"]),
            wanted=filter_of(by.user, wanted["filter"]),
            upto=upto,
            canary=wanted.get("canary"),
            key=key,
        )
        return Response(
            BulkActSerializer(act).data,
            status=HTTPStatus.OK if replayed else HTTPStatus.ACCEPTED,
            headers={"Location": f"/api/runs/bulk/acts/{act.pk}"}
            | ({"Idempotency-Replayed": "true"} if replayed else {}),
        )


def _visible(request: Request) -> QuerySet[BulkAct]:
    return BulkAct.objects.visible_to(actor(request).user).select_related("project", "asked_by")


def _found(request: Request, act_id: str) -> BulkAct:
    return find(_visible(request), act_id, what="bulk act")


class BulkActDetail(APIView):
    actions = {"get": "run.read"}

    @extend_schema(
        operation_id="runs_bulk_read",
        summary="Read how far an act on many runs has come",
        tags=["Runs in bulk"],
        responses={200: BulkActSerializer, **problems(404)},
    )
    def get(self, request: Request, act_id: str) -> Response:
        return Response(BulkActSerializer(_found(request, act_id)).data)


class BulkProceed(APIView):
    actions = {"post": "run.bulk"}

    @extend_schema(
        operation_id="runs_bulk_proceed",
        summary="Go on with the rest after the first few",
        tags=["Runs in bulk"],
        request=None,
        responses={200: BulkActSerializer, **problems(404, 409)},
    )
    def post(self, request: Request, act_id: str) -> Response:
        bulk.proceed(by=actor(request), act=_found(request, act_id))
        return Response(BulkActSerializer(_found(request, act_id)).data)


class BulkStop(APIView):
    actions = {"post": "run.bulk"}

    @extend_schema(
        operation_id="runs_bulk_stop",
        summary="Leave the rest as it is",
        description="What was done stays done.",
        tags=["Runs in bulk"],
        request=None,
        responses={200: BulkActSerializer, **problems(404, 409)},
    )
    def post(self, request: Request, act_id: str) -> Response:
        bulk.stop(by=actor(request), act=_found(request, act_id))
        return Response(BulkActSerializer(_found(request, act_id)).data)
