"""The pages about sandboxes in a real browser: environments are made, changed, cloned and deleted."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from apps.identity.types import Role
from apps.sandboxes.models import Environment, Sandbox
from apps.sandboxes.services import offers
from apps.sandboxes.types import ImageReport, ProfileReport
from tests.factories import HELLO, make_agent, make_environment, make_run, make_sandbox
from tests.support.looking import faults

GETS = {"memory_mb": 1024, "cpu": 1.0, "pids": 256, "workspace_mb": 512}
MOST = {"memory_mb": 8192, "cpu": 4, "pids": 1024, "workspace_mb": 4096}


@pytest.fixture
def host(visitor):
    """A worker's host has told what it offers."""
    profiles = [
        ProfileReport(
            name=name,
            image=f"aos/sandbox-{name}:latest",
            runtime="runc",
            egress=egress,
            gets=GETS,
            most=MOST | most,
        )
        for name, egress, most in (
            ("base", "open", {}),
            ("data", "allowlist", {"memory_mb": 4096}),
            ("node", "open", {}),
        )
    ]
    images = [
        ImageReport(
            tag="aos/sandbox-base:latest",
            source="base",
            digest="sha256:" + "a1" * 32,
            size=148_000_000,
            built_at="2026-11-20T08:00:00Z",
            base="aos/offline-base:bookworm",
            is_current=True,
        ),
        ImageReport(
            tag="aos/sandbox-data:latest",
            source="data",
            digest="sha256:" + "b2" * 32,
            size=512_000_000,
            built_at="2026-11-01T08:00:00Z",
            base="aos/sandbox-base:latest",
            is_current=False,
        ),
        ImageReport(tag="aos/sandbox-node:latest", source="node"),
    ]
    offers.report(host="laptop", profiles=profiles, images=images)


@pytest.fixture
def page(visitor, person, host):
    return visitor.page(person(Role.ADMIN))


def test_an_environment_is_made_within_what_the_profile_allows(page, visitor, project):
    page.goto("/integrations/sandboxes/environments")
    expect(page.get_by_role("link", name="blank")).to_be_visible()
    page.get_by_role("link", name="New environment").click()
    page.get_by_label("Name", exact=True).fill("Weather!")
    page.get_by_label("Profile", exact=True).select_option("data")
    expect(page.locator("#limit-memory_mb-note")).to_contain_text("at most 4096")
    page.get_by_label("Memory").fill("2048")
    page.get_by_text("Listed hosts").click()
    page.get_by_label("Hosts", exact=True).fill("10.0.0.1\nAPI.weather.example")
    page.get_by_label("Variable name").first.fill("UNITS")
    page.get_by_label("Variable value").first.fill("metric")
    page.get_by_role("button", name="Another variable").click()
    expect(page.get_by_label("Variable name").last).to_be_focused()
    page.get_by_role("button", name="Create it").click()

    expect(page.get_by_role("alert")).to_contain_text("2 fields below need another value")
    expect(page.get_by_text("Must be 1 to 40 lower-case letters")).to_be_visible()
    expect(page.get_by_text("Must be a host such as")).to_be_visible()
    visitor.forgive("422")
    page.get_by_label("Name", exact=True).fill("weather")
    page.get_by_label("Hosts", exact=True).fill("API.weather.example")
    page.get_by_role("button", name="Create it").click()

    expect(page.get_by_role("heading", name="weather")).to_be_visible()
    made = Environment.objects.get(name="weather")
    assert made.project == project
    assert (made.profile, made.limits) == ("data", {"memory_mb": 2048})
    assert made.egress == {"mode": "allowlist", "allow": ["api.weather.example"]}
    assert made.variables == {"UNITS": "metric"}


def test_what_another_profile_does_not_allow_is_not_offered(page):
    page.goto("/integrations/sandboxes/environments/new")
    page.get_by_label("Profile", exact=True).select_option("data")
    expect(page.locator("#limit-memory_mb-note")).to_contain_text("at most 4096")
    page.get_by_label("Name", exact=True).fill("wide-open")
    page.get_by_label("Memory").fill("5000")
    page.get_by_role("button", name="Create it").click()

    # The browser itself refuses the number.
    expect(page.get_by_role("button", name="Create it")).to_be_visible()
    assert page.get_by_label("Memory").evaluate("e => e.validity.rangeOverflow")


def test_it_is_changed_cloned_made_the_default_and_deleted(page, project):
    make_environment(project=project, name="weather", variables={"UNITS": "metric"})
    naming = HELLO | {"sandbox": {"environment": "weather"}}
    make_agent(organization=project.organization, title="Forecast", spec=naming)
    page.goto("/integrations/sandboxes/environments")
    page.get_by_role("link", name="weather").click()
    expect(page.get_by_text("Forecast")).to_be_visible()

    page.get_by_role("link", name="Change").click()
    page.get_by_label("Variable value").first.fill("imperial\nand more")
    page.get_by_role("button", name="Save it").click()
    expect(page.get_by_text("imperial")).to_be_visible()
    assert Environment.objects.get(name="weather").variables == {"UNITS": "imperial\nand more"}
    page.get_by_role("button", name="Clone").click()
    page.get_by_role("dialog").get_by_label("Name").fill("twin")
    page.get_by_role("button", name="Clone it").click()
    expect(page.get_by_role("heading", name="twin")).to_be_visible()
    page.get_by_role("button", name="Make default").click()
    expect(page.get_by_role("button", name="Make default")).to_have_count(0)
    page.goto("/integrations/sandboxes/environments")
    page.get_by_role("link", name="weather").click()
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("dialog")).to_contain_text("1 agent names it")
    page.get_by_role("button", name="Delete it").click()

    expect(page.get_by_role("link", name="twin")).to_be_visible()
    assert not Environment.objects.filter(name="weather").exists()
    assert Environment.objects.get(name="twin").is_default


def test_the_organizations_default_cannot_be_deleted_and_it_is_said_why(page):
    page.goto("/integrations/sandboxes/environments")
    page.get_by_role("link", name="blank").click()
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Delete it").click()

    expect(page.get_by_text("Make another one the default first").first).to_be_visible()


def test_a_viewer_looks_and_is_offered_nothing(visitor, person, project, host):
    made = make_environment(project=project, name="weather")
    page = visitor.page(person(Role.VIEWER))
    page.goto("/integrations/sandboxes/environments")
    expect(page.get_by_role("link", name="New environment")).to_have_count(0)
    expect(page.get_by_text("you need the admin role")).to_be_visible()
    page.goto(f"/integrations/sandboxes/environments/{made.pk}")
    expect(page.get_by_role("link", name="Change")).to_have_count(0)
    expect(page.get_by_role("button", name="Delete")).to_have_count(0)
    page.goto("/integrations/sandboxes/environments/new")
    expect(page.get_by_text("you need the admin role")).to_be_visible()


def test_images_are_listed_with_what_to_do_about_them(page):
    page.goto("/integrations/sandboxes/images")

    expect(page.get_by_text("Up to date")).to_be_visible()
    expect(page.get_by_text("Out of date")).to_be_visible()
    expect(page.get_by_text("Missing")).to_be_visible()
    expect(page.get_by_text("manage.py images build node")).to_be_visible()
    expect(page.get_by_text("148.0 MB")).to_be_visible()
    page.get_by_role("button", name="Copy digest").first.click()


def test_sandboxes_are_listed_with_their_state_and_narrowed_by_it(page, project):
    run = make_run(project=project)
    make_sandbox(run, host="laptop")
    make_sandbox(run, host="rack-3", kept=18_400_000)
    page.goto("/integrations/sandboxes/instances")
    expect(page.locator("#aos-live")).to_have_attribute("data-state", "live")
    expect(page.locator("[data-state=claimed]")).to_be_visible()
    expect(page.get_by_role("cell", name="18.4 MB")).to_be_visible()

    page.get_by_label("State", exact=True).select_option("snapshotted")

    expect(page.get_by_role("cell", name="laptop")).to_have_count(0)
    expect(page.get_by_role("cell", name="rack-3")).to_be_visible()
    assert page.url.endswith("?state=snapshotted")
    # The part that renews itself asks for the same state.
    with page.expect_request(lambda sent: "/instances" in sent.url, timeout=15_000) as asked:
        pass
    assert "state=snapshotted" in asked.value.url
    page.get_by_text("What the states mean").click()
    expect(page.get_by_text("kept for the next attempt of its run")).to_be_visible()
    page.get_by_role("row").nth(1).get_by_role("link").click()
    expect(page).to_have_url(re.compile(f"/runs/{run.public_id}$"))


def test_every_page_is_accessible_and_fits(visitor, person, project, host):
    page = visitor.page(person(Role.OWNER), bypass_csp=True)
    made = make_environment(
        project=project,
        name="weather",
        profile="data",
        limits={"memory_mb": 2048},
        egress={"mode": "allowlist", "allow": ["api.weather.example", "*.files.example:8443"]},
        variables={"UNITS": "metric", "STATIONS": "ATH,SKG,HER"},
    )
    run = make_run(project=project)
    for sandbox in (
        {},
        {"is_paused": True},
        {"kept": 18_400_000, "host": "rack-3.example.org" * 4},
    ):
        make_sandbox(run, **sandbox)
    make_sandbox()
    begin = "/integrations/sandboxes"
    wrong = []
    for name, path in {
        "environments": f"{begin}/environments",
        "environment": f"{begin}/environments/{made.pk}",
        "environment-new": f"{begin}/environments/new",
        "environment-edit": f"{begin}/environments/{made.pk}/edit",
        "images": f"{begin}/images",
        "instances": f"{begin}/instances",
    }.items():
        page.goto(path)
        expect(page.locator("#aos-live")).to_have_attribute("data-state", "live")
        wrong += faults(page, name)
    offers.report(host="laptop", profiles=[], images=[])
    page.goto(f"{begin}/images")
    expect(page.get_by_text("Nothing told yet")).to_be_visible()
    wrong += faults(page, "images-empty")
    Sandbox.objects.all().delete()
    page.goto(f"{begin}/instances")
    expect(page.get_by_text("No run has a sandbox now")).to_be_visible()
    wrong += faults(page, "instances-empty")

    assert wrong == []
