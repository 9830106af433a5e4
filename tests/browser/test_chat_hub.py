from __future__ import annotations

import re
from collections import Counter
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from apps.runs.models import Run
from apps.runs.services import figures
from tests.browser.conftest import DESKTOP, PHONE
from tests.factories import make_agent, make_project, make_run
from tests.support.platform import wait_for
from tests.support.stand_in import StandIn, artifact, publish

CLEANER = {
    "entry": "main.py",
    "command": ["python3", "main.py"],
    "files": {
        "main.py": """
import json, os, time
given = json.load(open(os.environ["AOS_IN"] + "/input.json"))
path = os.path.join(os.environ["AOS_IN"], "files", given["file"])
rows = open(path).read().splitlines()
def say(**what): print("::aos " + json.dumps(what), flush=True)
say(type="milestone", title=f"Read {len(rows) - 1} rows", progress=0.5, facts={"rows": len(rows) - 1})
time.sleep(1.5)
out = os.environ["AOS_OUT"]
open(out + "/clean.csv", "w").write("\\n".join(dict.fromkeys(rows)) + "\\n")
say(type="milestone", title="Left out repeated rows", progress=1.0)
say(type="result", summary="Two of three rows kept.", facts={"rows_out": 2})
"""
    },
    "artifacts": ["clean.csv"],
    "input_schema": {
        "type": "object",
        "required": ["file"],
        "properties": {"file": {"type": "string", "format": "aos-file", "title": "Input file"}},
    },
}


@pytest.fixture
def machine(processes, web):
    """A real engine and a real worker for one test."""
    before = len(processes.processes)
    processes.engine()
    processes.worker()
    # Their start may take longer than a page is waited for.
    wait_for("engine and worker", _works, seconds=60)
    yield
    for process in processes.processes[before:]:
        process.terminate()
        process.wait(20)
    del processes.processes[before:]


def _works():
    now = figures.platform()
    return now.leader_alive and now.workers


def test_a_task_goes_from_the_composer_to_its_receipt_without_a_reload(
    page, project, machine, tmp_path
):
    make_agent(organization=project.organization, title="Row cleaner", spec=CLEANER)
    file = tmp_path / "rows.csv"
    file.write_text("a,b\n1,2\n1,2\n3,4\n")
    page.goto("/")
    page.evaluate("window.sameDocument = true")

    page.get_by_label("Input file").set_input_files(file)
    page.get_by_role("button", name="Run", exact=True).click()

    expect(page.get_by_text(re.compile("^Accepted: "))).to_be_visible()
    stream = page.get_by_role("log")
    expect(stream.get_by_text("Oscar Ortiz")).to_be_visible()
    expect(stream.get_by_text("Read 3 rows")).to_be_visible(timeout=30_000)
    receipt = stream.locator("[data-type='task.receipt']")
    expect(receipt.get_by_text("Two of three rows kept.")).to_be_visible(timeout=30_000)
    expect(receipt.locator("[data-state=succeeded]")).to_be_visible()
    expect(receipt.get_by_text(re.compile("isolation: (none|bwrap)"))).to_be_visible()
    workspace = page.get_by_role("complementary", name="Workspace")
    expect(workspace.get_by_role("cell", name="3", exact=True)).to_be_visible()
    assert page.evaluate("window.sameDocument")
    assert Run.objects.get().state == "succeeded"


def test_wrong_input_is_told_beside_its_field(visitor, page, project):
    spec = CLEANER | {
        "input_schema": {
            "type": "object",
            "required": ["rows"],
            "properties": {"rows": {"type": "integer", "multipleOf": 5, "title": "Rows"}},
        }
    }
    make_agent(organization=project.organization, spec=spec)
    page.goto("/")

    page.get_by_label("Rows").fill("7")
    page.get_by_role("button", name="Run", exact=True).click()

    field = page.get_by_label("Rows")
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_have_accessible_description("7 is not a multiple of 5")
    expect(field).to_have_value("7")
    visitor.forgive("422")
    assert not Run.objects.exists()


def test_a_file_over_the_limit_is_refused_before_it_is_sent(page, project, tmp_path):
    make_agent(organization=project.organization, spec=CLEANER)
    huge = tmp_path / "huge.csv"
    huge.write_bytes(b"x" * (10 * 1024 * 1024 + 1))
    page.goto("/")
    field = page.get_by_label("Input file")

    field.set_input_files(huge)
    page.get_by_role("button", name="Run", exact=True).click()

    assert "the limit is 10.5 MB" in field.evaluate("e => e.validationMessage")
    assert not Run.objects.exists()


def test_choosing_another_agent_brings_its_form(page, project):
    make_agent(organization=project.organization, title="A cleaner", spec=CLEANER)
    make_agent(organization=project.organization, title="B greeter")
    page.goto("/")
    expect(page.get_by_label("Input file")).to_be_visible()

    page.get_by_label("Agent").select_option("B greeter")

    expect(page.get_by_text("B greeter needs no input.")).to_be_visible()


def test_events_of_others_arrive_while_one_watches(page, project):
    page.goto("/")
    expect(page.get_by_text("Nothing has happened here yet")).to_be_visible()
    expect(page.locator("#aos-live")).to_have_attribute("data-state", "live")

    worker = StandIn(make_run(project=project))
    worker.milestone("Half way", 0.5)
    worker.fail("out_of_memory", "The command used more memory than its sandbox has.")

    stream = page.get_by_role("log")
    expect(stream.get_by_text("Half way")).to_be_visible()
    expect(stream.get_by_text("The agent ran out of memory")).to_be_visible()
    expect(page.get_by_text("Nothing has happened here yet")).to_have_count(0)


def test_a_burst_becomes_a_few_cards_and_a_line_that_opens(page, project):
    worker = StandIn(make_run(project=project))
    page.goto("/")
    for number in range(12):
        worker.milestone(f"Step {number}")
    more = page.get_by_role("link", name=re.compile("more updates? grouped"))
    steps = page.get_by_role("log").get_by_text(re.compile(r"^Step \d+$"))
    expect(more.first).to_be_visible()
    assert steps.count() < 12

    def counted():
        folded = (int(line.split()[0]) for line in more.all_inner_texts())
        return steps.count() + sum(folded)

    # What came within the next second is folded too, once it is there.
    wait_for("all of them", lambda: counted() == 12)
    while more.count():
        opened = more.first.get_attribute("href")
        more.first.click()
        expect(page.locator(f"a[href='{opened}']")).to_have_count(0)

    assert steps.all_inner_texts() == [f"Step {number}" for number in range(12)]


def test_the_stream_follows_only_a_reader_who_is_at_its_end(page, project):
    worker = StandIn(make_run(project=project))
    for number in range(12):
        worker.milestone(f"Step {number}", number / 12, rows=number)
        if number % 4 == 3:
            page.wait_for_timeout(1000)
    page.goto("/")
    pane = page.get_by_role("region", name="Event stream")
    assert pane.evaluate("e => e.scrollHeight - e.scrollTop - e.clientHeight") < 5

    pane.evaluate("e => (e.scrollTop = 0)")
    worker.milestone("Late news")
    pill = page.get_by_role("button", name="New events")
    expect(pill).to_be_in_viewport()
    assert pane.evaluate("e => e.scrollTop") == 0

    pill.click()
    expect(page.get_by_text("Late news")).to_be_in_viewport()
    expect(pill).to_be_hidden()


def test_a_broken_connection_is_shown_and_what_was_missed_arrives(page, project):
    sockets = []

    def through(socket):
        sockets.append(socket)
        socket.connect_to_server()

    page.route_web_socket("**/ws/events**", through)
    worker = StandIn(make_run(project=project))
    page.goto("/")
    live = page.locator("#aos-live")
    expect(live).to_have_text("Live")

    sockets[-1].close(code=1012)
    expect(live).to_have_text("Reconnecting")
    worker.milestone("While you were away")

    expect(live).to_have_text("Live")
    expect(page.get_by_text("While you were away")).to_be_visible()
    assert len(sockets) == 2


@pytest.mark.parametrize(
    ("trouble", "complaints"),
    [("connectionreset", ["ERR_CONNECTION_RESET", "Failed to fetch"]), (503, ["503"])],
)
def test_cards_and_tabs_that_could_not_be_fetched_are_asked_for_again(
    visitor, page, project, trouble, complaints
):
    asked = Counter()

    def refuse_once(route):
        what = urlsplit(route.request.url).path.rpartition("/")[2]
        asked[what] += 1
        if asked[what] > 1:
            route.continue_()
        elif trouble == 503:
            route.fulfill(status=503)
        else:
            route.abort(trouble)

    worker = StandIn(make_run(project=project))
    page.goto("/")
    expect(page.locator("#aos-live")).to_have_text("Live")
    for path in ("**/cards?*", "**/tabs"):
        page.route(path, refuse_once)
    worker.milestone("Said once")

    expect(page.get_by_role("log").get_by_text("Said once")).to_be_visible()
    # Requests are answered while the page is waited for.
    twice = {"cards": 2, "tabs": 2}
    wait_for("both again", lambda: page.wait_for_timeout(100) or asked == twice)
    for complaint in complaints:
        visitor.forgive(complaint)


def test_a_file_of_a_receipt_opens_in_the_workspace_and_has_an_address(page, project):
    worker = StandIn(make_run(project=project))
    worker.succeed(
        artifacts=[
            artifact("report.md", b"# Hello report\n", "text/markdown"),
            artifact("clean.csv", b"city,rows\nOslo,7\n", "text/csv"),
        ]
    )
    page.goto("/")
    workspace = page.get_by_role("complementary", name="Workspace")
    expect(workspace.get_by_role("heading", name="Hello report")).to_be_visible()

    page.get_by_role("log").get_by_role("link", name=re.compile("clean.csv")).click()
    expect(workspace.get_by_role("cell", name="Oslo")).to_be_visible()

    expect(page).to_have_url(re.compile("file=clean.csv"))
    page.reload()
    expect(workspace.get_by_role("cell", name="Oslo")).to_be_visible()


def test_on_a_phone_the_workspace_opens_over_the_stream(visitor, oscar, project):
    StandIn(make_run(project=project)).succeed(
        artifacts=[artifact("report.md", b"# Hello report\n", "text/markdown")]
    )
    page = visitor.page(oscar, viewport=PHONE)
    page.goto("/")
    heading = page.get_by_role("heading", name="Hello report")
    expect(heading).to_be_hidden()

    page.get_by_role("button", name="Open the workspace").click()
    expect(heading).to_be_visible()
    page.get_by_role("button", name="Close the workspace").click()

    expect(heading).to_be_hidden()


def test_cards_are_walked_with_j_and_k_and_opened_with_o(page, project):
    run = make_run(project=project)
    StandIn(run).milestone("Half way")
    publish()
    page.goto("/")

    page.keyboard.press("k")
    expect(page.locator("[data-step]").last).to_be_focused()
    page.keyboard.press("k")
    expect(page.locator("[data-step]").first).to_be_focused()
    page.keyboard.press("j")
    expect(page.locator("[data-step]").last).to_be_focused()
    page.keyboard.press("o")

    expect(page).to_have_url(re.compile(f"/runs/{run.public_id}"))


def test_single_keys_can_be_switched_off(page, project):
    page.goto("/")
    page.keyboard.press("?")
    help_dialog = page.get_by_role("dialog", name="Keyboard shortcuts")
    expect(help_dialog).to_be_visible()
    help_dialog.get_by_label("Single-key shortcuts on").uncheck()
    page.keyboard.press("Escape")

    page.keyboard.press("?")

    expect(help_dialog).to_be_hidden()
    page.keyboard.press("Control+k")
    expect(page.get_by_role("dialog", name="Search or jump to")).to_be_visible()


def test_the_palette_finds_a_run_by_keyboard_alone(page, project):
    agent = make_agent(organization=project.organization, slug="zebra-counter")
    run = make_run(project=project, agent=agent)
    page.goto("/")

    page.keyboard.press("Control+k")
    field = page.get_by_role("combobox", name="Search pages, projects and runs")
    expect(field).to_be_focused()
    found = page.get_by_role("listbox", name="Results").get_by_role("option")
    expect(found.first).to_have_attribute("aria-selected", "true")
    page.keyboard.type("zebra")
    expect(found).to_have_count(1)
    page.keyboard.press("Enter")

    expect(page).to_have_url(re.compile(f"/runs/{run.public_id}"))


def test_the_menu_of_many_projects_stays_in_the_window_and_tells_equal_names_apart(
    page, project, visitor
):
    for number in range(40):
        make_project(organization=project.organization, name="Rain", slug=f"rain-{number}")
    page.goto("/")
    page.get_by_role("button", name="Switch project").click()
    menu = page.locator("#menu-project")
    expect(menu.get_by_role("link", name="rain-7", exact=False).first).to_be_visible()

    box = menu.bounding_box()

    assert box
    assert box["y"] >= 0
    assert box["y"] + box["height"] <= DESKTOP["height"]
    menu.get_by_role("link", name="rain-39").click()
    expect(page.get_by_role("button", name="Switch project")).to_contain_text("Rain")
