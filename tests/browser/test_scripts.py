"""Scripts in a real browser: written, tried with their log live, released, scheduled."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from apps.agents.models import Agent, AgentVersion
from apps.agents.services import registry, scripts
from apps.identity.types import Role
from apps.runs.models import Run
from tests.factories import (
    HELLO,
    make_actor,
    make_agent,
    make_environment,
    make_run,
    make_schedule,
)
from tests.support.looking import SHOTS, faults, violations
from tests.support.stand_in import StandIn, artifact

BEGIN = "/integrations/sandboxes/scripts"
FORM = {
    "type": "object",
    "required": ["name"],
    "properties": {"name": {"type": "string", "maxLength": 40, "title": "Who"}},
}


@pytest.fixture
def page(visitor, person):
    return visitor.page(person(Role.ADMIN))


@pytest.fixture
def script(project):
    return make_agent(organization=project.organization, title="Greeter", slug="greeter")


def text_of(page, index=0):
    return page.get_by_label("Text of the file").nth(index)


def test_a_script_is_written_in_several_files(page, project):
    page.goto("/integrations/sandboxes")
    page.get_by_role("link", name="New script").first.click()
    page.get_by_label("Name", exact=True).fill("Word count")
    expect(page.get_by_label("Environment")).to_have_value("blank")
    text_of(page).fill("import words\nprint(words.ONE)\n")
    page.get_by_role("button", name="Add a file").click()
    page.get_by_label("File name").last.fill("words.py")
    text_of(page, 1).fill("\n\nONE = 1\n")
    page.get_by_role("button", name="Create it").click()

    expect(page.get_by_role("heading", name="Word count")).to_be_visible()
    agent = Agent.objects.get(slug="word-count")
    draft = agent.versions.get()
    assert draft.spec["files"] == {
        "main.py": "import words\nprint(words.ONE)\n",
        "words.py": "\n\nONE = 1\n",
    }
    assert draft.spec["sandbox"] == {"environment": "blank"}


def test_a_draft_is_tried_with_its_log_live_and_then_released(page, project):
    by = make_actor(Role.ADMIN, organization=project.organization)
    spec = HELLO | {"sandbox": {"environment": "blank"}}
    draft = scripts.create(by=by, slug="count", title="Count", description="", spec=spec)
    agent = draft.agent
    page.goto(f"{BEGIN}/{agent.pk}")
    page.get_by_label("Input, as JSON", exact=True).fill('{"a": 1}')
    page.get_by_role("button", name="Save and try it").click()

    expect(page.locator("#aos-log-state")).to_have_text("Following")
    run = Run.objects.get()
    assert (run.agent_version, run.project, run.spec["input"]) == (draft, project, {"a": 1})
    assert run.spec["environment"]["name"] == "blank"
    expect(page.get_by_label("Input, as JSON", exact=True)).to_have_value('{"a": 1}')
    worker = StandIn(run)
    worker.log("one line of output")
    expect(page.locator("#aos-log")).to_contain_text("one line of output")
    expect(page.locator("#trial-end")).to_contain_text("Running")
    worker.succeed("It counted.", artifacts=[artifact("words.csv", b"a\n", "text/csv")])
    expect(page.locator("#trial-end")).to_contain_text("Succeeded")
    expect(page.locator("#trial-end")).to_contain_text("It counted.")
    expect(page.get_by_role("link", name="words.csv")).to_be_visible()

    page.get_by_role("button", name="Release v1").click()
    page.get_by_role("button", name="Release it").click()
    expect(page.locator("h1 + p")).to_contain_text("version 1 is released")
    agent.refresh_from_db()
    assert agent.current == draft
    page.get_by_role("link", name="New schedule").click()
    expect(page.get_by_label("Agent", exact=True)).to_have_value("count")


def test_what_the_editor_does_not_show_stays_and_saving_nothing_new_makes_no_version(
    page, visitor, script, project
):
    by = make_actor(Role.ADMIN, organization=project.organization)
    spec = HELLO | {"retry": {"max_attempts": 5}, "sandbox": {"memory_mb": 128}}
    registry.draft(by=by, agent=script, spec=spec)
    page.goto(f"{BEGIN}/{script.pk}")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("The files are as they were")).to_be_visible()
    assert AgentVersion.objects.filter(agent=script).count() == 2
    page.get_by_label("Time limit, seconds").fill("60")
    page.get_by_role("button", name="Save", exact=True).click()

    expect(page.get_by_text("Saved as version")).to_be_visible()
    newest = script.versions.order_by("-number").first().spec
    assert newest["retry"] == {"max_attempts": 5}
    assert newest["sandbox"] == {"memory_mb": 128}
    assert newest["timeout_s"] == 60


def test_what_is_wrong_is_said_where_it_is_and_nothing_typed_is_lost(page, visitor, script):
    page.goto(f"{BEGIN}/{script.pk}")
    page.get_by_label("Entry file").fill("other.py")
    text_of(page).fill("print('kept')\n")
    page.get_by_role("button", name="Save", exact=True).click()

    expect(page.get_by_role("alert")).to_contain_text("It is not saved")
    expect(page.get_by_text("Must be one of spec.files")).to_be_visible()
    expect(text_of(page)).to_have_value("print('kept')\n")
    page.get_by_label("Entry file").fill("main.py")
    page.get_by_text("Input and files").click()
    page.get_by_label("Input, as JSON Schema").fill("{")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("Is not JSON")).to_be_visible()
    visitor.forgive("422")
    assert script.versions.count() == 1


def test_two_who_write_at_once_do_not_overwrite_each_other_unseen(page, visitor, script, project):
    page.goto(f"{BEGIN}/{script.pk}")
    text_of(page).fill("print('mine')\n")
    by = make_actor(Role.ADMIN, organization=project.organization)
    registry.draft(by=by, agent=script, spec=HELLO | {"timeout_s": 7})
    page.get_by_role("button", name="Save", exact=True).click()

    expect(page.get_by_role("alert")).to_contain_text("Somebody saved version 2 meanwhile")
    visitor.forgive("409")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("Saved as version 3")).to_be_visible()
    assert script.versions.get(number=3).spec["files"] == {"main.py": "print('mine')\n"}


def test_the_editor_indents_and_lets_the_keyboard_out(page, script):
    page.goto(f"{BEGIN}/{script.pk}")
    area = text_of(page)
    area.fill("")
    area.focus()
    page.keyboard.type("if 1:\nprint(1)")
    expect(area).to_have_value("if 1:\n    print(1)")
    page.keyboard.press("Control+a")
    page.keyboard.press("Tab")
    expect(area).to_have_value("    if 1:\n        print(1)")
    page.keyboard.press("Shift+Tab")
    expect(area).to_have_value("if 1:\n    print(1)")
    expect(page.locator("[data-lines] span")).to_have_count(2)
    page.keyboard.press("Escape")
    page.keyboard.press("Tab")
    expect(area).not_to_be_focused()
    area.focus()
    page.keyboard.press("Control+s")
    expect(page.get_by_text("Saved as version 2")).to_be_visible()


def test_one_file_is_shown_at_a_time_and_can_be_removed(page, script):
    page.goto(f"{BEGIN}/{script.pk}")
    page.get_by_role("button", name="Add a file").click()
    expect(page.get_by_label("File name").last).to_be_focused()
    page.keyboard.type("notes.txt")
    expect(page.get_by_role("button", name="notes.txt")).to_have_attribute("aria-pressed", "true")
    expect(text_of(page, 0)).to_be_hidden()
    page.get_by_role("button", name="main.py").click()
    expect(text_of(page, 0)).to_be_visible()
    page.get_by_role("button", name="notes.txt").click()
    page.locator("[data-file]:not([hidden]) [data-file-remove]").click()
    expect(page.get_by_label("Text of the file")).to_have_count(1)


def test_a_trial_asks_for_what_the_draft_wants(page, visitor, script, project):
    by = make_actor(Role.ADMIN, organization=project.organization)
    registry.draft(by=by, agent=script, spec=HELLO | {"input_schema": FORM, "artifacts": ["*"]})
    page.goto(f"{BEGIN}/{script.pk}")
    page.get_by_label("Who").fill("Athena")
    page.get_by_role("button", name="Save and try it").click()

    expect(page.locator("#aos-log-state")).to_have_text("Following")
    run = Run.objects.get()
    assert (run.agent_version.number, run.spec["input"]) == (2, {"name": "Athena"})


def test_a_script_is_deleted_once_it_was_said_what_goes(page, visitor, script, project):
    make_schedule(project=project, agent=script)
    page.goto(f"{BEGIN}/{script.pk}")
    page.get_by_role("button", name="Delete").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("1 schedule of it is deleted")
    assert violations(page) == []
    if SHOTS:
        page.screenshot(path=f"{SHOTS}/script-delete.png")
    dialog.get_by_role("button", name="Keep it").click()
    expect(dialog).to_be_hidden()
    page.get_by_role("button", name="Delete").click()
    dialog.get_by_role("button", name="Delete it").click()

    expect(page.get_by_text("Greeter is deleted. Its runs stay.")).to_be_visible()
    expect(page.get_by_role("link", name="Greeter")).to_have_count(0)
    assert Agent.objects.get(pk=script.pk).removed_at is not None


def test_a_script_with_open_runs_is_not_deleted_and_the_way_to_them_is_shown(page, script, project):
    make_run(project=project, agent=script)
    page.goto(f"{BEGIN}/{script.pk}")
    page.get_by_role("button", name="Delete").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("1 of its runs is not over.")
    expect(dialog.get_by_role("button", name="Delete it")).to_have_count(0)
    if SHOTS:
        page.screenshot(path=f"{SHOTS}/script-delete-refused.png")
    dialog.get_by_role("link", name="Show its runs").click()

    expect(page).to_have_url(re.compile(r"/runs\?agent=greeter"))


def test_a_viewer_reads_and_is_offered_nothing(visitor, person, script):
    page = visitor.page(person(Role.VIEWER))
    page.goto(BEGIN)
    page.get_by_role("link", name="Greeter").click()

    expect(text_of(page)).to_have_value(re.compile("print"))
    assert text_of(page).get_attribute("readonly") is not None
    expect(page.get_by_role("button", name="Save", exact=True)).to_have_count(0)
    expect(page.get_by_role("button", name="Save and try it")).to_have_count(0)
    page.goto(f"{BEGIN}/new")
    expect(page.get_by_text("you need the admin role")).to_be_visible()


def test_every_page_is_accessible_and_fits(visitor, person, project, script):
    page = visitor.page(person(Role.OWNER), bypass_csp=True)
    by = make_actor(Role.ADMIN, organization=project.organization)
    make_environment(project=project, name="weather")
    program = (
        '"""Counts the words of a text, and says so."""\n\nimport json\nimport os\nfrom pathlib '
        "import Path\n\nfrom words import count\n\n\ndef main() -> None:\n"
        '    given = json.loads((Path(os.environ["AOS_IN"]) / "input.json").read_text())\n'
        '    found = count(given["text"])\n'
        '    print(f"{len(found)} words, and one line that is long enough to reach beyond any window of a phone")\n'
        "\n\nmain()\n"
    )
    spec = {
        "entry": "main.py",
        "files": {"main.py": program, "words.py": "def count(text):\n    return text.split()\n"},
        "sandbox": {"environment": "weather"},
        "input_schema": FORM,
        "artifacts": ["*"],
    }
    draft = registry.draft(by=by, agent=script, spec=spec)
    make_schedule(project=project, agent=script, name="Every morning", by=by)
    page.goto(f"{BEGIN}/{script.pk}")
    page.get_by_label("Who").fill("Athena")
    page.get_by_role("button", name="Save and try it").click()
    expect(page.locator("#aos-log-state")).to_have_text("Following")
    worker = StandIn(Run.objects.get(agent_version=draft))
    for number in range(8):
        worker.log(f"line {number} of what it prints")
    worker.fail("command_failed", "The command ended with exit code 3.\nKeyError: 'text'")
    expect(page.locator("#trial-end")).to_contain_text("KeyError")
    wrong = faults(page, "script")
    for name, path in {"scripts": BEGIN, "script-new": f"{BEGIN}/new"}.items():
        page.goto(path)
        expect(page.locator("#aos-live")).to_have_attribute("data-state", "live")
        wrong += faults(page, name)

    assert wrong == []
