"""Accepting runs. What is accepted is stored, with its event and audit entry, before it is said."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
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
from apps.core import clock, doorbell, sql, tracing
from apps.core.errors import AosError, Invalid, NotFound
from apps.core.models import uuid7
from apps.events.services import outbox
from apps.identity import policy
from apps.identity.actor import Actor
from apps.projects.models import Project
from apps.runs.errors import AgentNotReleased, KeyBusy, KeyReused
from apps.runs.models import IdempotencyKey, Run
from apps.runs.services import inputs, lifecycle
from apps.runs.services.leadership import SQL
from apps.runs.types import Priority, RunState, TaskSpec
from apps.sandboxes.services import environments

LONGEST_RUN: Final = timedelta(hours=24)
_DEFAULT_TIMEOUT_S: Final = 300
_STORED: Final = (
    *("public_id", "organization_id", "project_id", "agent_version_id", "submitted_by_id"),
    *("rerun_of_id", "name", "queue", "priority", "spec", "retry", "labels", "trace", "trace_id"),
    *("run_at", "queue_deadline", "timeout_s"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """An accepted run; ``replayed`` when the same request had been accepted before."""

    run: Run
    replayed: bool


@transaction.atomic
def submit(
    *, by: Actor, project: Project, agent: Agent, task: TaskSpec, key: str | None = None
) -> Submission:
    """Accept a task for an agent's current version.

    With ``key`` (an Idempotency-Key) a repetition returns the run it made the first time. Raises
    ``Invalid`` naming field and rule, ``AgentNotReleased``, ``KeyReused``, ``KeyBusy``,
    ``NotAllowed``; then nothing was changed.
    """
    _require(by, "run.submit", project=project, agent=agent)
    version = _version(agent, project)
    fingerprint = _fingerprint(project.pk, agent.pk, asdict(task))
    if key and (earlier := _remember(by, key, fingerprint)):
        return Submission(run=earlier, replayed=True)
    files = inputs.resolve(project, version.spec, task.input)
    run = _accept(by=by, project=project, version=version, task=task, files=files)
    if key:
        _bind(by, key, run)
    return Submission(run=run, replayed=False)


@transaction.atomic
def submit_many(
    *, by: Actor, project: Project, agent: Agent, tasks: Sequence[TaskSpec]
) -> list[Run | AosError]:
    """Accept many tasks for an agent's current version in one transaction and one audit entry.

    What is wrong with a task refuses that task alone: its place in the list holds the error. Raises
    as ``submit`` does for what concerns all of them.
    """
    _require(by, "run.submit", project=project, agent=agent)
    version = _version(agent, project)
    results: list[Run | AosError] = []
    for task in tasks:
        try:
            files = inputs.resolve(project, version.spec, task.input)
            results.append(
                _new_run(by=by, project=project, version=version, task=task, files=files)
            )
        except Invalid as error:
            results.append(error)
    if runs := [result for result in results if isinstance(result, Run)]:
        _store(runs, by=by, slug=agent.slug)
        outbox.audit(
            by.ref,
            "run.submit_many",
            resource_type="project",
            resource_id=project.pk,
            detail={
                "agent": agent.slug,
                "version": version.number,
                "project": project.slug,
                "count": len(runs),
                "runs": [str(run.public_id) for run in runs],
            },
        )
    return results


@transaction.atomic
def rerun(*, by: Actor, run: Run, key: str | None = None) -> Submission:
    """Start a run over as a new one: the same input and files, the agent's current version."""
    agent = run.agent_version.agent
    _require(by, "run.rerun", project=run.project, agent=agent)
    version = _version(agent, run.project)
    fingerprint = _fingerprint("rerun", run.pk)
    if key and (earlier := _remember(by, key, fingerprint)):
        return Submission(run=earlier, replayed=True)
    task = TaskSpec(
        input=run.spec["input"],
        priority=Priority(run.priority),
        queue=run.queue,
        timeout_s=run.timeout_s,
        retry=run.retry,
        labels=run.labels,
    )
    inputs.check(version.spec, task.input)
    again = _accept(
        by=by,
        project=run.project,
        version=version,
        task=task,
        files=run.spec["files"],
        rerun_of=run,
    )
    if key:
        _bind(by, key, again)
    return Submission(run=again, replayed=False)


def check(*, project: Project, agent: Agent, task: TaskSpec) -> None:
    """Raise what ``submit`` would raise about the task itself; change nothing."""
    version = _version(agent, project)
    _given(project, version)
    inputs.resolve(project, version.spec, task.input)
    _retry(task.retry, version)
    _timeout_s(task, version)


def may_run(by: Actor, *, project_id: UUID, agent_id: UUID, action: str = "run.submit") -> bool:
    """Whether the actor's roles let them run this agent in this project.

    A role over the agent is none in the project: where its runs go, one has to belong already.
    """
    return policy.allows(by, action, project_id=project_id, agent_id=agent_id) and policy.allows(
        by, "project.read", project_id=project_id
    )


def _require(by: Actor, action: str, *, project: Project, agent: Agent) -> None:
    policy.require_scope(by, action)
    if not may_run(by, project_id=project.pk, agent_id=agent.pk, action=action):
        policy.refuse(by, action, project_id=project.pk)


def _version(agent: Agent, project: Project) -> AgentVersion:
    if agent.organization_id != project.organization_id:
        raise NotFound(what="agent", ref=agent.slug)
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
) -> Run:
    run = _new_run(
        by=by, project=project, version=version, task=task, files=files, rerun_of=rerun_of
    )
    slug = version.agent.slug
    _store([run], by=by, slug=slug)
    outbox.audit(
        by.ref,
        "run.rerun" if rerun_of else "run.submit",
        resource_type="run",
        resource_id=run.public_id,
        detail={"agent": slug, "version": version.number, "project": project.slug},
    )
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
    return Run(
        organization_id=project.organization_id,
        project=project,
        agent_version=version,
        submitted_by=by.user,
        rerun_of=rerun_of,
        name=f"{slug}: {files[0]['name']}"[:200] if files else slug,
        queue=task.queue,
        priority=task.priority,
        spec={"input": task.input, "files": list(files)} | _given(project, version),
        retry=_retry(task.retry, version),
        labels=task.labels,
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


def _store(runs: Sequence[Run], *, by: Actor, slug: str) -> None:
    """Write the runs, queue them, and say so in their logs and their project, in one round trip."""
    now = clock.now()
    line = {"state": RunState.QUEUED, "by": by.user.username}
    news = {"agent": slug, "by": by.user.username}
    rows = [
        {name: getattr(run, name) for name in _STORED}
        | {
            "place": place,
            "due_at": run.run_at if run.run_at and run.run_at > now else None,
            "event_id": uuid7(),
            "line": line,
            "news": news | {"title": run.name, "run_url": _url(run)},
        }
        for place, run in enumerate(runs)
    ]
    stored = sql.fetch(SQL["accept"], {"runs": json.dumps(rows, default=str)})
    found = {row["public_id"]: row for row in stored}
    for run in runs:
        row = found[run.public_id]
        run.pk, run.created_at = row["id"], row["created_at"]
    doorbell.ring_on_commit(doorbell.ENGINE)
    lifecycle.tell_on_commit([run.public_id for run in runs])


def _url(run: Run) -> str:
    return f"{settings.AOS_PUBLIC_URL}/runs/{run.public_id}"


def _given(project: Project, version: AgentVersion) -> dict[str, Any]:
    """The environment the version names, as it is now; raise ``EnvironmentUnknown``."""
    return environments.given(project, version.spec.get("sandbox", {}))


def _timeout_s(task: TaskSpec, version: AgentVersion) -> int:
    wanted = task.timeout_s or version.spec.get("timeout_s", _DEFAULT_TIMEOUT_S)
    if not 1 <= wanted <= LONGEST_RUN.total_seconds():
        limit = int(LONGEST_RUN.total_seconds())
        raise Invalid([{"field": "timeout_s", "rule": f"must be from 1 to {limit}"}])
    return int(wanted)


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


def _remember(by: Actor, key: str, fingerprint: str) -> Run | None:
    """Note the key; return the run of an earlier, equal request.

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
    return stored.run


def _bind(by: Actor, key: str, run: Run) -> None:
    IdempotencyKey.objects.filter(
        organization_id=by.user.organization_id, user_id=by.user.pk, key=key
    ).update(run=run)
