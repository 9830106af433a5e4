"""Queues over HTTP: how much waits in each, and pausing them."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.core.errors import NotFound
from apps.core.rest.problems import problems
from apps.identity import policy
from apps.identity.actor import Actor
from apps.identity.rest import actor
from apps.runs.api.serializers import PRIORITIES
from apps.runs.services import figures, queues
from apps.runs.services.figures import LaneFigures
from apps.runs.types import Priority


class QueueSerializer(serializers.Serializer[LaneFigures]):
    """One queue in one priority class of the caller's organization."""

    queue = serializers.CharField()
    priority = serializers.ChoiceField(choices=PRIORITIES, source="priority.label")
    paused = serializers.BooleanField()
    cap = serializers.IntegerField(
        allow_null=True, help_text="The most of its runs that are with workers at once."
    )
    ready = serializers.IntegerField(help_text="Runs that wait for a slot.")
    parked = serializers.IntegerField(help_text="Runs that wait for a limit.")
    dispatched = serializers.IntegerField(help_text="Runs on their way to a worker.")
    running = serializers.IntegerField()
    oldest_s = serializers.FloatField(
        allow_null=True, help_text="Seconds since the run at its head was submitted."
    )


class QueueListSerializer(serializers.Serializer[Any]):
    results = QueueSerializer(many=True)


class QueueCollection(APIView):
    actions = {"get": "queue.watch"}

    @extend_schema(
        operation_id="queues_list",
        summary="List queues with what waits in them",
        description="All of them; urgent ones first.",
        tags=["Queues"],
        responses={200: QueueListSerializer, **problems()},
    )
    def get(self, request: Request) -> Response:
        by = actor(request)
        policy.require(by, "queue.watch")
        found = figures.lanes(by.user.organization_id)
        return Response(QueueListSerializer({"results": found}).data)


def priority_of(queue: str, label: str) -> Priority:
    """The class of this name; raise ``NotFound`` for a queue in a class that is none."""
    if label not in PRIORITIES:
        raise NotFound(what="queue", ref=f"{queue}/{label}")
    return Priority(PRIORITIES.index(label))


def lane_of(by: Actor, queue: str, priority: Priority) -> LaneFigures:
    found = figures.lanes(by.user.organization_id)
    return next(one for one in found if (one.queue, one.priority) == (queue, priority))


class _Pausing(APIView):
    actions = {"post": "queue.manage"}
    paused: bool

    def answer(self, request: Request, queue: str, priority: str) -> Response:
        by = actor(request)
        chosen = priority_of(queue, priority)
        queues.set_paused(by=by, queue=queue, priority=chosen, paused=self.paused)
        return Response(QueueSerializer(lane_of(by, queue, chosen)).data)


class QueuePause(_Pausing):
    paused = True

    @extend_schema(
        operation_id="queues_pause",
        summary="Pause a queue in one priority class",
        description="Runs are accepted and wait; those that are executed go on.",
        tags=["Queues"],
        request=None,
        responses={200: QueueSerializer, **problems(404)},
    )
    def post(self, request: Request, queue: str, priority: str) -> Response:
        return self.answer(request, queue, priority)


class QueueResume(_Pausing):
    paused = False

    @extend_schema(
        operation_id="queues_resume",
        summary="Resume a paused queue",
        tags=["Queues"],
        request=None,
        responses={200: QueueSerializer, **problems(404)},
    )
    def post(self, request: Request, queue: str, priority: str) -> Response:
        return self.answer(request, queue, priority)
