from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.db import models


class RunState(models.TextChoices):
    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    DEAD = "dead"


FINAL: Final = (
    RunState.SUCCEEDED,
    RunState.FAILED,
    RunState.CANCELLED,
    RunState.EXPIRED,
    RunState.DEAD,
)
# Ends that nobody wanted: each leaves a dead letter.
UNWANTED: Final = (RunState.FAILED, RunState.EXPIRED, RunState.DEAD)
# The one table of transitions; the database trigger is made from it (see migrations).
TRANSITIONS: Final = {
    # It fails unstarted when a run it depends on does not succeed.
    RunState.QUEUED: (RunState.RUNNING, RunState.CANCELLED, RunState.EXPIRED, RunState.FAILED),
    RunState.RUNNING: (
        RunState.SUCCEEDED,
        RunState.FAILED,
        RunState.CANCELLING,
        RunState.QUEUED,
        RunState.EXPIRED,
        RunState.DEAD,
    ),
    # A worker may finish before it hears of the cancellation: what is done is done.
    RunState.CANCELLING: (
        RunState.CANCELLED,
        RunState.SUCCEEDED,
        RunState.FAILED,
        RunState.EXPIRED,
    ),
}
# What a person sees while a claimed run waits for its worker to start it. Never stored.
DISPATCHED: Final = "dispatched"


class Priority(models.IntegerChoices):
    """Strict classes: a lower number goes first."""

    URGENT = 0, "urgent"
    NORMAL = 1, "normal"
    BULK = 2, "bulk"


MOST_LABELS: Final = 32
CONCURRENCY_KEY: Final = r"\A[A-Za-z0-9][A-Za-z0-9._:/@-]*\Z"
LONGEST_CONCURRENCY_KEY: Final = 200


class LimitScope(models.TextChoices):
    """What a limit is about. Queues have theirs on the lane."""

    ORGANIZATION = "organization"
    PROJECT = "project"
    AGENT = "agent"
    # Runs that were submitted with the same concurrency key.
    KEY = "key"


class LeaseState(models.TextChoices):
    DISPATCHED = "d", "dispatched"
    RUNNING = "r", "running"


class CatchUp(models.TextChoices):
    """What a schedule does about times that passed while no engine led."""

    SKIP = "skip", "leave them out"
    ONE = "one", "run once for all of them"
    ALL = "all", "run each of them"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """When a schedule is due: five fields as in crontab(5), read in a time zone."""

    cron: str
    timezone: str = "UTC"
    catch_up: CatchUp = CatchUp.SKIP


class BulkVerb(models.TextChoices):
    """What is done to each of many runs, and which runs it can be done to."""

    CANCEL = "cancel", "cancel"
    RERUN = "rerun", "re-run"
    # These two only to dead letters that are open.
    REQUEUE = "requeue", "requeue"
    DISMISS = "dismiss", "dismiss"

    @property
    def applies_to(self) -> tuple[RunState, ...]:
        if self is BulkVerb.CANCEL:
            return (RunState.QUEUED, RunState.RUNNING)
        return FINAL if self is BulkVerb.RERUN else UNWANTED

    @property
    def is_about_letters(self) -> bool:
        return self in {BulkVerb.REQUEUE, BulkVerb.DISMISS}


class BulkState(models.TextChoices):
    WORKING = "working", "at work"
    # The first few are done; somebody looks at them before the others follow.
    TRIED = "tried", "tried on a few"
    DONE = "done", "done"
    STOPPED = "stopped", "stopped"


# The database trigger is made from it, as with runs.
BULK_TRANSITIONS: Final = {
    BulkState.WORKING: (BulkState.TRIED, BulkState.DONE, BulkState.STOPPED),
    BulkState.TRIED: (BulkState.WORKING, BulkState.STOPPED),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilter:
    """Which runs of an organization are meant. What is ``None`` does not narrow."""

    project_id: UUID | None = None
    agent_id: UUID | None = None
    queue: str | None = None
    state: str | None = None
    error: str | None = None
    trace_id: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    # Its children, or all that descend from it.
    parent: UUID | None = None
    root: UUID | None = None

    @property
    def lookups(self) -> dict[str, Any]:
        """The conditions on a run's own columns; the state is shown, not stored."""
        given = {
            "project_id": self.project_id,
            "agent_version__agent_id": self.agent_id,
            "queue": self.queue,
            "error__code": self.error,
            "trace_id": self.trace_id,
            "created_at__gte": self.created_after,
            "created_at__lt": self.created_before,
            "child_of__parent__public_id": self.parent,
            "child_of__root__public_id": self.root,
        }
        return {lookup: value for lookup, value in given.items() if value is not None}

    def as_json(self) -> dict[str, str]:
        return {name: str(value) for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, stored: Mapping[str, str]) -> RunFilter:
        values: dict[str, Any] = dict(stored)
        for name in ("project_id", "agent_id", "parent", "root"):
            if name in values:
                values[name] = UUID(values[name])
        for name in ("created_after", "created_before"):
            if name in values:
                values[name] = datetime.fromisoformat(values[name])
        return cls(**values)


class FireOutcome(models.TextChoices):
    SUBMITTED = "submitted"
    # The time passed unseen, and the schedule does not catch up.
    MISSED = "missed"
    REFUSED = "refused"


class EventKind(models.TextChoices):
    """The kinds of line in a run's own log."""

    MESSAGE = "message"
    TOOL = "tool"
    TODO = "todo"
    LOG = "log"
    RUN = "run"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right of one worker to act for a run. The token only ever grows; a stale one is void."""

    run_id: int
    token: int


def task_id(public_id: UUID, seq: int) -> str:
    """How Flower knows one sending of a run: never the same twice, because Celery remembers ids."""
    return f"{public_id}.{seq}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatch:
    """One claimed run, ready to be sent to a worker."""

    run_id: int
    public_id: UUID
    token: int
    seq: int
    name: str
    trace: dict[str, str]

    @property
    def task_id(self) -> str:
        return task_id(self.public_id, self.seq)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What one message to the workers carries: a run, or several short ones."""

    dispatches: tuple[Dispatch, ...]
    # The workers it is for; any where it is none.
    pool: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """What a worker gets when its START wins: all it needs to execute the attempt."""

    lease: Lease
    public_id: UUID
    organization_id: UUID
    project_id: UUID
    name: str
    # How often the run was sent to a worker, this time included.
    seq: int
    attempt: int
    spec: dict[str, Any]
    version_id: UUID
    agent_slug: str
    agent_kind: str
    agent_spec: dict[str, Any]
    trace: dict[str, str]
    timeout_s: int
    last_event_seq: int

    @property
    def task_id(self) -> str:
        return task_id(self.public_id, self.seq)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why an attempt ended badly: a stable code, a sentence, and whether trying again may help."""

    code: str
    detail: str
    retryable: bool = False

    def as_json(self) -> dict[str, object]:
        return {"code": self.code, "detail": self.detail, "retryable": self.retryable}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line to be appended to a run's log."""

    kind: EventKind
    payload: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactData:
    """A collected file, already stored under its SHA-256."""

    name: str
    sha256: str
    size: int
    media_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The end of a run, as its worker tells it: fenced by the token, with its last lines."""

    lease: Lease
    state: RunState
    # The number of the log's last line before these; found by the database when not known.
    after: int | None = None
    result: dict[str, Any] | None = None
    error: dict[str, object] | None = None
    isolation: str | None = None
    lines: Sequence[Entry] = ()
    artifacts: Sequence[ArtifactData] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When and how an attempt is tried again. Times in seconds."""

    max_attempts: int = 3
    backoff: str = "exponential"
    base_s: float = 2.0
    factor: float = 2.0
    max_s: float = 300.0
    jitter: float = 0.2
    retry_on: tuple[str, ...] = ()
    give_up_on: tuple[str, ...] = ()

    def allows(self, failure: Failure, *, attempt: int) -> bool:
        return attempt < self.max_attempts and self.is_for(failure)

    def is_for(self, failure: Failure) -> bool:
        """Whether such a failure is worth another attempt, however many there were."""
        if failure.code in self.give_up_on:
            return False
        return failure.retryable or failure.code in self.retry_on

    def delay_s(self, *, attempt: int, dice: float) -> float:
        """Seconds to wait after the given attempt; ``dice`` in [0, 1) spreads a herd."""
        grown = self.base_s * (self.factor ** (attempt - 1) if self.backoff != "fixed" else 1)
        return min(min(grown, self.max_s) * (1 + self.jitter * (2 * dice - 1)), self.max_s)


class OnFailure(models.TextChoices):
    """What becomes of a run when one that it depends on does not succeed."""

    FAIL = "fail", "it fails as well"
    SKIP = "skip", "it is skipped"
    RUN = "run", "it runs all the same"


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """A run that another one waits for: by its id or, among tasks submitted together, by its place."""

    run: UUID | None = None
    item: int | None = None
    on_failure: OnFailure = OnFailure.FAIL


class OnParentEnd(models.TextChoices):
    """What becomes of a child when its parent ends, however it ends, or is to be cancelled."""

    CANCEL = "cancel", "it is cancelled"
    LEAVE = "leave", "it goes on"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """What a person or a program asks for. Times in seconds."""

    input: dict[str, Any]
    priority: Priority = Priority.NORMAL
    run_at: datetime | None = None
    queue: str = "default"
    timeout_s: int | None = None
    queue_deadline_s: int | None = None
    total_deadline_s: int | None = None
    # Of the run and all that descend from it.
    budget_s: int | None = None
    retry: dict[str, Any] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    # Labels that the worker must have, besides those that the version asks for.
    requires: dict[str, str] = field(default_factory=dict)
    # Runs of one key run one at a time, or as many as a limit over the key says.
    concurrency_key: str = ""
    depends_on: tuple[Need, ...] = ()
