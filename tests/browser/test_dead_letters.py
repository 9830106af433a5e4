"""Dead letters in a real browser: understood, requeued one by one and all with one reason."""

from __future__ import annotations

from playwright.sync_api import expect

from apps.identity.types import Role
from apps.runs.models import DeadLetter
from apps.runs.services import bulk, leadership
from tests.factories import make_agent, make_dead_run, make_run
from tests.support.looking import PHONE
from tests.support.stand_in import StandIn


def test_letters_are_requeued_one_by_one_and_by_reason(visitor, person, project):
    agent = make_agent(organization=project.organization, title="Sweeper", slug="sweeper")
    failed = make_run(project=project, agent=agent)
    StandIn(failed).fail("command_failed", "The command ended with exit code 3.")
    for _ in range(3):
        make_dead_run(project=project, agent=agent)
    page = visitor.page(person(Role.OPERATOR))
    page.goto("/runs")
    page.get_by_role("link", name="Dead letters").first.click()
    expect(page.get_by_text("The command ended with exit code 3.")).to_be_visible()

    page.get_by_role("link", name="No worker was free in time 3").click()
    expect(page.get_by_role("button", name="Requeue sweeper")).to_have_count(3)
    page.get_by_role("button", name="Requeue sweeper").first.click()
    expect(page.get_by_text("is queued again")).to_be_visible()
    assert DeadLetter.objects.open().count() == 3

    page.get_by_role("link", name="No worker was free in time 2").click()
    page.get_by_role("link", name="Requeue…").click()
    expect(page.get_by_role("heading", name="Requeue 2 runs?")).to_be_visible()
    page.get_by_label("All at once").check()
    page.get_by_role("button", name="Requeue 2 runs").click()
    expect(page.get_by_text("At work")).to_be_visible()
    bulk.advance(leadership.take("stand-in"))
    expect(page.get_by_text("Done", exact=True)).to_be_visible()
    assert list(DeadLetter.objects.open().values_list("run", flat=True)) == [failed.pk]


def test_on_a_phone_a_viewers_letter_has_its_state_beside_its_age(visitor, person, project):
    make_dead_run(project=project)
    page = visitor.page(person(Role.VIEWER), viewport=PHONE)
    page.goto("/dead-letters")

    state = page.locator(".aos-letters td").first.bounding_box()
    age = page.locator(".aos-letters td.aos-runs-when").bounding_box()

    assert state
    assert age
    assert abs(state["y"] - age["y"]) < 10
    assert state["x"] < age["x"]
