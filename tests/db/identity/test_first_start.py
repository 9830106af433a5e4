"""The first start: one code, one owner, one time."""

from __future__ import annotations

import json
import re
import threading
from functools import partial
from io import StringIO

import pytest
from django.core.management import call_command
from django.db import IntegrityError, transaction
from django.test import Client

from apps.agents.services import opening
from apps.core.errors import AosError, Invalid
from apps.events.models import AuditEntry
from apps.events.services import outbox
from apps.identity.errors import ActivationCodeInvalid, FirstStartOver
from apps.identity.models import ApiToken, Binding, Installation, Organization, SignIn, User
from apps.identity.services import installation, people, tokens
from apps.projects.models import Project
from apps.runs.models import Run
from apps.sandboxes.models import Environment
from tests.factories import make_organization, make_user, unwatched
from tests.support.threads import at_once

PASSWORD = "correct horse battery"  # noqa: S105
FORM = {
    "username": "nina",
    "display_name": "Nina von Neu",
    "password": PASSWORD,
    "again": PASSWORD,
    "organization": "Acme Air",
    "project": "Safety",
}


def opened(**other):
    given = FORM | {"code_number": 1} | other
    given.pop("again")
    return opening.open_up(**given)


def browser_with_code(code, **extra):
    browser = Client(**extra)
    assert browser.post("/start", {"code": code}).status_code == 302
    return browser


# --- the code -----------------------------------------------------------------------------------


@pytest.mark.django_db
def test_the_code_is_long_and_stored_as_a_keyed_hash_only():
    code = installation.new_code()

    assert re.fullmatch(r"([A-HJKMNP-Z2-9]{4}-){4}[A-HJKMNP-Z2-9]{4}", code)
    stored = str(Installation.objects.values().get())
    assert code not in stored
    assert code.replace("-", "") not in stored
    assert installation.check(code) == 1
    assert installation.check(code.lower().replace("-", " ")) == 1


@pytest.mark.django_db
def test_only_the_last_code_counts():
    first, second = installation.new_code(), installation.new_code()

    with pytest.raises(ActivationCodeInvalid):
        installation.check(first)
    assert installation.check(second) == 2
    with pytest.raises(ActivationCodeInvalid):
        opened(code_number=1)


@pytest.mark.django_db
@pytest.mark.parametrize("code", ["", "x", "ÄÖÜ", "A" * 5000, "\x00"])
def test_what_is_no_code_is_refused(code):
    installation.new_code()

    with pytest.raises(ActivationCodeInvalid):
        installation.check(code)


@pytest.mark.django_db
def test_without_a_code_made_nothing_opens():
    for code in ("", "0", "None"):
        with pytest.raises(ActivationCodeInvalid):
            installation.check(code)


@pytest.mark.django_db
def test_the_command_prints_address_and_code_and_later_that_it_is_over(settings):
    settings.AOS_PUBLIC_URL = "https://aos.example.org"
    told, as_json, after = StringIO(), StringIO(), StringIO()

    call_command("first_start", stdout=told)
    call_command("first_start", "--json", stdout=as_json)
    assert "https://aos.example.org/start#" in told.getvalue()
    assert installation.check(json.loads(as_json.getvalue())["code"]) == 2

    make_organization()
    call_command("first_start", "--json", stdout=after)
    assert json.loads(after.getvalue()) == {"code": None}


# --- the one act ----------------------------------------------------------------------------------


@pytest.mark.django_db
def test_owner_organization_project_and_token_are_made_with_their_entries():
    installation.new_code()

    made = opened()

    assert (made.owner.get_full_name(), made.owner.initials) == ("Nina von Neu", "NvN"[:2].upper())
    assert made.owner.check_password(PASSWORD)
    assert (made.project.slug, made.project.organization.slug) == ("safety", "acme-air")
    assert Binding.objects.get().role == "owner"
    token = tokens.verify(made.token, address=None)
    assert token.user == made.owner
    assert not set(token.scopes) & {"admin", "audit:export", "token:write"}
    actions = AuditEntry.objects.order_by("id").values_list("action", flat=True)
    assert list(actions) == ["organization.found", "project.create", "token.issue"]
    assert made.token not in str(list(AuditEntry.objects.values()))


@pytest.mark.django_db
def test_names_without_latin_letters_get_plain_short_names():
    installation.new_code()

    made = opened(organization="航空安全", project="研究")

    assert (made.project.organization.slug, made.project.slug) == ("organization", "project")
    assert made.project.name == "研究"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("step", ["projects.create", "tokens.issue"])
def test_when_one_part_fails_nothing_is_made_and_it_stays_open(step, monkeypatch):
    installation.new_code()

    def broken(**_):
        raise ZeroDivisionError

    module, name = step.split(".")
    monkeypatch.setattr(getattr(opening, module), name, broken)
    with pytest.raises(ZeroDivisionError):
        opened()

    assert not Organization.objects.exists()
    assert not User.objects.exists()
    assert not AuditEntry.objects.exists()
    assert installation.is_open()


@pytest.mark.django_db(transaction=True)
def test_without_its_audit_entries_nothing_is_made(monkeypatch):
    installation.new_code()
    monkeypatch.setattr(outbox, "audit", lambda *_, **__: None)

    with pytest.raises(IntegrityError, match="no audit entry"):
        opened()

    assert not Organization.objects.exists()
    assert installation.is_open()


@pytest.mark.django_db
def test_a_password_against_the_policy_makes_nothing():
    installation.new_code()

    for weak in ("short", "password1234"):
        with pytest.raises(Invalid):
            opened(password=weak)
    assert not User.objects.exists()
    assert installation.is_open()


# --- closed for ever ------------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize(
    "found",
    [
        lambda: people.found(slug="a", name="A", owner="o", email="", password=PASSWORD),
        lambda: call_command("seed", "--json", stdout=StringIO()),
        make_organization,
    ],
    ids=["found", "seed", "sql"],
)
def test_whoever_founds_the_first_organization_closes_it(found):
    code = installation.new_code()

    found()

    assert not installation.is_open()
    with pytest.raises(ActivationCodeInvalid):
        installation.check(code)
    with pytest.raises(FirstStartOver):
        installation.new_code()
    with pytest.raises(FirstStartOver):
        opened()
    assert Client().get("/start").status_code == 404
    assert Client().post("/start", {"code": code}).status_code == 404


@pytest.mark.django_db
def test_it_stays_closed_when_everybody_is_gone():
    installation.new_code()
    opened()
    with unwatched():
        ApiToken.objects.all().delete()
        Environment.objects.all().delete()
        Project.objects.all().delete()
        User.objects.all().delete()
        Organization.objects.all().delete()

    assert not Organization.objects.exists()
    assert not installation.is_open()
    assert Client().get("/start").status_code == 404
    assert Client().get("/")["Location"].startswith("/login")


@pytest.mark.django_db
@pytest.mark.parametrize(
    "act",
    [
        lambda: Installation.objects.update(closed_at=None),
        lambda: Installation.objects.update(code_hash=b"x"),
        lambda: Installation.objects.all().delete(),
    ],
    ids=["open", "code", "delete"],
)
def test_the_closed_row_cannot_be_changed(act):
    make_organization()

    with pytest.raises(IntegrityError, match="is over"), transaction.atomic():
        act()
    with pytest.raises(IntegrityError), transaction.atomic():
        Installation.objects.create(id=2)


@pytest.mark.django_db(transaction=True)
def test_of_many_who_finish_at_once_one_becomes_the_owner():
    browsers = [browser_with_code(installation.new_code())]
    number = Installation.objects.get().code_number
    for _ in range(5):
        other = Client()
        other.get("/start")
        session = other.session
        session["aos_activation"] = number
        session.save()
        other.cookies["sessionid"] = session.session_key
        browsers.append(other)

    answers = at_once(
        [
            partial(browser.post, "/start", FORM | {"username": f"nina-{n}"})
            for n, browser in enumerate(browsers)
        ]
    )

    assert sorted(answer.status_code for answer in answers) == [302, 404, 404, 404, 404, 404]
    assert User.objects.count() == Organization.objects.count() == ApiToken.objects.count() == 1
    assert AuditEntry.objects.filter(action="organization.found").count() == 1


@pytest.mark.django_db(transaction=True)
def test_without_the_lock_there_would_be_several_owners(monkeypatch):
    """Sabotage: the test above can fail."""
    number = installation.new_code() and Installation.objects.get().code_number
    meet = threading.Barrier(3)

    def unlocked(_):
        # As it would be with a count: nobody is there yet, so everybody may.
        assert not Organization.objects.exists()
        meet.wait(10)

    monkeypatch.setattr(installation, "claim", unlocked)
    at_once(
        [
            partial(opened, code_number=number, username=f"n-{n}", organization=f"O {n}")
            for n in range(3)
        ]
    )

    assert Organization.objects.count() == 3


@pytest.mark.django_db(transaction=True)
def test_a_code_made_while_somebody_finishes_opens_nothing():
    installation.new_code()

    outcomes = at_once([installation.new_code, opened], errors=AosError)

    # Either order is right, and both leave one owner at most and one truth.
    kinds = {type(outcome) for outcome in outcomes}
    assert kinds in (
        {opening.Opened, FirstStartOver},
        {str, ActivationCodeInvalid},
        {str, opening.Opened},
    )
    assert installation.is_open() is not User.objects.exists()


# --- the pages ------------------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize(
    "path", ["/", "/login", "/runs", "/admin/", "/flower/", "/account/security"]
)
def test_while_nobody_owns_it_every_page_leads_to_the_start(path):
    answer = Client().get(path)

    assert (answer.status_code, answer["Location"]) == (302, "/start")


@pytest.mark.django_db
def test_programs_are_not_led_there():
    assert Client().get("/healthz").status_code == 200
    assert Client().get("/api/runs").status_code == 401
    assert Client().get("/readyz").status_code in {200, 503}


@pytest.mark.django_db
def test_without_the_code_there_is_no_form_and_no_look_at_the_platform():
    installation.new_code()
    stranger = Client()

    assert b"Activation code" in stranger.get("/start").content
    assert b"Activation code" in stranger.post("/start", FORM).content
    assert stranger.get("/start/condition").status_code == 404
    assert not User.objects.exists()


@pytest.mark.django_db
def test_the_whole_way_ends_signed_in_with_a_token_shown_once_and_a_run(caplog):
    code = installation.new_code()
    browser = browser_with_code(code)
    before = browser.session.session_key
    form = browser.get("/start").content.decode()
    assert "Is everything there?" in form
    assert "nobody leads" in form

    answer = browser.post("/start", FORM | {"example": "on"})

    assert answer["Location"] == "/welcome"
    assert browser.session.session_key != before
    assert SignIn.objects.get().user.username == "nina"
    begun = AuditEntry.objects.get(action="session.begin")
    assert begun.detail["how"] == "first start"
    stored = str(list(browser.session.items()))
    page = browser.get("/welcome").content.decode()
    (value,) = set(re.findall(r"aos_pat_\w{8}_\w{43}_\w{7}", page))
    assert tokens.verify(value, address=None).user.username == "nina"
    assert value not in stored
    assert value not in browser.get("/welcome").content.decode()
    run = Run.objects.get()
    assert f"/runs/{run.public_id}" in page
    assert run.agent_version.agent.slug == "csv-report"
    for secret in (code, value, PASSWORD):
        assert secret not in caplog.text
        assert secret not in str(list(AuditEntry.objects.values()))
    assert browser.get("/start").status_code == 404


@pytest.mark.django_db
def test_without_the_example_nothing_runs_and_the_welcome_offers_it():
    browser = browser_with_code(installation.new_code())
    browser.post("/start", FORM)
    assert not Run.objects.exists()
    assert b"Run the example" in browser.get("/welcome").content

    browser.post("/welcome/example")

    assert Run.objects.get().submitted_by.username == "nina"


@pytest.mark.django_db
def test_an_example_that_cannot_run_keeps_nobody_out(monkeypatch, tmp_path):
    from apps.agents.services import examples

    monkeypatch.setattr(examples, "FOLDER", tmp_path)
    browser = browser_with_code(installation.new_code())

    assert browser.post("/start", FORM | {"example": "on"})["Location"] == "/welcome"
    page = browser.get("/welcome").content.decode()
    assert "could not be submitted" in page
    assert "Run the example" in page


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"password": "short", "again": "short"}, "too short"),
        ({"again": "another one entirely"}, "not the same password"),
        ({"username": "no spaces please"}, "valid username"),
        ({"username": ""}, "required"),
        ({"organization": "x" * 121}, "at most 120"),
        ({"project": "\x00"}, "Null characters"),
    ],
)
def test_what_is_wrong_is_said_beside_the_field_and_nothing_is_made(wrong, said):
    browser = browser_with_code(installation.new_code())

    answer = browser.post("/start", FORM | wrong)

    assert answer.status_code == 422
    page = answer.content.decode()
    assert said in page
    assert PASSWORD not in page
    assert not User.objects.exists()
    assert browser.post("/start", FORM).status_code == 302


@pytest.mark.django_db
def test_guesses_are_counted_and_the_door_is_shut_for_a_while(settings):
    settings.AXES_FAILURE_LIMIT = 3
    code = installation.new_code()
    guesser = Client(REMOTE_ADDR="203.0.113.9")
    answers = [guesser.post("/start", {"code": f"GUESS-{n}"}).status_code for n in range(3)]
    assert answers == [422, 422, 429]

    shut = guesser.post("/start", {"code": code})

    assert shut.status_code == 429
    assert "Retry-After" in shut
    # From elsewhere whoever has the code still gets in.
    browser_with_code(code, REMOTE_ADDR="198.51.100.7")


@pytest.mark.django_db
def test_a_newer_code_sends_the_half_done_back_to_the_door():
    browser = browser_with_code(installation.new_code())
    installation.new_code()

    answer = browser.post("/start", FORM)

    assert b"Activation code" in answer.content
    assert not User.objects.exists()


@pytest.mark.django_db
def test_a_form_from_another_site_is_refused():
    code = installation.new_code()
    browser = Client(enforce_csrf_checks=True)

    assert browser.post("/start", {"code": code}).status_code == 403


@pytest.mark.django_db
def test_the_welcome_is_for_those_who_run_the_place():
    from apps.identity.types import Role
    from tests.faces import session

    viewer, admin = make_user(role=Role.VIEWER), make_user(role=Role.ADMIN)

    for path in ("/welcome", "/welcome/condition", "/welcome/run"):
        assert session(viewer).get(path).status_code == 404
        assert Client().get(path)["Location"].startswith("/login")
    assert session(admin).get("/welcome").status_code == 200
    assert session(viewer).post("/welcome/example").status_code == 404
