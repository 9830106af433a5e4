"""Runs and what keeps them moving.

``runs_run`` is the truth and is written at submission, start and finish only. The narrow tables
below it (ready, scheduled, lease, lane) carry the motion: rows come and go, nothing is updated in
place, so that a claim stays cheap however many runs there are. Statements over them that lock or
bulk live in ``sql/``.
"""

from __future__ import annotations

from typing import Self
from uuid import UUID

from django.contrib.postgres.functions import RandomUUID
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from apps.agents.models import Agent, AgentVersion
from apps.core.models import BaseModel, uuid7
from apps.identity.models import User, reaching
from apps.projects.models import Project
from apps.runs import (
    limit_models,  # noqa: F401  # Django finds its tables by this module
    reach,
    retention_models,  # noqa: F401  # the same
)
from apps.runs.fleet_models import WorkerNode
from apps.runs.kin_models import Bounded
from apps.runs.types import (
    DISPATCHED,
    FINAL,
    LONGEST_CONCURRENCY_KEY,
    BulkState,
    BulkVerb,
    CatchUp,
    EventKind,
    FireOutcome,
    LeaseState,
    OnFailure,
    Priority,
    RunFilter,
    RunState,
    Timing,
)

_FINAL = Q(state__in=FINAL)
_SENT = Q(lease__state=LeaseState.DISPATCHED)


def _in_state(state: str) -> Q:
    """``dispatched`` is shown, not stored: a queued run that was sent to a worker."""
    if state == DISPATCHED:
        return Q(state=RunState.QUEUED) & _SENT
    if state == RunState.QUEUED:
        return Q(state=RunState.QUEUED) & ~_SENT
    return Q(state=state)


class RunQuerySet(reach.SeenQuerySet["Run"]):
    def open(self) -> Self:
        return self.exclude(_FINAL)

    def matching(self, wanted: RunFilter) -> Self:
        """Those that a filter means, as people see their states."""
        found = self.filter(**wanted.lookups)
        return found.filter(_in_state(wanted.state)) if wanted.state else found


class Run(Bounded):
    """One request to an agent, from submission to a final state.

    The bigint key stays inside; people and programs see ``public_id``. Transitions are checked by a
    trigger, the receipt by a unique index: they hold for services and for a hand-typed UPDATE.
    """

    public_id = models.UUIDField(default=uuid7, unique=True, editable=False)
    organization_id = models.UUIDField()
    project = models.ForeignKey(
        Project, on_delete=models.PROTECT, db_index=False, related_name="runs"
    )
    agent_version = models.ForeignKey(
        AgentVersion, on_delete=models.PROTECT, db_index=False, related_name="runs"
    )
    submitted_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="runs")
    rerun_of = models.ForeignKey(
        "self", on_delete=models.SET_NULL, null=True, db_index=False, related_name="reruns"
    )
    # "<agent>: <title>" as Flower and the lists show it.
    name = models.CharField(max_length=200)
    queue = models.CharField(max_length=64, default="default")
    priority = models.SmallIntegerField(choices=Priority, default=Priority.NORMAL)
    spec = models.JSONField()
    retry = models.JSONField(default=dict)
    labels = models.JSONField(default=dict)
    concurrency_key = models.CharField(
        max_length=LONGEST_CONCURRENCY_KEY, blank=True, db_default=""
    )
    trace = models.JSONField()
    trace_id = models.CharField(max_length=32)
    state = models.CharField(max_length=16, choices=RunState, default=RunState.QUEUED)
    run_at = models.DateTimeField(null=True)
    queue_deadline = models.DateTimeField(null=True)
    # Seconds one attempt may take.
    timeout_s = models.PositiveIntegerField()
    attempts = models.PositiveSmallIntegerField(default=0)
    crash_count = models.PositiveSmallIntegerField(default=0)
    isolation = models.CharField(max_length=16, blank=True)
    # Labels its worker must have, and the gate at which it waits for one (``labels.home_of``).
    requires = models.JSONField(null=True)
    pool_gate = models.UUIDField(null=True)
    # Depends on a run, or a run depends on it: triggers set it and look no further where it is false.
    linked = models.BooleanField(db_default=False)
    result = models.JSONField(null=True)
    error = models.JSONField(null=True)
    created_at = models.DateTimeField(db_default=Now())
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    objects = RunQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(
                name="runs_run_finished_iff_final",
                condition=(_FINAL & Q(finished_at__isnull=False)) | (~_FINAL & Q(finished_at=None)),
            ),
            models.CheckConstraint(
                name="runs_run_started_iff_attempted",
                condition=Q(attempts=0, started_at=None)
                | Q(attempts__gt=0, started_at__isnull=False),
            ),
        ]
        indexes = [
            models.Index(fields=["project", "-id"], name="runs_run_of_project"),
            models.Index(fields=["organization_id", "-id"], name="runs_run_of_organization"),
            models.Index(fields=["agent_version", "-id"], name="runs_run_of_version"),
            models.Index(fields=["trace_id"], name="runs_run_of_trace"),
            models.Index(
                fields=["rerun_of"],
                name="runs_run_rerun",
                condition=Q(rerun_of__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def is_over(self) -> bool:
        return self.state in FINAL

    @property
    def place(self) -> dict[str, UUID]:
        """Where it is, as permissions are asked for: ``policy.require(by, action, **run.place)``."""
        return {
            "project_id": self.project_id,
            "agent_id": self.agent_version.agent_id,
            "run_id": self.public_id,
        }

    @property
    def shown_state(self) -> str:
        """The state as people see it: a claimed run that has not started is ``dispatched``."""
        lease = getattr(self, "lease", None)
        waits = lease is not None and lease.state == LeaseState.DISPATCHED
        return DISPATCHED if waits and self.state == RunState.QUEUED else self.state

    @property
    def duration_s(self) -> float | None:
        """Seconds from the first start to the end; ``None`` until both are known."""
        if self.started_at is None or self.finished_at is None:
            return None
        return (self.finished_at - self.started_at).total_seconds()


class DeadLetterQuerySet(models.QuerySet["DeadLetter"]):
    def visible_to(self, user: User) -> Self:
        return self.filter(
            run__in=Run.objects.visible_to(user), organization_id=user.organization_id
        )

    def open(self) -> Self:
        return self.filter(settled_at=None)


class DeadLetter(models.Model):
    """A run that ended in a way nobody wanted, until somebody requeues or dismisses it.

    A trigger writes it in the statement that ends the run, so none is forgotten. It is settled once:
    another trigger refuses to touch it after that.
    """

    run = models.OneToOneField(
        Run, on_delete=models.CASCADE, primary_key=True, related_name="letter"
    )
    organization_id = models.UUIDField()
    project = models.ForeignKey(Project, on_delete=models.PROTECT, db_index=False, related_name="+")
    # The code of the error.
    code = models.CharField(max_length=64)
    written_at = models.DateTimeField(db_default=Now())
    settled_at = models.DateTimeField(null=True)
    # The run that took its place; ``None`` for one that was dismissed.
    requeued_as = models.OneToOneField(
        Run, on_delete=models.SET_NULL, null=True, related_name="requeue_of"
    )

    objects = DeadLetterQuerySet.as_manager()

    class Meta:
        db_table = "runs_deadletter"
        ordering = ["-run_id"]
        constraints = [
            models.CheckConstraint(
                name="runs_deadletter_requeued_is_settled",
                condition=Q(requeued_as=None) | Q(settled_at__isnull=False),
            )
        ]
        indexes = [
            models.Index(
                fields=["project", "-run"],
                name="runs_deadletter_open",
                condition=Q(settled_at=None),
            )
        ]

    def __str__(self) -> str:
        return f"{self.code} of {self.run_id}"


class Lane(models.Model):
    """(organization, queue, priority class): the unit of fairness."""

    organization_id = models.UUIDField()
    queue = models.CharField(max_length=64)
    priority = models.SmallIntegerField(choices=Priority)
    paused = models.BooleanField(default=False)
    # The most of its runs that are with workers at once.
    cap = models.PositiveIntegerField(null=True, blank=True)
    gate = models.UUIDField(db_default=RandomUUID(), unique=True, editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                name="runs_lane_one_each", fields=["organization_id", "queue", "priority"]
            )
        ]

    def __str__(self) -> str:
        return f"{self.queue}/{self.get_priority_display()}"


class ReadyRun(models.Model):
    """A run that waits for a worker: in its lane, or parked at the gate that does not let it through.

    Rows are inserted and deleted; parking is their only update. The lanes' index leaves parked runs out,
    so they cost a claim nothing.
    """

    run = models.OneToOneField(
        Run, on_delete=models.CASCADE, primary_key=True, related_name="ready"
    )
    lane = models.ForeignKey(Lane, on_delete=models.PROTECT, db_index=False)
    # Position in the lane: drawn from the sequence runs_ready_seq.
    seq = models.BigIntegerField()
    # How many times the run was sent to a worker before.
    dispatches = models.PositiveIntegerField(default=0)
    ready_at = models.DateTimeField(db_default=Now())
    # The run's own, until its first start.
    queue_deadline = models.DateTimeField(null=True)
    # Where it is parked. A run that requires labels is so from the start, at its home.
    gate = models.UUIDField(null=True)

    class Meta:
        db_table = "runs_ready"
        indexes = [
            models.Index(fields=["lane", "seq"], name="runs_ready_by_lane", condition=Q(gate=None)),
            models.Index(
                fields=["gate", "lane", "seq"],
                name="runs_ready_parked",
                condition=Q(gate__isnull=False),
            ),
            models.Index(
                fields=["queue_deadline"],
                name="runs_ready_deadline",
                condition=Q(queue_deadline__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"ready {self.run_id}"


class ScheduledRun(models.Model):
    """A run whose time has not come: a later ``run_at``, or a retry that backs off."""

    run = models.OneToOneField(
        Run, on_delete=models.CASCADE, primary_key=True, related_name="scheduled"
    )
    due_at = models.DateTimeField(db_index=True)
    dispatches = models.PositiveIntegerField(default=0)

    class Meta:
        db_table = "runs_scheduled"

    def __str__(self) -> str:
        return f"scheduled {self.run_id} at {self.due_at}"


class Dependency(models.Model):
    """A run that another, later one waits for. Named at submission, never changed."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, db_index=False, related_name="needs")
    on = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="needed_by")
    on_failure = models.CharField(max_length=8, choices=OnFailure)

    class Meta:
        db_table = "runs_dependency"
        ordering = ["run_id", "on_id"]
        constraints = [
            models.UniqueConstraint(name="runs_dependency_named_once", fields=["run", "on"]),
            models.CheckConstraint(
                name="runs_dependency_on_an_earlier_run", condition=Q(on__lt=models.F("run"))
            ),
        ]

    def __str__(self) -> str:
        return f"{self.run_id} needs {self.on_id}"


class WaitingRun(models.Model):
    """A run that is kept out of the queue until a trigger has counted the last end it waits for."""

    run = models.OneToOneField(
        Run, on_delete=models.CASCADE, primary_key=True, related_name="waiting"
    )
    organization_id = models.UUIDField()
    # How many of the runs it needs have not ended.
    open = models.IntegerField()
    # Not before this time, even then.
    due_at = models.DateTimeField(null=True)
    queue_deadline = models.DateTimeField(null=True)
    # Set when a run it needs did not succeed: the leader ends this one. ``cause`` is that run.
    verdict = models.CharField(max_length=8, choices=OnFailure, blank=True, db_default="")
    cause = models.ForeignKey(
        Run, on_delete=models.CASCADE, null=True, db_index=False, related_name="+"
    )

    class Meta:
        db_table = "runs_waiting"
        constraints = [
            models.CheckConstraint(
                name="runs_waiting_counts_down_to_zero", condition=Q(open__gte=0)
            )
        ]
        indexes = [
            models.Index(fields=["organization_id"], name="runs_waiting_of_organization"),
            models.Index(fields=["run"], name="runs_waiting_decided", condition=~Q(verdict="")),
            # For the removal of runs.
            models.Index(
                fields=["cause"],
                name="runs_waiting_of_cause",
                condition=Q(cause__isnull=False),
            ),
            models.Index(
                fields=["queue_deadline"],
                name="runs_waiting_deadline",
                condition=Q(queue_deadline__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.run_id} waits for {self.open} runs"


class RunLease(models.Model):
    """The lease on a run. Its existence is the right to act; the token says whose it is.

    The table is as large as the fleet's capacity, so it needs no index but its key.
    """

    run = models.OneToOneField(
        Run, on_delete=models.CASCADE, primary_key=True, related_name="lease"
    )
    lane_id = models.BigIntegerField()
    token = models.BigIntegerField(unique=True)
    seq = models.PositiveIntegerField()
    # Leases that were sent in one message share its number; it takes up one slot.
    message = models.BigIntegerField(default=0)
    state = models.CharField(max_length=1, choices=LeaseState, default=LeaseState.DISPATCHED)
    worker = models.ForeignKey(
        WorkerNode, on_delete=models.SET_NULL, null=True, db_index=False, related_name="leases"
    )
    dispatched_at = models.DateTimeField(db_default=Now())
    dispatch_deadline = models.DateTimeField()
    started_at = models.DateTimeField(null=True)
    hard_deadline = models.DateTimeField(null=True)
    cancel_requested_at = models.DateTimeField(null=True)
    # The workers it was sent to, where the run requires something of its worker: no other may start it.
    pool = models.CharField(max_length=16, null=True)
    # Whether it takes up places behind gates.
    gated = models.BooleanField(db_default=False)

    class Meta:
        db_table = "runs_lease"

    def __str__(self) -> str:
        return f"lease {self.run_id} token {self.token}"


class Attempt(models.Model):
    """One execution of a run by a worker; numbered when it starts."""

    run = models.ForeignKey(
        Run, on_delete=models.CASCADE, db_index=False, related_name="attempt_set"
    )
    number = models.PositiveSmallIntegerField()
    token = models.BigIntegerField()
    worker_name = models.CharField(max_length=120)
    started_at = models.DateTimeField(db_default=Now())
    finished_at = models.DateTimeField(null=True)
    # succeeded, failed, cancelled, expired, or lost (its worker disappeared).
    outcome = models.CharField(max_length=16, blank=True)
    error = models.JSONField(null=True)

    class Meta:
        ordering = ["run", "number"]
        constraints = [
            models.UniqueConstraint(name="runs_attempt_numbered_once", fields=["run", "number"])
        ]

    def __str__(self) -> str:
        return f"attempt {self.number} of {self.run_id}"


class Pace(models.Model):
    """How long a run of a version takes, as the workers measure it: newer runs count more."""

    version = models.OneToOneField(
        AgentVersion, on_delete=models.CASCADE, primary_key=True, related_name="+"
    )
    mean_s = models.FloatField()
    runs = models.BigIntegerField()
    measured_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return f"{self.mean_s:.3f} s over {self.runs} runs"


class RunEvent(models.Model):
    """A line of a run's own log: append-only, numbered without gaps by whoever holds the run.

    Kept in a table for each month of ``at`` (see ``services.retention``); each refuses a number twice.
    """

    run = models.ForeignKey(Run, on_delete=models.CASCADE, db_index=False, related_name="event_set")
    seq = models.PositiveIntegerField()
    kind = models.CharField(max_length=16, choices=EventKind)
    payload = models.JSONField()
    at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "runs_event"
        ordering = ["run", "seq"]
        constraints = [
            models.UniqueConstraint(name="runs_event_numbered_once", fields=["run", "seq"])
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.seq} of {self.run_id}"


class Artifact(models.Model):
    """A file a run left behind, stored under its SHA-256."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="artifacts")
    name = models.CharField(max_length=255)
    sha256 = models.CharField(max_length=64)
    size = models.BigIntegerField()
    media_type = models.CharField(max_length=100)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(name="runs_artifact_one_name_each", fields=["run", "name"])
        ]
        indexes = [models.Index(fields=["sha256"], name="runs_artifact_of_sum")]

    def __str__(self) -> str:
        return self.name


class IdempotencyKey(models.Model):
    """A submission that was answered, kept so that its repetition takes effect once."""

    organization_id = models.UUIDField()
    user_id = models.UUIDField()
    key = models.CharField(max_length=255)
    fingerprint = models.CharField(max_length=64)
    run = models.ForeignKey(Run, on_delete=models.CASCADE, null=True, related_name="+")
    # What a request about many runs was answered, to be said again.
    answer = models.JSONField(null=True)
    expires_at = models.DateTimeField(db_index=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                name="runs_idempotencykey_once", fields=["organization_id", "user_id", "key"]
            )
        ]

    def __str__(self) -> str:
        return self.key


class BulkActQuerySet(models.QuerySet["BulkAct"]):
    def visible_to(self, user: User) -> Self:
        return self.filter(reaching(user, project_ref="project_id")).filter(
            organization_id=user.organization_id
        )


class BulkAct(BaseModel):
    """One wish about many runs, which the engine fulfills batch by batch, the oldest run first.

    It means the runs that match and are no newer than ``upto``, so that what was counted before
    somebody confirmed it is what is touched. Its legal steps are checked by a trigger.
    """

    organization_id = models.UUIDField()
    project = models.ForeignKey(Project, on_delete=models.PROTECT, null=True, related_name="+")
    # Acts as this person, with what they may do at each batch.
    asked_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    verb = models.CharField(max_length=8, choices=BulkVerb)
    # A ``RunFilter``.
    wanted = models.JSONField()
    state = models.CharField(max_length=8, choices=BulkState, default=BulkState.WORKING)
    # How many matched when it was asked for.
    matched = models.PositiveIntegerField()
    # After so many it waits for somebody to look; ``None`` for all at once.
    canary = models.PositiveIntegerField(null=True)
    # The newest run it may touch, and the newest one it has dealt with.
    upto = models.BigIntegerField()
    after = models.BigIntegerField(default=0)
    done = models.PositiveIntegerField(default=0)
    refused = models.PositiveIntegerField(default=0)
    # The first few refusals: ``{"run", "name", "reason"}``.
    refusals = models.JSONField(default=list)
    stop_reason = models.CharField(max_length=200, blank=True)
    finished_at = models.DateTimeField(null=True)

    objects = BulkActQuerySet.as_manager()

    class Meta:
        db_table = "runs_bulk"
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(
                name="runs_bulk_finished_iff_over",
                condition=Q(state__in=("working", "tried"), finished_at=None)
                | Q(state__in=("done", "stopped"), finished_at__isnull=False),
            ),
            models.CheckConstraint(
                name="runs_bulk_stays_below_upto", condition=Q(after__lte=models.F("upto"))
            ),
        ]
        indexes = [
            models.Index(
                fields=["updated_at"], name="runs_bulk_at_work", condition=Q(state="working")
            ),
            models.Index(fields=["organization_id", "-id"], name="runs_bulk_of_organization"),
        ]

    def __str__(self) -> str:
        return f"{self.get_verb_display()} {self.matched} runs"

    @property
    def treated(self) -> int:
        return self.done + self.refused

    @property
    def is_over(self) -> bool:
        return self.finished_at is not None

    @property
    def share(self) -> float:
        """How much of it is done, from 0 to 1."""
        if self.state == BulkState.DONE or not self.matched:
            return 1.0
        return min(1.0, self.treated / self.matched)


class ScheduleQuerySet(models.QuerySet["Schedule"]):
    def visible_to(self, user: User) -> Self:
        return self.filter(reaching(user, project_ref="project_id")).filter(
            organization_id=user.organization_id
        )


class Schedule(BaseModel):
    """A task that is submitted again and again, at the times a cron expression names.

    It submits as the person who changed it last, with what that person may do at that moment.
    """

    organization_id = models.UUIDField()
    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="schedules")
    agent = models.ForeignKey(Agent, on_delete=models.PROTECT, related_name="schedules")
    submits_as = models.ForeignKey(User, on_delete=models.PROTECT, related_name="schedules")
    name = models.CharField(max_length=80)
    # Five fields, as in crontab(5), read in the time zone.
    cron = models.CharField(max_length=100)
    timezone = models.CharField(max_length=64, default="UTC")
    catch_up = models.CharField(max_length=8, choices=CatchUp, default=CatchUp.SKIP)
    # The fields of a ``TaskSpec``, without ``run_at``.
    task = models.JSONField()
    # Set while it is paused; ``next_at`` while it is not.
    paused_at = models.DateTimeField(null=True)
    pause_reason = models.CharField(max_length=200, blank=True)
    next_at = models.DateTimeField(null=True)

    objects = ScheduleQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(name="runs_schedule_one_name_each", fields=["project", "name"]),
            models.CheckConstraint(
                name="runs_schedule_due_unless_paused",
                condition=Q(paused_at=None, next_at__isnull=False)
                | Q(paused_at__isnull=False, next_at=None),
            ),
        ]
        indexes = [
            models.Index(
                fields=["next_at"], name="runs_schedule_due", condition=Q(next_at__isnull=False)
            ),
            models.Index(fields=["organization_id", "-id"], name="runs_schedule_of_organization"),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def timing(self) -> Timing:
        return Timing(cron=self.cron, timezone=self.timezone, catch_up=CatchUp(self.catch_up))


class ScheduleFire(models.Model):
    """A time at which a schedule was due, and what came of it. Each time counts once."""

    schedule = models.ForeignKey(
        Schedule, on_delete=models.CASCADE, db_index=False, related_name="fires"
    )
    fire_at = models.DateTimeField()
    outcome = models.CharField(max_length=16, choices=FireOutcome)
    run = models.ForeignKey(Run, on_delete=models.SET_NULL, null=True, related_name="fires")
    # Why there is no run; empty when there is one.
    detail = models.CharField(max_length=500, blank=True)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "runs_schedule_fire"
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(name="runs_schedule_fire_once", fields=["schedule", "fire_at"])
        ]

    def __str__(self) -> str:
        return f"{self.schedule_id} at {self.fire_at}"
