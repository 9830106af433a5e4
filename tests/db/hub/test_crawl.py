"""What a page offers, its visitor may do: each link is followed, and each button pressed, as each role.

The crawl starts at the home page and goes wherever links, fragments and forms lead. Forms are really
sent, as the page would send them, and what they did is rolled back. Nothing may be refused on the way,
missing or broken; a refusal counts as well when the page tells it politely.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, urljoin, urlsplit

import pytest
from django.db import transaction
from django.test import Client
from django.urls import Resolver404, resolve

from apps.agents.models import Agent
from apps.hub import frame, views
from apps.identity import denials
from apps.identity.models import User
from apps.identity.types import Role
from apps.runs.models import Run
from tests.faces import session
from tests.factories import make_binding, make_user
from tests.fuzz.world import World, make_world
from tests.support.reading import Act, Page

pytestmark = pytest.mark.django_db

OK, FOUND = HTTPStatus.OK, HTTPStatus.FOUND
UNPROCESSABLE_ENTITY = HTTPStatus.UNPROCESSABLE_ENTITY

# So many of each kind of address, and of each kind of button.
PLENTY = 2
# Files, and another process.
ELSEWHERE = re.compile(r"^/(static|flower)/")
# Doors to other houses: they open, and what is behind them is not the hub's.
DOORS = re.compile(r"^/(admin|api)/")


@dataclass
class Crawl:
    """One visitor's walk."""

    user: User
    refused: list[denials.Denial]
    found: list[str] = field(default_factory=list)
    visited: Counter[str] = field(default_factory=Counter)
    pressed: Counter[tuple[str, ...]] = field(default_factory=Counter)
    answers: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.client = session(self.user)
        self._waiting: deque[tuple[str, bool, str]] = deque()
        self._known: set[tuple[str, bool]] = set()

    def walk(self, *starts: str) -> None:
        self._waiting += [(start, False, "the start") for start in starts]
        while self._waiting:
            self._look(*self._waiting.popleft())

    def _look(self, path: str, is_fragment: bool, why: str) -> None:
        route = kind_of(path)
        if (path, is_fragment) in self._known or self.visited[route] >= PLENTY:
            return
        self._known.add((path, is_fragment))
        self.visited[route] += 1
        answer = self.client.get(path, headers=fragment_headers(is_fragment))
        self._judge(answer, f"GET {path}, from {why}")
        if answer.status_code == FOUND:
            self._wait_for(answer["Location"], path)
        # To its end, which closes the file behind it.
        content = answer.getvalue()
        if not DOORS.match(path) and answer.get("Content-Type", "").startswith("text/html"):
            self._read(Page(path, content.decode()))

    def _read(self, page: Page) -> None:
        for link in page.links:
            self._wait_for(link, page.path)
        for link in page.fragments:
            self._wait_for(link, page.path, is_fragment=True)
        for act in page.acts():
            self._press(act, page.path)

    def _wait_for(self, link: str, here: str, *, is_fragment: bool = False) -> None:
        target = urlsplit(urljoin(f"http://testserver{here}", link))
        if target.netloc != "testserver" or ELSEWHERE.match(target.path):
            return
        path = target.path + (f"?{target.query}" if target.query else "")
        self._waiting.append((path, is_fragment, here))

    def _press(self, act: Act, here: str) -> None:
        path = urljoin(here, act.path)
        if act.method == "get":
            self._wait_for(path, here)
            return
        kind = (kind_of(path), act.label, *sorted({name for name, _ in act.fields}))
        if self.pressed[kind] >= PLENTY or kind_of(path) == "logout":
            return
        self.pressed[kind] += 1
        with undone(self.client):
            sent: dict[str, list[str]] = {}
            for name, value in act.fields:
                sent.setdefault(name, []).append(value)
            answer = self.client.post(path, sent, headers=fragment_headers(act.by_htmx))
            self.answers[answer.status_code] += 1
            self._judge(answer, f"{act.label!r} of {here}: POST {path}")
            if answer.status_code == FOUND:
                after = self.client.get(answer["Location"])
                self._judge(after, f"GET {answer['Location']}, after {act.label!r} of {here}")

    def _judge(self, answer: Any, told: str) -> None:
        if answer.status_code in {403, 404} or answer.status_code >= 500:
            self.found.append(f"{answer.status_code} {told}")
        self.found += [f"{one.reason} {one.action}: {told}" for one in self.refused]
        self.refused.clear()


@contextmanager
def undone(client: Client) -> Iterator[None]:
    """Roll back what happens inside, and keep the visitor signed in."""
    cookies = {name: morsel.value for name, morsel in client.cookies.items()}
    with transaction.atomic():
        yield
        transaction.set_rollback(True)
    client.cookies.clear()
    client.cookies.load(cookies)


def kind_of(path: str) -> str:
    """The route of an address with the names of what is asked of it."""
    where = urlsplit(path)
    try:
        route = resolve(where.path).route
    except Resolver404:
        return where.path
    return f"{route}?{'&'.join(sorted(name for name, _ in parse_qsl(where.query)))}".rstrip("?")


def fragment_headers(is_fragment: bool) -> dict[str, str]:
    return {"HX-Request": "true"} if is_fragment else {}


@pytest.fixture
def refused(monkeypatch) -> list[denials.Denial]:
    """What was refused, instead of its entries in the audit log."""
    found: list[denials.Denial] = []
    monkeypatch.setattr(denials, "write", found.extend)
    return found


@pytest.fixture
def world() -> World:
    return make_world("crawl")


def newcomer(world: World, role: Role, over: Any) -> User:
    user = make_user(organization=world.organization)
    make_binding(user, role, over)
    return user


# Somebody of each role over everything, and those who hold one over a single place.
VISITORS = {role.value: lambda world, role=role: world.people[role] for role in Role} | {
    "operator of a project": lambda world: newcomer(world, Role.OPERATOR, world.project),
    "admin of a project": lambda world: newcomer(world, Role.ADMIN, world.project),
    "admin of an agent": lambda world: newcomer(world, Role.ADMIN, an_agent(world)),
    "operator of a run": lambda world: newcomer(world, Role.OPERATOR, a_run(world)),
}


def an_agent(world: World) -> Agent:
    return Agent.objects.get(slug=world.words["agent"][0])


def a_run(world: World, number: int = 2) -> Run:
    return Run.objects.get(public_id=world.words["run_id"][number])


@pytest.mark.slow
@pytest.mark.parametrize("visitor", VISITORS)
def test_nothing_that_is_offered_is_refused(world, refused, visitor):
    crawl = Crawl(VISITORS[visitor](world), refused)

    # Whoever holds a role over one thing alone is sent its address.
    crawl.walk("/", "/runs", f"/runs/{a_run(world).public_id}")

    assert crawl.found == []
    assert len(crawl.visited) > 10
    # But for three about one's own account, every form was filled so well that it was taken.
    assert crawl.answers.keys() <= {OK, FOUND, UNPROCESSABLE_ENTITY}
    assert crawl.answers[UNPROCESSABLE_ENTITY] <= 3
    assert visitor not in {Role.ADMIN, Role.OWNER} or crawl.answers[FOUND] > 40


def test_a_link_that_leads_to_a_refusal_is_found(world, refused, monkeypatch):
    of = frame.of
    monkeypatch.setattr(frame, "of", lambda *a, **k: replace(of(*a, **k), may_audit=True))
    crawl = Crawl(world.people[Role.VIEWER], refused)

    crawl.walk("/")

    assert [told for told in crawl.found if told.startswith("403 GET /audit, from ")]


def test_a_button_that_is_refused_is_found(world, refused, monkeypatch):
    story = views._story
    monkeypatch.setattr(views, "_story", lambda *given: story(*given) | {"may_rerun": True})
    crawl = Crawl(world.people[Role.VIEWER], refused)

    crawl.walk(f"/runs/{a_run(world).public_id}")

    assert [told for told in crawl.found if told.startswith("not_allowed run.rerun: 'Re-run'")]
