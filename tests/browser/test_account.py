"""The account's pages in a real browser: an app is set up, a token made, a browser signed out."""

from __future__ import annotations

import re

import pyotp
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from apps.core import clock

PASSWORD = "correct horse battery"  # noqa: S105


@pytest.fixture
def account(visitor, oscar):
    """Oscar, signed in through the door, on his security page."""
    page = visitor.page()
    page.goto("/login?next=/account/security")
    page.get_by_label("Username").fill(oscar.username)
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    expect(page).to_have_title("Security · AOS")
    return page


def test_the_page_is_reached_from_the_menu(page):
    page.goto("/")
    page.get_by_role("button", name="Oscar Ortiz").click()
    page.locator("#menu-user").get_by_role("link", name="Security").click()

    expect(page.get_by_role("heading", name="Security", exact=True)).to_be_visible()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("path", ["/account/security", "/account/second-factor", "/account/verify"])
def test_the_pages_have_no_accessibility_fault(account, path, theme):
    account.goto(path)
    account.evaluate(f"document.documentElement.dataset.bsTheme = '{theme}'")

    found = Axe().run(account)

    assert found.violations_count == 0, found.generate_report()


@pytest.mark.parametrize("path", ["/account/security", "/account/second-factor", "/account/verify"])
def test_nothing_is_wider_than_a_phone(account, path):
    account.set_viewport_size({"width": 390, "height": 844})
    account.goto(path)

    assert account.evaluate("document.documentElement.scrollWidth") <= 390


def test_an_app_is_set_up_and_asked_for_at_the_next_sign_in(account, visitor, oscar):
    account.get_by_role("link", name="Set it up").click()
    secret = account.locator(".aos-break").inner_text().strip()
    account.get_by_label("Code").fill(pyotp.TOTP(secret).at(clock.now()))
    account.get_by_role("button", name="Turn it on").click()
    expect(account.get_by_text("Recovery codes")).to_be_visible()
    recovery = account.locator(".aos-account-codes li").first.inner_text()

    other = visitor.page()
    other.goto("/login")
    other.get_by_label("Username").fill(oscar.username)
    other.get_by_label("Password").fill(PASSWORD)
    other.keyboard.press("Enter")
    expect(other).to_have_title("Code · AOS")
    other.get_by_label("Code").fill("000000")
    other.keyboard.press("Enter")
    expect(other.get_by_role("alert")).to_contain_text("not right")
    visitor.forgive("422")
    other.get_by_label("Code").fill(recovery)
    other.keyboard.press("Enter")
    expect(other).to_have_url(f"{visitor.url}/")


def test_a_token_is_made_and_its_value_shown_once(account):
    account.get_by_label("What it is for").fill("nightly reports")
    account.get_by_label("run:read").check()
    account.get_by_role("button", name="Create it").click()

    value = account.locator("#token-value").inner_text()
    assert re.fullmatch(r"aos_pat_\w{8}_\w{43}_\w{7}", value)
    account.goto("/account/security")
    expect(account.locator("#token-value")).to_have_count(0)
    account.get_by_role("button", name="Revoke nightly reports").click()
    asked = account.get_by_role("dialog")
    expect(asked).to_contain_text("refused from its next request on")
    asked.get_by_role("button", name="Keep it").click()
    expect(account.locator(".aos-account-list").get_by_text("Revoked")).to_have_count(0)
    account.get_by_role("button", name="Revoke nightly reports").click()
    asked.get_by_role("button", name="Revoke it").click()
    expect(account.locator(".aos-account-list").get_by_text("Revoked")).to_be_visible()


def test_a_token_without_a_scope_is_refused_and_what_was_typed_stays(account, visitor):
    account.get_by_label("What it is for").fill("nightly reports")
    account.get_by_role("button", name="Create it").click()

    expect(account.get_by_role("alert")).to_contain_text("must be at least one")
    expect(account.get_by_label("What it is for")).to_have_value("nightly reports")
    visitor.forgive("422")


def test_each_scope_says_what_it_lets_a_token_do(account):
    expect(account.get_by_label("audit:export")).to_have_accessible_description(
        "Export the audit log"
    )


def test_another_browser_is_signed_out(account, visitor, oscar):
    other = visitor.page()
    other.goto("/login")
    other.get_by_label("Username").fill(oscar.username)
    other.get_by_label("Password").fill(PASSWORD)
    other.keyboard.press("Enter")
    expect(other).to_have_url(f"{visitor.url}/")

    account.reload()
    account.get_by_role("button", name="Sign out all others").click()
    expect(account.locator(".aos-account-list").first.locator("li")).to_have_count(1)

    other.goto("/runs")
    expect(other).to_have_title("Sign in · AOS")
