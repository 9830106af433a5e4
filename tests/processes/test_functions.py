"""Short runs of functions travel together; whatever happens to their worker, each ends once."""

from __future__ import annotations

import os
import signal
import threading
from collections import defaultdict

import pytest
from celery import Celery
from django.db import connection
from redis import Redis

from apps.events.models import Event
from apps.events.types import EventType
from apps.runs.models import Attempt, Pace, Run, RunEvent, RunLease
from apps.runs.services import submission
from apps.runs.types import RunState, TaskSpec
from tests.factories import make_actor, make_agent, make_project
from tests.support.platform import SLOW, Platform, kill, wait_for

pytestmark = [pytest.mark.processes, pytest.mark.slow]

# Importable by the worker from the project's folder; named to it and to us alike.
NAMES = "test.brief=tests.support.functions:brief,test.picky=tests.support.functions:picky,test.slow=tests.support.functions:slow"


@pytest.fixture
def platform(transactional_db, tmp_path):
    running = Platform(tmp_path, {"AOS_FUNCTIONS": NAMES})
    yield running
    running.stop()
    print(running.logs())


def _submit(function, inputs, **retry):
    project = make_project()
    spec = {"function": function, "retry": {"base_s": 0.1} | retry}
    agent = make_agent(organization=project.organization, spec=spec, kind="function")
    by = make_actor(organization=project.organization)
    made = submission.submit_many(
        by=by, project=project, agent=agent, tasks=[TaskSpec(input=given) for given in inputs]
    )
    return [run.pk for run in made]


def _open(runs):
    return Run.objects.filter(pk__in=runs).open().exists()


def _commits_of_ends():
    """How many transactions wrote the ends of the attempts."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(DISTINCT xmin::text) FROM runs_attempt")
        return cursor.fetchone()[0]


def _know_the_pace(platform):
    """Until a version was measured its runs travel alone."""
    wait_for("the first figures", Pace.objects.exists)


def test_every_run_of_a_full_message_ends_with_its_own_log_and_receipt(platform):
    platform.engine()
    platform.worker()
    runs = _submit("test.brief", [{"number": number} for number in range(400)])

    wait_for("all to end", lambda: not _open(runs), seconds=60)

    found = Run.objects.filter(pk__in=runs)
    assert {run.state for run in found} == {RunState.SUCCEEDED}
    assert sorted(run.result["facts"]["number"] for run in found) == list(range(400))
    assert Attempt.objects.filter(run__in=runs, outcome="succeeded").count() == 400
    lines = defaultdict(list)
    for run_id, seq in RunEvent.objects.filter(run__in=runs).values_list("run", "seq"):
        lines[run_id].append(seq)
    assert {tuple(sorted(seqs)) for seqs in lines.values()} == {(1, 2, 3, 4)}
    wait_for(
        "the receipts",
        lambda: Event.objects.filter(type=EventType.RECEIPT).count() == 400,
    )
    seqs = sorted(Event.objects.values_list("seq", flat=True))
    assert seqs == list(range(1, len(seqs) + 1))
    # The first ones travel alone, until their pace is known; without messages of many it would be 400.
    assert _commits_of_ends() < 320


@pytest.fixture
def seen(settings):
    """Task events by type, as Flower receives them."""
    found = defaultdict(list)
    receivers = []
    app = Celery(broker=settings.AOS_REDIS_URL)

    def listen():
        with app.connection_for_read() as broker:
            receiver = app.events.Receiver(
                broker, handlers={"*": lambda event: found[event["type"]].append(event)}
            )
            receivers.append(receiver)
            # One subscription to the end: between two of them events would be missed.
            receiver.capture(limit=None, timeout=None, wakeup=False)

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    wait_for("the subscription", lambda: receivers)
    yield found
    receivers[0].should_stop = True
    thread.join(10)


def test_each_run_is_a_task_of_its_own_in_flower(platform, seen):
    platform.engine()
    platform.worker()
    wait_for("the worker's own events", lambda: seen["worker-online"], seconds=30)
    runs = _submit("test.brief", [{"number": number} for number in range(200)])

    wait_for("all to end", lambda: not _open(runs), seconds=60)
    wait_for("the events", lambda: len(seen["task-succeeded"]) >= 200)

    found = Run.objects.filter(pk__in=runs)
    wanted = {f"{public_id}.1" for public_id in found.values_list("public_id", flat=True)}
    for kind in ("task-received", "task-started", "task-succeeded"):
        assert {event["uuid"] for event in seen[kind]} == wanted, kind
    assert {event["name"] for event in seen["task-received"]} == {found[0].name}


def test_messages_are_taken_several_at_once_and_their_tables_are_vacuumed(platform, settings):
    broker = Redis.from_url(settings.AOS_REDIS_URL)

    def calls(command):
        return broker.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"]

    asked_for_one, vacuumed = calls("brpop"), _times_vacuumed()
    platform.engine()
    platform.worker()
    runs = _submit("test.brief", [{"number": number} for number in range(20)])

    wait_for("all to end", lambda: not _open(runs), seconds=60)

    assert calls("brpop") == asked_for_one
    wait_for("the vacuum", lambda: _times_vacuumed() > vacuumed)


def _times_vacuumed():
    with connection.cursor() as cursor:
        cursor.execute("SELECT vacuum_count FROM pg_stat_user_tables WHERE relname = 'runs_lease'")
        return cursor.fetchone()[0]


def test_the_broker_keeps_no_notes_of_messages_that_were_handed_out(platform, settings):
    """Writing and removing them takes two round trips each, and a lost message is sent again in any case."""
    broker = Redis.from_url(settings.AOS_REDIS_URL)
    before = broker.info("commandstats").get("cmdstat_hset", {"calls": 0})["calls"]
    platform.engine()
    platform.worker()
    runs = _submit("test.brief", [{"number": number} for number in range(20)])

    wait_for("all to end", lambda: not _open(runs), seconds=60)

    assert broker.info("commandstats").get("cmdstat_hset", {"calls": 0})["calls"] == before
    assert not broker.exists("unacked")


def test_a_script_is_a_task_with_its_end_in_flower_too(platform, seen):
    platform.engine()
    platform.worker()
    wait_for("the worker's own events", lambda: seen["worker-online"], seconds=30)
    project = make_project()
    by = make_actor(organization=project.organization)
    broken = {"entry": "main.py", "files": {"main.py": "exit(3)"}, "retry": {"max_attempts": 1}}
    good, bad = (
        submission.submit(
            by=by,
            project=project,
            agent=make_agent(organization=project.organization, spec=spec),
            task=TaskSpec(input={"seconds": 0.1} if spec is SLOW else {}),
        ).run
        for spec in (SLOW, broken)
    )

    wait_for("both to end", lambda: not _open([good.pk, bad.pk]), seconds=60)
    wait_for("the events", lambda: seen["task-succeeded"] and seen["task-failed"])

    names = {event["uuid"]: event["name"] for event in seen["task-received"]}
    assert names == {f"{run.public_id}.1": run.name for run in (good, bad)}
    assert {event["uuid"] for event in seen["task-started"]} == set(names)
    assert [event["uuid"] for event in seen["task-succeeded"]] == [f"{good.public_id}.1"]
    assert [(event["uuid"], event["exception"]) for event in seen["task-failed"]] == [
        (f"{bad.public_id}.1", "command_failed")
    ]


def test_a_killed_worker_loses_none_of_the_runs_it_held(platform):
    platform.engine()
    worker = platform.worker()
    runs = _submit("test.brief", [{"number": number, "for_s": 0.002} for number in range(600)])
    _know_the_pace(platform)
    wait_for("some to be running", lambda: RunLease.objects.filter(state="r").count() > 1)

    kill(worker)
    platform.worker()

    wait_for("all to end", lambda: not _open(runs), seconds=90)
    assert set(Run.objects.filter(pk__in=runs).values_list("state", flat=True)) == {"succeeded"}
    wait_for("the receipts", lambda: Event.objects.filter(type=EventType.RECEIPT).count() == 600)
    assert not RunLease.objects.exists()


def test_a_worker_stalled_past_its_lease_reports_for_none_of_its_runs(platform):
    platform.engine()
    worker = platform.worker()
    runs = _submit("test.brief", [{"number": number, "for_s": 0.002} for number in range(600)])
    _know_the_pace(platform)
    wait_for("some to be running", lambda: RunLease.objects.filter(state="r").count() > 1)

    os.kill(worker.pid, signal.SIGSTOP)
    platform.worker("w2")
    wait_for("all to end", lambda: not _open(runs), seconds=90)
    os.kill(worker.pid, signal.SIGCONT)

    wait_for(
        "the stale one to notice",
        lambda: "work dropped" in platform.logs() or not RunLease.objects.exists(),
    )
    assert set(Run.objects.filter(pk__in=runs).values_list("state", flat=True)) == {"succeeded"}
    wait_for("the receipts", lambda: Event.objects.filter(type=EventType.RECEIPT).count() == 600)


def test_a_failure_among_many_is_tried_again_alone(platform):
    platform.engine()
    platform.worker()
    runs = _submit(
        "test.picky",
        [{"number": number} for number in range(100)],
        max_attempts=2,
        retry_on=["function_failed"],
    )

    wait_for("all to end", lambda: not _open(runs), seconds=60)

    ended = {run.spec["input"]["number"]: run for run in Run.objects.filter(pk__in=runs)}
    # Its code is one to be tried again, and no attempt was left.
    assert {number for number, run in ended.items() if run.state == RunState.DEAD} == {13}
    assert ended[13].error["detail"] == "ValueError: 13 is refused"
    assert ended[7].attempts == 2
    assert {run.attempts for number, run in ended.items() if number not in {7, 13}} == {1}


def test_who_waits_behind_a_call_that_takes_long_is_given_back(platform):
    platform.overrides["AOS_WORKER_SLOTS"] = "1"
    platform.engine()
    platform.worker()
    quick = _submit("test.slow", [{"for_s": 0.0}] * 150)
    wait_for("the quick ones", lambda: not _open(quick), seconds=60)
    (version,) = (
        Run.objects.filter(pk__in=quick)
        .order_by()
        .values_list("agent_version", flat=True)
        .distinct()
    )
    run = Run.objects.select_related("project", "agent_version__agent", "submitted_by").get(
        pk=quick[0]
    )
    by = make_actor(organization=run.project.organization)
    made = submission.submit_many(
        by=by,
        project=run.project,
        agent=run.agent_version.agent,
        tasks=[TaskSpec(input={"for_s": 20.0 if number == 0 else 0.0}) for number in range(20)],
    )
    behind = [each.pk for each in made[1:]]
    wait_for("the long one to run", lambda: Run.objects.get(pk=made[0].pk).state == "running")
    platform.worker("w2")

    wait_for("those behind it", lambda: not _open(behind), seconds=20)

    assert Run.objects.get(pk=made[0].pk).state == RunState.RUNNING
    assert version == run.agent_version_id
    drained = Attempt.objects.filter(run__in=behind, outcome="drained").count()
    assert drained > 0
    wait_for("the long one", lambda: not _open([made[0].pk]), seconds=30)
