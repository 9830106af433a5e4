"""Whatever is killed in between, the run still ends, with exactly one receipt."""

from __future__ import annotations

import os
import signal
import time

import pytest
from celery import Celery
from django.db import connection

from apps.events.models import Event
from apps.events.types import EventType
from apps.runs.fleet_models import Leader, WorkerNode
from apps.runs.models import Attempt, Run, RunEvent, RunLease
from apps.runs.services import control, dispatch, leadership
from apps.runs.types import EventKind, RunState
from tests.factories import make_actor, make_agent, make_project, make_run
from tests.support.platform import SLOW, Platform, kill, private_valkey, wait_for

pytestmark = [pytest.mark.processes, pytest.mark.slow]


def _submit(count=1, **spec):
    project = make_project()
    agent = make_agent(organization=project.organization, spec=SLOW)
    by = make_actor(organization=project.organization)
    runs = [
        make_run(project=project, agent=agent, by=by, input=spec or {"seconds": 0.3})
        for _ in range(count)
    ]
    return runs[0] if count == 1 else runs


def _state(run):
    return Run.objects.values_list("state", flat=True).get(pk=run.pk)


def _receipts(run):
    return Event.objects.filter(run_id=run.public_id, type=EventType.RECEIPT).count()


def _is_working(run):
    return RunEvent.objects.filter(run=run, kind=EventKind.LOG, payload__text="tick").exists()


def _ended(run):
    return _receipts(run) == 1 and _state(run) == RunState.SUCCEEDED


def test_a_run_ends_with_its_receipt_and_artifact(platform):
    platform.engine()
    platform.worker()

    run = _submit()

    wait_for("the receipt", lambda: _ended(run))
    (event,) = Event.objects.filter(run_id=run.public_id, type=EventType.RECEIPT)
    assert event.payload["summary"] == "Slept."
    assert [item["name"] for item in event.payload["artifacts"]] == ["done.txt"]
    assert event.payload["isolation"] in {"bwrap", "none"}


def test_G2_a_killed_worker_costs_an_attempt_and_not_the_run(platform):  # noqa: N802
    platform.engine()
    worker = platform.worker()
    run = _submit(seconds=2)
    wait_for("the script to work", lambda: _is_working(run))

    kill(worker)
    platform.worker("w2")

    wait_for("the receipt", lambda: _ended(run), seconds=40)
    outcomes = list(
        Attempt.objects.filter(run=run).order_by("number").values_list("outcome", flat=True)
    )
    assert outcomes == ["lost", "succeeded"]
    assert _receipts(run) == 1


def test_a_restarted_worker_is_missed_at_once(platform):
    platform.overrides["AOS_WORKER_TTL_SECONDS"] = "600"
    platform.engine()
    worker = platform.worker()
    run = _submit(seconds=2)
    wait_for("the script to work", lambda: _is_working(run))

    kill(worker)
    platform.worker()

    wait_for("the receipt", lambda: _ended(run))
    assert Attempt.objects.filter(run=run).count() == 2


def test_a_killed_engine_is_replaced_within_five_seconds(platform):
    engines = [platform.engine(), platform.engine()]
    platform.worker()
    wait_for("a worker", WorkerNode.objects.exists)
    first = wait_for("a leader", Leader.objects.first)
    leader = next(process for process in engines if f":{process.pid}:" in first.holder)

    kill(leader)
    died = time.monotonic()
    run = _submit()

    wait_for("another epoch", lambda: Leader.objects.get().epoch == first.epoch + 1, seconds=5)
    took = time.monotonic() - died
    wait_for("the receipt", lambda: _ended(run))
    assert took < 5


def test_a_stalled_engine_cannot_act_when_it_wakes(platform):
    engines = [platform.engine(), platform.engine()]
    platform.worker()
    first = wait_for("a leader", Leader.objects.first)
    leader = next(process for process in engines if f":{process.pid}:" in first.holder)

    os.kill(leader.pid, signal.SIGSTOP)
    wait_for("another epoch", lambda: Leader.objects.get().epoch > first.epoch, seconds=10)
    runs = _submit(count=5)
    os.kill(leader.pid, signal.SIGCONT)

    for run in runs:
        wait_for("the receipt", lambda run=run: _ended(run))
        assert Attempt.objects.filter(run=run).count() == 1
    assert Leader.objects.get().holder != first.holder


def test_nothing_is_lost_while_redis_is_away_for_ten_seconds(transactional_db, tmp_path):
    with private_valkey(tmp_path) as switch:
        platform = Platform(tmp_path, {"REDIS_URL": switch.url, "AOS_WORKER_TTL_SECONDS": "60"})
        try:
            platform.engine()
            platform.worker()
            before = _submit(count=3)
            wait_for("a worker", WorkerNode.objects.exists)

            switch(False)
            during = _submit(count=3)
            time.sleep(10)
            switch(True)

            for run in [*before, *during, *_submit(count=3)]:
                wait_for("the receipt", lambda run=run: _ended(run), seconds=60)
            assert not RunLease.objects.exists()
        finally:
            platform.stop()
            print(platform.logs())


def test_G16_a_cancelled_run_is_gone_within_ten_seconds(platform):  # noqa: N802
    platform.engine()
    platform.worker()
    run = _submit(seconds=60)
    wait_for("the script to work", lambda: _is_working(run))

    control.cancel(by=make_actor(organization=run.project.organization), run=run)

    wait_for("the receipt", lambda: _receipts(run) == 1, seconds=10)
    assert _state(run) == RunState.CANCELLED


def test_a_stopped_worker_gives_back_what_it_has_not_finished(platform):
    platform.engine()
    worker = platform.worker()
    run = _submit(seconds=4)
    wait_for("the script to work", lambda: _is_working(run))

    worker.send_signal(signal.SIGTERM)
    platform.worker("w2")

    wait_for("the receipt", lambda: _ended(run), seconds=40)
    outcomes = list(
        Attempt.objects.filter(run=run).order_by("number").values_list("outcome", flat=True)
    )
    assert outcomes == ["drained", "succeeded"]


def test_a_worker_leaves_in_order_after_the_database_has_ended_its_connections(platform):
    """Such as a restart of PostgreSQL between two runs; the next one to notice is who leaves."""
    platform.engine()
    worker = platform.worker()
    run = _submit()
    wait_for("the receipt", lambda: _ended(run))
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

    worker.send_signal(signal.SIGTERM)

    worker.wait(15)
    assert WorkerNode.objects.get().gone_at
    assert "Traceback" not in (platform.folder / "w1.log").read_text("utf-8")


def test_a_worker_stalled_past_its_lease_is_fenced_off(platform):
    platform.engine()
    worker = platform.worker()
    run = _submit(seconds=3)
    wait_for("the script to work", lambda: _is_working(run))

    os.kill(worker.pid, signal.SIGSTOP)
    platform.worker("w2")
    wait_for("the second attempt", lambda: Attempt.objects.filter(run=run).count() == 2)
    os.kill(worker.pid, signal.SIGCONT)

    wait_for("the receipt", lambda: _ended(run), seconds=40)
    time.sleep(2)
    assert _receipts(run) == 1
    assert Attempt.objects.filter(run=run).count() == 2


def test_a_worker_that_messages_do_not_reach_any_more_ends_to_be_started_anew(platform):
    """Its consumer has lost the queue, as after some reconnects; process and heartbeat are well."""
    platform.overrides["AOS_DISPATCH_DEADLINE_SECONDS"] = "2"
    platform.engine()
    deaf = platform.worker()
    wait_for("a worker", WorkerNode.objects.exists)
    app = Celery(broker=platform.env["REDIS_URL"])
    queue = f"{platform.env['AOS_INSTANCE']}.runs"
    wait_for(
        "the worker to leave its queue",
        lambda: app.control.cancel_consumer(queue, reply=True, timeout=1),
    )
    run = _submit()

    wait_for("its end", lambda: deaf.poll() is not None, seconds=40)

    assert not Attempt.objects.filter(run=run).exists()
    platform.worker()
    wait_for("the receipt", lambda: _ended(run))
    assert Attempt.objects.filter(run=run).count() == 1


def test_an_idle_worker_whose_message_was_lost_goes_on(platform):
    """Unlike the one above: what is lost once arrives when it is sent again."""
    platform.overrides["AOS_DISPATCH_DEADLINE_SECONDS"] = "2"
    worker = platform.worker()
    node = wait_for("a worker", WorkerNode.objects.first)
    seat = leadership.take("test")
    run = _submit()
    dispatch.claim(seat, slots=1)
    wait_for("the claim to be overdue", dispatch.hand_back_overdue)
    leadership.leave(seat)
    platform.engine()

    wait_for("the receipt", lambda: _ended(run))
    assert worker.poll() is None
    assert not WorkerNode.objects.get(pk=node.pk).draining
