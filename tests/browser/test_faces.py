"""Rules that hold for every page: accessible, quiet, no wider than a phone, light enough."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from apps.core import clock
from apps.identity.types import Role
from apps.runs.models import ScheduleFire
from apps.runs.services import bulk, leadership
from apps.runs.types import BulkVerb
from tests.browser.conftest import DESKTOP, PHONE
from tests.factories import make_actor, make_agent, make_bulk_act, make_run, make_schedule
from tests.support.looking import faults, violations, wider_than_the_window
from tests.support.stand_in import StandIn, artifact

PAGES = (
    "chat",
    "stream",
    "runs",
    "no_match",
    "run",
    "running",
    "failed",
    "file",
    "schedules",
    "schedule",
    "new_schedule",
    "queue",
    "bulk_new",
    "bulk",
    "bulk_list",
    "dead_letters",
    "missing",
)
FIRST_LOAD_LIMIT = 40 * 1024
CHART = (
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 300">'
    b'<rect width="640" height="300" fill="#fff"/><rect x="40" y="90" width="60" height="160"/></svg>'
)
FORM = {
    "entry": "main.py",
    "files": {"main.py": ""},
    "input_schema": {
        "type": "object",
        "required": ["file"],
        "properties": {
            "file": {"type": "string", "format": "aos-file", "title": "Input file"},
            "title": {"type": "string", "maxLength": 120, "description": "Heads the report."},
            "order": {"enum": ["auto", "day first"], "title": "Dates are"},
            "rows": {"type": "integer", "minimum": 1},
            "strict": {"type": "boolean"},
            "notes": {"type": "string"},
        },
    },
}


@pytest.fixture
def places(project):
    """A project with a bit of everything, and where to look at it."""
    agent = make_agent(organization=project.organization, title="CSV report", spec=FORM)
    plain = make_agent(organization=project.organization, title="Hello")
    done = make_run(project=project, agent=plain)
    worker = StandIn(done, isolation="none")
    worker.log("reading", level="info")
    worker.log("odd row", level="warn", source="stderr")
    for number in range(1, 8):
        worker.milestone(f"Step {number} of the work is done", number / 7, rows=number * 1000)
    worker.succeed(
        "9,874 of 10,000 rows kept.",
        artifacts=[
            artifact("chart.svg", CHART, "image/svg+xml"),
            artifact("clean.csv", b"a,b\n1,2\n" * 40, "text/csv"),
            artifact(
                "a-report-with-a-rather-long-name-that-has-no-spaces.md",
                b"# Report\n\n![c](chart.svg)\n\n| a | b |\n|---|---|\n| 1 | 2 |\n",
                "text/markdown",
            ),
        ],
        rows_in=10_000,
        rows_out=9_874,
    )
    failed = make_run(project=project, agent=plain, retry={"max_attempts": 2, "base_s": 0.001})
    StandIn(failed).fail("command_failed", "The command ended with exit code 3.")
    running = make_run(project=project, agent=plain)
    busy = StandIn(running)
    busy.plan(("Read", "done"), ("Write", "doing"), ("Tell", "pending"))
    busy.milestone("Half way", 0.5)
    make_run(project=project, agent=plain)
    name = "a-report-with-a-rather-long-name-that-has-no-spaces.md"
    schedule = make_schedule(project=project, agent=plain, name="Every morning")
    ScheduleFire.objects.create(
        schedule=schedule, fire_at=clock.now(), outcome="submitted", run=done
    )
    ScheduleFire.objects.create(
        schedule=schedule, fire_at=schedule.next_at, outcome="refused", detail="No such file."
    )
    owner = make_actor(organization=project.organization)
    act = make_bulk_act(by=owner, verb=BulkVerb.RERUN, project=project, canary=1)
    while bulk.advance(leadership.take("stand-in")):
        pass
    return {
        "chat": f"/?agent={agent.slug}",
        "stream": f"/?run={done.public_id}",
        "runs": "/runs",
        "no_match": "/runs?state=dead",
        "run": f"/runs/{done.public_id}",
        "running": f"/runs/{running.public_id}",
        "failed": f"/runs/{failed.public_id}",
        "file": f"/runs/{done.public_id}/files/{name}",
        "schedules": "/schedules",
        "schedule": f"/schedules/{schedule.pk}",
        "new_schedule": f"/schedules/new?agent={agent.slug}",
        "queue": "/queue",
        "bulk_new": "/runs/bulk/new?act=cancel",
        "bulk": f"/runs/bulk/{act.pk}",
        "bulk_list": "/runs/bulk",
        "dead_letters": "/dead-letters",
        "missing": "/no-such-page",
    }


def _settle(page: Page) -> None:
    """Wait until scripts have run and the socket stands, so that the page is what people see."""
    page.wait_for_load_state("load")
    expect(page.locator("#aos-live")).to_have_attribute("data-state", "live")


def test_every_page_passes_the_accessibility_rules_and_fits_its_window(visitor, person, places):
    # axe is injected; the policy forbids that, and is tested without it everywhere else.
    page = visitor.page(person(Role.OWNER), bypass_csp=True)
    wrong = []
    for name in PAGES:
        page.goto(places[name])
        _settle(page)
        wrong += faults(page, name)
    visitor.forgive("404")

    assert wrong == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_sign_in_page_passes_the_accessibility_rules(visitor, theme):
    page = visitor.page(color_scheme=theme, bypass_csp=True)
    page.goto("/login")
    empty = violations(page)
    page.get_by_label("Username").fill("nobody")
    page.get_by_label("Password").fill("nothing")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_be_visible()

    assert empty == []
    assert violations(page) == []


def test_dialogs_and_menus_pass_the_accessibility_rules(visitor, oscar, places):
    page = visitor.page(oscar, bypass_csp=True)
    page.goto(places["running"])
    _settle(page)
    page.keyboard.press("Control+k")
    expect(page.get_by_role("listbox").get_by_role("option").first).to_be_visible()
    palette = violations(page)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Cancel", exact=True).click()
    expect(page.get_by_role("dialog", name="Cancel this run?")).to_be_visible()
    dialog = violations(page)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Theme").click()
    menu = violations(page)

    assert (palette, dialog, menu) == ([], [], [])


def test_no_page_is_wider_than_its_window_for_an_operator(visitor, oscar, places):
    page = visitor.page(oscar)
    too_wide = []
    for name in PAGES:
        page.goto(places[name])
        _settle(page)
        for size in (PHONE, {"width": 820, "height": 1000}, DESKTOP):
            page.set_viewport_size(size)
            too_wide += [f"{name}, {size}: {over}" for over in wider_than_the_window(page)]
    visitor.forgive("404")

    assert too_wide == []


def test_touch_targets_on_a_phone_are_large_enough(visitor, oscar, places):
    page = visitor.page(oscar, viewport=PHONE, has_touch=True)
    small = []
    for name in ("chat", "runs", "run"):
        page.goto(places[name])
        _settle(page)
        small += page.evaluate(
            """() => [...document.querySelectorAll("button, select, .aos-btn, .aos-tabbar a")]
                .filter((e) => e.checkVisibility({visibilityProperty: true}))
                .map((e) => [e.getBoundingClientRect(), e.className || e.id])
                .filter(([box]) => box.height > 0 && box.height < 39.5)
                .map(([box, name]) => `${name} ${box.height}`)"""
        )

    assert small == []


def test_the_first_load_of_the_chat_hub_weighs_at_most_forty_kilobytes_without_fonts(page, places):
    requests = []

    def note(request):
        requests.append(request)

    page.on("requestfinished", note)
    page.goto("/")
    page.wait_for_load_state("networkidle")

    loaded = [each for each in requests if "/static/" in each.url and ".woff2" not in each.url]
    plain = [
        each.url for each in loaded if each.response().headers.get("content-encoding") != "gzip"
    ]
    weight = sum(each.sizes()["responseBodySize"] for each in loaded)

    assert len(loaded) > 10
    assert plain == []
    assert weight <= FIRST_LOAD_LIMIT


def test_static_files_carry_their_hash_and_are_kept_by_the_browser(page):
    page.goto("/")
    links = page.locator("link[rel=stylesheet], script[src]").evaluate_all(
        "all => all.map(e => e.href || e.src)"
    )

    for link in links:
        answer = page.request.get(link)
        assert "immutable" in answer.headers["cache-control"], link
    assert page.evaluate("document.fonts.ready.then(f => f.check('12px Inter'))")
