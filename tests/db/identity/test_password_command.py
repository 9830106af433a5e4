from __future__ import annotations

import io

import pytest
from django.contrib.auth.hashers import make_password
from django.core.management import CommandError, call_command
from django.test import Client

from apps.events.models import AuditEntry
from apps.identity.models import SignIn, User
from apps.identity.types import UserKind
from tests.factories import make_user

OLD, NEW = "correct horse battery", "another long one 7"


def reset(monkeypatch, username, password=NEW):
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{password}\n"))
    call_command("password", username, "--stdin")


# With commits: PostgreSQL asks for the audit entry at the end of the transaction.
@pytest.mark.django_db(transaction=True)
def test_a_password_is_set_from_the_shell_on_record_and_ends_every_session(monkeypatch):
    user = make_user(username="olivia", password=make_password(OLD))
    browser = Client()
    browser.post("/login", {"username": "olivia", "password": OLD})
    assert SignIn.objects.exists()

    reset(monkeypatch, "olivia")

    user.refresh_from_db()
    assert user.check_password(NEW)
    assert browser.get("/account/security").status_code == 302
    assert not SignIn.objects.exists()
    entry = AuditEntry.objects.get(action="user.password_reset")
    assert (entry.actor_kind, entry.actor_name) == ("platform", "shell")
    assert NEW not in str(list(AuditEntry.objects.values()))


@pytest.mark.django_db
def test_what_cannot_be_is_refused_and_changes_nothing(monkeypatch):
    make_user(username="olivia", password=make_password(OLD))
    make_user(username="robot", kind=UserKind.SERVICE, password="!")

    for username, password in (("nobody", NEW), ("olivia", "short"), ("robot", NEW)):
        with pytest.raises(CommandError):
            reset(monkeypatch, username, password)

    assert User.objects.get(username="olivia").check_password(OLD)
    assert not AuditEntry.objects.exists()
