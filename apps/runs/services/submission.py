"""Accepting runs. What is accepted is stored, with its event and audit entry, before it is said."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from django.conf import settings
from django.db import OperationalError, connection, transaction
from django.db.models.functions import Now
from psycopg import errors as pg

from apps.agents.models import Agent, AgentVersion
from apps.agents.types import RETRY_SCHEMA
from apps.core import clock, doorbell, failpoints, labels, memory, sql, tracing
from apps.core.errors import AosError, Invalid, NotFound
from apps.core.failpoints import Place
from apps.core.models import uuid7
from apps.events.models import AuditEntry
from apps.events.services import outbox
from apps.identity import policy
from apps.identity.actor import Actor
from apps.projects.models import Project
from apps.runs.errors import AgentNotReleased, KeyBusy, KeyReused, QueueFull
from apps.runs.models import IdempotencyKey, Run
from apps.runs.services import backlog, budgets, dependencies, inputs, kin, letters, lifecycle
from apps.runs.services.kin import Bond
from apps.runs.services.leadership import SQL
from apps.runs.types import Priority, RunState, TaskSpec
from apps.sandboxes.services import environments

LONGEST_RUN: Final = timedelta(hours=24)
_DEFAULT_TIMEOUT_S: Final = 300
_STORED: Final = (
    *("public_id", "organization_id", "project_id", "agent_version_id", "submitted_by_id"),
    *("rerun_of_id", "name", "queue", "priority", "spec", "retry", "labels", "concurrency_key"),
    *("trace", "trace_id", "run_at", "queue_deadline", "timeout_s", "requires", "pool_gate"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """An accepted run; ``replayed`` when the same request had been accepted before."""

    run: Run
    replayed: bool


@transaction.atomic
def submit(
    *,
    by: Actor,
    project: Project,
    agent: Agent,
    task: TaskSpec,
    key: str | None = None,
    under: Bond | None = None,
) -> Submission:
    """Accept a task for an agent's current version; ``under`` makes it a child (see ``children``).

    With ``key`` (an Idempotency-Key) a repetition returns the run it made the first time. Raises
    ``Invalid`` naming field and rule, ``AgentNotReleased``, ``KeyReused``, ``KeyBusy``,
    ``NotAllowed``; then nothing was changed.
    """
    _require(by, "run.submit", project=project, agent=agent)
    version = _version(agent, project)
    fingerprint = _fingerprint(project.pk, agent.pk, asdict(task), *_words(under))
    if key and (earlier := _remember(by, key, fingerprint)):
        return Submission(run=earlier, replayed=True)
    files = inputs.resolve(project, version.spec, task.input)
    run = _accept(by=by, project=project, version=version, task=task, files=files, under=under)
    if key:
        _bind(by, key, run)
    return Submission(run=run, replayed=False)


@transaction.atomic
def submit_version(
    *,
    by: Actor,
    project: Project,
    version: AgentVersion,
    task: TaskSpec,
    key: str | None = None,
    under: Bond | None = None,
) -> Submission:
    """Accept a task for one version of an agent, released or not: to try it before all use it.

    Whoever may only submit gets the current version, so this needs the right to manage the agent as
    well. The run is like any other. Raises what ``submit`` raises.
    """
    agent = version.agent
    _require(by, "run.submit", project=project, agent=agent)
    policy.require(by, "agent.manage", agent_id=agent.pk)
    _require_own(agent, project)
    fingerprint = _fingerprint("version", project.pk, version.pk, asdict(task), *_words(under))
    if key and (earlier := _remember(by, key, fingerprint)):
        return Submission(run=earlier, replayed=True)
    files = inputs.resolve(project, version.spec, task.input)
    run = _accept(by=by, project=project, version=version, task=task, files=files, under=under)
    if key:
        _bind(by, key, run)
    return Submission(run=run, replayed=False)


def submit_many(
    *, by: Actor, project: Project, agent: Agent, tasks: Sequence[TaskSpec]
) -> list[Run | AosError]:
    """Accept many tasks for an agent's current version in one transaction and one audit entry.

    What is wrong with a task refuses that task alone: its place in the list holds the error. Raises
    as ``submit`` does for what concerns all of them.
    """
    _require(by, "run.submit", project=project, agent=agent)
    _version(agent, project)
    wanted = [Wanted(project=project, agent=agent, task=task) for task in tasks]
    with transaction.atomic():
        return _admit(by, wanted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One of many tasks that are submitted together."""

    project: Project
    agent: Agent
    task: TaskSpec
    # Makes it a child; the caller has made sure that it may be one (see ``children``).
    under: Bond | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of one of many tasks: the run it made, or why it made none."""

    run_id: UUID | None = None
    name: str = ""
    refusal: dict[str, Any] | None = None

    @classmethod
    def of(cls, result: Run | AosError) -> Verdict:
        if isinstance(result, Run):
            return cls(run_id=result.public_id, name=result.name)
        return cls(
            refusal={
                "code": result.code,
                "title": result.title,
                "detail": str(result),
                "status": int(result.status),
                "params": result.params,
            }
        )

    def as_json(self) -> dict[str, Any]:
        run_id = str(self.run_id) if self.run_id else None
        return {"run_id": run_id, "name": self.name, "refusal": self.refusal}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Verdict:
        run_id = stored["run_id"]
        return cls(**stored | {"run_id": UUID(run_id) if run_id else None})


@dataclass(frozen=True, slots=True, kw_only=True)
class Bulk:
    """The verdicts on many tasks, in their order; ``replayed`` when they had been given before."""

    verdicts: Sequence[Verdict]
    replayed: bool


@transaction.atomic
def submit_bulk(*, by: Actor, wanted: Sequence[Wanted | AosError], key: str, body: object) -> Bulk:
    """Accept many tasks, for agents and projects of all kinds, in one transaction.

    Each is accepted or refused by itself; an error that is handed in is the refusal of its place. With
    the same ``key`` the same ``body`` gets the same verdicts. Raises ``KeyReused`` and ``KeyBusy``.
    """
    if (earlier := recall(by, key, body)) is not None:
        verdicts = [Verdict.from_json(stored) for stored in earlier["verdicts"]]
        return Bulk(verdicts=verdicts, replayed=True)
    verdicts = [Verdict.of(result) for result in _admit(by, wanted)]
    answer(by, key, {"verdicts": [verdict.as_json() for verdict in verdicts]})
    return Bulk(verdicts=verdicts, replayed=False)


def _admit(by: Actor, wanted: Sequence[Wanted | AosError]) -> list[Run | AosError]:
    """Store what is right of it; what is wrong with a task refuses that task alone."""
    tasks = [each for each in wanted if isinstance(each, Wanted)]
    doors: dict[tuple[UUID, UUID], AosError | None] = {}
    files = inputs.Files()
    needs = dependencies.Needs(by, (each.task for each in tasks))
    brood = kin.Brood([each.under for each in tasks if each.under], also=needs.keys)
    results: list[Run | AosError] = []
    held: list[tuple[Run, Sequence[dependencies.Needed]]] = []
    for each in wanted:
        result = each if isinstance(each, AosError) else _judge(by, each, doors, files)
        if isinstance(each, Wanted) and isinstance(result, Run):
            try:
                needed = needs.of(each.task, results)
                if each.under:
                    brood.adopt(result, each.under)
                if needed:
                    held.append((result, needed))
            except AosError as error:
                result = error
        results.append(result)
    if runs := [result for result in results if isinstance(result, Run)]:
        backlog.require_room(runs[0].organization_id, more=len(runs))
        entries = _entries(by, "run.submit_many", runs, parents=brood.parents)
        _store(runs, by=by, entries=entries)
        brood.tie()
        dependencies.hold(held)
    return results


def _judge(
    by: Actor,
    wanted: Wanted,
    doors: dict[tuple[UUID, UUID], AosError | None],
    files: inputs.Files,
) -> Run | AosError:
    project, agent, task = wanted.project, wanted.agent, wanted.task
    pair = (project.pk, agent.pk)
    if pair not in doors:
        doors[pair] = _door(by, project, agent)
    if (closed := doors[pair]) is not None:
        return closed
    try:
        version = _version(agent, project)
        found = inputs.resolve(project, version.spec, task.input, files=files)
        return _new_run(by=by, project=project, version=version, task=task, files=found)
    except Invalid as error:
        return error


def _door(by: Actor, project: Project, agent: Agent) -> AosError | None:
    """What keeps this person from running this agent in this project, if anything does."""
    try:
        _require(by, "run.submit", project=project, agent=agent)
        _given(project, _version(agent, project))
    except AosError as error:
        return error
    return None


def _entries(
    by: Actor,
    action: str,
    runs: Sequence[Run],
    *,
    parents: Mapping[UUID, UUID] | None = None,
    **more: object,
) -> Sequence[AuditEntry]:
    """One entry for the runs of each agent in each project, and under each parent."""
    groups: dict[tuple[UUID, UUID, UUID | None], list[Run]] = {}
    for run in runs:
        parent = (parents or {}).get(run.public_id)
        groups.setdefault((run.project_id, run.agent_version_id, parent), []).append(run)
    return [
        outbox.entry_of(
            by.ref,
            action,
            resource_type="project",
            resource_id=group[0].project_id,
            detail=_told(group[0])
            | {"count": len(group), "runs": [str(run.public_id) for run in group], **more}
            | ({"parent": str(parent)} if parent else {}),
        )
        for (_, _, parent), group in groups.items()
    ]


def _told(run: Run) -> dict[str, object]:
    version = run.agent_version
    return {"agent": version.agent.slug, "version": version.number, "project": run.project.slug}


def rerun_many(*, by: Actor, runs: Sequence[Run], act: UUID) -> list[Run | AosError]:
    """Start runs over as new ones, in the transaction of the bulk act that names them.

    The caller has made sure that the person may; each run is accepted or refused by itself.
    """
    sql.require_transaction("submission.rerun_many")
    results = [_again(by, run) for run in runs]
    if made := [result for result in results if isinstance(result, Run)]:
        try:
            backlog.require_room(made[0].organization_id, more=len(made))
        except QueueFull as full:
            return [full if isinstance(result, Run) else result for result in results]
        _store(made, by=by, entries=_entries(by, "run.rerun_many", made, act=str(act)))
        letters.settle({run.rerun_of_id: run.pk for run in made if run.rerun_of_id})
    return results


def _again(by: Actor, run: Run) -> Run | AosError:
    try:
        version = _version(run.agent_version.agent, run.project)
        task = _task_of(run)
        inputs.check(version.spec, task.input)
        return _new_run(
            by=by,
            project=run.project,
            version=version,
            task=task,
            files=run.spec["files"],
            rerun_of=run,
        )
    except AosError as error:
        return error


@transaction.atomic
def rerun(*, by: Actor, run: Run, key: str | None = None) -> Submission:
    """Start a run over as a new one: the same input and files, the agent's current version."""
    agent = run.agent_version.agent
    _require(by, "run.rerun", project=run.project, agent=agent)
    version = _version(agent, run.project)
    fingerprint = _fingerprint("rerun", run.pk)
    if key and (earlier := _remember(by, key, fingerprint)):
        return Submission(run=earlier, replayed=True)
    task = _task_of(run)
    inputs.check(version.spec, task.input)
    again = _accept(
        by=by,
        project=run.project,
        version=version,
        task=task,
        files=run.spec["files"],
        rerun_of=run,
    )
    letters.settle({run.pk: again.pk})
    if key:
        _bind(by, key, again)
    return Submission(run=again, replayed=False)


def _task_of(run: Run) -> TaskSpec:
    return TaskSpec(
        input=run.spec["input"],
        priority=Priority(run.priority),
        queue=run.queue,
        timeout_s=run.timeout_s,
        total_deadline_s=run.total_s,
        budget_s=budgets.granted(run),
        retry=run.retry,
        labels=run.labels,
        concurrency_key=run.concurrency_key,
        # What its version asked for then is the new one's to ask.
        requires={
            name: word
            for name, word in (run.requires or {}).items()
            if name not in run.agent_version.spec.get("requires", {})
        },
    )


def check(*, project: Project, agent: Agent, task: TaskSpec) -> None:
    """Raise what ``submit`` would raise about the task itself; change nothing."""
    version = _version(agent, project)
    _given(project, version)
    inputs.resolve(project, version.spec, task.input)
    _retry(task.retry, version)
    _timeout_s(task, version)
    _requires(task, version)


def may_run(by: Actor, *, project_id: UUID, agent_id: UUID, action: str = "run.submit") -> bool:
    """Whether the actor's roles let them run this agent in this project.

    A role over the agent is none in the project: where its runs go, one has to belong already.
    """
    with memory.at_once():
        return policy.allows(
            by, action, project_id=project_id, agent_id=agent_id
        ) and policy.allows(by, "project.read", project_id=project_id)


def _require(by: Actor, action: str, *, project: Project, agent: Agent) -> None:
    policy.require_scope(by, action)
    if not may_run(by, project_id=project.pk, agent_id=agent.pk, action=action):
        policy.refuse(by, action, project_id=project.pk)


def _require_own(agent: Agent, project: Project) -> None:
    if agent.organization_id != project.organization_id or agent.removed_at is not None:
        raise NotFound(what="agent", ref=agent.slug)


def _version(agent: Agent, project: Project) -> AgentVersion:
    _require_own(agent, project)
    if agent.current is None:
        raise AgentNotReleased(agent=agent.slug)
    return agent.current


def _accept(
    *,
    by: Actor,
    project: Project,
    version: AgentVersion,
    task: TaskSpec,
    files: Sequence[dict[str, Any]],
    rerun_of: Run | None = None,
    under: Bond | None = None,
) -> Run:
    run = _new_run(
        by=by, project=project, version=version, task=task, files=files, rerun_of=rerun_of
    )
    needs = dependencies.Needs(by, [task]).of(task)
    drawn = None
    if under:
        kin.inherit(run, under.parent)
        kin.lock(under, also=[on.pk for on, _ in needs])
        drawn = kin.draw(run, under.parent)
    backlog.require_room(run.organization_id, more=1)
    entry = outbox.entry_of(
        by.ref,
        "run.rerun" if rerun_of else "run.submit",
        resource_type="run",
        resource_id=run.public_id,
        detail=_told(run) | ({"parent": str(under.parent.public_id)} if under else {}),
    )
    _store([run], by=by, entries=[entry])
    if under:
        kin.tie(run, under, drawn)
    if needs:
        dependencies.hold([(run, needs)])
    return run


def _new_run(
    *,
    by: Actor,
    project: Project,
    version: AgentVersion,
    task: TaskSpec,
    files: Sequence[dict[str, Any]],
    rerun_of: Run | None = None,
) -> Run:
    slug = version.agent.slug
    trace = tracing.carrier()
    given = _given(project, version)
    requires = _requires(task, version)
    run = Run(
        organization_id=project.organization_id,
        project=project,
        agent_version=version,
        submitted_by=by.user,
        rerun_of=rerun_of,
        name=f"{slug}: {files[0]['name']}"[:200] if files else slug,
        queue=task.queue,
        priority=task.priority,
        spec={"input": task.input, "files": list(files)} | given,
        retry=_retry(task.retry, version),
        labels=task.labels,
        concurrency_key=task.concurrency_key,
        requires=requires or None,
        pool_gate=labels.home_of(project.organization_id, requires),
        trace=trace,
        trace_id=tracing.trace_id_of(trace),
        run_at=task.run_at,
        timeout_s=_timeout_s(task, version),
        queue_deadline=(
            (task.run_at or clock.now()) + timedelta(seconds=task.queue_deadline_s)
            if task.queue_deadline_s
            else None
        ),
    )
    run.total_deadline_s = _total_deadline_s(task, version)
    run.budget_s = task.budget_s
    run.timeout_s = min(run.timeout_s, run.budget_s or run.timeout_s)
    return run


def _store(runs: Sequence[Run], *, by: Actor, entries: Sequence[AuditEntry]) -> None:
    """Write the runs, queue them, and say so in their logs, their project and on record, in one round trip."""
    now = clock.now()
    line = {"state": RunState.QUEUED, "by": by.user.username}
    rows = [
        {name: getattr(run, name) for name in _STORED}
        | {
            "place": place,
            "total_deadline_s": run.total_deadline_s,
            "latest_end": run.latest_end,
            "due_at": run.run_at if run.run_at and run.run_at > now else None,
            "event_id": uuid7(),
            "line": line,
            "news": {
                "agent": run.agent_version.agent.slug,
                "by": by.user.username,
                "title": run.name,
                "run_url": _url(run),
            },
        }
        for place, run in enumerate(runs)
    ]
    told = [outbox.row_of(entry) for entry in entries]
    stored = sql.fetch(
        SQL["accept"],
        {"runs": json.dumps(rows, default=str), "entries": json.dumps(told, default=str)},
    )
    failpoints.hit(Place.STORED)
    found = {row["public_id"]: row for row in stored}
    for run in runs:
        row = found[run.public_id]
        run.pk, run.created_at = row["id"], row["created_at"]
        run.total_deadline = row["total_deadline"]
    budgets.grant(runs)
    doorbell.ring_on_commit(doorbell.ENGINE)
    lifecycle.tell_on_commit([run.public_id for run in runs])


def _url(run: Run) -> str:
    return f"{settings.AOS_PUBLIC_URL}/runs/{run.public_id}"


def _given(project: Project, version: AgentVersion) -> dict[str, Any]:
    """The environment the version names, as it is now; raise ``EnvironmentUnknown``."""
    return environments.given(project, version.spec.get("sandbox", {}))


def _requires(task: TaskSpec, version: AgentVersion) -> dict[str, str]:
    """What version and task require of the worker, together; the task may not gainsay the version."""
    if wrong := labels.fault(task.requires):
        raise Invalid([{"field": "requires", "rule": wrong}])
    together: dict[str, str] = dict(version.spec.get("requires", {}))
    for name, word in task.requires.items():
        if together.setdefault(name, word) != word:
            rule = f"{name} must be {together[name]}, or be left out: the version says so"
            raise Invalid([{"field": "requires", "rule": rule}])
    if wrong := labels.fault(together):
        raise Invalid([{"field": "requires", "rule": f"{wrong}, with those of the version"}])
    return together


def _timeout_s(task: TaskSpec, version: AgentVersion) -> int:
    wanted = task.timeout_s or version.spec.get("timeout_s", _DEFAULT_TIMEOUT_S)
    if not 1 <= wanted <= LONGEST_RUN.total_seconds():
        limit = int(LONGEST_RUN.total_seconds())
        raise Invalid([{"field": "timeout_s", "rule": f"must be from 1 to {limit}"}])
    return int(wanted)


def _total_deadline_s(task: TaskSpec, version: AgentVersion) -> int | None:
    """Seconds within which the run must have ended; the version's, or everybody's, by default."""
    given = task.total_deadline_s or version.spec.get("total_deadline_s")
    return given or int(settings.AOS_TOTAL_DEADLINE.total_seconds()) or None


def _retry(wanted: dict[str, Any], version: AgentVersion) -> dict[str, Any]:
    """The version's policy, overridden by the task's; refused when it makes no sense."""
    merged: dict[str, Any] = version.spec.get("retry", {}) | wanted
    if not wanted:
        return merged  # checked when the version was made
    inputs.require_valid(RETRY_SCHEMA, merged, field="retry")
    return merged


def _fingerprint(*parts: object) -> str:
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _words(under: Bond | None) -> tuple[str, ...]:
    return (str(under.parent.public_id), under.on_parent_end) if under else ()


def _remember(by: Actor, key: str, fingerprint: str) -> Run | None:
    """Note the key; return the run of an earlier, equal request."""
    return _remembered(by, key, fingerprint).run


def _remembered(by: Actor, key: str, fingerprint: str) -> IdempotencyKey:
    """Note the key; return what is known under it: nothing yet, or what an equal request was told.

    The insert comes first in the transaction: a second caller waits on the unique index until the
    first has committed, and then replays. A crash rolls the key back with everything else.
    """
    owner = {"organization_id": by.user.organization_id, "user_id": by.user.pk, "key": key}
    IdempotencyKey.objects.filter(**owner, expires_at__lt=Now()).delete()
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL lock_timeout = '2s'")
    try:
        IdempotencyKey.objects.bulk_create(
            [
                IdempotencyKey(
                    **owner,
                    fingerprint=fingerprint,
                    expires_at=clock.now() + settings.AOS_IDEMPOTENCY_TTL,
                )
            ],
            ignore_conflicts=True,
        )
    except OperationalError as error:
        if isinstance(error.__cause__, pg.LockNotAvailable):
            raise KeyBusy from error
        raise
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL lock_timeout = DEFAULT")
    stored = IdempotencyKey.objects.select_related("run").get(**owner)
    if stored.fingerprint != fingerprint:
        raise KeyReused
    return stored


def _bind(by: Actor, key: str, run: Run) -> None:
    IdempotencyKey.objects.filter(
        organization_id=by.user.organization_id, user_id=by.user.pk, key=key
    ).update(run=run)


def recall(by: Actor, key: str, request: object) -> dict[str, Any] | None:
    """Note the key of a request; return what an earlier, equal one was answered, if there was one.

    Raises ``KeyReused`` and ``KeyBusy``. What is told the caller goes to ``answer``.
    """
    earlier: dict[str, Any] | None = _remembered(by, key, _fingerprint("many", request)).answer
    return earlier


def answer(by: Actor, key: str, told: dict[str, Any]) -> None:
    """Keep what a request was answered, in its transaction."""
    IdempotencyKey.objects.filter(
        organization_id=by.user.organization_id, user_id=by.user.pk, key=key
    ).update(answer=told)
