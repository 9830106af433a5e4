"""Schedules over HTTP."""

from __future__ import annotations

from dataclasses import fields, replace
from http import HTTPStatus
from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework import serializers
from rest_framework.generics import ListAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.agents.models import Agent
from apps.core.rest.problems import problems
from apps.core.rest.references import find
from apps.core.rest.strict import StrictSerializer, query
from apps.identity.rest import actor
from apps.projects.models import Project
from apps.runs import cron
from apps.runs.api.serializers import (
    PRIORITIES,
    AgentReferenceSerializer,
    ProjectReferenceSerializer,
    TaskRequestSerializer,
    task_of,
)
from apps.runs.api.views import ACCEPTED, KEY_HEADER, accepted, idempotency_key
from apps.runs.models import Schedule, ScheduleFire, ScheduleQuerySet
from apps.runs.services import schedules
from apps.runs.types import CatchUp, FireOutcome, Timing

_SHOWN_TIMES = 5


class _TaskSerializer(TaskRequestSerializer):
    """What is submitted each time: a task without project, agent and time."""

    project = None  # type: ignore[assignment]  # how DRF takes an inherited field away
    agent = None  # type: ignore[assignment]
    run_at = None  # type: ignore[assignment]
    depends_on = None  # type: ignore[assignment]


class ScheduleChangeSerializer(StrictSerializer):
    agent = serializers.CharField(max_length=64, required=False, help_text="Id or slug.")
    name = serializers.CharField(max_length=80, required=False)
    cron = serializers.CharField(
        max_length=100,
        required=False,
        help_text="Minute, hour, day, month, weekday, as in crontab(5).",
    )
    timezone = serializers.CharField(
        max_length=64, required=False, help_text="An IANA name, such as Europe/Athens."
    )
    catch_up = serializers.ChoiceField(
        choices=CatchUp.values,
        required=False,
        help_text="What to do about times that passed while no engine led.",
    )
    task = _TaskSerializer(required=False)


class ScheduleRequestSerializer(ScheduleChangeSerializer):
    project = serializers.CharField(max_length=64, help_text="Id or slug.")
    agent = serializers.CharField(max_length=64, help_text="Id or slug.")
    name = serializers.CharField(max_length=80)
    cron = serializers.CharField(
        max_length=100, help_text="Minute, hour, day, month, weekday, as in crontab(5)."
    )
    timezone = serializers.CharField(
        max_length=64, default="UTC", help_text="An IANA name, such as Europe/Athens."
    )
    catch_up = serializers.ChoiceField(
        choices=CatchUp.values,
        default=CatchUp.SKIP,
        help_text="What to do about times that passed while no engine led.",
    )
    task = _TaskSerializer()


class _StoredTaskSerializer(serializers.Serializer[Any]):
    input = serializers.DictField()
    priority = serializers.SerializerMethodField()
    queue = serializers.CharField()
    timeout_s = serializers.IntegerField(allow_null=True)
    queue_deadline_s = serializers.IntegerField(allow_null=True)
    total_deadline_s = serializers.IntegerField(allow_null=True)
    budget_s = serializers.IntegerField(allow_null=True)
    retry = serializers.DictField()
    concurrency_key = serializers.CharField(default="")
    labels = serializers.DictField(child=serializers.CharField())
    requires = serializers.DictField(child=serializers.CharField(), default=dict)

    def get_priority(self, task: dict[str, Any]) -> str:
        return str(PRIORITIES[task["priority"]])


class ScheduleSerializer(serializers.Serializer[Schedule]):
    """A task that is submitted again and again."""

    id = serializers.UUIDField()
    name = serializers.CharField()
    project = ProjectReferenceSerializer()
    agent = AgentReferenceSerializer()
    cron = serializers.CharField()
    timezone = serializers.CharField()
    in_words = serializers.SerializerMethodField()
    catch_up = serializers.ChoiceField(choices=CatchUp.values)
    task = _StoredTaskSerializer()
    submits_as = serializers.CharField(
        source="submits_as.username", help_text="Who changed it last: its runs are theirs."
    )
    paused_at = serializers.DateTimeField(allow_null=True)
    pause_reason = serializers.CharField()
    next_times = serializers.SerializerMethodField(help_text="None while it is paused.")
    created_at = serializers.DateTimeField()

    def get_in_words(self, schedule: Schedule) -> str:
        return cron.in_words(schedule.cron)

    def get_next_times(self, schedule: Schedule) -> list[str]:
        if schedule.next_at is None:
            return []
        field = serializers.DateTimeField()
        later = cron.upcoming(
            schedule.cron, schedule.timezone, after=schedule.next_at, count=_SHOWN_TIMES - 1
        )
        return [str(field.to_representation(moment)) for moment in (schedule.next_at, *later)]


class ScheduleFilterSerializer(serializers.Serializer[Any]):
    project = serializers.CharField(max_length=64, required=False, help_text="Id or slug.")
    paused = serializers.BooleanField(required=False)


class FireSerializer(serializers.Serializer[ScheduleFire]):
    """A time at which the schedule was due, and what came of it."""

    fire_at = serializers.DateTimeField()
    outcome = serializers.ChoiceField(choices=FireOutcome.choices)
    run = serializers.UUIDField(source="run.public_id", allow_null=True, default=None)
    detail = serializers.CharField(help_text="Why there is no run.")
    created_at = serializers.DateTimeField()


def visible(request: Request) -> ScheduleQuerySet:
    rows = Schedule.objects.visible_to(actor(request).user)
    return rows.select_related("project", "agent", "submits_as")


def found(request: Request, schedule_id: str) -> Schedule:
    return find(visible(request), schedule_id, what="schedule")


def _wanted(request: Request, form: StrictSerializer) -> dict[str, Any]:
    """The request's fields as the services take them."""
    wanted = form.read(request)
    by = actor(request)
    if "agent" in wanted:
        wanted["agent"] = find(Agent.objects.visible_to(by.user), wanted["agent"], what="agent")
    if "project" in wanted:
        visible_projects = Project.objects.visible_to(by.user)
        wanted["project"] = find(visible_projects, wanted["project"], what="project")
    if "task" in wanted:
        wanted["task"] = task_of(wanted["task"])
    return wanted


def _timing(wanted: dict[str, Any]) -> dict[str, Any]:
    """Take what belongs to the timing out of the wanted fields."""
    names = [field.name for field in fields(Timing) if field.name in wanted]
    return {name: wanted.pop(name) for name in names}


class ScheduleCollection(ListAPIView[Schedule]):
    """Schedules of the projects the caller may see, newest first."""

    serializer_class = ScheduleSerializer
    actions = {"get": "schedule.read", "post": "schedule.manage"}

    def get_queryset(self) -> QuerySet[Schedule]:
        wanted = query(ScheduleFilterSerializer, self.request.query_params)
        rows = visible(self.request)
        if ref := wanted.get("project"):
            mine = Project.objects.visible_to(actor(self.request).user)
            rows = rows.filter(project=find(mine, ref, what="project"))
        if "paused" in wanted:
            rows = rows.filter(paused_at__isnull=not wanted["paused"])
        return rows

    @extend_schema(
        operation_id="schedules_list",
        summary="List schedules",
        tags=["Schedules"],
        parameters=[ScheduleFilterSerializer],
        responses={200: ScheduleSerializer(many=True), **problems(400, 404, 422)},
    )
    def get(self, request: Request) -> Response:
        return self.list(request)

    @extend_schema(
        operation_id="schedules_create",
        summary="Submit a task at the times a cron expression names",
        description="Its runs are the caller's, with what the caller may do at each of its times.",
        tags=["Schedules"],
        request=ScheduleRequestSerializer,
        responses={201: ScheduleSerializer, **problems(400, 404, 409, 413, 415, 422)},
        examples=[
            OpenApiExample(
                "Every working day at seven in Athens",
                request_only=True,
                value={
                    "project": "playground",
                    "agent": "csv-report",
                    "name": "Morning report",
                    "cron": "0 7 * * MON-FRI",
                    "timezone": "Europe/Athens",
                    "task": {"input": {"file": "birdstrikes.csv"}},
                },
            )
        ],
    )
    def post(self, request: Request) -> Response:
        wanted = _wanted(request, ScheduleRequestSerializer())
        timing = Timing(**_timing(wanted))
        schedule = schedules.create(by=actor(request), timing=timing, **wanted)
        return Response(
            ScheduleSerializer(schedule).data,
            status=HTTPStatus.CREATED,
            headers={"Location": f"/api/schedules/{schedule.pk}"},
        )


class ScheduleDetail(APIView):
    actions = {"get": "schedule.read", "patch": "schedule.manage", "delete": "schedule.manage"}

    @extend_schema(
        operation_id="schedules_read",
        summary="Read a schedule",
        tags=["Schedules"],
        responses={200: ScheduleSerializer, **problems(404)},
    )
    def get(self, request: Request, schedule_id: str) -> Response:
        return Response(ScheduleSerializer(found(request, schedule_id)).data)

    @extend_schema(
        operation_id="schedules_change",
        summary="Change a schedule",
        description="What is left out stays. From now on its runs are the caller's.",
        tags=["Schedules"],
        request=ScheduleChangeSerializer,
        responses={200: ScheduleSerializer, **problems(400, 404, 409, 413, 415, 422)},
    )
    def patch(self, request: Request, schedule_id: str) -> Response:
        schedule = found(request, schedule_id)
        wanted = _wanted(request, ScheduleChangeSerializer())
        timing = replace(schedule.timing, **_timing(wanted))
        changed = schedules.change(by=actor(request), schedule=schedule, timing=timing, **wanted)
        return Response(ScheduleSerializer(changed).data)

    @extend_schema(
        operation_id="schedules_remove",
        summary="Delete a schedule; its runs stay",
        tags=["Schedules"],
        responses={204: None, **problems(404)},
    )
    def delete(self, request: Request, schedule_id: str) -> Response:
        schedules.remove(by=actor(request), schedule=found(request, schedule_id))
        return Response(status=HTTPStatus.NO_CONTENT)


class SchedulePause(APIView):
    actions = {"post": "schedule.manage"}

    @extend_schema(
        operation_id="schedules_pause",
        summary="Pause a schedule",
        description="No further time counts. Pausing twice is harmless.",
        tags=["Schedules"],
        request=None,
        responses={200: ScheduleSerializer, **problems(404)},
    )
    def post(self, request: Request, schedule_id: str) -> Response:
        schedule = schedules.pause(by=actor(request), schedule=found(request, schedule_id))
        return Response(ScheduleSerializer(schedule).data)


class ScheduleResume(APIView):
    actions = {"post": "schedule.manage"}

    @extend_schema(
        operation_id="schedules_resume",
        summary="Go on with the next time",
        description="What passed during the pause is not caught up. Its runs are the caller's.",
        tags=["Schedules"],
        request=None,
        responses={200: ScheduleSerializer, **problems(404)},
    )
    def post(self, request: Request, schedule_id: str) -> Response:
        schedule = schedules.resume(by=actor(request), schedule=found(request, schedule_id))
        return Response(ScheduleSerializer(schedule).data)


class ScheduleRun(APIView):
    actions = {"post": "run.submit"}

    @extend_schema(
        operation_id="schedules_run",
        summary="Submit a schedule's task once, now",
        tags=["Schedules"],
        parameters=[KEY_HEADER],
        request=None,
        responses={**ACCEPTED, **problems(400, 404, 409, 422)},
    )
    def post(self, request: Request, schedule_id: str) -> Response:
        key = idempotency_key(request)
        schedule = found(request, schedule_id)
        return accepted(request, schedules.run_now(by=actor(request), schedule=schedule, key=key))


class FireCollection(ListAPIView[ScheduleFire]):
    """The times of a schedule that came, newest first."""

    serializer_class = FireSerializer
    actions = {"get": "schedule.read"}

    def get_queryset(self) -> QuerySet[ScheduleFire]:
        schedule = found(self.request, self.kwargs["schedule_id"])
        return schedule.fires.select_related("run")

    @extend_schema(
        operation_id="schedules_fires_list",
        summary="List what came of a schedule's times",
        tags=["Schedules"],
        responses={200: FireSerializer(many=True), **problems(400, 404)},
    )
    def get(self, request: Request, schedule_id: str) -> Response:
        return self.list(request)
