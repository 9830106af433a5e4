"""The queue page in a real browser: it follows what happens, and holds a queue."""

from __future__ import annotations

from datetime import timedelta

from playwright.sync_api import expect

from apps.identity.actor import Actor
from apps.identity.types import Role
from apps.runs.services import leadership, limits
from tests.factories import make_agent, make_run, make_worker
from tests.support.looking import PHONE, violations
from tests.support.stand_in import StandIn


def test_it_shows_what_happens_without_being_reloaded(visitor, person, project):
    make_worker(name="kiosk")
    agent = make_agent(organization=project.organization)
    StandIn(make_run(project=project, agent=agent)).succeed("Done.")
    page = visitor.page(person(Role.ADMIN))
    page.goto("/queue")
    expect(page.get_by_text("nothing waits")).to_be_visible()
    expect(page.get_by_role("cell", name="kiosk")).to_be_visible()
    expect(page.get_by_role("img", name="1 runs ended in the last hour")).to_be_visible()

    make_run(project=project, agent=agent)

    expect(page.get_by_text("the oldest for")).to_be_visible()


def test_a_queue_is_held_and_its_runs_say_why_they_wait(visitor, person, project):
    run = make_run(project=project)
    page = visitor.page(person(Role.ADMIN))
    page.goto("/queue")
    page.get_by_role("button", name="Pause default/normal").click()
    expect(page.get_by_role("button", name="Resume default/normal")).to_be_visible()

    page.goto(f"/runs/{run.public_id}")
    expect(page.get_by_text("The queue default/normal is paused.")).to_be_visible()


def test_the_form_of_a_limit_asks_only_for_what_goes_with_its_kind(visitor, person, project):
    page = visitor.page(person(Role.ADMIN))
    page.goto("/queue")
    expect(page.get_by_label("Key", exact=True)).to_be_visible()
    expect(page.get_by_label("May wait")).to_be_hidden()

    page.get_by_label("Of", exact=True).select_option("organization")

    expect(page.get_by_label("Key", exact=True)).to_be_hidden()
    expect(page.get_by_label("May wait")).to_be_visible()
    page.get_by_label("Of", exact=True).select_option(label=project.name)
    expect(page.get_by_label("May wait")).to_be_hidden()


def test_on_a_phone_the_buttons_of_limits_are_not_cut_off(visitor, person, project):
    admin = person(Role.ADMIN)
    limits.put(by=Actor(user=admin), about=limits.of_key(project.organization_id, "k" * 60), cap=3)
    page = visitor.page(admin, viewport=PHONE)
    page.goto("/queue")

    button = page.get_by_role("button", name="Remove the limit").bounding_box()

    assert button
    assert button["x"] + button["width"] <= PHONE["width"]


def test_a_key_is_limited_and_its_runs_say_why_they_wait(visitor, person, project):
    make_worker(name="kiosk")
    run = make_run(project=project, concurrency_key="invoices")
    page = visitor.page(person(Role.ADMIN))
    page.goto("/queue")
    page.get_by_label("Key", exact=True).fill("invoices")
    page.get_by_label("At once").fill("3")
    page.get_by_role("button", name="Set it").click()
    expect(page.get_by_role("cell", name="0 of 3")).to_be_visible()

    page.get_by_label("Agent", exact=True).select_option(run.agent_version.agent.slug)
    page.get_by_label("Why").fill("the bank is closed")
    page.get_by_role("button", name="Pause it").click()
    expect(page.get_by_text("the bank is closed")).to_be_visible()

    page.goto(f"/runs/{run.public_id}")
    expect(page.get_by_text("is paused: the bank is closed.")).to_be_visible()


def test_a_run_says_which_label_no_worker_has_and_the_page_which_there_are(
    visitor, person, project, settings
):
    settings.AOS_LEADER_TTL = timedelta(hours=1)
    leadership.take("test")
    make_worker(name="kiosk", labels={"zone": "eu"}, version="7.1")
    run = make_run(project=project, requires={"gpu": "true"})
    page = visitor.page(person(Role.ADMIN))
    page.goto(f"/runs/{run.public_id}")
    expect(page.get_by_text("No worker has gpu=true, which it requires.")).to_be_visible()

    page.goto("/queue")
    expect(page.get_by_role("row", name="kiosk zone=eu")).to_contain_text("7.1")
    expect(page.get_by_text("1 of them for a limit or a worker")).to_be_visible()


def test_an_owner_decides_how_long_ended_runs_are_kept(visitor, person):
    # axe is injected, which the policy forbids.
    page = visitor.page(person(Role.OWNER), bypass_csp=True)
    page.goto("/queue")
    page.get_by_label("Days to keep them").fill("90")
    page.get_by_role("button", name="Save how long ended runs are kept").click()
    expect(page.get_by_role("heading", name="Keep ended runs for 90 days?")).to_be_visible()
    expect(page.get_by_text("No run ended longer ago yet.")).to_be_visible()
    assert violations(page) == []
    page.get_by_role("button", name="Keep them for 90 days").click()

    expect(page.get_by_text("Kept for 90 days after their end")).to_be_visible()
    expect(page.get_by_text("Your organization decided it.")).to_be_visible()
