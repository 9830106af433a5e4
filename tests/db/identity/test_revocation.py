"""What is taken away is gone with the next request, of programs and of browsers, however it was taken.

Open sockets and streams: tests/db/hub/test_consumers.py and tests/events/test_web.py. Runs:
tests/processes/test_withdrawal.py.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest

from apps.core import clock
from apps.identity.actor import Actor
from apps.identity.models import ApiToken, Binding
from apps.identity.services import bindings, departments, people, tokens
from apps.identity.types import Role
from tests.faces import api, session
from tests.factories import make_actor, make_binding, make_project, make_user, unwatched

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

TRIES = 7


def disable(owner, user):
    people.deactivate(by=owner, user=user)


def take_the_role(owner, user):
    bindings.revoke(by=owner, binding=Binding.objects.get(user=user))


@unwatched()
def let_the_role_end(owner, user):
    Binding.objects.filter(user=user).update(expires_at=clock.now() - timedelta(seconds=1))


def take_out_of_the_department(owner, user):
    department = _by_department_alone(owner, user)
    departments.remove_member(by=owner, department=department, user=user)


def remove_the_department(owner, user):
    departments.remove(by=owner, department=_by_department_alone(owner, user))


def take_the_role_of_the_department(owner, user):
    department = _by_department_alone(owner, user)
    bindings.revoke(by=owner, binding=Binding.objects.get(department=department))


def _by_department_alone(owner, user):
    bindings.revoke(by=owner, binding=Binding.objects.get(user=user))
    return user.departments.get()


def revoke_the_token(owner, user):
    tokens.revoke(by=Actor(user=user), token=ApiToken.objects.get(user=user))


@unwatched()
def let_the_token_end(owner, user):
    ApiToken.objects.filter(user=user).update(expires_at=clock.now() - timedelta(seconds=1))


OF_PEOPLE = [disable, take_the_role, let_the_role_end]
OF_MEMBERS = [take_out_of_the_department, remove_the_department, take_the_role_of_the_department]
OF_TOKENS = [revoke_the_token, let_the_token_end]


@pytest.fixture
def owner():
    return make_actor(Role.OWNER)


@pytest.fixture
def project(owner):
    return make_project(organization=owner.user.organization, slug="demo")


def test_G12_what_is_taken_counts_from_the_next_request(owner, project):  # noqa: N802
    let_in, tried = [], Counter()
    for take in (*OF_PEOPLE, *OF_MEMBERS, *OF_TOKENS) * TRIES:
        for ask in (by_token, by_browser):
            if take in OF_TOKENS and ask == by_browser:
                continue
            user = make_user(role=Role.VIEWER, project=project)
            if take in OF_MEMBERS:
                department = departments.create(by=owner, name=f"of {user.username}")
                departments.add_member(by=owner, department=department, user=user)
                make_binding(department, Role.VIEWER, project)
            visit = ask(user)
            assert visit() == 200
            take(owner, user)
            if visit() == 200:
                let_in.append(f"{take.__name__}: {ask.__name__}")
            tried[take] += 1

    assert let_in == []
    assert sum(tried.values()) >= 98


def by_token(user):
    client = api(user)
    return lambda: client.get("/api/projects/demo").status_code


def by_browser(user):
    client = session(user)
    return lambda: client.get("/?project=demo").status_code
