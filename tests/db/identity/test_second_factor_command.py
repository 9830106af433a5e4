from __future__ import annotations

import pyotp
import pytest
from django.contrib.auth.hashers import make_password
from django.core.management import CommandError, call_command
from django.test import Client

from apps.events.models import AuditEntry
from apps.identity.actor import Actor
from apps.identity.models import RecoveryCode, SecondFactor, SignIn
from apps.identity.services import second_factor
from tests.factories import make_user

OWN = "correct horse battery"


@pytest.fixture
def olivia():
    """Somebody who is signed in, and has an app and recovery codes."""
    olivia = make_user(username="olivia", password=make_password(OWN))
    Client().post("/login", {"username": "olivia", "password": OWN})
    by = Actor(user=olivia)
    app = pyotp.TOTP(second_factor.begin(by=by).secret)
    second_factor.confirm(by=by, code=app.now())
    return olivia


# With commits: PostgreSQL asks for the audit entry at the end of the transaction.
@pytest.mark.django_db(transaction=True)
def test_the_operator_takes_a_lost_factor_away_on_record_and_ends_every_session(olivia, capsys):
    assert SignIn.objects.filter(user=olivia).exists()
    assert RecoveryCode.objects.filter(user=olivia).exists()

    call_command("reset_second_factor", "olivia")

    assert not SecondFactor.objects.filter(user=olivia).exists()
    assert not RecoveryCode.objects.filter(user=olivia).exists()
    assert not SignIn.objects.filter(user=olivia).exists()
    entry = AuditEntry.objects.get(action="second_factor.reset")
    assert (entry.actor_kind, entry.actor_name) == ("platform", "shell")
    assert "olivia signs in with the password alone" in capsys.readouterr().out
    browser = Client()
    browser.post("/login", {"username": "olivia", "password": OWN})
    assert browser.get("/account/security").status_code == 200


@pytest.mark.django_db
def test_who_is_not_there_or_has_no_factor_is_named_and_nothing_changes():
    make_user(username="rita")

    for username, reason in (("nobody", "no user 'nobody'"), ("rita", "rita has no second factor")):
        with pytest.raises(CommandError, match=reason):
            call_command("reset_second_factor", username)

    assert not AuditEntry.objects.exists()
