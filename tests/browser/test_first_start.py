"""From an installation that nobody owns to its first receipt, in a real browser on real processes."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from apps.identity.models import User
from apps.identity.services import installation
from tests.browser.conftest import Visitor
from tests.support.looking import faults
from tests.support.platform import Platform

PASSWORD = "correct horse battery"  # noqa: S105
# What the form says once engine and worker run; either may be the first.
HERE = ("leads in epoch", "1 worker with room")


@pytest.fixture
def place(_orm_beside_playwright, transactional_db, processes, tmp_path):
    """A web process, an engine and a worker of an installation that nobody owns."""
    running = Platform(
        tmp_path, overrides=processes.overrides | {"AOS_INSTANCE": f"first-{tmp_path.name}"[:30]}
    )
    running.url = running.web()
    yield running
    running.stop()


@pytest.fixture
def visiting(place, chromium):
    visitor = Visitor(place.url, chromium)
    yield visitor
    for context in visitor.contexts:
        context.close()
    assert visitor.complaints == []


def fill(page):
    page.get_by_label("Username").fill("nina")
    page.get_by_label("Your name").fill("Nina Neu")
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_label("Password again").fill(PASSWORD)
    page.get_by_label("Its name").fill("Acme Air")


def unlock(place, page):
    """From any page to the form, as the launcher prints the way: the code is in no address sent."""
    code = installation.new_code()
    page.goto("/runs?state=failed")
    expect(page).to_have_url(f"{place.url}/start")
    expect(page).to_have_title("First start · AOS")

    sent = []
    page.on("request", lambda request: sent.append(request.url))
    page.goto("about:blank")
    page.goto(f"/start#{code}")
    expect(page.get_by_label("Activation code")).to_have_value(code)
    expect(page).to_have_url(f"{place.url}/start")
    assert code not in "".join(sent)
    page.get_by_role("button", name="Continue").click()


def start_what_is_missing(place, page):
    """Nothing runs yet: that is said, with what to do; then it is started, and seen."""
    expect(page.get_by_text("nobody leads")).to_be_visible()
    expect(page.get_by_text(re.compile("manage.py engine"))).to_be_visible()
    page.get_by_label("Username").fill("kept while checking")
    place.engine()
    place.worker()
    again = page.get_by_role("button", name="Check again")
    for _ in range(60):
        again.click()
        page.wait_for_timeout(500)
        if all(page.get_by_text(text).is_visible() for text in HERE):
            break
    for text in HERE:
        expect(page.get_by_text(text)).to_be_visible()
    expect(page.get_by_label("Username")).to_have_value("kept while checking")


def test_from_the_code_to_the_receipt(place, visiting):
    page = visiting.page()
    unlock(place, page)
    start_what_is_missing(place, page)
    fill(page)
    page.get_by_role("button", name="Finish").click()

    expect(page).to_have_url(f"{place.url}/welcome")
    expect(page.get_by_role("heading", name="Welcome, Nina Neu")).to_be_visible()
    value = page.locator("#token-value").inner_text()
    expect(page.get_by_role("button", name="Copy", exact=True)).to_have_attribute(
        "data-copy", value
    )
    page.evaluate("window.sameDocument = true")
    run = page.locator("#first-run")
    expect(run.get_by_text("The report and the chart are ready")).to_be_visible(timeout=90_000)
    expect(run.locator("[data-state=succeeded]")).to_be_visible(timeout=60_000)
    expect(run.get_by_text(re.compile("rows in, .* out"))).to_be_visible()
    assert page.evaluate("window.sameDocument")
    run.get_by_role("link", name="Open the run").click()
    expect(page).to_have_title(re.compile("^csv-report"))

    answer = page.request.get("/api/runs", headers={"Authorization": f"Bearer {value}"})
    assert answer.json()["results"][0]["state"] == "succeeded"
    page.goto("/start")
    expect(page).to_have_title("Not found · AOS")
    visiting.forgive("404")
    page.goto("/welcome")
    expect(page.locator("#token-value")).to_have_count(0)
    assert User.objects.get().username == "nina"


def test_each_page_of_it_is_accessible_and_fits_a_phone(place, visiting):
    code = installation.new_code()
    # axe is injected; the policy forbids that, and is tested without it above.
    page = visiting.page(bypass_csp=True)
    page.goto("/start")
    assert faults(page, "code") == []
    page.get_by_label("Activation code").fill("WRONG")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("not the present activation code")
    assert faults(page, "code-wrong") == []
    page.get_by_label("Activation code").fill(code)
    page.keyboard.press("Enter")
    expect(page.get_by_label("Username")).to_be_focused()
    assert faults(page, "form") == []
    fill(page)
    page.get_by_label("Password again").fill("another one entirely")
    page.get_by_role("button", name="Finish").click()
    expect(page.get_by_text("This is not the same password.")).to_be_visible()
    expect(page.get_by_label("Password again")).to_be_focused()
    assert faults(page, "form-wrong") == []
    visiting.forgive("422")
    fill(page)
    page.get_by_label("Add the example agents").uncheck()
    page.get_by_role("button", name="Finish").click()
    expect(page.get_by_role("button", name="Run the example")).to_be_visible()
    assert faults(page, "welcome-empty") == []
    page.get_by_role("button", name="Run the example").click()
    expect(page.locator("#first-run [data-state=queued]")).to_be_visible()
    assert faults(page, "welcome-waiting") == []
