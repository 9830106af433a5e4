from __future__ import annotations

import re

from playwright.sync_api import expect

from apps.identity.actor import Actor
from apps.runs.models import Run
from apps.runs.services import children
from apps.runs.types import Entry, EventKind
from tests.factories import make_agent, make_run
from tests.support.stand_in import StandIn, artifact


def _lines(*texts: str, level: str = "info") -> list[Entry]:
    return [
        Entry(kind=EventKind.LOG, payload={"level": level, "source": "stdout", "text": text})
        for text in texts
    ]


def test_a_run_is_followed_from_waiting_to_its_files_without_a_reload(page, project):
    run = make_run(project=project)
    page.goto(f"/runs/{run.public_id}")
    page.evaluate("window.sameDocument = true")
    status = page.locator("#run-status")
    expect(status).to_have_text("Queued")

    worker = StandIn(run)
    expect(status).to_have_text("Running")
    worker.log("reading the table")
    expect(page.get_by_role("log").get_by_text("reading the table")).to_be_visible()
    worker.plan(("Read", "done"), ("Write", "doing"))
    worker.milestone("Half way", 0.5, rows=5000)
    timeline = page.get_by_role("region", name="Timeline")
    expect(timeline.get_by_text("Half way")).to_be_visible()
    expect(timeline.get_by_text("50%")).to_be_visible()
    expect(timeline.get_by_text("Write")).to_be_visible()
    worker.succeed("All done.", artifacts=[artifact("a.csv", b"x\n1\n", "text/csv")])

    expect(status).to_have_text("Succeeded")
    side = page.get_by_role("complementary", name="Files and facts")
    expect(side.get_by_text("All done.")).to_be_visible()
    expect(side.get_by_text("a.csv")).to_be_visible()
    expect(timeline.get_by_text("100%")).to_be_visible()
    expect(page.get_by_role("button", name="Cancel", exact=True)).to_have_count(0)
    assert page.evaluate("window.sameDocument")


def test_cancelling_is_confirmed_first_and_shown_as_it_happens(page, project):
    run = make_run(project=project)
    worker = StandIn(run)
    page.goto(f"/runs/{run.public_id}")
    dialog = page.get_by_role("dialog", name="Cancel this run?")

    page.get_by_role("button", name="Cancel", exact=True).click()
    dialog.get_by_role("button", name="Keep running").click()
    expect(dialog).to_be_hidden()
    assert Run.objects.get().state == "running"

    page.get_by_role("button", name="Cancel", exact=True).click()
    dialog.get_by_role("button", name="Cancel the run").click()
    expect(page.locator("#run-status")).to_have_text("Cancelling")
    worker.confirm_cancelled()

    expect(page.locator("#run-status")).to_have_text("Cancelled")


def test_a_rerun_opens_the_new_run_and_names_the_old_one(page, project):
    run = make_run(project=project)
    StandIn(run).fail("command_failed", "The command ended with exit code 3.")
    page.goto(f"/runs/{run.public_id}")
    expect(page.get_by_role("alert")).to_contain_text("The agent ended with an error")

    page.get_by_role("button", name="Re-run").click()

    again = Run.objects.exclude(pk=run.pk).get()
    expect(page).to_have_url(re.compile(str(again.public_id)))
    expect(page.get_by_role("link", name=str(run.public_id)[-8:]).first).to_be_visible()


def test_the_log_is_filtered_by_words_and_level_also_for_new_lines(page, project):
    run = make_run(project=project)
    worker = StandIn(run)
    worker.say(*_lines("alpha one", "beta two"), *_lines("alpha broke", level="error"))
    page.goto(f"/runs/{run.public_id}")
    visible = page.locator("#aos-log .aos-log-line:visible .aos-log-text")

    page.get_by_label("Filter log lines").fill("ALPHA")
    expect(visible).to_have_text(["alpha one", "alpha broke"])
    worker.say(*_lines("alpha three", "gamma"))
    expect(visible).to_have_text(["alpha one", "alpha broke", "alpha three"])
    page.get_by_label("Least level").select_option("error")
    expect(visible).to_have_text(["alpha broke"])
    page.get_by_label("Filter log lines").fill("nothing like this")

    expect(page.get_by_text("No line matches this filter.")).to_be_visible()


def test_the_log_sticks_to_its_end_only_while_the_reader_is_there(page, project):
    run = make_run(project=project)
    worker = StandIn(run)
    worker.say(*_lines(*(f"line {n}" for n in range(200))))
    page.goto(f"/runs/{run.public_id}")
    pane = page.get_by_role("region", name="Log lines")
    expect(page.get_by_text("line 199")).to_be_in_viewport()
    worker.say(*_lines("followed"))
    expect(page.get_by_text("followed")).to_be_in_viewport()

    pane.evaluate("e => (e.scrollTop = 0)")
    worker.say(*_lines("not followed"))
    pill = page.get_by_role("button", name="New lines")
    expect(pill).to_be_in_viewport()
    assert pane.evaluate("e => e.scrollTop") == 0
    # Where it is: Playwright's own click may scroll the pane first, to its end, where the button hides.
    place = pill.bounding_box()
    page.mouse.click(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)

    expect(page.get_by_text("not followed")).to_be_in_viewport()


def test_thousands_of_lines_arrive_and_the_page_keeps_only_the_newest(page, project):
    run = make_run(project=project)
    worker = StandIn(run)
    page.goto(f"/runs/{run.public_id}")
    expect(page.locator("#aos-log-state")).to_have_text("Following")

    for batch in range(12):
        worker.say(*_lines(*(f"line {batch * 500 + n}" for n in range(500))))

    expect(page.get_by_text("line 5999", exact=True)).to_be_visible(timeout=20_000)
    expect(page.locator("#aos-log-count")).to_have_text(str(run.event_set.count()))
    assert page.locator("#aos-log .aos-log-line").count() <= 5000


def test_a_broken_log_stream_resumes_without_losing_or_repeating_a_line(visitor, page, project):
    run = make_run(project=project)
    worker = StandIn(run)
    cut = {"left": 2}

    def flaky(route):
        if "text/event-stream" in route.request.headers.get("accept", "") and cut["left"]:
            cut["left"] -= 1
            route.abort()
        else:
            route.continue_()

    page.route("**/api/runs/*/events*", flaky)
    worker.say(*_lines("one"))
    page.goto(f"/runs/{run.public_id}")
    worker.say(*_lines("two", "three"))
    lines = page.locator(".aos-log-line[data-kind=log] .aos-log-text")

    expect(lines).to_have_text(["one", "two", "three"])
    assert cut["left"] == 0
    visitor.forgive("ERR_FAILED")


def test_files_are_previewed_in_a_dialog_and_downloaded_as_attachments(page, project, tmp_path):
    run = make_run(project=project)
    svg = b'<svg xmlns="http://www.w3.org/2000/svg" width="40" height="40"><rect width="40" height="40"/></svg>'
    StandIn(run).succeed(
        artifacts=[
            artifact("chart.svg", svg, "image/svg+xml"),
            artifact("clean.csv", b"city,rows\nOslo,7\n", "text/csv"),
        ]
    )
    page.goto(f"/runs/{run.public_id}")

    page.get_by_role("link", name="chart.svg", exact=True).click()
    picture = page.get_by_role("dialog").get_by_role("img", name="chart.svg")
    expect(picture).to_be_visible()
    assert picture.evaluate("e => e.naturalWidth") == 40
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download clean.csv").click()
    saved = tmp_path / "saved.csv"
    download.value.save_as(saved)

    assert saved.read_bytes() == b"city,rows\nOslo,7\n"
    assert download.value.suggested_filename == "clean.csv"


def test_a_script_inside_a_file_never_runs(page, project):
    run = make_run(project=project)
    bomb = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script>parent.pwned=1;top.pwned=1</script></svg>'
    StandIn(run).succeed(
        artifacts=[
            artifact("chart.svg", bomb, "image/svg+xml"),
            artifact(
                "report.md", b"![c](chart.svg)\n<script>window.pwned = 1</script>", "text/markdown"
            ),
        ]
    )
    for name in ("chart.svg", "report.md"):
        page.goto(f"/runs/{run.public_id}/files/{name}")
        expect(page.get_by_role("img", name=re.compile("chart|c")).first).to_be_visible()

    assert page.evaluate("window.pwned") is None


def test_ids_are_copied(page, project):
    run = make_run(project=project)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(f"/runs/{run.public_id}")

    page.get_by_role("button", name=re.compile("Copy trace id")).click()

    expect(page.get_by_text("Trace id copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == run.trace_id


def test_the_list_of_runs_changes_its_rows_as_runs_change(page, project):
    run = make_run(project=project)
    page.goto("/runs")
    row = page.get_by_role("row").filter(has_text=run.name)
    expect(row).to_contain_text("Queued")
    expect(page.locator("#aos-live")).to_have_attribute("data-state", "live")

    StandIn(run).succeed()

    expect(row).to_contain_text("Succeeded")


def test_the_list_is_narrowed_and_its_address_says_how(page, project):
    failed, waiting = make_run(project=project), make_run(project=project)
    StandIn(failed).fail("command_failed", "Exit code 1.")
    page.goto("/runs")
    rows = page.locator("#aos-runs-body tr")
    expect(rows).to_have_count(2)

    page.get_by_label("State").select_option("failed")
    expect(rows).to_have_count(1)
    expect(page).to_have_url(re.compile("state=failed"))
    page.go_back()

    expect(page.locator("#aos-runs-body tr")).to_have_count(2)
    assert waiting.state == "queued"


def test_the_children_of_a_run_are_followed_from_its_page(page, project, oscar):
    agent = make_agent(organization=project.organization, slug="work", title="Work")
    by = Actor(user=oscar)
    root = make_run(project=project, agent=agent, by=by, budget_s=900, total_deadline_s=3600)
    worker = StandIn(root)
    wish = children.Wish(agent="work", input={}, timeout_s=120)
    child = children.start(worker.started, wish, key="first")
    page.goto(f"/runs/{root.public_id}")
    page.evaluate("window.sameDocument = true")
    side = page.get_by_role("complementary", name="Files and facts")
    tree = side.get_by_role("list").filter(has_text="work")
    expect(tree.get_by_role("link")).to_have_text([re.compile("Queued:.*first")])
    expect(side.get_by_text("420 of 900 run seconds")).to_be_visible()

    second = StandIn(child)
    expect(tree.get_by_text("Running:")).to_be_attached()
    StandIn(children.start(second.started, wish, key="below"))
    expect(tree.get_by_role("link")).to_have_count(2)
    second.succeed("Done.")
    expect(tree.get_by_text("Succeeded:")).to_be_attached()
    assert page.evaluate("window.sameDocument")

    tree.get_by_role("link").first.click()
    expect(side.get_by_role("heading", name="Parent")).to_be_visible()
    expect(side.get_by_role("link", name=re.compile("Running: work"))).to_have_count(2)
