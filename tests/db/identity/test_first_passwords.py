"""A password that somebody else knows gets its person one of their own, and nothing else."""

from __future__ import annotations

import re

import pyotp
import pytest
from django.test import Client

from apps.core import clock
from apps.core.errors import Conflict, Invalid, NotAllowed
from apps.events.models import AuditEntry
from apps.identity import denials
from apps.identity.actor import Actor
from apps.identity.errors import StepUpRequired
from apps.identity.models import SignIn, User
from apps.identity.services import passwords, people, second_factor
from apps.identity.types import Role
from tests.faces import session
from tests.factories import make_cast, make_organization, make_service_account, make_user

pytestmark = pytest.mark.django_db

FIRST = "seven loose shoelaces"
OWN = "correct horse battery"


@pytest.fixture(autouse=True)
def _fresh():
    denials.forget()


@pytest.fixture
def cast():
    return make_cast()


@pytest.fixture
def nina(cast):
    return people.add(
        by=Actor(user=cast.olivia), username="nina", email="nina@x.test", password=FIRST
    )


def enter(name, password):
    browser = Client()
    return browser, browser.post(
        "/login", {"username": name, "password": password, "next": "/runs"}
    )


def is_in(browser):
    return browser.get("/runs").status_code == 200


def choose(browser, new):
    return browser.post("/login/password", {"new": new, "next": "/runs"})


def test_who_is_added_chooses_a_password_of_their_own_before_anything_else(nina):
    browser, answer = enter("nina", FIRST)
    assert answer["Location"] == "/login/password?next=%2Fruns"
    assert not is_in(browser)
    assert not SignIn.objects.exists()

    assert choose(browser, OWN)["Location"] == "/runs"
    assert is_in(browser)
    assert enter("nina", FIRST)[1].status_code == 200
    assert enter("nina", OWN)[1]["Location"] == "/runs"
    entry = AuditEntry.objects.get(action="user.password")
    assert entry.actor_id == nina.pk


@pytest.mark.parametrize("new", [FIRST, "short", ""])
def test_the_first_password_never_becomes_the_lasting_one(nina, new):
    browser, _ = enter("nina", FIRST)

    assert choose(browser, new).status_code == 422
    assert not is_in(browser)
    assert User.objects.get(pk=nina.pk).first_password_until is not None


def test_a_first_password_expires(nina, now):
    now(hours=73)
    browser, answer = enter("nina", FIRST)

    assert answer.status_code == 200
    assert not is_in(browser)
    refused = AuditEntry.objects.get(action="access.denied")
    assert refused.detail["reason"] == "the first password has expired"


def test_the_step_of_choosing_expires_too(nina, now):
    browser, _ = enter("nina", FIRST)
    now(minutes=16)

    assert choose(browser, OWN)["Location"] == "/login"
    assert not User.objects.get(pk=nina.pk).check_password(OWN)


def test_nobody_chooses_who_has_not_shown_the_first_one(nina):
    browser = Client()

    assert choose(browser, OWN)["Location"] == "/login"
    assert User.objects.get(pk=nina.pk).check_password(FIRST)


def test_what_was_given_meanwhile_is_not_overwritten_by_an_older_step(cast, nina):
    """Between the right first password and the chosen one the account was disabled."""
    browser, _ = enter("nina", FIRST)
    people.deactivate(by=Actor(user=cast.olivia), user=nina)

    assert choose(browser, OWN)["Location"] == "/login"
    assert not User.objects.get(pk=nina.pk).check_password(OWN)


def test_somebody_who_forgot_theirs_gets_one_by_an_admin_and_is_signed_out(cast):
    vera = cast.vera
    vera.set_password(OWN)
    passwords._store(vera, OWN)
    browser, _ = enter(vera.username, OWN)
    assert is_in(browser)

    made = passwords.give(by=Actor(user=cast.olivia), user=vera, reason="called me")

    assert re.fullmatch(r"([a-z2-9]{4}-){4}[a-z2-9]{4}", made)
    assert not is_in(browser)
    assert enter(vera.username, OWN)[1].status_code == 200
    other, answer = enter(vera.username, made)
    assert answer["Location"].startswith("/login/password")
    assert choose(other, "three rivers at dawn")["Location"] == "/runs"
    entry = AuditEntry.objects.get(action="user.password_reset")
    assert (entry.actor_id, entry.detail["why"]) == (cast.olivia.pk, "called me")
    assert made not in str(entry.detail)


def test_a_second_factor_is_asked_for_all_the_same(cast, now):
    vera = cast.vera
    by = Actor(user=vera)
    app = pyotp.TOTP(second_factor.begin(by=by).secret)
    second_factor.confirm(by=by, code=app.at(clock.now()))
    passwords._store(vera, OWN)
    made = passwords.give(by=Actor(user=cast.olivia), user=vera)
    now(minutes=2)

    browser, answer = enter(vera.username, made)
    assert answer["Location"].startswith("/login/code")
    assert choose(browser, "three rivers at dawn")["Location"] == "/login"
    code = app.at(clock.now())
    assert browser.post("/login/code", {"code": code})["Location"].startswith("/login/password")
    assert choose(browser, "three rivers at dawn").status_code == 302
    assert is_in(browser)


@pytest.mark.parametrize(
    ("giver", "to", "error"),
    [
        ("oscar", "vera", NotAllowed),
        ("adam", "olivia", NotAllowed),
        ("olivia", "olivia", Conflict),
        ("olivia", "robot", Conflict),
    ],
)
def test_a_password_is_given_from_above_only_and_to_people_who_have_one(cast, giver, to, error):
    if to == "robot":
        user = make_service_account(organization=cast.organization)
    else:
        user = getattr(cast, to)
        passwords._store(user, OWN)
    before = User.objects.get(pk=user.pk).password

    with pytest.raises(error):
        passwords.give(by=Actor(user=getattr(cast, giver)), user=user)
    assert User.objects.get(pk=user.pk).password == before


def test_nobody_gives_a_password_to_another_organization(cast):
    stranger = make_user(role=Role.VIEWER, organization=make_organization())
    passwords._store(stranger, OWN)

    with pytest.raises(NotAllowed):
        passwords.give(by=Actor(user=cast.olivia), user=stranger)


def test_giving_a_password_needs_a_fresh_proof(cast):
    passwords._store(cast.vera, OWN)

    with pytest.raises(StepUpRequired):
        passwords.give(by=Actor(user=cast.olivia, is_stale=True), user=cast.vera)


def test_the_page_shows_the_password_once(cast):
    passwords._store(cast.vera, OWN)
    browser, where = session(cast.olivia), f"/access/people/{cast.vera.pk}"
    assert f"{where}/password" in browser.get(where).content.decode()
    assert "Give it" in browser.get(f"{where}/password").content.decode()

    answer = browser.post(f"{where}/password", {"reason": ""})
    made = re.search(r'id="password-value" tabindex="0">([^<]+)<', answer.content.decode())[1]
    assert enter(cast.vera.username, made)[1]["Location"].startswith("/login/password")
    assert "no-store" in answer["Cache-Control"]
    page = browser.get(where).content.decode()
    assert made not in page
    assert "they choose their own with it until" in page


def test_the_given_one_again_is_refused_and_says_why(nina):
    with pytest.raises(Invalid, match="choose your own"):
        passwords.choose(by=Actor(user=nina), new=FIRST)
