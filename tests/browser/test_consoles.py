"""The faces that others built (Unfold's admin, Swagger UI) under policies of their own: they work, and
no page complains. ``visitor`` fails the test on any message in the browser's console."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from apps.identity.types import Role
from apps.runs.models import Run
from tests.browser.conftest import PHONE
from tests.factories import make_agent, make_run


@pytest.fixture
def agent(project):
    return make_agent(organization=project.organization, title="Hello")


@pytest.fixture
def desk(visitor, person):
    return visitor.page(person(Role.OWNER))


@pytest.mark.parametrize(
    "path",
    [
        "/admin/",
        "/admin/runs/run/",
        "/admin/runs/run/add/",
        "/admin/identity/user/",
        "/admin/identity/apitoken/add/",
        "/admin/identity/binding/add/",
        "/admin/events/auditentry/",
    ],
)
def test_the_admin_opens_quietly(desk, project, agent, path):
    make_run(project=project, agent=agent)

    desk.goto(path)

    expect(desk.get_by_role("link", name="Workspace files").first).to_be_visible()
    assert desk.url.endswith(path)


def test_the_menu_of_the_admin_opens_on_a_phone(visitor, person):
    page = visitor.page(person(Role.OWNER), viewport=PHONE)

    page.goto("/admin/")
    hub = page.get_by_role("link", name="Chat Hub")
    expect(hub).to_be_hidden()
    page.locator("#main [x-on\\:click*=sidebarMobileOpen]").first.click()

    # Alpine evaluates its expressions: without 'unsafe-eval' nothing would open.
    expect(hub).to_be_visible()


def test_a_run_is_submitted_and_cancelled_with_the_mouse(desk, project, agent):
    desk.goto(f"/admin/agents/agent/{agent.pk}/change/")
    desk.get_by_role("link", name="Submit a run").click()
    desk.get_by_label("Project").select_option(label=project.name)
    desk.get_by_role("button", name="Save", exact=True).click()
    desk.wait_for_url("**/admin/runs/run/")
    run = Run.objects.get()

    desk.goto(f"/admin/runs/run/{run.pk}/change/")
    desk.get_by_role("link", name="Cancel").click()
    desk.get_by_role("button", name="Cancel the run").click()

    expect(desk.get_by_text("The run is cancelled.")).to_be_visible()
    run.refresh_from_db()
    assert run.state == "cancelled"


def test_the_api_docs_show_the_operations(desk):
    desk.goto("/api/docs")

    expect(desk.get_by_text("Submit a run").first).to_be_visible()
    desk.locator("#operations-Runs-run_submit").get_by_role("button").first.click()
    expect(desk.get_by_text("Idempotency-Key").first).to_be_visible()
