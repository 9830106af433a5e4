"""How long a browser stays signed in."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.hashers import make_password
from django.test import Client
from django.utils import timezone

from apps.core import clock
from apps.identity import denials
from apps.identity.models import SignIn
from apps.identity.types import Role
from apps.identity.watch import signed_in
from tests.factories import make_user

pytestmark = pytest.mark.django_db

PASSWORD = "correct horse battery"  # noqa: S105
BY_ITSELF = {"HX-Request": "true"}


@pytest.fixture(autouse=True)
def _fresh():
    denials.forget()


@pytest.fixture
def person():
    return make_user(role=Role.ADMIN, password=make_password(PASSWORD))


@pytest.fixture
def later(now, monkeypatch):
    """The same clock for Django's sessions."""
    monkeypatch.setattr(timezone, "now", clock.now)
    return now


def sign_in(person):
    browser = Client()
    browser.post("/login", {"username": person.username, "password": PASSWORD})
    return browser


def is_in(browser, **headers):
    answer = browser.get("/runs", headers=headers)
    return answer.status_code == 200 and "HX-Redirect" not in answer.headers


def test_who_does_nothing_for_an_hour_is_signed_out(person, later):
    browser = sign_in(person)
    for _ in range(3):
        later(minutes=59)
        assert is_in(browser)
    later(minutes=61)

    assert not is_in(browser)


def test_a_page_that_asks_by_itself_keeps_nobody_signed_in(person, later):
    browser = sign_in(person)
    for _ in range(5):
        later(minutes=10)
        assert is_in(browser, **BY_ITSELF)
    later(minutes=11)

    assert not is_in(browser, **BY_ITSELF)


def test_what_follows_from_a_click_keeps_them_signed_in(person, later):
    browser = sign_in(person)
    later(minutes=50)
    assert is_in(browser, **BY_ITSELF, **{"X-Acted": "1"})
    later(minutes=50)

    assert is_in(browser, **BY_ITSELF)


def test_a_sign_in_ends_after_twelve_hours_whatever_is_done(person, later):
    browser = sign_in(person)
    for _ in range(23):
        later(minutes=30)
        assert is_in(browser)
    browser.post("/account/verify", {"password": PASSWORD})
    later(minutes=31)

    assert not is_in(browser)


def test_the_cookie_ends_with_the_session(person, later, settings):
    settings.AOS_SESSION_LIFETIME = timedelta(minutes=70)
    browser = sign_in(person)
    assert browser.cookies["sessionid"]["max-age"] == 3600
    later(minutes=50)
    browser.get("/runs")

    assert browser.cookies["sessionid"]["max-age"] == 1200


def test_a_stream_ends_with_the_session(person, later):
    browser = sign_in(person)
    key = browser.session.session_key
    assert signed_in(key) == person
    later(minutes=61)

    assert signed_in(key) is None


def test_a_browser_whose_session_is_over_is_listed_no_more(person, later):
    sign_in(person)
    later(minutes=31)
    browser = sign_in(person)
    assert listed(browser) == 2
    later(minutes=31)
    assert listed(browser) == 1
    sign_in(person)

    assert SignIn.objects.count() == 2


def listed(browser):
    return browser.get("/account/security").content.decode().count("last seen")


def test_without_the_middleware_nothing_would_prolong_it(person, later, settings):
    """The sabotage: what keeps a session is the person's act and nothing else."""
    ours = "apps.identity.middleware.ActivityMiddleware"
    settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if name != ours]
    browser = sign_in(person)
    later(minutes=59)
    assert is_in(browser)
    later(minutes=2)

    assert not is_in(browser)
