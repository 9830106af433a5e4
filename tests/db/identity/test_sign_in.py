"""Signing in and out, the second factor, fresh proofs, and who guesses."""

from __future__ import annotations

import re
from datetime import timedelta

import pyotp
import pytest
from django.contrib.auth.hashers import make_password
from django.contrib.sessions.models import Session
from django.test import Client

from apps.core import clock, sealing
from apps.core.errors import Conflict, Invalid, NotAllowed
from apps.events.models import AuditEntry
from apps.identity import denials
from apps.identity.actor import Actor
from apps.identity.errors import StepUpRequired
from apps.identity.models import ApiToken, RecoveryCode, SecondFactor, SignIn, User
from apps.identity.services import passwords, second_factor, sessions, tokens
from apps.identity.types import Role
from apps.identity.watch import signed_in
from tests.faces import api, key, problem, session
from tests.factories import make_actor, make_cast, make_user, unwatched

pytestmark = pytest.mark.django_db

PASSWORD = "correct horse battery"  # noqa: S105
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


@pytest.fixture(autouse=True)
def _fresh():
    denials.forget()


@pytest.fixture
def person():
    return make_user(role=Role.ADMIN, password=make_password(PASSWORD))


def sign_in(person, *, password=PASSWORD, browser=None, **extra):
    browser = browser or Client(headers={"User-Agent": FIREFOX})
    answer = browser.post("/login", {"username": person.username, "password": password, **extra})
    return browser, answer


def set_up(person):
    """An app that is set up, and the recovery codes."""
    by = Actor(user=person)
    app = pyotp.TOTP(second_factor.begin(by=by).secret)
    return app, second_factor.confirm(by=by, code=code_of(app))


def code_of(app):
    return app.at(clock.now())


def actions():
    return list(AuditEntry.objects.order_by("id").values_list("action", flat=True))


# --- the door ------------------------------------------------------------------------------------


def test_a_sign_in_is_known_and_recorded(person):
    browser, answer = sign_in(person, next="/runs")

    assert answer["Location"] == "/runs"
    assert browser.get("/runs").status_code == 200
    mine = SignIn.objects.get()
    assert (mine.user, mine.address, mine.agent) == (person, "127.0.0.1", FIREFOX)
    [entry] = AuditEntry.objects.filter(action="session.begin")
    assert entry.actor_id == person.pk
    assert entry.detail["how"] == "password"
    assert mine.session_key not in str(entry.detail)


def test_signing_out_ends_the_session_and_is_recorded(person):
    browser, _ = sign_in(person)
    browser.post("/logout")

    assert browser.get("/runs").status_code == 302
    assert not SignIn.objects.exists()
    assert actions()[-1] == "session.end"


def test_the_session_key_changes_at_the_door(person):
    browser = Client()
    browser.get("/login")
    strange = browser.session
    strange["planted"] = True
    strange.save()
    browser.cookies["sessionid"] = strange.session_key

    sign_in(person, browser=browser)

    assert browser.session.session_key != strange.session_key


def test_a_wrong_password_is_recorded_where_the_account_is(person):
    _, answer = sign_in(person, password="wrong")

    assert answer.status_code == 200
    [entry] = AuditEntry.objects.filter(action="access.denied")
    assert (entry.resource_id, entry.actor_id) == ("session.begin", person.pk)
    assert "wrong" not in str(entry.detail).replace("wrong password", "")


def test_the_answer_does_not_tell_whether_the_account_exists(person):
    def told(name):
        text = Client().post("/login", {"username": name, "password": "wrong"}).content.decode()
        return re.sub(r'value="[^"]*"', "", text).replace(name, "")

    assert told(person.username) == told("nobody-of-that-name")


def test_a_disabled_person_stays_outside(person):
    User.objects.filter(pk=person.pk).update(is_active=False)

    browser, answer = sign_in(person)

    assert answer.status_code == 200
    assert browser.get("/runs").status_code == 302


@pytest.mark.parametrize(
    "wish", ["https://evil.example/", "//evil.example", "javascript:alert(1)", "\\\\evil"]
)
def test_the_way_back_stays_here(person, wish):
    _, answer = sign_in(person, next=wish)

    assert answer["Location"] == "/"


# --- guessing ------------------------------------------------------------------------------------


def test_who_guesses_is_locked_out_from_there_and_nowhere_else(person, settings):
    settings.AXES_FAILURE_LIMIT = 3
    for _ in range(3):
        _, answer = sign_in(person, password="wrong")
    assert answer.status_code == 429
    assert answer["Retry-After"] == "900"

    # The right password does not open it either, so a guess that was right is not told.
    browser, answer = sign_in(person)
    assert answer.status_code == 429
    assert browser.get("/runs").status_code == 302

    elsewhere = Client(REMOTE_ADDR="10.1.2.3")
    assert sign_in(person, browser=elsewhere)[1].status_code == 302


def test_a_success_forgets_the_failures(person, settings):
    settings.AXES_FAILURE_LIMIT = 3
    for _ in range(3):
        sign_in(person, password="wrong")
        sign_in(person, password="wrong")
        assert sign_in(person)[1].status_code == 302


def test_wrong_codes_lock_like_wrong_passwords(person, settings):
    settings.AXES_FAILURE_LIMIT = 3
    set_up(person)
    browser, _ = sign_in(person)
    for _ in range(3):
        answer = browser.post("/login/code", {"code": "000000"})

    assert answer.status_code == 429
    assert sign_in(person)[1].status_code == 429


# --- the second factor ---------------------------------------------------------------------------


def test_with_an_app_the_password_alone_lets_nobody_in(person, now):
    app, _ = set_up(person)
    now(minutes=1)
    browser, answer = sign_in(person, next="/runs")
    assert answer["Location"].startswith("/login/code")
    assert browser.get("/runs").status_code == 302

    answer = browser.post("/login/code", {"code": code_of(app), "next": "/runs"})

    assert answer["Location"] == "/runs"
    assert browser.get("/runs").status_code == 200
    assert AuditEntry.objects.get(action="session.begin").detail["how"] == "password and code"


def test_no_code_is_taken_twice(person, now):
    app, codes = set_up(person)
    # The one that confirmed the setup is used up already.
    assert not second_factor.check(person, code_of(app))
    now(seconds=30)

    assert second_factor.check(person, code_of(app))
    assert not second_factor.check(person, code_of(app))
    assert second_factor.check(person, codes[0].upper())
    assert not second_factor.check(person, codes[0])
    assert second_factor.codes_left(person) == 9


def test_a_code_of_the_neighbouring_half_minute_is_taken_older_ones_are_not(person, now):
    app, _ = set_up(person)
    now(minutes=10)
    earlier, old = (app.at(clock.now() - timedelta(seconds=30 * n)) for n in (1, 2))

    assert not second_factor.check(person, old)
    assert second_factor.check(person, earlier)


@pytest.mark.parametrize("typed", ["", "12345", "1234567", "abcdef", "١٢٣٤٥٦", "0" * 500, "\x00"])
def test_what_is_no_code_is_refused(person, typed):
    set_up(person)

    assert not second_factor.check(person, typed)


def test_the_second_step_expires(person, now):
    app, _ = set_up(person)
    browser, _ = sign_in(person)
    now(minutes=6)

    answer = browser.post("/login/code", {"code": code_of(app)})

    assert answer["Location"] == "/login"
    assert browser.get("/runs").status_code == 302


def test_the_second_step_without_the_first_leads_back(person):
    set_up(person)

    assert Client().post("/login/code", {"code": "000000"})["Location"] == "/login"


def test_neither_secret_nor_codes_are_stored_in_clear(person):
    app, codes = set_up(person)

    stored = [bytes(SecondFactor.objects.get().sealed_secret)]
    stored += [bytes(code.code_hash) for code in RecoveryCode.objects.all()]
    for secret in [app.secret, *codes, *(code.replace("-", "") for code in codes)]:
        assert not any(secret.encode() in piece for piece in stored)
    told = str(list(AuditEntry.objects.values_list("detail", flat=True)))
    assert app.secret not in told


def test_an_app_is_not_replaced_by_a_second_one(person):
    set_up(person)

    with pytest.raises(Conflict):
        second_factor.begin(by=Actor(user=person))


def test_a_wrong_first_code_turns_nothing_on(person):
    second_factor.begin(by=Actor(user=person))

    with pytest.raises(Invalid):
        second_factor.confirm(by=Actor(user=person), code="000000")

    assert not second_factor.is_on(person)


def test_setting_up_and_removing_need_a_fresh_proof(person):
    stale = Actor(user=person, is_stale=True)
    with pytest.raises(StepUpRequired):
        second_factor.begin(by=stale)
    set_up(person)
    with pytest.raises(StepUpRequired):
        second_factor.remove(by=stale)

    second_factor.remove(by=Actor(user=person))

    assert not RecoveryCode.objects.exists()
    assert actions()[-3:] == [
        "second_factor.begin",
        "second_factor.confirm",
        "second_factor.remove",
    ]


# --- a fresh proof -------------------------------------------------------------------------------


def stale_session(user):
    browser = Client()
    browser.force_login(user)
    return browser


def test_what_is_flagged_asks_a_stale_session_for_a_proof(person):
    response = stale_session(person).get("/api/audit/export")

    assert response.status_code == 403
    assert problem(response)["code"] == "step_up_required"
    assert AuditEntry.objects.get(action="access.denied").detail["reason"] == "step_up_required"


def test_the_proof_grows_old(person, now):
    browser = session(person)
    assert browser.get("/api/audit/export").status_code == 200
    now(minutes=16)
    assert browser.get("/api/audit/export").status_code == 403

    answer = browser.post("/account/verify", {"password": PASSWORD, "next": "/runs"})

    assert answer["Location"] == "/runs"
    assert browser.get("/api/audit/export").status_code == 200


def test_a_wrong_proof_proves_nothing(person):
    browser = stale_session(person)

    assert browser.post("/account/verify", {"password": "wrong"}).status_code == 422
    assert browser.get("/api/audit/export").status_code == 403


def test_with_an_app_the_proof_is_a_code(person, now):
    app, _ = set_up(person)
    now(minutes=1)
    browser = stale_session(person)

    assert browser.post("/account/verify", {"password": PASSWORD}).status_code == 422
    assert browser.post("/account/verify", {"code": code_of(app)}).status_code == 302
    assert browser.get("/api/audit/export").status_code == 200


def test_a_page_leads_to_the_proof_and_back(person):
    browser = stale_session(person)
    form = {"name": "t", "scopes": ["audit:export"], "days": "30"}

    answer = browser.post(
        "/account/tokens", form, headers={"Referer": "http://testserver/account/security"}
    )

    assert answer["Location"] == "/account/verify?next=%2Faccount%2Fsecurity"
    assert not ApiToken.objects.exists()


def test_a_stale_session_cannot_make_itself_a_token_that_may_more(person):
    with pytest.raises(StepUpRequired):
        tokens.issue(by=Actor(user=person, is_stale=True), name="t", scopes=["admin"])

    tokens.issue(by=Actor(user=person, is_stale=True), name="t", scopes=["run:read"])


def test_a_token_needs_no_proof_beside_itself(person):
    assert api(person, "audit:export").get("/api/audit/export").status_code == 200


def test_people_are_managed_in_the_admin_with_a_fresh_proof_only(person):
    form = {"username": "new", "email": "n@example.com", "password": "correct horse 99"}

    stale = stale_session(person).post("/admin/identity/user/add/", form)

    assert not User.objects.filter(username="new").exists()
    assert stale["Location"].startswith("/account/verify")


# --- browsers and passwords ----------------------------------------------------------------------


def test_a_browser_is_signed_out_from_another(person):
    here, _ = sign_in(person)
    there, _ = sign_in(person)
    other = SignIn.objects.get(session_key=there.session.session_key)

    here.post(f"/account/sessions/{other.pk}")

    assert there.get("/runs").status_code == 302
    assert here.get("/runs").status_code == 200
    assert not Session.objects.filter(session_key=other.session_key).exists()


def test_all_others_are_signed_out_at_once(person):
    browsers = [sign_in(person)[0] for _ in range(4)]

    browsers[0].post("/account/sessions/others")

    assert [browser.get("/runs").status_code for browser in browsers] == [200, 302, 302, 302]
    assert actions().count("session.revoke") == 3


def test_somebody_elses_browser_is_not_there(person):
    stranger = make_user(role=Role.OWNER, password=make_password(PASSWORD))
    sign_in(stranger)

    answer = session(person).post(f"/account/sessions/{SignIn.objects.get().pk}")

    assert answer.status_code == 404
    with pytest.raises(NotAllowed):
        sessions.revoke(by=Actor(user=person), sign_ins=SignIn.objects.all())


def test_an_admin_signs_somebody_out_everywhere(person):
    colleague = make_user(organization=person.organization, password=make_password(PASSWORD))
    browser, _ = sign_in(colleague)

    assert sessions.end_all(by=Actor(user=person), user=colleague) == 1
    assert browser.get("/runs").status_code == 302
    with pytest.raises(NotAllowed):
        sessions.end_all(by=Actor(user=colleague), user=person)
    with pytest.raises(NotAllowed):
        sessions.end_all(by=make_actor(Role.OWNER), user=person)


def test_a_new_password_signs_the_other_browsers_out_and_keeps_this_one(person):
    here, _ = sign_in(person)
    there, _ = sign_in(person)

    here.post("/account/password", {"old": PASSWORD, "new": "another good one 7"})

    assert here.get("/runs").status_code == 200
    assert there.get("/runs").status_code == 302
    assert SignIn.objects.get().session_key == here.session.session_key
    assert sign_in(person)[1].status_code == 200
    assert sign_in(person, password="another good one 7")[1].status_code == 302


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("wrong", "another good one 7", "old"),
        (PASSWORD, "short", "new"),
        (PASSWORD, "password1234", "new"),
    ],
)
def test_a_bad_change_of_password_changes_nothing(person, old, new, told):
    with pytest.raises(Invalid) as caught:
        passwords.change(by=Actor(user=person), old=old, new=new, keep_session=None)

    assert caught.value.errors[0]["field"] == told
    assert User.objects.get(pk=person.pk).check_password(PASSWORD)


def test_a_weaker_hash_is_renewed_at_the_door_and_recorded(person, settings):
    settings.PASSWORD_HASHERS = [
        "django.contrib.auth.hashers.Argon2PasswordHasher",
        "django.contrib.auth.hashers.MD5PasswordHasher",
    ]
    with unwatched():
        User.objects.filter(pk=person.pk).update(password=make_password(PASSWORD, hasher="md5"))

    sign_in(person)

    assert User.objects.get(pk=person.pk).password.startswith("argon2")
    assert "user.password_rehash" in actions()


def test_the_security_page_shows_what_there_is(person):
    browser, _ = sign_in(person)
    page = browser.get("/account/security").content.decode()

    assert "Firefox on Linux" in page
    assert "This browser" in page
    assert "None yet." in page


def test_a_token_is_made_on_the_page_and_shown_once(person):
    browser, _ = sign_in(person)

    page = browser.post(
        "/account/tokens", {"name": "nightly", "scopes": ["run:read"], "days": "30"}
    )

    value = re.search(r"aos_pat_\w+_\w+_\w+", page.content.decode())[0]
    client = api()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {value}")
    assert client.get("/api/runs").status_code == 200
    assert value not in browser.get("/account/security").content.decode()
    assert "no-store" in page["Cache-Control"]


@pytest.mark.parametrize(
    "form",
    [
        {"name": "t", "days": "30"},
        {"name": "t", "scopes": ["no:scope"], "days": "30"},
        {"name": "t", "scopes": ["run:read"], "days": "99999"},
        {"name": "t", "scopes": ["run:read"], "days": "x"},
    ],
)
def test_a_bad_token_form_says_what_is_wrong(person, form):
    browser, _ = sign_in(person)

    answer = browser.post("/account/tokens", form)

    assert answer.status_code == 422
    assert 'role="alert"' in answer.content.decode()


def test_every_act_of_the_account_wants_a_csrf_token(person):
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(person)

    for path in (
        "/account/verify",
        "/account/password",
        "/account/sessions/others",
        "/account/second-factor",
        "/account/second-factor/off",
        "/account/tokens",
        "/logout",
    ):
        assert browser.post(path, {}).status_code == 403, path


def test_the_api_key_header_is_not_needed_here():
    """Idempotency keys are for programs; the account's forms are sent by people."""
    cast = make_cast()
    assert session(cast.vera).post("/account/sessions/others", headers=key()).status_code == 302


# The secret key changes


@pytest.fixture
def rotate(settings):
    def change(key, *former):
        settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = key, list(former)

    return change


@pytest.mark.django_db(transaction=True)
def test_a_second_factor_survives_a_change_of_the_key_and_moves_to_the_new_one(person, now, rotate):
    rotate("old-key-of-fifty")
    app, _ = set_up(person)
    rotate("new-key-of-fifty", "old-key-of-fifty")
    now(seconds=60)
    assert second_factor.check(person, code_of(app))

    rotate("new-key-of-fifty")
    now(seconds=60)

    assert second_factor.check(person, code_of(app))


def test_without_the_former_key_a_second_factor_cannot_be_read(person, now, rotate):
    rotate("old-key-of-fifty")
    app, _ = set_up(person)
    rotate("new-key-of-fifty")
    now(seconds=60)

    with pytest.raises(sealing.Unreadable, match="AOS_SECRET_KEY"):
        second_factor.check(person, code_of(app))


def test_a_browser_stays_signed_in_over_a_change_of_the_key(person, rotate):
    rotate("old-key-of-fifty")
    browser, _ = sign_in(person)

    rotate("new-key-of-fifty", "old-key-of-fifty")
    before = browser.cookies["sessionid"].value
    # A socket or a stream that asks first leaves the session as it is.
    assert signed_in(before) == person
    assert browser.get("/runs").status_code == 200
    after = browser.cookies["sessionid"].value
    assert SignIn.objects.get(user=person).session_key == after != before

    rotate("newest-key-of-fifty")
    assert signed_in(after) is None
    assert browser.get("/runs").status_code == 302
