"""Service accounts, networks of tokens, disabled people, and the reset of a second factor."""

from __future__ import annotations

import pytest
from django.db import IntegrityError, transaction

from apps.core import clock
from apps.core.errors import Conflict, Invalid, NotAllowed
from apps.events.models import AuditEntry
from apps.identity import allowed
from apps.identity.actor import Actor
from apps.identity.authentication import PasswordBackend
from apps.identity.errors import TokenInvalid
from apps.identity.models import ApiToken, RecoveryCode, SecondFactor, SignIn, User
from apps.identity.services import departments, people, second_factor, sessions, tokens
from apps.identity.types import Role
from tests.faces import api, session
from tests.factories import (
    make_actor,
    make_binding,
    make_service_account,
    make_token,
    make_user,
)

pytestmark = pytest.mark.django_db
HERE = "127.0.0.1"


@pytest.fixture
def owner():
    return make_actor(Role.OWNER)


@pytest.fixture
def admin(owner):
    return make_actor(Role.ADMIN, organization=owner.user.organization)


def test_a_service_account_works_by_token_and_never_signs_in(owner):
    account = people.add_service_account(by=owner, username="nightly", name="Nightly reports")
    make_binding(account, Role.VIEWER)
    _, value = tokens.issue(by=owner, account=account, name="ci", scopes=["run:read"])

    client = api()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {value}")

    assert client.get("/api/runs").status_code == 200
    assert client.get("/api/me").json()["user"]["username"] == "nightly"
    assert not account.has_usable_password()
    assert PasswordBackend().authenticate(None, "nightly", "") is None
    # Even a session that was forged for it opens nothing.
    assert session(account).get("/").status_code == 302
    assert AuditEntry.objects.get(action="service_account.add").actor_id == owner.user.pk


def test_what_a_service_account_does_is_on_record_as_such():
    account = make_service_account(role=Role.OWNER)

    assert Actor(user=account).ref.kind == "service"
    assert make_actor().ref.kind == "user"


def test_a_service_account_cannot_be_given_a_password():
    account = make_service_account()

    account.set_password("four grey pebbles 1")
    with pytest.raises(IntegrityError), transaction.atomic():
        account.save(update_fields=["password"])


def test_tokens_are_issued_to_service_accounts_of_ones_own_and_not_to_people(owner, admin):
    person = make_user(organization=owner.user.organization)
    theirs = make_service_account()
    higher = make_service_account(role=Role.OWNER, organization=owner.user.organization)

    for by, account in ((owner, person), (owner, theirs), (admin, higher)):
        with pytest.raises(NotAllowed):
            tokens.issue(by=by, account=account, name="t", scopes=["run:read"])
    operator = make_actor(Role.OPERATOR, organization=owner.user.organization)
    with pytest.raises(NotAllowed):
        tokens.issue(by=operator, account=higher, name="t", scopes=["run:read"])
    assert not ApiToken.objects.exists()


def test_a_token_of_somebody_else_is_revoked_from_above_only(owner, admin):
    make_token(owner.user)
    make_token(admin.user)
    owners, admins = ApiToken.objects.get(user=owner.user), ApiToken.objects.get(user=admin.user)

    with pytest.raises(NotAllowed):
        tokens.revoke(by=admin, token=owners)
    tokens.revoke(by=owner, token=admins)

    admins.refresh_from_db()
    assert admins.revoked_at is not None


# --- networks -------------------------------------------------------------------------------------


def test_a_token_is_taken_from_its_networks_only(owner):
    _, value = tokens.issue(
        by=owner, name="office", scopes=["run:read"], networks=["192.0.2.0/24", "2001:db8::1"]
    )

    for address in ("192.0.2.7", "::ffff:192.0.2.7", "2001:db8::1"):
        assert tokens.verify(value, address=address).name == "office"
    for address in ("198.51.100.7", "2001:db8::2", "", None, "unix:"):
        with pytest.raises(TokenInvalid):
            tokens.verify(value, address=address)


def test_a_request_from_elsewhere_is_refused_and_on_record(owner):
    _, value = tokens.issue(by=owner, name="office", scopes=["run:read"], networks=["192.0.2.0/24"])
    client = api()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {value}")

    inside = client.get("/api/runs", REMOTE_ADDR="192.0.2.9")
    outside = client.get("/api/runs", REMOTE_ADDR="198.51.100.9", HTTP_X_FORWARDED_FOR="192.0.2.9")

    assert inside.status_code == 200
    assert outside.status_code == 401
    assert outside.json()["code"] == "token_invalid"
    entry = AuditEntry.objects.get(action="access.denied")
    assert "198.51.100.9" in entry.detail["reason"]


@pytest.mark.parametrize("network", ["10.0.0.1/8", "office", "300.0.0.1", "10.0.0.0/33", "::/129"])
def test_what_is_no_network_is_refused(owner, network):
    with pytest.raises(Invalid) as refused:
        tokens.issue(by=owner, name="t", scopes=["run:read"], networks=[network])

    assert refused.value.errors[0]["field"] == "allowed_networks"


def test_networks_are_kept_in_one_form():
    assert allowed.normal([" 192.0.2.1", "192.0.2.1/32", "10.0.0.0/8"]) == [
        "10.0.0.0/8",
        "192.0.2.1/32",
    ]
    assert allowed.normal(["::ffff:192.0.2.1", "::ffff:10.0.0.0/104", "::fffe:0:0/95"]) == [
        "10.0.0.0/8",
        "192.0.2.1/32",
        "::fffe:0:0/95",
    ]
    with pytest.raises(Invalid):
        allowed.normal(f"192.0.2.{n}" for n in range(allowed.MOST + 1))


# --- people ---------------------------------------------------------------------------------------


def test_a_disabled_person_is_out_and_may_come_back(owner):
    user = make_user(role=Role.OPERATOR, organization=owner.user.organization)
    browser, program = session(user), api(user)
    sessions.begin(
        by=Actor(user=user),
        session_key=browser.session.session_key,
        address=HERE,
        agent="",
        how="password",
    )

    people.deactivate(by=owner, user=user, reason="lost laptop")

    assert browser.get("/").status_code == 302
    assert program.get("/api/runs").status_code == 401
    assert not SignIn.objects.filter(user=user).exists()
    assert AuditEntry.objects.get(action="user.deactivate").detail["why"] == "lost laptop"
    people.reactivate(by=owner, user=user)
    assert program.get("/api/runs").status_code == 200
    assert browser.get("/").status_code == 302


def test_nobody_disables_themselves(owner):
    make_actor(Role.OWNER, organization=owner.user.organization)

    with pytest.raises(Conflict):
        people.deactivate(by=owner, user=owner.user)


def test_a_changed_person_is_told_field_by_field(owner):
    user = make_user(organization=owner.user.organization, email="old@x.test")

    people.edit(by=owner, user=user, email="new@x.test")

    entry = AuditEntry.objects.get(action="user.change")
    assert entry.detail["changes"] == {"email": ["old@x.test", "new@x.test"]}


@pytest.mark.parametrize(
    ("fields", "field"), [({"email": "nobody"}, "email"), ({"is_superuser": "1"}, "is_superuser")]
)
def test_a_change_that_breaks_a_rule_names_the_field(owner, fields, field):
    user = make_user(organization=owner.user.organization)

    with pytest.raises(Invalid) as refused:
        people.edit(by=owner, user=user, **fields)

    assert [error["field"] for error in refused.value.errors] == [field]
    assert not AuditEntry.objects.filter(action="user.change").exists()


def test_a_taken_name_is_a_conflict(owner):
    taken = make_user(username="taken")
    user = make_user(organization=owner.user.organization)

    for act in (
        lambda: people.edit(by=owner, user=user, username=taken.username),
        lambda: people.add_service_account(by=owner, username=taken.username),
        lambda: people.add(
            by=owner, username=taken.username, email="", password="four grey pebbles 1"
        ),
    ):
        with pytest.raises(Conflict, match="already a user"):
            act()
    assert User.objects.filter(username="taken").count() == 1


def test_a_lost_second_factor_is_reset_by_somebody_else(owner):
    user = make_user(organization=owner.user.organization)
    SecondFactor.objects.create(user=user, sealed_secret=b"x", confirmed_at=clock.now())
    RecoveryCode.objects.create(user=user, code_hash=b"x" * 32)

    second_factor.reset(by=owner, user=user, reason="phone stolen, known by voice")

    assert not second_factor.is_on(user)
    assert not RecoveryCode.objects.filter(user=user).exists()
    assert AuditEntry.objects.get(action="second_factor.reset").actor_id == owner.user.pk
    with pytest.raises(Conflict):
        second_factor.reset(by=owner, user=user)


def test_a_second_factor_is_not_reset_from_below_or_by_oneself(owner, admin):
    for user in (owner.user, admin.user):
        SecondFactor.objects.create(user=user, sealed_secret=b"x", confirmed_at=clock.now())

    with pytest.raises(NotAllowed):
        second_factor.reset(by=admin, user=owner.user)
    with pytest.raises(Conflict):
        second_factor.reset(by=admin, user=admin.user)
    assert SecondFactor.objects.count() == 2


# --- departments ----------------------------------------------------------------------------------


def test_a_department_is_made_renamed_and_removed(owner):
    user = make_user(organization=owner.user.organization)
    crew = departments.create(by=owner, name=" Crew ")
    departments.rename(by=owner, department=crew, name="Core crew")
    for _ in range(2):
        departments.add_member(by=owner, department=crew, user=user)
    departments.remove(by=owner, department=crew)

    told = list(
        AuditEntry.objects.filter(resource_type="department")
        .order_by("id")
        .values_list("action", flat=True)
    )
    assert told == [
        "department.create",
        "department.rename",
        "department.join",
        "department.remove",
    ]
    assert not user.departments.exists()


def test_a_department_needs_a_name_of_its_own(owner):
    departments.create(by=owner, name="Crew")

    with pytest.raises(Conflict):
        departments.create(by=owner, name="Crew")
    for name in ("", "  ", "x" * 121):
        with pytest.raises(Invalid):
            departments.create(by=owner, name=name)


def test_strangers_join_no_department_of_ours(owner):
    crew = departments.create(by=owner, name="Crew")

    with pytest.raises(NotAllowed):
        departments.add_member(by=owner, department=crew, user=make_user())
    with pytest.raises(NotAllowed):
        departments.rename(by=make_actor(Role.OWNER), department=crew, name="Ours")
