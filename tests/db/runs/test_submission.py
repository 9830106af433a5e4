from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction

from apps.core import clock
from apps.core.errors import Invalid, NotAllowed, NotFound
from apps.events.models import AuditEntry, OutboxEntry
from apps.events.types import EventType
from apps.identity.types import Role
from apps.projects.models import WorkspaceFile
from apps.projects.services import files
from apps.runs.errors import AgentNotReleased, KeyReused
from apps.runs.models import IdempotencyKey, ReadyRun, Run, ScheduledRun
from apps.runs.services import control, submission
from apps.runs.types import TaskSpec
from tests.factories import (
    HELLO,
    make_actor,
    make_agent,
    make_agent_version,
    make_project,
    make_run,
)
from tests.support.threads import at_once

KEY = "a-key-of-sixteen-or-more"
FILE_AGENT = HELLO | {
    "input_schema": {
        "type": "object",
        "required": ["file"],
        "properties": {"file": {"type": "string", "format": "aos-file"}, "rows": {"minimum": 1}},
        "additionalProperties": False,
    }
}


@pytest.fixture
def world(db):
    project = make_project()
    return {
        "by": make_actor(Role.OPERATOR, organization=project.organization),
        "project": project,
        "agent": make_agent(organization=project.organization),
    }


def _submit(world, key=None, **task):
    return submission.submit(**world, task=TaskSpec(**{"input": {}} | task), key=key)


def test_a_run_is_stored_with_its_queue_row_event_and_audit_entry(world):
    run = _submit(world).run

    assert ReadyRun.objects.filter(run=run).exists()
    assert OutboxEntry.objects.get(run_id=run.public_id).type == EventType.ACCEPTANCE
    assert AuditEntry.objects.get(action="run.submit").resource_id == str(run.public_id)
    assert len(run.trace_id) == 32


def test_a_failure_on_the_way_leaves_nothing(world, monkeypatch):
    def broken(*_, **__):
        raise IntegrityError("something is not writable")

    monkeypatch.setattr("apps.runs.services.lifecycle.tell_on_commit", broken)

    with pytest.raises(IntegrityError), transaction.atomic():
        _submit(world, key=KEY)

    assert not Run.objects.exists()
    assert not OutboxEntry.objects.exists()
    assert not IdempotencyKey.objects.exists()


def test_a_viewer_submits_nothing(world):
    viewer = make_actor(Role.VIEWER, organization=world["project"].organization)

    with pytest.raises(NotAllowed):
        _submit(world | {"by": viewer})


def test_an_operator_of_another_project_submits_nothing(world):
    other = make_project(organization=world["project"].organization)

    with pytest.raises(NotAllowed):
        _submit(world | {"by": make_actor(Role.OPERATOR, project=other)})


def test_an_agent_of_another_organization_does_not_exist(world):
    with pytest.raises(NotFound):
        _submit(world | {"agent": make_agent()})


def test_an_unreleased_agent_is_refused(world):
    agent = make_agent(organization=world["project"].organization, released=False)

    with pytest.raises(AgentNotReleased):
        _submit(world | {"agent": agent})


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ({}, "input"),
        ({"file": 3}, "input.file"),
        ({"file": "a.csv", "rows": 0}, "input.rows"),
        ({"file": "a.csv", "other": 1}, "input"),
        ({"file": "missing.csv"}, "input.file"),
    ],
)
def test_input_that_breaks_the_schema_names_field_and_rule(world, value, field):
    agent = make_agent(organization=world["project"].organization, spec=FILE_AGENT)

    with pytest.raises(Invalid) as refused:
        _submit(world | {"agent": agent}, input=value)

    error = refused.value.params["errors"][0]
    assert error["field"] == field
    assert error["rule"]


@pytest.mark.parametrize(
    ("task", "field"),
    [
        ({"timeout_s": 100_000}, "timeout_s"),
        ({"retry": {"max_attempts": 0}}, "retry.max_attempts"),
        ({"retry": {"often": True}}, "retry"),
    ],
)
def test_limits_that_make_no_sense_are_refused(world, task, field):
    with pytest.raises(Invalid) as refused:
        _submit(world, **task)

    assert refused.value.params["errors"][0]["field"] == field


def test_a_run_keeps_the_file_it_was_given(world):
    agent = make_agent(organization=world["project"].organization, spec=FILE_AGENT)
    here = {"by": world["by"], "project": world["project"]}
    before = files.put(**here, name="a.csv", chunks=[b"one"])

    run = _submit(world | {"agent": agent}, input={"file": "a.csv"}).run
    files.put(**here, name="a.csv", chunks=[b"two"])

    assert run.spec["files"] == [{"name": "a.csv", "sha256": before.sha256, "size": 3}]
    assert WorkspaceFile.objects.get().sha256 != before.sha256


def test_a_later_run_waits_in_the_schedule(world):
    run = _submit(world, run_at=clock.now() + timedelta(hours=1)).run

    assert ScheduledRun.objects.filter(run=run).exists()
    assert not ReadyRun.objects.filter(run=run).exists()


def test_the_same_key_and_request_return_the_same_run(world):
    first = _submit(world, key=KEY)
    again = _submit(world, key=KEY)

    assert again.run == first.run
    assert (first.replayed, again.replayed) == (False, True)
    assert OutboxEntry.objects.count() == 1


def test_the_same_key_with_another_request_is_refused(world):
    _submit(world, key=KEY)

    with pytest.raises(KeyReused):
        _submit(world, key=KEY, queue="other")


def test_a_key_belongs_to_one_person(world):
    other = make_actor(Role.OPERATOR, organization=world["project"].organization)

    first = _submit(world, key=KEY)
    second = _submit(world | {"by": other}, key=KEY)

    assert first.run != second.run


def test_an_old_key_is_a_new_request(world):
    first = _submit(world, key=KEY)
    IdempotencyKey.objects.update(expires_at=clock.now() - timedelta(seconds=1))

    assert _submit(world, key=KEY).run != first.run


@pytest.mark.django_db(transaction=True)
def test_G13_concurrent_repetitions_take_effect_once():  # noqa: N802
    project = make_project()
    world = {
        "by": make_actor(Role.OPERATOR, organization=project.organization),
        "project": project,
        "agent": make_agent(organization=project.organization),
    }

    answers = at_once([lambda: _submit(world, key=KEY)] * 8)

    assert len({answer.run.pk for answer in answers}) == 1
    assert Run.objects.count() == 1


def test_a_rerun_is_a_new_run_of_the_current_version(world):
    run = _submit(world, input={"n": 1}, priority=0).run
    newer = make_agent_version(agent=world["agent"])
    world["agent"].current = newer
    world["agent"].save(update_fields=["current"])
    run.refresh_from_db()

    again = control.rerun(by=world["by"], run=run).run

    assert again.pk != run.pk
    assert (again.rerun_of, again.agent_version, again.spec, again.priority) == (
        run,
        newer,
        run.spec,
        0,
    )


def test_a_run_begins_queued_whoever_inserts_it(db):
    run = make_run()
    run.pk, run.public_id, run.state = None, None, "succeeded"

    with pytest.raises(IntegrityError), transaction.atomic():
        run.save(force_insert=True)


# --- trying a version that is not the current one -------------------------------------------------


def test_a_draft_can_be_tried_by_who_manages_the_agent(world):
    draft = make_agent_version(agent=world["agent"], released=False)
    admin = make_actor(Role.ADMIN, organization=world["project"].organization)

    outcome = submission.submit_version(
        by=admin, project=world["project"], version=draft, task=TaskSpec(input={}), key=KEY
    )
    again = submission.submit_version(
        by=admin, project=world["project"], version=draft, task=TaskSpec(input={}), key=KEY
    )

    assert outcome.run.agent_version == draft
    assert (again.run, again.replayed) == (outcome.run, True)
    assert AuditEntry.objects.get(action="run.submit").detail["version"] == draft.number
    # Trying it releases nothing.
    assert _submit(world).run.agent_version == world["agent"].current


def test_who_may_only_submit_gets_the_current_version(world):
    draft = make_agent_version(agent=world["agent"], released=False)

    with pytest.raises(NotAllowed, match=r"agent\.manage"):
        submission.submit_version(
            by=world["by"], project=world["project"], version=draft, task=TaskSpec(input={})
        )

    assert not Run.objects.exists()


def test_a_version_is_not_tried_in_another_organizations_project(world):
    by = make_actor(Role.ADMIN)
    theirs = make_agent_version(agent=world["agent"], released=False)

    with pytest.raises(NotFound):
        submission.submit_version(
            by=by,
            project=make_project(organization=by.user.organization),
            version=theirs,
            task=TaskSpec(input={}),
        )
