"""Acts on many runs in a real browser: counted, tried on a few, gone on with, and followed."""

from __future__ import annotations

from playwright.sync_api import expect

from apps.identity.types import Role
from apps.runs.models import BulkAct, Run
from apps.runs.services import bulk, leadership
from apps.runs.types import RunState
from tests.factories import make_agent, make_run
from tests.support.stand_in import StandIn


def _work():
    seat = leadership.take("stand-in")
    while bulk.advance(seat):
        pass


def test_runs_are_cancelled_by_filter_a_few_first(visitor, person, project):
    agent = make_agent(organization=project.organization, title="Sweeper", slug="sweeper")
    StandIn(make_run(project=project)).succeed("Done.")
    for _ in range(7):
        make_run(project=project, agent=agent)
    page = visitor.page(person(Role.OPERATOR))
    page.goto("/runs")
    page.get_by_label("Agent").select_option(label="Sweeper")
    expect(page.get_by_text("All runs that match:")).to_be_visible()
    page.get_by_role("link", name="Cancel…").click()

    expect(page.get_by_role("heading", name="Cancel 7 runs?")).to_be_visible()
    page.get_by_label("How many first").fill("2")
    page.get_by_role("button", name="Cancel 7 runs").click()
    expect(page.get_by_text("The engine goes through them")).to_be_visible()
    _work()
    expect(page.get_by_text("Waits for you")).to_be_visible()
    assert Run.objects.filter(state=RunState.CANCELLED).count() == 2

    page.get_by_role("button", name="Cancel the other 5").click()
    expect(page.get_by_text("At work")).to_be_visible()
    _work()
    expect(page.get_by_text("Done", exact=True)).to_be_visible()
    assert Run.objects.filter(state=RunState.CANCELLED).count() == 7
    page.get_by_role("link", name="Bulk acts").click()
    expect(page.get_by_role("link", name="Cancel 7 runs")).to_be_visible()


def test_a_rerun_of_many_is_asked_for_and_stopped(visitor, person, project):
    for _ in range(3):
        StandIn(make_run(project=project)).succeed("Done.")
    page = visitor.page(person(Role.OPERATOR))
    page.goto("/runs")
    page.get_by_role("link", name="Re-run…").click()
    page.get_by_label("All at once").check()
    page.get_by_role("button", name="Re-run 3 runs").click()
    page.get_by_role("button", name="Stop").click()

    expect(page.get_by_text("stopped it")).to_be_visible()
    assert BulkAct.objects.get().done == 0


def test_a_viewer_is_not_offered_what_a_viewer_may_not(visitor, person, project):
    make_run(project=project)
    page = visitor.page(person(Role.VIEWER))
    page.goto("/runs")
    expect(page.get_by_role("link", name="Cancel…")).to_have_count(0)
    page.goto("/runs/bulk/new?act=cancel")
    expect(page.get_by_text("does not allow")).to_be_visible()
    visitor.forgive("403")
