"""What a run does is on record with the whole chain: person, agent, run."""

from __future__ import annotations

import pytest
from django.db import OperationalError

from apps.events.models import AuditEntry
from apps.events.services import chain, outbox
from apps.identity.models import ApiToken
from apps.identity.types import Role
from apps.runs.models import RunEvent
from tests.faces import api, key, session
from tests.factories import make_actor, make_agent, make_project, make_run
from tests.support.stand_in import StandIn
from workers.runlog import EGRESS, RunLog
from workers.sandbox.egress.policy import Denial, Reason

pytestmark = pytest.mark.django_db

EVIL = Denial(host="evil.example.com", port=443, reason=Reason.NOT_LISTED)


@pytest.fixture
def by():
    return make_actor(Role.OWNER)


@pytest.fixture
def run(by):
    organization = by.user.organization
    project = make_project(organization=organization)
    return make_run(project=project, agent=make_agent(organization=organization), by=by)


@pytest.fixture
def log(run):
    return RunLog(StandIn(run).started)


def refusals():
    return list(AuditEntry.objects.filter(action="access.denied").order_by("id"))


def test_a_way_out_that_was_refused_names_person_agent_and_run(by, run, log):
    log.note_denial(EVIL)
    log.flush()

    (entry,) = refusals()
    assert (entry.actor_kind, entry.actor_id, entry.actor_name) == (
        "agent",
        by.user.pk,
        by.user.username,
    )
    assert (entry.agent_id, entry.run_id) == (run.agent_version.agent_id, run.public_id)
    assert entry.resource_id == EGRESS
    assert entry.detail == {
        "reason": "not_listed",
        "project": str(run.project_id),
        "host": "evil.example.com",
        "port": 443,
    }
    assert RunEvent.objects.filter(run=run, payload__egress__host=EVIL.host).count() == 1


def test_a_database_that_is_away_costs_no_refusal(log, monkeypatch):
    def away(*_, **__):
        raise OperationalError("the connection is lost")

    log.note_denial(EVIL)
    with monkeypatch.context() as patched:
        patched.setattr(outbox, "audit", away)
        with pytest.raises(OperationalError):
            log.flush()

    log.flush()

    assert len(refusals()) == 1


def test_the_chain_of_an_act_is_sealed_with_it(by, log):
    log.note_denial(EVIL)
    log.flush()
    while chain.seal():
        pass

    assert chain.verify(by.user.organization_id).is_intact


def test_what_a_run_did_is_found_by_it_and_told_with_it(by, run, log):
    log.note_denial(EVIL)
    log.flush()
    client = session(by.user)

    found = client.get(f"/api/audit/logs?run={run.public_id}").json()["results"]
    page = client.get(f"/audit/entries/{refusals()[0].pk}").content.decode()

    assert [row["run_id"] for row in found] == [str(run.public_id)]
    assert found[0]["agent_id"] == str(run.agent_version.agent_id)
    assert "does not list this host" in page
    assert f"/runs/{run.public_id}" in page


def test_what_a_person_does_by_a_program_names_the_token_and_no_agent(by):
    client = api(by.user, "project:write")

    client.post("/api/projects", {"slug": "s", "name": "S"}, format="json", headers=key())

    entry = AuditEntry.objects.get(action="project.create")
    assert entry.actor_id == by.user.pk
    assert entry.token_id == ApiToken.objects.get(user=by.user).pk
    assert (entry.agent_id, entry.run_id) == (None, None)
