"""Two organizations with something of everything: one that asks, and one that must stay unseen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from django.db import connection

from apps.identity.actor import Actor
from apps.identity.matrix import SCOPES
from apps.identity.models import ApiToken, Organization, User
from apps.identity.services import proposals, tokens
from apps.identity.types import Role
from apps.projects.models import Project
from apps.runs.kin_models import ChildRun
from apps.runs.models import Run
from apps.runs.services import limits
from tests.factories import (
    make_agent,
    make_agent_version,
    make_binding,
    make_bulk_act,
    make_department,
    make_environment,
    make_file,
    make_organization,
    make_project,
    make_run,
    make_schedule,
    make_service_account,
    make_token,
    make_user,
    unwatched,
)
from tests.support.stand_in import StandIn, artifact

CANARY = "zvqforeign"
_SPEC = {
    "entry": "main.py",
    "files": {"main.py": "print('hello')\n"},
    "input_schema": {
        "type": "object",
        "properties": {
            "file": {"type": "string", "format": "aos-file"},
            "word": {"type": "string"},
            "times": {"type": "integer"},
        },
    },
}


@dataclass(kw_only=True)
class World:
    """Everything that belongs to one organization, by the names that requests call it."""

    organization: Organization
    people: dict[Role, User]
    project: Project
    words: dict[str, list[str]]

    def token(self, role: Role) -> str:
        """A token with every scope, which no request of the campaign knows the id of."""
        return make_token(self.people[role])


def make_world(word: str) -> World:
    organization = make_organization(slug=f"{word}-org", name=f"{word} org")
    people = {
        role: make_user(role=role, organization=organization, username=f"{word}-{role}")
        for role in Role
    }
    project = make_project(
        organization=organization, slug=f"{word}-project", name=f"{word} project"
    )
    agent = make_agent(
        organization=organization, slug=f"{word}-agent", title=f"{word} agent", spec=_SPEC
    )
    make_agent_version(agent=agent, released=False, spec=_SPEC | {"requires": {"gpu": "true"}})
    make_file(project, name=f"{word}.csv", content=b"a,b\n1,2\n")
    by = Actor(user=people[Role.OPERATOR])

    def submit() -> Run:
        return make_run(project=project, agent=agent, by=by, labels={"team": word})

    done, failed, running, waiting = (submit() for _ in range(4))
    make_run(project=project, agent=agent, by=by, requires={"gpu": "true"})
    for run in (done, failed, running):
        stand_in = StandIn(run)
        stand_in.milestone(f"{word} milestone", 0.5)
        stand_in.log(f"{word} log line")
        if run == done:
            stand_in.succeed(
                word, artifacts=[artifact("report.md", word.encode(), "text/markdown")]
            )
        elif run == failed:
            stand_in.fail("command_failed", f"{word} failed")
    child = submit()
    with unwatched():
        ChildRun.objects.create(
            run=child, parent=waiting, root=waiting, depth=1, on_parent_end="leave"
        )
    # Others than those who ask: who takes rights away from himself would ask no further.
    guest = make_user(organization=organization, username=f"{word}-guest")
    robot = make_service_account(organization=organization, username=f"{word}-robot")
    crew = make_department(guest, organization=organization)
    bindings = [make_binding(each, Role.VIEWER, project) for each in (guest, robot, crew)]
    schedule = make_schedule(project=project, agent=agent, by=by, name=f"{word} schedule")
    environment = make_environment(organization=organization, name=f"{word}-environment")
    owner = Actor(user=people[Role.OWNER])
    act = make_bulk_act(by=owner, project=project)
    proposal = proposals.propose(by=owner, user=guest)
    lock = f"{word}-lock"
    limits.put(by=owner, about=limits.of_key(organization.pk, lock), cap=3)
    spare = [_spare_token(person) for person in people.values()]
    return World(
        organization=organization,
        people=people,
        project=project,
        words={
            "run_id": [str(run.public_id) for run in (done, failed, running, waiting)],
            "parent": [str(waiting.public_id), str(done.public_id)],
            "root": [str(waiting.public_id)],
            "project": [project.slug, str(project.pk)],
            "agent": [agent.slug, str(agent.pk)],
            "number": ["1", "2"],
            "queue": ["default"],
            "priority": ["normal", "urgent"],
            "name": ["report.md"],
            "user": [str(guest.pk), guest.username, str(robot.pk), robot.username],
            "department_id": [str(crew.pk)],
            "binding_id": [str(binding.pk) for binding in bindings],
            "schedule_id": [str(schedule.pk)],
            "environment_id": [str(environment.pk)],
            "act_id": [str(act.pk)],
            "proposal_id": [str(proposal.pk)],
            "key": [lock],
            "token_id": [str(token.pk) for token in spare],
        },
    )


def _spare_token(person: User) -> ApiToken:
    token, _ = tokens.issue(by=Actor(user=person), name="spare", scopes=SCOPES)
    return token


def digest(
    *, without: frozenset[str] = frozenset(), organization: UUID | None = None
) -> dict[str, tuple[int, str]]:
    """How many rows each table has, and a sum over what is in them; of one organization, or all."""
    with connection.cursor() as cursor:
        cursor.execute(_TABLES, {"column": "organization_id" if organization else None})
        tables = sorted(name for (name,) in cursor.fetchall() if name not in without)
        found = {}
        for table in tables:
            where = "WHERE organization_id = %(organization)s" if organization else ""
            cursor.execute(_SUM.format(table=table, where=where), {"organization": organization})
            found[table] = cursor.fetchone()
    assert len(found) > 8
    return found


_TABLES: Final = """
    SELECT table_name FROM information_schema.tables AS t
    WHERE table_schema = 'public' AND table_type = 'BASE TABLE'
      AND (%(column)s::text IS NULL OR EXISTS (
        SELECT FROM information_schema.columns AS c
        WHERE (c.table_schema, c.table_name) = (t.table_schema, t.table_name)
          AND c.column_name = %(column)s))
"""
_SUM: Final = """
    SELECT count(*), coalesce(md5(string_agg(md5(row::text), '' ORDER BY md5(row::text))), '')
    FROM "{table}" AS row {where}
"""
