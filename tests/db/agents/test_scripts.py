"""Scripts as they are written: saved step by step, never over somebody else's step unseen."""

from __future__ import annotations

import pytest

from apps.agents.models import Agent
from apps.agents.services import registry, scripts
from apps.core.errors import Conflict, Invalid, NotAllowed
from apps.identity.types import Role
from tests.factories import HELLO, make_actor, make_agent

pytestmark = pytest.mark.django_db


@pytest.fixture
def by():
    return make_actor(Role.ADMIN)


def create(by, **fields):
    given = {"slug": "tidy", "title": "Tidy", "description": "", "spec": HELLO}
    return scripts.create(by=by, **given | fields)


def save(by, agent, *, seen, **fields):
    given = {"title": agent.title, "description": "", "spec": HELLO}
    return scripts.save(by=by, agent=agent, seen=seen, **given | fields)


def test_a_script_is_there_with_its_first_draft_or_not_at_all(by):
    made = create(by)

    assert (made.number, made.state, made.agent.current) == (1, "draft", None)
    with pytest.raises(Invalid):
        create(by, slug="other", spec=HELLO | {"entry": "missing.py"})
    assert not Agent.objects.filter(slug="other").exists()


def test_each_change_is_the_next_version_and_nothing_new_is_none(by):
    agent = create(by).agent

    same = save(by, agent, seen=1, title="Tidier")
    second = save(by, agent, seen=1, spec=HELLO | {"timeout_s": 9})

    agent.refresh_from_db()
    assert (same.number, second.number, agent.title) == (1, 2, "Tidy")
    assert scripts.newest(agent) == second


def test_what_somebody_saved_meanwhile_is_not_covered_unseen(by):
    agent = create(by).agent
    registry.draft(by=by, agent=agent, spec=HELLO | {"timeout_s": 9})

    with pytest.raises(Conflict, match="saved version 2 meanwhile"):
        save(by, agent, seen=1, title="Mine", spec=HELLO | {"timeout_s": 1})

    agent.refresh_from_db()
    assert (agent.title, agent.versions.count()) == ("Tidy", 2)
    assert save(by, agent, seen=2, spec=HELLO | {"timeout_s": 1}).number == 3


def test_an_operator_saves_nothing():
    by = make_actor(Role.OPERATOR)
    agent = make_agent(organization=by.user.organization)

    with pytest.raises(NotAllowed):
        save(by, agent, seen=1, spec=HELLO | {"timeout_s": 9})
