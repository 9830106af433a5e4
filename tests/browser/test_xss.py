"""Hostile text in every field, on every page, in a real Chromium: none of it ever runs.

Two walls are tested apart. With the Content-Security-Policy switched off, escaping alone must keep
every payload text; with it on, nothing may even be reported, because nothing reaches the page.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import transaction
from django.test import Client
from playwright.sync_api import BrowserContext, Page, expect

from apps.events.services import outbox
from apps.events.types import EventType, Subject
from apps.identity import proof
from apps.runs.models import Run
from apps.runs.types import Entry, EventKind
from tests.browser.conftest import PASSWORD
from tests.browser.xss import corpus, taint
from tests.browser.xss.corpus import PLAIN, Volley
from tests.browser.xss.stage import Stage, admin_pages, forms, hub_pages, make_stage
from tests.factories import make_run
from tests.support.stand_in import StandIn, publish

LOOK = (Path(__file__).parent / "xss" / "inspect.js").read_text("utf-8")
# Many pages in one go: each is fetched and parsed by the browser, as it would parse a navigation.
PARSE = f"""async (pages) => {{
  const look = {LOOK};
  const csrf = JSON.parse(document.body.getAttribute("hx-headers:inherited"));
  return Promise.all(pages.map(async ([path, headers, form]) => {{
    const how = form && {{ method: "POST", body: new URLSearchParams(form) }};
    const sent = {{ ...headers, ...csrf }};
    const ask = () => fetch(path, {{ ...how, headers: sent, redirect: "manual" }});
    // A connection that the server gives up just then: browsers ask again by themselves, but no form.
    const answer = await ask().catch(ask);
    if (answer.type === "opaqueredirect") return [path, 302, null];
    if (!(answer.headers.get("content-type") ?? "").startsWith("text/html")) return [path, answer.status, null];
    const parsed = new DOMParser().parseFromString(await answer.text(), "text/html");
    return [path, answer.status, look(parsed)];
  }}));
}}"""
VISIT = f"() => ({LOOK})(document)"
FRAGMENT = {"HX-Request": "true"}
# Text that no page shows, each with its reason.
NOWHERE = {
    "events.AuditCheckpoint.line": "numbers and hashes of the engine",
    "events.AuditSink.why": "told by audit_verify and the logs",
    "events.OutboxEntry.payload": "moved to the log before any page shows it",
    "identity.Binding.group": "kept to compare; people see the role it gave, and the audit entry",
    "identity.ProviderAccount.issuer": "kept to compare, never shown",
    "identity.ProviderAccount.subject": "kept to compare, never shown",
    "identity.SignIn.agent": "shown as the name of a browser, from a list of ours",
    "runs.IdempotencyKey.answer": "given again to the program that repeats itself, as JSON",
    "runs.IdempotencyKey.key": "kept to compare, never shown",
    "runs.Run.concurrency_key": "told while a run waits for its key; no gate is full on the stage",
    "runs.Run.retry": "numbers; the pages tell what came of them",
    "runs.Run.trace": "ids of the trace",
    "runs.RunLease.pool": "a digest of what workers have in common, kept to compare",
}
VOLLEYS = corpus.volleys()
# The long proof in parts, each on a stage of its own, so that they can run side by side.
PARTS = 4
SAMPLE = corpus.Volley(payloads=tuple(corpus.load()[::30]))


@dataclass
class Watch:
    """Everything by which a payload can show that it ran."""

    fired: list[str] = field(default_factory=list)
    called: list[str] = field(default_factory=list)
    reports: list[str] = field(default_factory=list)

    def on(self, context: BrowserContext, page: Page, host: str) -> None:
        context.expose_function("zq", lambda shot=None: self.fired.append(f"call {shot}"))
        page.on("dialog", self._dialog)
        page.on("request", lambda request: self._request(request.url, host))
        page.on("console", lambda message: self._report(message.text))

    def _dialog(self, dialog: Any) -> None:
        self.fired.append(f"dialog {dialog.message}")
        dialog.dismiss()

    def _request(self, url: str, host: str) -> None:
        if url.startswith((f"http://{host}", "http://127.0.0.1/", "https://127.0.0.1/")):
            self.fired.append(f"request {url}")

    def _report(self, text: str) -> None:
        if "Content Security Policy" in text:
            self.reports.append(text)

    @property
    def quiet(self) -> bool:
        return not (self.fired or self.called or self.reports)


@pytest.fixture(scope="module")
def listener() -> Iterator[tuple[str, list[str]]]:
    """A server that payloads try to reach; whoever does has run, or was loaded."""
    reached: list[str] = []

    class Canary(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            reached.append(self.path)
            self.send_response(204)
            self.end_headers()

        do_POST = do_GET  # noqa: N815  # the base class names it so

        def log_message(self, *_: Any) -> None:
            """Says nothing: what was reached is the test's message."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Canary)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}", reached
    server.shutdown()
    server.server_close()


@dataclass
class Theatre:
    """A stage, a browser in which Olivia is signed in, and what is known of harmless pages."""

    stage: Stage
    page: Page
    watch: Watch
    host: str
    reached: list[str]
    url: str
    pairs: set[str] = field(default_factory=set)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    seen: set[int] = field(default_factory=set)
    looks: int = 0
    # Addresses that answer a fragment's request with the very page.
    same: set[str] = field(default_factory=set)
    plain: dict[str, Any] = field(default_factory=dict)
    faults: Counter[str] = field(default_factory=Counter)

    def play(self, volley: Volley, *, parse: bool) -> None:
        taint.fill(volley, host=self.host)
        self.stage.write(volley, host=self.host)
        if parse:
            self._parse(volley)
        for path in self._visits():
            self.page.goto(path, wait_until="load")
            self._judge(volley, path, self.page.evaluate(VISIT))
        said = self.watch.fired + self.watch.reports + self.reached
        assert not said, f"ran or was reported: {said[:6]}\n{volley}"
        assert not self.faults, f"{self.faults.most_common(8)}\n{volley}"

    def _parse(self, volley: Volley) -> None:
        text = volley.at(998, host=self.host)
        paths = [*hub_pages(self.stage, text), *admin_pages(text)]
        asked: list[tuple[str, dict[str, str], dict[str, str] | None]] = [
            *((path, {}, None) for path in paths),
            *(
                (path, FRAGMENT, None)
                for path in paths
                if not path.startswith("/admin") and path not in self.same
            ),
            *((path, {}, form) for path, form in forms(self.stage, text)),
        ]
        for start in range(0, len(asked), 12):
            batch = asked[start : start + 12]
            answers = self.page.evaluate(PARSE, batch)
            for (_, headers, _), (path, status, look) in zip(batch, answers, strict=True):
                if status >= 500:
                    self.faults[f"{status} at {path}"] += 1
                if look is not None:
                    self._judge(volley, path, look)
                if volley is PLAIN and headers is FRAGMENT and self.plain[path] == (status, look):
                    self.same.add(path)
                self.plain.setdefault(path, (status, look))

    def _visits(self) -> list[str]:
        """Pages that are really opened, with their scripts, sockets and streams."""
        runs = self.stage.runs
        done = runs["done"].public_id
        return [
            f"/?run={done}&panel={done}",
            f"/runs/{done}",
            f"/runs/{runs['failed'].public_id}",
            "/account/security",
            "/audit",
            "/admin/",
            "/admin/runs/run/",
            f"/admin/runs/run/{runs['done'].pk}/change/",
            "/admin/identity/user/",
            "/admin/events/auditentry/",
            "/admin/agents/agentversion/",
        ]

    def _judge(self, volley: Volley, path: str, look: dict[str, Any]) -> None:
        self.looks += 1
        self.seen.update(look["fields"])
        if volley is PLAIN:
            self.pairs.update(look["pairs"])
        else:
            for pair in set(look["pairs"]) - self.pairs:
                self.faults[f"new markup <{pair}> at {path}"] += 1
            known = self.counts.get(path)
            if known is not None and known != look["counts"]:
                self.faults[f"{look['counts']} instead of {known} at {path}"] += 1
        for wrong in look["wrong"]:
            self.faults[f"{wrong} at {path}"] += 1


@pytest.fixture
def open_theatre(_orm_beside_playwright, transactional_db, web, chromium, listener):
    """Opens a theatre; with ``policy=False`` the browser ignores the Content-Security-Policy."""
    host, reached = listener
    reached.clear()
    contexts: list[BrowserContext] = []
    stage = make_stage(PASSWORD)

    def make(*, policy: bool, quiet: bool = False) -> Theatre:
        context = chromium.new_context(base_url=web, bypass_csp=not policy)
        contexts.append(context)
        client = Client(HTTP_USER_AGENT="Mozilla/5.0")
        client.force_login(stage.olivia)
        signed_in = client.session
        proof.note(signed_in)
        signed_in.save()
        session = client.cookies[settings.SESSION_COOKIE_NAME].value
        context.add_cookies([{"name": "sessionid", "value": session, "url": web}])
        page = context.new_page()
        watch = Watch()
        watch.on(context, page, host)
        theatre = Theatre(stage, page, watch, host, reached, web)
        page.goto("/account/security")
        # A parsed page is held to the policy of the page that parses it, which is not its own.
        if not quiet:
            theatre.play(PLAIN, parse=not policy)
        return theatre

    with taint.room():
        yield make
        # First: an open page goes on asking, and holds what is to be altered.
        for context in contexts:
            context.close()


def known(theatre: Theatre) -> set[str]:
    return {taint.label(item) for number, item in taint.numbered() if number in theatre.seen}


@pytest.mark.parametrize("policy", [False, True], ids=["escaping alone", "with the policy"])
def test_no_payload_runs_anywhere(open_theatre, policy):
    theatre = open_theatre(policy=policy)

    theatre.play(SAMPLE, parse=not policy)

    if not policy:
        # Hostile text in a column that no page shows proves nothing.
        columns = {taint.label(item) for item in taint.fields()}
        hidden = columns - known(theatre)
        # Whether a waiting event gets to its log, where pages show it, is the relay's affair.
        assert hidden | {"events.OutboxEntry.payload"} == set(NOWHERE)


def test_what_arrives_over_stream_and_socket_stays_text(open_theatre):
    theatre = open_theatre(policy=True)
    stage, page = theatre.stage, theatre.page
    run = make_run(project=stage.project)
    stand_in = StandIn(run)
    values = [payload.at(997, theatre.host) for payload in corpus.load()]

    page.goto(f"/runs/{run.public_id}")
    stand_in.log("plain")
    expect(page.locator("#aos-log")).to_contain_text("plain")
    before = page.evaluate(VISIT)
    lines = [{"level": text, "source": text, "text": text} for text in values]
    stand_in.say(*(Entry(kind=EventKind.LOG, payload=line) for line in lines), last("the end"))
    expect(page.locator("#aos-log")).to_contain_text("the end")
    assert markup(page.evaluate(VISIT)) == markup(before)

    page.goto(f"/?run={run.public_id}")
    tell(run, "plain")
    expect(page.locator("#aos-stream")).to_contain_text("plain")
    before = page.evaluate(VISIT)
    tell(run, *values[::3], "the end")
    expect(page.locator("#aos-stream")).to_contain_text("the end")
    assert markup(page.evaluate(VISIT)) == markup(before)
    assert theatre.watch.quiet
    assert theatre.reached == []


def markup(look: dict[str, Any]) -> tuple[set[str], list[str], dict[str, int]]:
    return set(look["pairs"]), look["wrong"], look["counts"]


def last(text: str) -> Entry:
    return Entry(kind=EventKind.LOG, payload={"text": text})


def tell(run: Run, *texts: str) -> None:
    """Anomalies are always shown, however many there are."""
    subject = Subject(
        organization_id=run.organization_id,
        project_id=run.project_id,
        run_id=run.public_id,
        trace_id=run.trace_id,
    )
    with transaction.atomic():
        for text in texts:
            told = {"title": text, "detail": text, "agent": text, "code": text}
            outbox.emit(EventType.ANOMALY, subject=subject, payload=told)
    publish()


@pytest.mark.parametrize(
    "markup",
    [
        "<script>zq(1)</script>",
        "<img src=/x onerror=zq(1)>",
        "<svg onload=zq(1)></svg>",
        "<iframe src=javascript:parent.zq(1)></iframe>",
        "<img src=http://{host}/1>",
        "<script>alert(1)</script>",
    ],
)
def test_the_watch_sees_what_runs(open_theatre, markup):
    theatre = open_theatre(policy=False, quiet=True)
    body = markup.format(host=theatre.host)

    theatre.page.goto("/login")
    theatre.page.route(
        "**/sabotage", lambda route: route.fulfill(content_type="text/html", body=body)
    )
    theatre.page.goto("/sabotage")
    theatre.page.wait_for_timeout(200)

    assert theatre.watch.fired
    assert theatre.page.evaluate(VISIT)["wrong"] or "<script>" in markup


@pytest.mark.proof
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("policy", [False, True], ids=["escaping alone", "with the policy"])
def test_three_hundred_payloads_in_every_field(open_theatre, policy, part):
    """All parts together send every payload once to every field."""
    theatre = open_theatre(policy=policy)
    mine = VOLLEYS[part::PARTS]

    for volley in mine:
        # The policy changes nothing in what is parsed, only in what runs.
        theatre.play(volley, parse=not policy)

    count = sum(len(volley.payloads) for volley in mine)
    print(f"{count} payloads, {len(taint.fields())} columns, {theatre.looks} looks at pages")
    assert sum(len(volley.payloads) for volley in VOLLEYS) == len(corpus.load()) >= 300
