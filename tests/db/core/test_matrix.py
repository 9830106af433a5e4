"""Every endpoint and every page, asked by every kind of person about their own place, another project and
another organization.

The cells come from the URLconf, what should happen from the matrix alone: who holds which role over which
place, and where the thing that is asked for lies. A new address takes part by itself; one that names a new
kind of thing makes the test ask where that lies.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import pytest
from django.db import transaction
from rest_framework.test import APIClient

from apps.agents.models import Agent
from apps.events.models import AuditEntry
from apps.identity.actor import Actor
from apps.identity.matrix import MATRIX, SCOPES
from apps.identity.models import User
from apps.identity.services import tokens
from apps.identity.types import RANK, Role, Scope
from apps.projects.models import Project
from apps.runs.models import RunQuerySet
from apps.runs.services import limits
from tests.architecture.test_urls import apis, pages
from tests.db.core.test_permissions import TABLE, fill, furnish, send, shape
from tests.faces import key, session
from tests.factories import make_binding, make_organization, make_user

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

OWN, BESIDE, ABROAD = "their own place", "another project", "another organization"
HOME = {Scope.ORGANIZATION}
IN_PROJECT = {*HOME, Scope.PROJECT}
ON_RUN = {*IN_PROJECT, Scope.AGENT, Scope.RUN}
# Where the thing lies that a parameter of an address names: over what a role has to be to reach it.
LIES = {
    "run_id": ON_RUN,
    "public_id": ON_RUN,
    "project": IN_PROJECT,
    "project_id": IN_PROJECT,
    "schedule_id": IN_PROJECT,
    "act_id": IN_PROJECT,
    "environment_id": IN_PROJECT,
    "agent": ON_RUN,
    "agent_id": ON_RUN,
    "user": HOME,
    "user_id": HOME,
    "department_id": HOME,
    "binding_id": HOME,
    "entry_id": HOME,
    "proposal_id": HOME,
    # Somebody else's own: nobody else sees it.
    "sign_in_id": set(),
    "token_id": set(),
}
# Further names in an address, of things that the ones above hold.
PARTS = {"number": "1", "name": "report.md", "queue": "default", "priority": "normal", "key": "k"}
# Except on the pages about other people.
MINE_ELSEWHERE = "access/"
# Shown to everybody with a role anywhere in the organization.
SHOWN_TO_ALL = {"agent", "agent_id"}
# A run goes to a project, so the role has to reach that, whatever it reaches besides.
MAKES_A_RUN = {"run.submit", "run.rerun", "run.requeue"}
# Acts that change nothing where they are tried, so that they leave no entry.
IDLE = {
    "schedules/<uuid:schedule_id>/resume",
    "runs/bulk/<uuid:act_id>/proceed",
    "queue/agent",
    "queue/retention",
    "integrations/sandboxes/environments/<uuid:environment_id>/clone",
    # The agents there have runs that are not over.
    "integrations/sandboxes/scripts/<uuid:agent_id>/remove",
}
# About runs that ended badly.
DEAD = ("/requeue", "/dismiss")
# Answers for each place in its body: tests/db/runs/test_bulk_api.py.
BY_PLACE = {"api/runs/bulk"}

# Pages that do not exist for those who may not open them.
HIDDEN = ("welcome",)

THROUGH, REFUSED, MISSING = "let through", "refused", "missing"


@dataclass(frozen=True)
class Person:
    user: User
    role: Role | None = None
    over: Scope | None = None

    def __str__(self) -> str:
        return f"{self.role or 'nobody'} over {self.over or 'nothing'}"

    def holds(self, action: str) -> bool:
        rule = MATRIX[action]
        high_enough = self.role is not None and RANK[self.role] >= RANK[rule.role]
        return high_enough and self.over in rule.over

    def reaches(self, lies: set[Scope], where: str) -> bool:
        at_home = self.over == Scope.ORGANIZATION and where != ABROAD
        return self.over in lies and (at_home or where == OWN)


@dataclass(frozen=True)
class Question:
    """An address with a method, about one thing of one place."""

    method: str
    route: str
    action: Any
    where: str
    names: str | None

    def expected(self, person: Person, *, asked_at_the_door: bool) -> str:
        if asked_at_the_door and not person.holds(self.action):
            return REFUSED
        if self.names is None:
            return THROUGH if self._allowed(person, HOME) else REFUSED
        shown = self.names in SHOWN_TO_ALL and self.where != ABROAD and person.role
        if not shown and not person.reaches(self._lies, self.where):
            return MISSING
        return THROUGH if self._allowed(person, self._lies) else REFUSED

    @property
    def _lies(self) -> set[Scope]:
        assert self.names is not None
        if self.route.startswith(MINE_ELSEWHERE):
            return HOME
        # The dead letter is another run than the one that somebody has a role over.
        return LIES[self.names] - ({Scope.RUN} if self.route.endswith(DEAD) else set())

    def _allowed(self, person: Person, lies: set[Scope]) -> bool:
        if not person.holds(self.action):
            return False
        if MATRIX[self.action].anywhere or self.names is None:
            return True
        needed = IN_PROJECT if self.action in MAKES_A_RUN else lies
        return person.reaches(needed, self.where)


# --- what there is to ask -------------------------------------------------------------------------


def parameters(route: str) -> list[str]:
    return re.findall(r"<(?:\w+:)?(\w+)>", route)


def named(route: str, given: str) -> str | None:
    """The parameter that says whose thing this is about, if it is about one."""
    names = [name for name in parameters(route) if name not in PARTS]
    unknown = [name for name in names if name not in LIES]
    assert not unknown, f"{route}: say in LIES where {unknown} lie"
    if names:
        return names[0]
    return "project" if "demo" in given else None


def endpoints() -> Iterator[tuple[str, str, str, str, Any]]:
    """Method, route, action, and what the table sends: the query and the body."""
    samples = {(method, shape(path)): (path, body) for method, path, body, *_ in TABLE}
    for route, cls in apis():
        if route in BY_PLACE:
            continue
        for method, action in getattr(cls, "actions", {}).items():
            path, body = samples[method, shape(f"/{route}")]
            yield method, route, action, path.partition("?")[2], body


def place(target: dict[str, Any], route: str) -> str:
    """The address of the target's thing."""
    run = target["dead" if route.endswith(DEAD) else "run"]
    ids = {
        "run_id": run,
        "public_id": run,
        "project": target["project"],
        "project_id": target["project"],
        "schedule_id": target["schedule"],
        "act_id": target["bulk"],
        "environment_id": target["environment"],
        "agent": target["agent"],
        "agent_id": target["agent"],
        "user": target["account" if "service-accounts" in route else "person"],
        "user_id": target["account" if route.endswith("/tokens") else "person"],
        "department_id": target["department"],
        "binding_id": target["binding"],
        "token_id": target["token"],
        "entry_id": target["entry"],
        "proposal_id": target["proposal"],
        "sign_in_id": uuid4(),
    } | PARTS
    return "/" + re.sub(r"<(?:\w+:)?(\w+)>", lambda name: str(ids[name[1]]), route)


def about(text: str, target: dict[str, Any]) -> str:
    """A query or a body about the target's project and agent."""
    return text.replace("demo", str(target["project"])).replace("hello", str(target["agent"]))


# --- who asks -------------------------------------------------------------------------------------


@pytest.fixture
def home():
    return make_organization()


@pytest.fixture
def targets(home):
    """One of each thing in the place people are bound to, beside it, and abroad; and one nowhere."""
    found = {
        OWN: furnish(home),
        BESIDE: furnish(home, project="demo-2", agent="hello-2"),
        ABROAD: furnish(make_organization()),
    }
    for where, target in found.items():
        owner = User.objects.get(pk=target["person"])
        entry = AuditEntry.objects.filter(organization_id=owner.organization_id).first()
        _limit(owner, target)
        target["entry"] = entry.pk if entry else f"{where} has no entry"
    return found


def _limit(owner: User, target: dict[str, Any]) -> None:
    """A limit of each kind there is."""
    by = Actor(user=make_user(role=Role.OWNER, organization=owner.organization))
    for about in (
        limits.of_organization(owner.organization_id),
        limits.of_project(Project.objects.get(pk=target["project"])),
        limits.of_agent(Agent.objects.get(pk=target["agent"])),
        limits.of_key(owner.organization_id, PARTS["key"]),
    ):
        limits.put(by=by, about=about, cap=5)


@pytest.fixture
def people(home, targets):
    own = targets[OWN]
    overs = [(role, Scope.ORGANIZATION, home.pk) for role in Role]
    overs += [(role, Scope.PROJECT, own["project"]) for role in Role]
    overs += [(Role.OPERATOR, Scope.AGENT, own["agent"]), (Role.OPERATOR, Scope.RUN, own["run"])]
    bound = [
        Person(_bound(home, role, scope, scope_id), role, scope) for role, scope, scope_id in overs
    ]
    return [Person(make_user(organization=home)), *bound]


def _bound(home: Any, role: Role, scope: Scope, scope_id: Any) -> User:
    user = make_user(organization=home)
    make_binding(user, role, scope=scope, scope_id=scope_id)
    return user


def with_token(person: Person) -> APIClient:
    """Asks like a program with every scope; verifying the value is tested elsewhere."""
    client = APIClient(raise_request_exception=False)
    if person.role is not None:
        token, _ = tokens.issue(by=Actor(user=person.user), name="t", scopes=SCOPES)
        client.force_authenticate(person.user, token=token)
    else:
        client.force_authenticate(person.user)
    return client


# --- the tests ------------------------------------------------------------------------------------


def test_every_endpoint_answers_as_the_matrix_says(people, targets):
    wrong, cells, entries = ask_all(people, targets, endpoints())

    assert wrong == []
    assert sum(cells.values()) >= 1_700, cells
    assert {action for action in entries if entries[action]} == {
        action for action in entries if MATRIX[action].audited
    }


def test_a_list_that_forgets_its_filter_makes_cells_wrong(people, targets, monkeypatch):
    """The test above can fail. Abroad, the second wall still stands: row security."""
    monkeypatch.setattr(RunQuerySet, "visible_to", lambda runs, _: runs.all())
    reading = [one for one in endpoints() if one[1] == "api/runs/<str:run_id>"]

    wrong, _, _ = ask_all(people, targets, reading)

    assert wrong
    assert all(BESIDE in line for line in wrong)


def test_an_action_with_a_lower_role_makes_cells_wrong(people, targets, monkeypatch):
    loose = replace(MATRIX["run.cancel"], role=Role.VIEWER)
    cancelling = [one for one in endpoints() if one[2] == "run.cancel"]
    expected = {
        (str(person), where): Question("post", "", "run.cancel", where, "run_id").expected(
            person, asked_at_the_door=True
        )
        for person in people
        for where in (OWN, BESIDE, ABROAD)
    }
    monkeypatch.setitem(MATRIX, "run.cancel", loose)
    monkeypatch.setattr(
        Question,
        "expected",
        lambda question, person, **_: expected[str(person), question.where],
    )

    wrong, _, _ = ask_all(people, targets, cancelling)

    assert any(line.startswith("viewer over organization") for line in wrong)


def ask_all(people: Any, targets: Any, asked: Any) -> tuple[list[str], Counter, Counter]:
    """What is wrong, how many cells there were, and how many entries each action left."""
    wrong, cells, entries = [], Counter(), Counter()
    clients = [(person, with_token(person)) for person in people]
    for method, route, action, given, body in asked:
        names = named(route, f"{given} {body}")
        for where in (OWN, BESIDE, ABROAD) if names else (OWN,):
            question = Question(method, route, action, where, names)
            for person, client in clients:
                expected = question.expected(person, asked_at_the_door=True)
                with transaction.atomic():
                    before = AuditEntry.objects.count()
                    response = _ask(client, question, targets[where], given, body)
                    got = _outcome(response)
                    written = AuditEntry.objects.count() - before
                    transaction.set_rollback(True)
                cells[where] += 1
                if got != expected:
                    wrong.append(f"{person}: {method} {route} in {where}: {got}, not {expected}")
                if got == THROUGH:
                    entries[action] += written
                if (
                    where == ABROAD
                    and got == MISSING
                    and (difference := _unlike(client, question, response, given, body))
                ):
                    wrong.append(f"{person}: {method} {route}: {difference}")
    return wrong, cells, entries


def test_every_page_answers_as_the_matrix_says(people, targets):
    wrong, cells = [], 0
    clients = [(person, session(person.user)) for person in people]
    for _, client in clients:
        client.raise_request_exception = False
    for route, action, asks_first in pages():
        names = named(route, "")
        for where in (OWN, BESIDE, ABROAD) if names else (OWN,):
            for person, client in clients:
                with transaction.atomic():
                    got = _visit(client, person, route, action, targets[where])
                    transaction.set_rollback(True)
                expected = _page(person, Question("get", route, action, where, names), asks_first)
                cells += 1
                if got != expected:
                    wrong.append(f"{person}: {route} in {where}: {got}, not {expected}")

    assert wrong == []
    assert cells >= 800


def _page(person: Person, question: Question, asks_first: bool) -> str:
    if question.action is None:
        return THROUGH if question.names is None else MISSING
    expected = question.expected(person, asked_at_the_door=asks_first)
    hidden = question.route.startswith(HIDDEN) and expected == REFUSED
    return MISSING if hidden else expected


def _ask(
    client: APIClient, question: Question, target: dict[str, Any], given: str, body: Any
) -> Any:
    address = place(target, question.route) + (f"?{about(given, target)}" if given else "")
    if isinstance(body, dict):
        body = json.loads(about(json.dumps(fill(body, target)), target))
    return send(client, question.method, address, body)


def _outcome(response: Any) -> str:
    if response.status_code == 403:
        code = response.json()["code"]
        return REFUSED if code == "not_allowed" else code
    if response.status_code in {401, 404} or response.status_code >= 500:
        return MISSING if response.status_code == 404 else str(response.status_code)
    return THROUGH


def _unlike(
    client: APIClient, question: Question, response: Any, given: str, body: Any
) -> str | None:
    """How the answer differs from the one about a thing that is nowhere."""
    nowhere = {
        name: uuid4() for name in ("project", "agent", "run", "dead", "schedule", "bulk", "person")
    }
    nowhere |= {name: uuid4() for name in ("account", "department", "binding", "token")}
    nowhere |= {name: uuid4() for name in ("proposal", "environment")}
    with transaction.atomic():
        other = _ask(client, question, nowhere | {"entry": 0}, given, body)
        transaction.set_rollback(True)
    theirs, missing = _told(response), _told(other)
    return None if theirs == missing else f"{theirs} is not {missing}"


def _told(response: Any) -> tuple[int, str, dict[str, str]]:
    """What an answer says, but for the ids that were asked for."""
    said = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "#", response.content.decode())
    loud = {"X-Trace-Id", "Content-Length", "Content-Security-Policy"}
    headers = {
        name: value
        for name, value in response.headers.items()
        if name not in loud and not name.startswith("RateLimit")
    }
    return response.status_code, said, headers


def _visit(
    client: Any, person: Person, route: str, action: str | None, target: dict[str, Any]
) -> str:
    address = place(target, route)
    before = _acts(person)
    response = client.get(address, {"form": "csv"})
    if response.status_code == 405:
        response = client.post(address, {"agent": "hello"}, headers=key())
        leaves_an_entry = action and MATRIX[action].audited and route not in IDLE
        if response.status_code < 400 and leaves_an_entry and _acts(person) == before:
            return REFUSED  # told in a message on the next page
    if response.status_code in {403, 404}:
        return MISSING if response.status_code == 404 else REFUSED
    return THROUGH if response.status_code < 500 else str(response.status_code)


def _acts(person: Person) -> int:
    entries = AuditEntry.objects.filter(actor_id=person.user.pk)
    return entries.exclude(action="access.denied").count()
