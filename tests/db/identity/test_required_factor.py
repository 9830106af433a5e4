"""Where a second factor is required, a password alone lets nobody in."""

from __future__ import annotations

import re

import pyotp
import pytest
from django.contrib.auth.hashers import make_password
from django.test import Client

from apps.core import clock
from apps.core.errors import Conflict
from apps.events.models import AuditEntry
from apps.identity import denials
from apps.identity.actor import Actor
from apps.identity.models import RecoveryCode
from apps.identity.services import people, second_factor
from apps.identity.types import Role
from tests.factories import make_user

pytestmark = pytest.mark.django_db

PASSWORD = "correct horse battery"  # noqa: S105


@pytest.fixture(autouse=True)
def _required(settings):
    denials.forget()
    settings.AOS_REQUIRE_SECOND_FACTOR = True


@pytest.fixture
def person():
    return make_user(role=Role.OWNER, password=make_password(PASSWORD))


def enter(name, password=PASSWORD):
    browser = Client()
    return browser, browser.post(
        "/login", {"username": name, "password": password, "next": "/runs"}
    )


def is_in(browser):
    return browser.get("/runs").status_code == 200


def app_of(browser):
    page = browser.get("/login/factor").content.decode()
    return pyotp.TOTP(re.search(r"aos-break\">([A-Z2-7]{32})<", page)[1])


def test_where_it_is_required_nobody_gets_in_with_a_password_alone(person, now):
    browser, answer = enter(person.username)
    assert answer["Location"].startswith("/login/factor")
    assert not is_in(browser)

    app = app_of(browser)
    assert browser.post("/login/factor", {"code": "000000"}).status_code == 422
    assert not is_in(browser)
    page = browser.post("/login/factor", {"code": app.at(clock.now()), "next": "/runs"})
    assert page.content.decode().count("<li>") == RecoveryCode.objects.count() == 10
    assert is_in(browser)
    assert AuditEntry.objects.get(action="session.begin").detail["how"] == "password and code"

    now(minutes=2)
    other, answer = enter(person.username)
    assert answer["Location"].startswith("/login/code")
    other.post("/login/code", {"code": app.at(clock.now())})
    assert is_in(other)


def test_without_the_setting_the_password_is_enough(person, settings):
    settings.AOS_REQUIRE_SECOND_FACTOR = False

    assert is_in(enter(person.username)[0])


def test_a_first_password_is_exchanged_before_an_app_is_set_up(person):
    people.add(
        by=Actor(user=person), username="nina", email="n@x.test", password="seven loose shoelaces"
    )
    browser, answer = enter("nina", "seven loose shoelaces")
    assert answer["Location"].startswith("/login/password")
    assert browser.get("/login/factor")["Location"] == "/login"

    browser, _ = enter("nina", "seven loose shoelaces")
    answer = browser.post("/login/password", {"new": "three rivers at dawn"})
    assert answer["Location"].startswith("/login/factor")
    browser.post("/login/factor", {"code": app_of(browser).at(clock.now())})
    assert is_in(browser)


def test_where_it_is_required_nobody_removes_theirs(person):
    by = Actor(user=person)
    setup = second_factor.begin(by=by)
    second_factor.confirm(by=by, code=pyotp.TOTP(setup.secret).at(clock.now()))

    with pytest.raises(Conflict, match="required here"):
        second_factor.remove(by=by)
    assert second_factor.is_on(person)


def test_who_has_an_app_is_not_given_another_at_the_door(person, now):
    browser, _ = enter(person.username)
    by = Actor(user=person)
    setup = second_factor.begin(by=by)
    second_factor.confirm(by=by, code=pyotp.TOTP(setup.secret).at(clock.now()))

    assert browser.get("/login/factor")["Location"] == "/login"
    assert not is_in(browser)


def test_nobody_sets_one_up_without_the_password(person):
    assert Client().get("/login/factor")["Location"] == "/login"


def test_the_step_expires(person, now):
    browser, _ = enter(person.username)
    now(minutes=16)

    assert browser.get("/login/factor")["Location"] == "/login"
