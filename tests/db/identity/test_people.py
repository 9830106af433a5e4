from __future__ import annotations

import pytest

from apps.core.errors import Conflict, Invalid, NotAllowed
from apps.events.models import AuditEntry
from apps.identity import places, policy
from apps.identity.actor import Actor
from apps.identity.errors import ScopeMissing
from apps.identity.services import bindings, people, tokens
from apps.identity.types import Role
from tests.factories import make_actor, make_project, make_user

pytestmark = pytest.mark.django_db


def test_an_organization_is_founded_with_its_owner():
    owner = people.found(
        slug="acme", name="Acme", owner="ada", email="ada@acme.test", password="four grey pebbles 1"
    )

    assert policy.allows(Actor(user=owner), "people.manage")
    assert AuditEntry.objects.get().action == "organization.found"


def test_a_weak_password_is_refused_and_nobody_is_added():
    by = make_actor(Role.OWNER)

    with pytest.raises(Invalid):
        people.add(by=by, username="new", email="new@x.test", password="short")

    assert not type(by.user).objects.filter(username="new").exists()


def test_a_newcomer_may_nothing_until_a_role_is_granted():
    by = make_actor(Role.OWNER)
    user = people.add(by=by, username="new", email="n@x.test", password="four grey pebbles 1")
    project = make_project(organization=by.user.organization)

    before = policy.allows(Actor(user=user), "run.read", project_id=project.pk)
    bindings.grant(
        by=by, subject=user, role=Role.VIEWER, place=places.find(by.user, "project", project.slug)
    )

    assert not before
    assert policy.allows(Actor(user=user), "run.read", project_id=project.pk)
    assert not policy.allows(Actor(user=user), "run.submit", project_id=project.pk)
    assert not policy.allows(Actor(user=user), "run.read", project_id=make_project().pk)


def test_nobody_grants_a_role_above_their_own():
    by = make_actor(Role.ADMIN)
    user = make_user(organization=by.user.organization)

    with pytest.raises(NotAllowed):
        bindings.grant(by=by, subject=user, role=Role.OWNER)


def test_nobody_lowers_somebody_above_them():
    owner = make_actor(Role.OWNER)
    admin = make_actor(Role.ADMIN, organization=owner.user.organization)

    with pytest.raises(NotAllowed):
        bindings.grant(by=admin, subject=owner.user, role=Role.VIEWER)


def test_the_last_owner_stays():
    owner = make_actor(Role.OWNER)

    with pytest.raises(Conflict):
        bindings.grant(by=owner, subject=owner.user, role=Role.ADMIN)

    make_user(role=Role.OWNER, organization=owner.user.organization)
    bindings.grant(by=owner, subject=owner.user, role=Role.ADMIN)


def test_a_token_makes_no_token_that_may_more():
    person = make_actor(Role.OPERATOR)
    small, _ = tokens.issue(by=person, name="small", scopes=["run:read", "token:write"])

    with pytest.raises(ScopeMissing):
        tokens.issue(
            by=Actor(user=person.user, token=small), name="big", scopes=["run:read", "run:write"]
        )


def test_a_token_is_worth_no_more_than_its_owner():
    viewer = make_actor(Role.VIEWER)
    token, _ = tokens.issue(by=viewer, name="all", scopes=["run:write"])

    assert not policy.allows(Actor(user=viewer.user, token=token), "run.submit")
