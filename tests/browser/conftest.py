"""A real Chromium on the real web process, with a stand-in for engine and worker.

The web process is started once. Tables are emptied between tests; the process does not mind, because
every test makes its own organization, project and people.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from django.conf import settings as django_settings
from django.contrib.auth.hashers import Argon2PasswordHasher
from django.test import Client
from playwright.sync_api import Browser, BrowserContext, Page, Request, expect, sync_playwright

from apps.identity.models import User
from apps.identity.types import Role
from apps.projects.models import Project
from tests.factories import make_organization, make_project, make_user
from tests.support.platform import PROJECT, Platform

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
]
PASSWORD = "correct horse battery"  # noqa: S105  # of people who live for one test
DESKTOP = {"width": 1440, "height": 900}
PHONE = {"width": 390, "height": 844}

_ANSWERED_WITHIN_S = 5

expect.set_options(timeout=10_000)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    missing = pytest.mark.skip(reason=f"there is no {CHROMIUM}; apt-get install chromium")
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.browser)
            if not Path(CHROMIUM).exists():
                item.add_marker(missing)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(autouse=True)
def _own_data_dir(settings, data_dir):
    """The web process outlives a test, so its files do too."""
    settings.AOS_DATA_DIR = data_dir
    settings.AOS_AUDIT_FOLDER = data_dir / "audit"


@pytest.fixture
def _orm_beside_playwright(monkeypatch):
    # Playwright's synchronous interface keeps an event loop in this thread. Nothing of ours runs in
    # it, so the ORM is as safe here as anywhere.
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")


@pytest.fixture(scope="session")
def processes(django_db_setup, data_dir, tmp_path_factory) -> Iterator[Platform]:
    """The web process's environment, also for an engine and a worker that a test may add."""
    folder = tmp_path_factory.mktemp("browser")
    running = Platform(
        folder,
        overrides={
            # One instance and one secret: its sessions and its hints are understood on both sides.
            "AOS_INSTANCE": django_settings.AOS_INSTANCE,
            "AOS_SECRET_KEY": django_settings.SECRET_KEY,
            "AOS_DATA_DIR": str(data_dir),
            "AOS_STATIC_ROOT": str(folder / "static"),
        },
    )
    collect = [sys.executable, "manage.py", "collectstatic", "--no-input", "--verbosity", "0"]
    subprocess.run(collect, cwd=PROJECT, env=running.env, check=True, timeout=120)
    yield running
    running.stop()


@pytest.fixture(scope="session")
def web(processes: Platform) -> str:
    return processes.web()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Not longer than a module: Playwright keeps an event loop in this thread, and async tests come after."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@dataclass
class Visitor:
    """Opens pages, and remembers everything a page complained about."""

    url: str
    chromium: Browser
    contexts: list[BrowserContext] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    unanswered: set[Request] = field(default_factory=set)

    def page(self, user: User | None = None, **options: object) -> Page:
        """A page in a context of its own, signed in as ``user``."""
        settings = {"viewport": DESKTOP, "base_url": self.url} | options
        context = self.chromium.new_context(**settings)  # type: ignore[arg-type]
        self.contexts.append(context)
        context.on("request", self._asked)
        context.on("requestfinished", self._answered)
        context.on("requestfailed", self._answered)
        page = context.new_page()
        page.on("console", lambda message: self._note(message.type, message.text))
        page.on("pageerror", lambda error: self._note("error", str(error)))
        if user is not None:
            client = Client()
            client.force_login(user)
            session = client.cookies[django_settings.SESSION_COOKIE_NAME].value
            context.add_cookies([{"name": "sessionid", "value": session, "url": self.url}])
        return page

    def forgive(self, text: str) -> None:
        """Drop complaints that the test itself has caused; there must be some."""
        left = [complaint for complaint in self.complaints if text not in complaint]
        assert len(left) < len(self.complaints), f"nobody complained of {text!r}"
        self.complaints = left

    def leave(self) -> None:
        """Close every page once it has its answers.

        The server would go on with a question whose asker has left, and meet the tables of the next test:
        a person who is gone by then is denied, which is a line in the audit record.
        """
        # Bounded, because a test may have kept an answer back on purpose.
        until = time.monotonic() + _ANSWERED_WITHIN_S
        for context in self.contexts:
            for page in context.pages:
                while self.unanswered and time.monotonic() < until:
                    page.wait_for_timeout(10)
            context.close()

    def _asked(self, request: Request) -> None:
        if request.resource_type != "eventsource":  # answered without end
            self.unanswered.add(request)

    def _answered(self, request: Request) -> None:
        self.unanswered.discard(request)

    def _note(self, kind: str, text: str) -> None:
        # The browser remarks on every page that is left while its socket is being opened, and on each
        # container that comes or goes beside it and changes the machine's interfaces.
        remarks = ("closed before the connection", "net::ERR_NETWORK_CHANGED")
        if kind in {"error", "warning"} and not any(remark in text for remark in remarks):
            self.complaints.append(f"{kind}: {text}")


@pytest.fixture
def visitor(_orm_beside_playwright, transactional_db, web, chromium) -> Iterator[Visitor]:
    """Under the strict policy no page may log an error or a warning, whatever the test is about."""
    # Somebody owns the place; how it gets its first owner is tested in a place of its own.
    make_organization()
    visiting = Visitor(web, chromium)
    yield visiting
    visiting.leave()
    assert visiting.complaints == []


@pytest.fixture
def project(visitor) -> Project:
    return make_project(name="Flight safety")


@pytest.fixture
def person(project) -> Callable[[Role], User]:
    def make(role: Role = Role.OPERATOR) -> User:
        # The web process runs with the settings of a laptop: its hasher, not the suite's.
        hasher = Argon2PasswordHasher()
        return make_user(
            role=role,
            organization=project.organization,
            first_name="Oscar",
            last_name="Ortiz",
            password=hasher.encode(PASSWORD, hasher.salt()),
        )

    return make


@pytest.fixture
def oscar(person) -> User:
    return person(Role.OPERATOR)


@pytest.fixture
def page(visitor, oscar) -> Page:
    return visitor.page(oscar)
