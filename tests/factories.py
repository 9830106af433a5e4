"""Plain functions that make valid rows. Name only what the test is about.

The cast: Olivia owns, Adam administers, Oscar operates, Vera views; Sam is a stranger from another
organization.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any
from uuid import uuid4

from django.contrib.auth.hashers import make_password
from django.db import connection, transaction

from apps.agents.models import Agent, AgentVersion
from apps.agents.types import VersionState
from apps.core import blobs, clock
from apps.identity.actor import Actor
from apps.identity.matrix import SCOPES
from apps.identity.models import Binding, Department, Organization, User
from apps.identity.services import tokens
from apps.identity.types import Role, Scope, UserKind
from apps.projects.models import Project
from apps.projects.services import files
from apps.runs.fleet_models import WorkerNode
from apps.runs.models import Artifact, BulkAct, Run, Schedule
from apps.runs.services import bulk, fleet, lifecycle, schedules, submission
from apps.runs.types import BulkVerb, Failure, RunFilter, RunState, TaskSpec, Timing
from apps.sandboxes.models import Environment, Sandbox
from apps.sandboxes.services import environments, tracking
from apps.sandboxes.types import Recipe

_serial = count(1)


@contextmanager
def unwatched() -> Iterator[None]:
    """Rows that a test lays out are nobody's act: PostgreSQL is told not to ask for an audit entry.

    Holds for the transaction, which in a test without commits is the whole test. Those about the
    watching itself commit, and lay nothing out in the transaction they look at.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT set_config('aos.audited', pg_current_xact_id()::text, true)")
        yield


HELLO = {"entry": "main.py", "files": {"main.py": "print('hello')\n"}}


@unwatched()
def make_organization(**fields: Any) -> Organization:
    number = next(_serial)
    return Organization.objects.create(
        **{"slug": f"org-{number}", "name": f"Organization {number}"} | fields
    )


@unwatched()
def make_user(
    *,
    role: Role | None = None,
    organization: Organization | None = None,
    project: Project | None = None,
    **fields: Any,
) -> User:
    """A person; with ``role`` bound over the organization, or over ``project`` only."""
    home = organization or (project.organization if project else make_organization())
    user = User.objects.create(
        **{"username": f"user-{next(_serial)}", "organization": home} | fields
    )
    if role:
        Binding.objects.create(
            organization=home,
            user=user,
            role=role,
            scope=Scope.PROJECT if project else Scope.ORGANIZATION,
            scope_id=project.pk if project else home.pk,
        )
    return user


def make_service_account(*, role: Role | None = None, **fields: Any) -> User:
    return make_user(role=role, kind=UserKind.SERVICE, password=make_password(None), **fields)


@unwatched()
def make_department(*members: User, organization: Organization | None = None) -> Department:
    home = organization or (members[0].organization if members else make_organization())
    department = Department.objects.create(organization=home, name=f"Department {next(_serial)}")
    department.members.set(members)
    return department


@unwatched()
def make_binding(
    subject: User | Department, role: Role, over: Any = None, **fields: Any
) -> Binding:
    """A role over the subject's organization, or over a project, an agent or a run."""
    holder = "user" if isinstance(subject, User) else "department"
    scope_id = getattr(over, "public_id", None) or (over.pk if over else subject.organization_id)
    where = {
        "scope": Scope(over._meta.model_name) if over else Scope.ORGANIZATION,
        "scope_id": scope_id,
    }
    return Binding.objects.create(
        organization=subject.organization, role=role, **{holder: subject} | where | fields
    )


def make_actor(role: Role = Role.OWNER, **fields: Any) -> Actor:
    return Actor(user=make_user(role=role, **fields))


@unwatched()
def make_project(**fields: Any) -> Project:
    number = next(_serial)
    fields["organization"] = fields.get("organization") or make_organization()
    return Project.objects.create(
        **{"slug": f"project-{number}", "name": f"Project {number}"} | fields
    )


@unwatched()
def make_agent(
    *, spec: dict[str, Any] | None = None, released: bool = True, **fields: Any
) -> Agent:
    number = next(_serial)
    fields["organization"] = fields.get("organization") or make_organization()
    agent = Agent.objects.create(
        **{"slug": f"agent-{number}", "title": f"Agent {number}", "kind": "script"} | fields
    )
    version = make_agent_version(agent=agent, spec=spec or HELLO, released=released)
    if released:
        agent.current = version
        agent.save(update_fields=["current"])
    return agent


@unwatched()
def make_agent_version(
    *, agent: Agent, spec: dict[str, Any] | None = None, released: bool = True
) -> AgentVersion:
    return AgentVersion.objects.create(
        agent=agent,
        number=agent.versions.count() + 1,
        spec=spec or HELLO,
        state=VersionState.RELEASED if released else VersionState.DRAFT,
        released_at=clock.now() if released else None,
    )


def make_run(
    *,
    project: Project | None = None,
    agent: Agent | None = None,
    by: Actor | None = None,
    **task: Any,
) -> Run:
    """A submitted run, through the service: queued, with its ready row and its outbox entry."""
    project = project or make_project()
    agent = agent or make_agent(organization=project.organization)
    by = by or make_actor(organization=project.organization)
    return submission.submit(
        by=by, project=project, agent=agent, task=TaskSpec(**{"input": {}} | task)
    ).run


def make_dead_run(*, code: str = "queue_deadline_passed", **task: Any) -> Run:
    """A run that ended in a way nobody wanted, and left its letter."""
    run = make_run(**task)
    why = Failure(code=code, detail="Nobody was there to do it.")
    with transaction.atomic():
        lifecycle.close(lifecycle.lock(run.pk), RunState.EXPIRED, failure=why)
    run.refresh_from_db()
    return run


def make_schedule(
    *,
    project: Project | None = None,
    agent: Agent | None = None,
    by: Actor | None = None,
    name: str = "",
    task: TaskSpec | None = None,
    **timing: Any,
) -> Schedule:
    """A schedule, through the service."""
    project = project or make_project()
    return schedules.create(
        by=by or make_actor(Role.OPERATOR, organization=project.organization),
        project=project,
        agent=agent or make_agent(organization=project.organization),
        name=name or f"schedule-{next(_serial)}",
        timing=Timing(**{"cron": "0 7 * * *"} | timing),
        task=task or TaskSpec(input={}),
    )


def make_environment(
    *,
    project: Project | None = None,
    organization: Organization | None = None,
    by: Actor | None = None,
    name: str = "",
    **recipe: Any,
) -> Environment:
    """An environment of a project or of an organization, through the service."""
    home = organization or (project.organization if project else make_organization())
    return environments.create(
        by=by or make_actor(Role.ADMIN, organization=home),
        name=name or f"environment-{next(_serial)}",
        project=project,
        recipe=Recipe(**recipe),
    )


def make_sandbox(
    run: Run | None = None,
    *,
    host: str = "laptop",
    is_paused: bool = False,
    kept: int | None = None,
) -> Sandbox:
    """A sandbox as a worker records it: of the run's attempt, or warm without one. ``kept`` is the size of
    the workspace that was put away."""
    use = run and tracking.Use(
        organization_id=run.organization_id,
        project_id=run.project_id,
        run_id=run.public_id,
        attempt=1,
    )
    make = tracking.Make(driver="docker", isolation="docker", image="i", profile="base", mould="m")
    holder = tracking.Holder(worker=f"worker@{host}", host=host, incarnation=uuid4())
    made = tracking.opening(make, holder, use)
    assert tracking.opened(made, container_id="c", image="sha256:1")
    if is_paused or kept is not None:
        assert tracking.paused(made.pk)
    if kept is not None:
        away = tracking.Kept(
            sha256="ab" * 32, snapshot_size=kept, snapshot_files=3, snapshot_left_out=1
        )
        assert tracking.put_away(made.pk, away)
    made.refresh_from_db()
    return made


def make_bulk_act(
    *,
    by: Actor,
    verb: BulkVerb = BulkVerb.CANCEL,
    project: Project | None = None,
    error: str | None = None,
    **more: Any,
) -> BulkAct:
    """An act on the runs that are there, through the service."""
    wanted = RunFilter(project_id=project.pk if project else None, error=error)
    return bulk.begin(by=by, verb=verb, wanted=wanted, **more)[0]


def make_worker(**fields: Any) -> WorkerNode:
    return fleet.join(
        **{"name": f"worker-{next(_serial)}@test", "host": "test", "pid": 1, "slots": 4} | fields
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast:
    """The people that every test of a face knows."""

    organization: Organization
    olivia: User
    adam: User
    oscar: User
    vera: User
    sam: User


def make_cast() -> Cast:
    home = make_organization()
    members = {
        name: make_user(role=role, organization=home, username=f"{name}-{next(_serial)}")
        for name, role in (
            ("olivia", Role.OWNER),
            ("adam", Role.ADMIN),
            ("oscar", Role.OPERATOR),
            ("vera", Role.VIEWER),
        )
    }
    sam = make_user(role=Role.OWNER, username=f"sam-{next(_serial)}")
    return Cast(organization=home, sam=sam, **members)


def make_file(project: Project, *, name: str = "data.csv", content: bytes = b"a,b\n") -> Any:
    by = make_actor(organization=project.organization)
    return files.put(by=by, project=project, name=name, chunks=[content])


def make_artifact(run: Run, *, name: str = "report.md", content: bytes = b"# Report\n") -> Artifact:
    blob = blobs.put([content], limit=10_000_000)
    return Artifact.objects.create(
        run=run, name=name, sha256=blob.sha256, size=blob.size, media_type="text/markdown"
    )


def make_token(user: User, *scopes: str) -> str:
    """The value of a token with these scopes, all of them when none is named."""
    _, value = tokens.issue(by=Actor(user=user), name="test", scopes=scopes or SCOPES)
    return value
