"""Whoever is shut out stops running: with a real engine and a real worker, within ten seconds."""

from __future__ import annotations

import time

import pytest

from apps.events.models import AuditEntry
from apps.identity.actor import Actor
from apps.identity.models import Binding
from apps.identity.services import bindings, people
from apps.identity.types import Role
from apps.runs.models import Run, RunEvent
from apps.runs.types import EventKind, RunState
from tests.factories import make_actor, make_agent, make_project, make_run, make_user
from tests.support.platform import SLOW, wait_for

pytestmark = [pytest.mark.processes, pytest.mark.slow]
WITHDRAWALS = {
    "a disabled person": lambda by, user: people.deactivate(by=by, user=user),
    "a revoked role": lambda by, user: bindings.revoke(
        by=by, binding=Binding.objects.get(user=user)
    ),
}


def _state(run):
    return Run.objects.values_list("state", flat=True).get(pk=run.pk)


def _is_working(run):
    return RunEvent.objects.filter(run=run, kind=EventKind.LOG, payload__text="tick").exists()


@pytest.mark.parametrize("withdrawn", WITHDRAWALS)
def test_G12_running_and_waiting_runs_end_within_ten_seconds(platform, withdrawn):  # noqa: N802
    platform.overrides["AOS_WORKER_SLOTS"] = "2"
    owner = make_actor(Role.OWNER)
    organization = owner.user.organization
    user = make_user(role=Role.OPERATOR, organization=organization)
    project = make_project(organization=organization)
    agent = make_agent(organization=organization, spec=SLOW)
    platform.engine()
    platform.worker()

    def submit(by):
        return make_run(project=project, agent=agent, by=by, input={"seconds": 60})

    kept, running = submit(owner), submit(Actor(user=user))
    waiting = [submit(Actor(user=user)) for _ in range(3)]
    wait_for("the script to work", lambda: _is_working(running) and _is_working(kept))

    WITHDRAWALS[withdrawn](owner, user)
    since = time.monotonic()

    for run in (running, *waiting):
        wait_for("the end", lambda run=run: _state(run) == RunState.CANCELLED, seconds=10)
    assert time.monotonic() - since < 10
    assert _state(kept) == RunState.RUNNING
    entries = AuditEntry.objects.filter(action="run.cancel", actor_kind="platform")
    assert entries.count() == 4
    assert all(user.username in entry.detail["why"] for entry in entries)
