from __future__ import annotations

import pytest
from django.db import IntegrityError, transaction

from apps.agents.models import Agent, AgentVersion
from apps.agents.services import registry
from apps.core.errors import Conflict, Invalid, NotAllowed
from apps.events.models import AuditEntry
from apps.identity.types import Role
from tests.factories import HELLO, make_actor, make_agent, make_agent_version, make_organization

pytestmark = pytest.mark.django_db


@pytest.fixture
def by():
    return make_actor(Role.ADMIN)


def _draft(by, **spec):
    agent = make_agent(organization=by.user.organization, released=False)
    return registry.draft(by=by, agent=agent, spec=HELLO | spec)


def test_an_agent_is_registered_drafted_and_released(by):
    agent = registry.register(by=by, slug="tidy", title="Tidy")

    version = registry.draft(by=by, agent=agent, spec=HELLO)
    registry.release(by=by, version=version)

    agent.refresh_from_db()
    assert (agent.current, agent.current.number) == (version, 1)
    actions = list(AuditEntry.objects.order_by("id").values_list("action", flat=True))
    assert actions == ["agent.register", "agent.draft", "agent.release"]


def test_releasing_an_older_version_again_is_a_rollback(by):
    agent = make_agent(organization=by.user.organization)
    first = agent.current
    registry.release(by=by, version=registry.draft(by=by, agent=agent, spec=HELLO))

    registry.release(by=by, version=first)

    agent.refresh_from_db()
    assert agent.current == first


def test_a_released_version_cannot_change_whoever_tries():
    agent = make_agent()

    with pytest.raises(IntegrityError), transaction.atomic():
        AgentVersion.objects.filter(pk=agent.current.pk).update(spec={})
    with pytest.raises(IntegrityError), transaction.atomic():
        AgentVersion.objects.filter(pk=agent.current.pk).delete()


def test_what_a_draft_says_cannot_change_because_a_run_may_try_it(by):
    draft = _draft(by)

    with pytest.raises(IntegrityError), transaction.atomic():
        AgentVersion.objects.filter(pk=draft.pk).update(spec={})

    released = registry.release(by=by, version=draft)
    assert released.current == draft


def test_an_agent_is_called_otherwise_on_record_and_keeps_its_slug(by):
    agent = registry.register(by=by, slug="tidy", title="Tidy")

    registry.change(by=by, agent=agent, title="Tidier", description="Sorts")
    registry.change(by=by, agent=agent, title="Tidier")

    agent.refresh_from_db()
    assert (agent.slug, agent.title, agent.description) == ("tidy", "Tidier", "Sorts")
    (entry,) = AuditEntry.objects.filter(action="agent.change")
    assert entry.detail["changes"]["title"] == ["Tidy", "Tidier"]


def test_current_is_a_released_version_of_the_same_agent():
    agent, other = make_agent(), make_agent()
    draft = make_agent_version(agent=agent, released=False)

    for wrong in (draft, other.current):
        with pytest.raises(IntegrityError), transaction.atomic():
            Agent.objects.filter(pk=agent.pk).update(current=wrong)


def test_a_slug_is_taken_once_in_an_organization(by):
    registry.register(by=by, slug="tidy", title="Tidy")

    with pytest.raises(Conflict):
        registry.register(by=by, slug="tidy", title="Again")


def test_an_operator_registers_nothing():
    with pytest.raises(NotAllowed):
        registry.register(by=make_actor(Role.OPERATOR), slug="tidy", title="Tidy")


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"entry": "other.py"}, "spec.entry"),
        ({"entry": "../x", "files": {"../x": ""}}, "spec.files.../x"),
        ({"files": {"main.py": "x" * 2_000_000}}, "spec.files"),
        ({"timeout_s": 0}, "spec.timeout_s"),
        ({"sandbox": {"privileged": True}}, "spec.sandbox"),
        ({"sandbox": {"memory_mb": 1}}, "spec.sandbox.memory_mb"),
        ({"retry": {"max_attempts": "many"}}, "spec.retry.max_attempts"),
        ({"input_schema": {"type": "nonsense"}}, "spec.input_schema"),
        ({"more": 1}, "spec"),
    ],
)
def test_a_spec_that_makes_no_sense_names_field_and_rule(by, spec, field):
    with pytest.raises(Invalid) as refused:
        _draft(by, **spec)

    assert refused.value.errors[0]["field"] == field
    assert not AgentVersion.objects.filter(number=2).exists()


@pytest.mark.parametrize("pattern", ["clean.csv", "**/*.json", "logs/", ".hidden", "a..b.c"])
def test_names_below_the_output_folder_may_be_declared(by, pattern):
    assert _draft(by, artifacts=[pattern]).spec["artifacts"] == [pattern]


@pytest.mark.parametrize(
    "pattern", ["/etc/passwd", "../x", "a/../b", "a//b", ".", "a/.", "*" * 9, "", "a\\b", "a\nb"]
)
def test_other_names_may_not(by, pattern):
    with pytest.raises(Invalid):
        _draft(by, artifacts=[pattern])


def test_what_may_be_declared_the_sandbox_understands(by):
    from workers.sandbox.artifacts import as_regex  # the machine room is only imported by tests

    for pattern in ("clean.csv", "**/*.json", "logs/", "a?b"):
        assert as_regex(_draft(by, artifacts=[pattern]).spec["artifacts"][0])


def test_an_organization_registers_for_itself():
    by, other = make_actor(Role.ADMIN), make_actor(Role.ADMIN, organization=make_organization())

    registry.register(by=by, slug="tidy", title="Tidy")
    registry.register(by=other, slug="tidy", title="Tidy")

    assert Agent.objects.visible_to(by.user).count() == 1
