from __future__ import annotations

from typing import Any
from urllib.parse import quote

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from apps.core.labels import SCHEMA, fault
from apps.core.rest.strict import StrictSerializer
from apps.runs.models import Artifact, Run, RunEvent
from apps.runs.types import (
    CONCURRENCY_KEY,
    DISPATCHED,
    LONGEST_CONCURRENCY_KEY,
    MOST_LABELS,
    EventKind,
    Need,
    OnFailure,
    OnParentEnd,
    Priority,
    RunState,
    TaskSpec,
)

_DAY_S = 24 * 60 * 60
PRIORITIES = [label for _, label in Priority.choices]
STATES = [*RunState.values, DISPATCHED]


class RetrySerializer(StrictSerializer):
    """When an attempt is tried again. Times in seconds. What is left out stays the version's."""

    max_attempts = serializers.IntegerField(min_value=1, max_value=100, required=False)
    backoff = serializers.ChoiceField(choices=["exponential", "fixed"], required=False)
    base_s = serializers.FloatField(min_value=0, max_value=_DAY_S, required=False)
    factor = serializers.FloatField(min_value=1, max_value=10, required=False)
    max_s = serializers.FloatField(min_value=0, max_value=_DAY_S, required=False)
    jitter = serializers.FloatField(min_value=0, max_value=1, required=False)
    retry_on = serializers.ListField(
        child=serializers.SlugField(max_length=64), max_length=50, required=False
    )
    give_up_on = serializers.ListField(
        child=serializers.SlugField(max_length=64), max_length=50, required=False
    )


class ConcurrencyKeyField(serializers.RegexField):
    """A name for what runs share and must not use all at once."""

    def __init__(self, **fields: Any) -> None:
        super().__init__(CONCURRENCY_KEY, max_length=LONGEST_CONCURRENCY_KEY, **fields)


@extend_schema_field(SCHEMA)
class RequirementsField(serializers.DictField):
    """Labels that a worker must have. ``fault`` says the same to people."""


class NeedSerializer(StrictSerializer):
    """A run to wait for: one that there is, or an earlier item of the same request."""

    run = serializers.UUIDField(required=False, help_text="A run of your organization.")
    item = serializers.IntegerField(
        min_value=0,
        max_value=999,
        required=False,
        help_text="In a bulk submission: the index of an earlier item.",
    )
    on_failure = serializers.ChoiceField(
        choices=OnFailure.values,
        default="fail",
        help_text="When it does not succeed: `fail` too, `skip` this one, or `run` all the same.",
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("run" in attrs) == ("item" in attrs):
            raise serializers.ValidationError("names either a run or an item")
        return attrs


class TaskRequestSerializer(StrictSerializer):
    """What is asked for. Any field that is not here is refused."""

    project = serializers.CharField(max_length=64, help_text="Id or slug.")
    agent = serializers.CharField(max_length=64, help_text="Id or slug.")
    input = serializers.DictField(
        help_text="What the agent gets; checked against its input schema. A property of format "
        "`aos-file` names an input file of the project."
    )
    priority = serializers.ChoiceField(
        choices=PRIORITIES, default="normal", help_text="A strict class: urgent always goes first."
    )
    run_at = serializers.DateTimeField(
        required=False, allow_null=True, help_text="Not before this time. UTC unless it says else."
    )
    queue = serializers.RegexField(
        r"\A[a-z0-9][a-z0-9._-]*\Z",
        max_length=64,
        default="default",
        help_text="Lower-case letters, digits, dots, dashes and underscores.",
    )
    timeout_s = serializers.IntegerField(
        min_value=1,
        max_value=_DAY_S,
        required=False,
        allow_null=True,
        help_text="Seconds one attempt may take; the version's own limit by default.",
    )
    queue_deadline_s = serializers.IntegerField(
        min_value=1,
        max_value=30 * _DAY_S,
        required=False,
        allow_null=True,
        help_text="The run expires when it has not started after this many seconds.",
    )
    total_deadline_s = serializers.IntegerField(
        min_value=1,
        max_value=30 * _DAY_S,
        required=False,
        allow_null=True,
        help_text="The run ends after this many seconds, with all its attempts and waits; the version's "
        "own by default.",
    )
    budget_s = serializers.IntegerField(
        min_value=1,
        max_value=365 * _DAY_S,
        required=False,
        allow_null=True,
        help_text="Run seconds that it may take in all, together with the runs that descend from it.",
    )
    retry = RetrySerializer(required=False)
    concurrency_key = ConcurrencyKeyField(
        required=False,
        allow_blank=True,
        help_text="Runs of one key run one at a time, or as many as a limit over the key says.",
    )
    requires = RequirementsField(
        child=serializers.CharField(max_length=80),
        required=False,
        help_text="Labels that the worker must have, such as `gpu`: `true`, besides those that the "
        "agent's version asks for. `version` is that of its code.",
    )
    labels = serializers.DictField(
        child=serializers.CharField(max_length=200, allow_blank=True),
        required=False,
        help_text=f"Up to {MOST_LABELS} words of your own, kept with the run.",
    )

    depends_on = serializers.ListField(
        child=NeedSerializer(),
        max_length=100,
        required=False,
        help_text="Start when all of these have ended.",
    )

    def validate_requires(self, requires: dict[str, str]) -> dict[str, str]:
        if wrong := fault(requires):
            raise serializers.ValidationError(wrong)
        return requires

    def validate_labels(self, labels: dict[str, str]) -> dict[str, str]:
        if len(labels) > MOST_LABELS:
            raise serializers.ValidationError(f"must be at most {MOST_LABELS}")
        if any(not 1 <= len(name) <= 64 for name in labels):
            raise serializers.ValidationError("names must be 1 to 64 characters long")
        return labels


def _run_id(**options: Any) -> Any:
    """A field that may be named `parent` or `root`, like attributes that all fields have.

    DRF takes it off the class, so that it hides nothing; to mypy it is of any type.
    """
    return serializers.UUIDField(**options)


class KinRequestSerializer(TaskRequestSerializer):
    """A task that may be a child."""

    parent = _run_id(
        required=False,
        help_text="Make it a child of this open run of the project. Its labels, priority and trace are "
        "the parent's unless it has its own, and it ends no later.",
    )
    on_parent_end = serializers.ChoiceField(
        choices=OnParentEnd.values,
        default="cancel",
        help_text="When the parent ends, however it does: `cancel` the child, or `leave` it.",
    )


class SubmissionRequestSerializer(KinRequestSerializer):
    """A task, and the version it is for where that is not the current one."""

    version = serializers.IntegerField(
        min_value=1,
        max_value=999_999_999,
        required=False,
        help_text="Try this version, released or not, instead of the current one; needs "
        "`agent.manage` too.",
    )


def task_of(wanted: dict[str, Any]) -> TaskSpec:
    """The task in a validated request; project and agent are looked up by the view."""
    return TaskSpec(
        input=wanted["input"],
        priority=Priority(PRIORITIES.index(wanted["priority"])),
        run_at=wanted.get("run_at"),
        queue=wanted["queue"],
        timeout_s=wanted.get("timeout_s"),
        queue_deadline_s=wanted.get("queue_deadline_s"),
        total_deadline_s=wanted.get("total_deadline_s"),
        budget_s=wanted.get("budget_s"),
        retry=dict(wanted.get("retry", {})),
        labels=dict(wanted.get("labels", {})),
        requires=dict(wanted.get("requires", {})),
        concurrency_key=wanted.get("concurrency_key", ""),
        depends_on=tuple(
            Need(**need | {"on_failure": OnFailure(need["on_failure"])})
            for need in wanted.get("depends_on", ())
        ),
    )


class ProjectReferenceSerializer(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    slug = serializers.CharField()
    name = serializers.CharField()


class AgentReferenceSerializer(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    slug = serializers.CharField()
    title = serializers.CharField()


class FailureSerializer(serializers.Serializer[Any]):
    code = serializers.CharField(help_text="Stable, for programs.")
    detail = serializers.CharField(help_text="A sentence, for people.")
    retryable = serializers.BooleanField(help_text="Whether trying again may help.")


class BudgetSerializer(serializers.Serializer[Any]):
    granted_s = serializers.IntegerField()
    taken_s = serializers.FloatField(
        help_text="What the runs of the tree have used, and what their next attempts may take."
    )


class RunSerializer(serializers.Serializer[Run]):
    """One request to an agent, from submission to its final state."""

    id = serializers.UUIDField(source="public_id")
    state = serializers.ChoiceField(choices=STATES, source="shown_state")
    project = ProjectReferenceSerializer()
    agent = AgentReferenceSerializer(source="agent_version.agent")
    agent_version = serializers.IntegerField(source="agent_version.number")
    kind = serializers.CharField(source="agent_version.agent.kind")
    name = serializers.CharField(help_text="As Flower and the lists show it.")
    queue = serializers.CharField()
    priority = serializers.ChoiceField(choices=PRIORITIES, source="get_priority_display")
    labels = serializers.DictField(child=serializers.CharField())
    concurrency_key = serializers.CharField(
        help_text="Runs of one key run one at a time, or as many as its limit says; empty is none."
    )
    requires = serializers.DictField(
        child=serializers.CharField(),
        allow_null=True,
        help_text="Labels that its worker must have; null where any worker will do.",
    )
    trace_id = serializers.CharField(help_text="W3C trace id, from request to receipt.")
    attempts = serializers.IntegerField(help_text="How many executions have begun.")
    isolation = serializers.CharField(
        help_text="How the last attempt was isolated; `bwrap` and `none` are for development, empty is not yet."
    )
    run_at = serializers.DateTimeField(allow_null=True)
    total_deadline = serializers.DateTimeField(
        allow_null=True, help_text="By then it ends, in whatever state it is."
    )
    created_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)
    parent = _run_id(
        source="parent_public_id", allow_null=True, help_text="The run that started it."
    )
    root = _run_id(
        source="root_public_id", allow_null=True, help_text="The run at the top of its tree."
    )
    budget = BudgetSerializer(
        allow_null=True, help_text="What it was granted, with all that descend from it."
    )
    result = serializers.DictField(allow_null=True)
    error = FailureSerializer(allow_null=True)
    links = serializers.SerializerMethodField()

    def get_links(self, run: Run) -> dict[str, str]:
        this = f"/api/runs/{run.public_id}"
        return {
            "self": this,
            "events": f"{this}/events",
            "artifacts": f"{this}/artifacts",
            "cancel": f"{this}/cancel",
            "rerun": f"{this}/rerun",
            "page": f"/runs/{run.public_id}",
        }


class RunFilterSerializer(serializers.Serializer[Any]):
    state = serializers.ChoiceField(choices=STATES, required=False)
    project = serializers.CharField(max_length=64, required=False, help_text="Id or slug.")
    agent = serializers.CharField(max_length=64, required=False, help_text="Id or slug.")
    queue = serializers.CharField(max_length=64, required=False)
    error = serializers.SlugField(
        max_length=64, required=False, help_text="The code of the error it ended with."
    )
    trace_id = serializers.RegexField(
        r"\A[0-9a-f]{32}\Z", required=False, help_text="32 hex digits."
    )
    created_after = serializers.DateTimeField(required=False, help_text="At or after this time.")
    created_before = serializers.DateTimeField(required=False, help_text="Before this time.")
    parent = _run_id(required=False, help_text="Children of this run.")
    root = _run_id(required=False, help_text="All runs below this one.")


class RunEventSerializer(serializers.Serializer[RunEvent]):
    """A line of the run's own log."""

    seq = serializers.IntegerField(help_text="From 1, without gaps.")
    kind = serializers.ChoiceField(choices=EventKind.choices)
    payload = serializers.DictField()
    at = serializers.DateTimeField()


class RunEventPageSerializer(serializers.Serializer[Any]):
    results = RunEventSerializer(many=True)
    next_after = serializers.IntegerField(help_text="Pass as ?after= to go on.")
    final = serializers.BooleanField(help_text="The run is over and this was the end of its log.")


class RunEventQuerySerializer(serializers.Serializer[Any]):
    after = serializers.IntegerField(
        min_value=0, max_value=2**31 - 1, default=0, help_text="The last seq you have."
    )
    limit = serializers.IntegerField(min_value=1, max_value=1000, default=200)


class ArtifactSerializer(serializers.ModelSerializer[Artifact]):
    links = serializers.SerializerMethodField()

    class Meta:
        model = Artifact
        fields = ["name", "size", "sha256", "media_type", "created_at", "links"]
        read_only_fields = fields

    def get_links(self, artifact: Artifact) -> dict[str, str]:
        run: Run = self.context["run"]
        return {"download": f"/api/runs/{run.public_id}/artifacts/{quote(artifact.name)}"}
