"""The audit log in a real browser: filtered, looked into, verified, exported."""

from __future__ import annotations

import csv
import json

import pytest
from django.db import transaction
from playwright.sync_api import expect

from apps.core import tenancy
from apps.events.models import AuditEntry
from apps.events.services import chain, checkpoints, outbox
from apps.identity import denials
from apps.identity.actor import Actor
from apps.identity.services import tokens
from apps.identity.types import Role
from tests.factories import make_run
from tests.support.looking import faults
from tests.support.tampering import by_hand

PASSWORD = "correct horse battery"  # noqa: S105


@pytest.fixture
def olivia(person):
    return person(Role.OWNER)


@pytest.fixture
def log(project, olivia):
    """A log with a run, a token, a changed account, a secret that changed, and a refusal."""
    by = Actor(user=olivia)
    make_run(project=project, by=by)
    token, _ = tokens.issue(by=by, name="nightly reports", scopes=["run:read"])
    through = Actor(user=olivia, token=token).ref
    with transaction.atomic():
        changed = outbox.audit(
            through,
            "user.change",
            resource_type="user",
            resource_id=olivia.pk,
            before={"email": "old@example.com", "password": "one", "first_name": ""},
            after={"email": "new@example.com", "password": "two", "first_name": "Olivia"},
        )
    with denials.recorded():
        denials.note(by.ref, "project.manage", reason="not_allowed")
    with transaction.atomic():
        chain.seal()
        checkpoints.sign()
    return changed


@pytest.fixture
def audit(visitor, olivia, log):
    page = visitor.page(olivia)
    page.goto("/audit")
    expect(page).to_have_title("Audit log · AOS")
    return page


def _lines(page):
    return page.locator(".aos-audit-line")


def test_the_pages_are_accessible_and_fit_their_window(visitor, olivia, log):
    # axe is injected; the policy forbids that, and is tested without it everywhere else.
    page = visitor.page(olivia, bypass_csp=True)
    wrong = []
    for name, path in {
        "audit": "/audit",
        "audit-empty": "/audit?period=between&actor=nobody",
        "audit-entry": f"/audit/entries/{log.pk}",
    }.items():
        page.goto(path)
        wrong += faults(page, name)
    page.goto("/audit")
    page.get_by_role("link", name="changed the account of").click()
    expect(page.get_by_role("dialog", name="Audit entry")).to_be_visible()
    wrong += faults(page, "audit-drawer")

    assert wrong == []


def test_the_log_is_reached_from_the_menu_and_the_palette(visitor, olivia, log):
    page = visitor.page(olivia)
    page.goto("/")
    page.get_by_role("link", name="Audit log").click()
    expect(page.get_by_role("heading", name="Audit log")).to_be_visible()

    page.wait_for_load_state()
    page.keyboard.press("Control+k")
    page.keyboard.type("audit")
    listed = page.get_by_role("listbox", name="Results")
    expect(listed.get_by_role("option", name="Audit log")).to_be_visible()


def test_who_may_not_read_it_is_not_shown_the_way(visitor, oscar, log):
    page = visitor.page(oscar)
    page.goto("/")
    expect(page.get_by_role("link", name="Audit log")).to_have_count(0)

    page.goto("/audit")

    expect(page.get_by_text("Your role does not allow audit.read")).to_be_visible()
    visitor.forgive("403")


def test_a_filter_is_in_the_address_and_the_back_button_undoes_it(audit, visitor):
    audit.get_by_label("Did what").select_option("access.denied")
    expect(_lines(audit)).to_have_count(1)
    expect(_lines(audit)).to_contain_text("was refused project.manage: no role allows it")
    expect(audit).to_have_url(f"{visitor.url}/audit?action=access.denied")

    audit.get_by_label("Who").fill("nobody")
    audit.keyboard.press("Enter")
    expect(audit.get_by_text("No entry matches")).to_be_visible()

    audit.go_back()
    expect(_lines(audit)).to_have_count(1)
    expect(audit.get_by_label("Who")).to_have_value("")
    audit.reload()
    expect(audit.get_by_label("Did what")).to_have_value("access.denied")
    expect(_lines(audit)).to_have_count(1)


def test_a_span_of_time_is_typed_in_ones_own_zone(visitor, olivia, log):
    page = visitor.page(olivia, timezone_id="Asia/Tokyo")
    page.goto("/audit")
    page.get_by_label("When").select_option("between")
    page.get_by_label("From Asia/Tokyo").fill("2020-01-02T09:30")
    page.get_by_label("To Asia/Tokyo").fill("2020-01-02T10:00")
    page.keyboard.press("Tab")

    expect(page.get_by_text("No entry matches")).to_be_visible()
    assert "since=2020-01-02T00%3A30%3A00Z&until=2020-01-02T01%3A00%3A00Z" in page.url
    page.reload()
    expect(page.get_by_label("From Asia/Tokyo")).to_have_value("2020-01-02T09:30")


def test_an_entry_opens_with_what_changed_and_its_place(audit, visitor, log):
    audit.get_by_role("link", name="changed the account of").click()
    drawer = audit.get_by_role("dialog", name="Audit entry")

    email = drawer.get_by_role("row", name="email")
    expect(email).to_contain_text("old@example.com")
    expect(email).to_contain_text("new@example.com")
    secret = drawer.get_by_role("row", name="password")
    expect(secret.get_by_text("hidden")).to_have_count(2)
    expect(drawer).to_contain_text("the API token nightly reports")
    expect(drawer).to_contain_text("was signed at place 4")
    drawer.get_by_role("link", name="Open as a page").click()
    expect(audit).to_have_url(f"{visitor.url}/audit/entries/{log.pk}")
    expect(audit.get_by_role("heading", name=f"Entry {log.pk}")).to_be_visible()


def test_the_keyboard_alone_walks_opens_and_closes(audit):
    audit.keyboard.press("/")
    expect(audit.get_by_label("Who")).to_be_focused()
    audit.get_by_label("Who").evaluate("field => field.blur()")
    audit.keyboard.press("k")
    audit.keyboard.press("k")
    walked = audit.locator(".aos-audit-line:focus")
    expect(walked).to_have_count(1)
    audit.keyboard.press("o")
    drawer = audit.get_by_role("dialog", name="Audit entry")
    expect(drawer).to_be_visible()

    audit.keyboard.press("Escape")

    expect(drawer).to_be_hidden()


def test_older_entries_are_loaded_below(audit, project, olivia):
    by = Actor(user=olivia).ref
    with transaction.atomic():
        for number in range(60):
            outbox.audit(by, "run.cancel", resource_type="run", resource_id=f"r{number}")
    audit.goto("/audit?action=run.cancel")
    expect(_lines(audit)).to_have_count(50)

    audit.get_by_role("link", name="Load older").click()

    expect(_lines(audit)).to_have_count(60)
    expect(audit.get_by_role("link", name="Load older")).to_have_count(0)
    expect(_lines(audit).last).to_contain_text("r0")


def test_the_verification_says_that_nothing_changed_and_then_what_did(audit, log):
    audit.get_by_role("link", name="Verify").click()
    expect(audit.get_by_text("Nothing was changed.")).to_be_visible()

    with tenancy.platform(), transaction.atomic():
        by_hand("UPDATE events_auditentry SET actor_name = 'sam' WHERE id = %(id)s", id=log.pk)
    audit.get_by_role("link", name="Verify").click()

    expect(audit.get_by_text("The log was tampered with.")).to_be_visible()
    expect(audit.locator("#aos-chain")).to_contain_text("is not what was sealed at place")
    audit.locator("#aos-chain").get_by_role("link", name=str(log.pk), exact=True).click()
    expect(audit.get_by_role("heading", name=f"Entry {log.pk}")).to_be_visible()


def test_an_export_holds_what_the_filter_shows_behind_a_fresh_proof(audit, olivia):
    audit.goto("/audit?action=access.denied")
    # The session of this browser never proved anything, so the proof is asked for first.
    audit.get_by_role("link", name="CSV").click()
    audit.get_by_label(f"Password of {olivia.username}").fill(PASSWORD)
    audit.keyboard.press("Enter")
    expect(audit.get_by_text("Your export is ready.")).to_be_visible()

    with audit.expect_download() as table:
        audit.get_by_role("link", name="Download CSV").click()
    with audit.expect_download() as lines:
        audit.get_by_role("link", name="JSONL", exact=True).click()

    with table.value.path().open(newline="") as file:
        (row,) = csv.DictReader(file)
    line = json.loads(lines.value.path().read_text())
    assert row["resource_id"] == line["resource_id"] == "project.manage"
    assert AuditEntry.objects.filter(action="audit.export").count() == 2
