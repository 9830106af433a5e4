"""Schedules in a real browser: made, understood, run once, paused, changed, deleted."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from apps.identity.types import Role
from apps.runs.models import Run, Schedule
from tests.factories import HELLO, make_actor, make_agent, make_schedule

GREETER = HELLO | {
    "input_schema": {
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"type": "string", "maxLength": 40, "title": "Who"}},
    }
}


@pytest.fixture
def agents(project):
    make_agent(organization=project.organization, title="Sweeper")
    return make_agent(organization=project.organization, title="Greeter", spec=GREETER)


def test_a_schedule_is_made_step_by_step(page, agents):
    page.goto("/schedules")
    page.get_by_role("link", name="New schedule").first.click()
    page.get_by_label("Name").fill("Greet Athens")
    page.get_by_label("Cron expression").fill("30 6 * * SUN")
    page.get_by_label("Time zone").fill("Europe/Athens")
    preview = page.locator("#schedule-preview")
    expect(preview).to_contain_text("At 06:30 on Sunday")
    expect(preview).to_contain_text("06:30")
    page.get_by_label("Agent", exact=True).select_option(label="Greeter")
    page.get_by_label("Who").fill("Athena")
    page.get_by_role("button", name="Create it").click()

    expect(page.get_by_role("heading", name="Greet Athens")).to_be_visible()
    expect(page.get_by_text("At 06:30 on Sunday")).to_be_visible()
    stored = Schedule.objects.get()
    assert (stored.timezone, stored.task["input"]) == ("Europe/Athens", {"name": "Athena"})


def test_nothing_typed_is_lost_while_the_fields_of_another_agent_are_on_their_way(page, agents):
    held = []

    def hold(route):
        held.append(route)

    page.goto("/schedules/new?agent=" + agents.slug)
    page.route("**/schedules/new?*", hold)
    with page.expect_request("**/schedules/new?*"):
        page.get_by_label("Agent", exact=True).select_option(label="Sweeper")
    page.get_by_label("Name").fill("Sweep Athens")
    expect(page.get_by_label("Who")).to_be_disabled()
    held[0].continue_()

    expect(page.get_by_text("Sweeper needs no input.")).to_be_visible()
    expect(page.get_by_label("Name")).to_have_value("Sweep Athens")


def test_what_is_wrong_is_said_and_nothing_typed_is_lost(page, agents, visitor):
    page.goto(f"/schedules/new?agent={agents.slug}")
    page.get_by_label("Name").fill("Odd")
    page.get_by_label("Cron expression").fill("whenever")
    expect(page.locator("#schedule-preview")).to_contain_text("five fields")
    page.get_by_label("Who").fill("Athena")
    page.get_by_role("button", name="Create it").click()

    expect(page.get_by_role("alert")).to_contain_text("five fields")
    visitor.forgive("422")
    expect(page.get_by_label("Who")).to_have_value("Athena")
    expect(page.get_by_label("Cron expression")).to_have_value("whenever")
    assert not Schedule.objects.exists()


def test_it_is_run_paused_resumed_changed_and_deleted(page, project, agents, oscar):
    by = make_actor(Role.OPERATOR, organization=project.organization)
    schedule = make_schedule(
        project=project,
        by=by,
        name="Sweep",
        agent=make_agent(organization=project.organization, title="Broom"),
    )
    page.goto("/schedules")
    page.get_by_role("link", name="Sweep").click()

    page.get_by_role("button", name="Run now").click()
    expect(page).to_have_url(f"/runs/{Run.objects.get().public_id}")
    page.go_back()
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_text("None while it is paused.")).to_be_visible()
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    schedule.refresh_from_db()
    assert schedule.submits_as == oscar
    page.get_by_role("link", name="Change").click()
    page.get_by_label("Cron expression").fill("0 9 * * *")
    page.get_by_role("button", name="Save it").click()
    expect(page.get_by_text("At 09:00 every day")).to_be_visible()
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Delete it").click()
    expect(page.get_by_text("No schedules yet")).to_be_visible()
    assert not Schedule.objects.exists()


def test_a_viewer_looks_and_is_offered_nothing(visitor, person, project):
    schedule = make_schedule(project=project, name="Sweep")
    page = visitor.page(person(Role.VIEWER))
    page.goto("/schedules")
    expect(page.get_by_role("link", name="Sweep")).to_be_visible()
    expect(page.get_by_role("link", name="New schedule")).to_have_count(0)
    page.goto(f"/schedules/{schedule.pk}")
    expect(page.get_by_role("button", name="Run now")).to_have_count(0)
    page.goto("/schedules/new")
    expect(page.get_by_text("you need the operator role")).to_be_visible()
