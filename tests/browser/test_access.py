"""Access in a real browser: a role with an end, taken back; a token that is shown once; who is let in."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from apps.identity.actor import Actor
from apps.identity.models import Binding, User
from apps.identity.services import bindings, departments, people, proposals, tokens
from apps.identity.types import Role
from tests.factories import make_agent
from tests.support.looking import faults

PASSWORD = "correct horse battery"  # noqa: S105


@pytest.fixture
def olivia(person):
    return person(Role.OWNER)


@pytest.fixture
def oscar(person):
    return person(Role.OPERATOR)


@pytest.fixture
def access(visitor, olivia, oscar):
    """Olivia, signed in through the door and so with a fresh proof, among her people."""
    page = visitor.page()
    page.goto("/login?next=/access/people")
    page.get_by_label("Username").fill(olivia.username)
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    expect(page).to_have_title("People · AOS")
    return page


@pytest.fixture
def places(olivia, oscar, project):
    """A person with roles of every kind, a department, a service account, and where to look at them."""
    by = Actor(user=olivia)
    research = departments.create(by=by, name="Research")
    departments.add_member(by=by, department=research, user=oscar)
    bindings.grant(by=by, subject=research, role=Role.VIEWER, reason="reads the reports")
    proposals.propose(by=by, user=oscar, reason="stands in for me")
    account = people.add_service_account(by=by, username="nightly-reports", name="Nightly reports")
    tokens.issue(by=by, account=account, name="ci", scopes=["run:read"], networks=["10.0.0.0/8"])
    return {
        "people": "/access/people",
        "nobody": "/access/people?q=nobody-of-that-name",
        "person": f"/access/people/{oscar.pk}",
        "departments": "/access/departments",
        "department": f"/access/departments/{research.pk}",
        "accounts": "/access/service-accounts",
        "account": f"/access/people/{account.pk}",
        "proposals": "/access/proposals",
        "roles": "/access/roles",
        "grant": f"/access/grant?who=user:{oscar.pk}",
        "check": f"/access/people/{oscar.pk}/check?action=run.submit&scope=organization",
        "disable": f"/access/people/{oscar.pk}/disable",
        "token": f"/access/people/{account.pk}/tokens",
    }


def _dialog(page):
    return page.get_by_role("dialog", name="Change access")


def _ask(page, name, **more):
    """Follow a link that opens the dialog, once the scripts are there to do so: before, it leads to a
    page with the same content."""
    expect(page.locator("#aos-live")).to_have_attribute("data-state", "live")
    page.get_by_role("link", name=name, **more).first.press("Enter")
    expect(_dialog(page)).to_be_visible()


def test_the_pages_are_accessible_and_fit_their_window(visitor, olivia, places):
    # axe is injected; the policy forbids that, and is tested without it everywhere else.
    page = visitor.page(bypass_csp=True)
    page.goto("/login?next=/access/people")
    page.get_by_label("Username").fill(olivia.username)
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    expect(page).to_have_title("People · AOS")
    wrong = []
    for name, path in places.items():
        page.goto(path)
        wrong += faults(page, name)
    page.goto("/access/people")
    _ask(page, "Give a role")
    _dialog(page).get_by_label("Over").select_option("project")
    wrong += faults(page, "dialog")

    assert wrong == []


def test_access_is_reached_from_the_menu_by_those_who_may(visitor, access, oscar):
    access.goto("/")
    access.get_by_role("link", name="Access").click()
    expect(access.get_by_role("heading", name="People")).to_be_visible()

    page = visitor.page(oscar)
    page.goto("/")
    expect(page.get_by_role("link", name="Access")).to_have_count(0)
    page.goto("/access/people")
    expect(page.get_by_text("Your role does not allow people.read")).to_be_visible()
    expect(page.get_by_text("It takes the role admin to see people")).to_be_visible()
    visitor.forgive("403")


def test_a_role_with_an_end_is_given_and_taken_back(access, oscar, project):
    agent = make_agent(organization=project.organization, title="CSV report")
    access.get_by_label("Find a person").fill(oscar.username)
    found = access.get_by_role("row").filter(has_text=oscar.username)
    found.get_by_role("link").click()
    _ask(access, "Give a role")
    dialog = _dialog(access)
    expect(dialog.get_by_label("Who")).to_have_value(f"user:{oscar.pk.hex}")
    expect(dialog.get_by_label("Agent")).to_be_hidden()
    dialog.get_by_label("Role").select_option("admin")
    dialog.get_by_label("Over").select_option("agent")
    dialog.get_by_label("Agent").select_option(label=agent.title)
    dialog.get_by_label("Lasts").select_option("7d")
    dialog.get_by_label("Why").fill("while Adam is away")
    dialog.get_by_role("button", name="Give the role").click()

    roles = access.get_by_role("region", name="Roles", exact=True)
    given = roles.get_by_role("listitem").filter(has_text="CSV report")
    expect(given).to_contain_text("Admin over the agent CSV report")
    expect(given).to_contain_text("in 7 days")
    expect(given).to_contain_text("while Adam is away")
    _ask(access, "Take back Admin")
    dialog.get_by_label("Why").fill("he is back")
    dialog.get_by_role("button", name="Take it back").click()
    expect(given).to_have_count(0)
    assert not Binding.objects.filter(user=oscar, role=Role.ADMIN).exists()


def test_an_end_in_the_past_is_told_in_the_dialog_and_nothing_typed_is_lost(visitor, access, oscar):
    access.goto(f"/access/people/{oscar.pk}")
    _ask(access, "Give a role")
    dialog = _dialog(access)
    dialog.get_by_label("Role").select_option("admin")
    dialog.get_by_label("Lasts").select_option("until")
    dialog.get_by_label("Until").fill("2020-01-01T12:00")
    dialog.get_by_label("Why").fill("an experiment")
    dialog.get_by_role("button", name="Give the role").click()

    expect(dialog.get_by_role("alert")).to_contain_text("must lie in the future")
    expect(dialog.get_by_label("Why")).to_have_value("an experiment")
    expect(dialog.get_by_label("Role")).to_have_value("admin")
    expect(dialog.get_by_label("Until")).to_have_value("2020-01-01T12:00")
    visitor.forgive("422")


def test_a_stale_session_is_led_to_the_proof_and_back(visitor, olivia, oscar):
    page = visitor.page(olivia)
    page.goto(f"/access/people/{oscar.pk}")
    _ask(page, "Give a role")
    _dialog(page).get_by_role("link", name="Prove that it is you").click()
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")

    expect(page).to_have_url(f"{visitor.url}/access/people/{oscar.pk}")
    _ask(page, "Give a role")
    expect(_dialog(page).get_by_role("button", name="Give the role")).to_be_visible()


def test_a_person_is_added_disabled_and_enabled_with_the_keyboard(visitor, access):
    _ask(access, "Add a person")
    dialog = _dialog(access)
    expect(dialog.get_by_label("User name")).to_be_focused()
    access.keyboard.type("vera")
    dialog.get_by_label("First password").fill("short")
    access.keyboard.press("Enter")
    expect(dialog.get_by_role("alert")).to_contain_text("too short")
    expect(dialog.get_by_label("User name")).to_have_value("vera")
    visitor.forgive("422")
    dialog.get_by_label("First password").fill("a-battery-of-correct-horses")
    access.keyboard.press("Enter")
    expect(access.get_by_role("heading", name="vera")).to_be_visible()

    _ask(access, "Disable vera")
    dialog.get_by_label("Why").fill("left the company")
    access.keyboard.press("Enter")
    expect(access.get_by_text("vera is disabled.")).to_be_visible()
    assert not User.objects.get(username="vera").is_active
    _ask(access, "Enable vera")
    dialog.get_by_role("button", name="Enable").press("Enter")
    expect(access.get_by_text("vera is enabled again.")).to_be_visible()


def test_a_token_of_a_service_account_is_shown_once(access):
    access.get_by_role("link", name="Service accounts").click()
    _ask(access, "Make a service account")
    dialog = _dialog(access)
    dialog.get_by_label("User name").fill("ci-reports")
    dialog.get_by_role("button", name="Make it").click()
    expect(access.get_by_role("heading", name="ci-reports")).to_be_visible()
    _ask(access, "Make a token")
    dialog.get_by_label("What it is for").fill("nightly")
    dialog.get_by_label("run:read").check()
    dialog.get_by_label("Only from").fill("10.0.0.0/8")
    dialog.get_by_role("button", name="Make it").click()

    value = dialog.locator("#token-value").inner_text()
    assert re.fullmatch(r"aos_pat_\w{8}_\w{43}_\w{7}", value)
    access.context.grant_permissions(["clipboard-read", "clipboard-write"])
    dialog.get_by_role("button", name="Copy it").click()
    assert access.evaluate("navigator.clipboard.readText()") == value
    dialog.get_by_role("link", name="I have kept it").click()
    held = access.get_by_role("region", name="API tokens")
    expect(held).to_contain_text("only from 10.0.0.0/8")
    assert value not in access.content()
    _ask(access, "Revoke nightly")
    dialog.get_by_role("button", name="Revoke").click()
    expect(held).to_contain_text("Revoked")


def test_a_department_is_made_filled_given_a_role_and_removed(access, oscar):
    access.get_by_role("link", name="Departments").click()
    _ask(access, "Make a department")
    dialog = _dialog(access)
    dialog.get_by_label("Name").fill("Research")
    dialog.get_by_role("button", name="Make it").click()
    access.get_by_label("User name").fill(oscar.username)
    access.get_by_role("button", name="Add").click()
    expect(access.get_by_role("region", name="Members", exact=True)).to_contain_text("Oscar Ortiz")
    _ask(access, "Give a role")
    dialog.get_by_label("Role").select_option("viewer")
    dialog.get_by_role("button", name="Give the role").click()
    shared = access.get_by_role("region", name="Roles its members share")
    expect(shared).to_contain_text("Viewer over the whole organization")

    access.goto(f"/access/people/{oscar.pk}")
    expect(access.get_by_text("Through the department Research")).to_be_visible()
    access.get_by_role("link", name="Research").click()
    _ask(access, "Remove", exact=True)
    dialog.get_by_role("button", name="Remove it").click()
    expect(access.get_by_role("heading", name="No departments")).to_be_visible()


def test_what_somebody_may_do_is_looked_up(access, oscar, project):
    access.goto(f"/access/people/{oscar.pk}")
    _ask(access, "What may they do?")
    dialog = _dialog(access)
    dialog.get_by_label("May they").select_option("run.submit")
    dialog.get_by_role("button", name="Look").click()
    expect(dialog.get_by_role("status")).to_contain_text("Yes.")
    expect(dialog.get_by_role("status")).to_contain_text("Operator over the whole organization")

    dialog.get_by_label("May they").select_option("people.manage")
    dialog.get_by_role("button", name="Look").click()

    expect(dialog.get_by_role("status")).to_contain_text("No.")


def test_the_roles_are_a_table_from_the_matrix(access):
    access.get_by_role("link", name="Roles").click()

    row = access.get_by_role("row", name="Change people, service accounts")
    expect(row.get_by_role("cell")).to_have_text(
        ["·no", "·no", "yes", "yes", "organization", "admin", "fresh proofaudited"]
    )
