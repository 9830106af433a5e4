"""A message full of runs: started and ended in one statement, and fenced one by one."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import OperationalError, connection, transaction
from django.db.models.functions import Now

from apps.agents.services import registry
from apps.agents.types import AgentKind
from apps.core import clock
from apps.core.errors import Invalid
from apps.core.postgres import direct
from apps.events.models import AuditEntry, OutboxEntry
from apps.events.types import EventType
from apps.runs.models import ReadyRun, Run, RunEvent, RunLease
from apps.runs.services import control, dispatch, leases, pace, submission
from apps.runs.services.dispatch import Dispatcher
from apps.runs.services.fairness import Room
from apps.runs.services.leadership import SQL
from apps.runs.types import Lease, Report, RunState, TaskSpec
from tests.factories import make_actor, make_agent, make_project, make_run, make_worker

pytestmark = pytest.mark.django_db
ECHO = {"function": "aos.echo"}


@pytest.fixture
def echo():
    project = make_project()
    agent = make_agent(organization=project.organization, spec=ECHO, kind="function")
    return {"by": make_actor(organization=project.organization), "project": project, "agent": agent}


def _submit(scene, number):
    return submission.submit_many(**scene, tasks=[TaskSpec(input={})] * number)


def _claim(seat, number):
    return [Lease(run_id=d.run_id, token=d.token) for d in dispatch.claim(seat, slots=number)]


def _ends(started):
    return [
        Report(lease=each.lease, state=RunState.SUCCEEDED, after=each.last_event_seq, result={})
        for each in started
    ]


def _receipts():
    return OutboxEntry.objects.filter(type=EventType.RECEIPT).count()


def test_a_start_of_many_takes_those_that_are_ours_and_leaves_the_rest(seat, echo):
    runs = _submit(echo, 4)
    first, second, third, fourth = _claim(seat, 4)
    control.cancel(by=echo["by"], run=runs[1])
    forged = Lease(run_id=third.run_id, token=third.token + 1000)

    started = leases.start_many([first, second, forged, fourth], worker=make_worker())

    assert [each.lease for each in started] == [first, fourth]
    assert sorted(Run.objects.filter(attempts=1).values_list("pk", flat=True)) == [
        first.run_id,
        fourth.run_id,
    ]


def test_an_end_of_many_is_fenced_one_by_one(seat, echo):
    _submit(echo, 3)
    started = leases.start_many(_claim(seat, 3), worker=make_worker())
    lost = started[1].lease
    RunLease.objects.filter(run=lost.run_id).update(token=lost.token + 1000)

    ended = leases.finish(_ends(started))

    assert ended == {started[0].lease, started[2].lease}
    assert Run.objects.get(pk=lost.run_id).state == RunState.RUNNING
    assert _receipts() == 2
    assert leases.finish(_ends(started)) == frozenset()
    assert _receipts() == 2


def test_without_the_token_a_stale_worker_would_end_the_run(seat, echo):
    """The sabotage: the same statement with the fence taken out, to see that the fence does it."""
    _submit(echo, 1)
    (stale,) = leases.start_many(_claim(seat, 1), worker=make_worker())
    RunLease.objects.update(token=stale.lease.token + 1000)
    fence = "AND lease.token = ANY (ARRAY[held.token])"
    assert fence in SQL["finish"]
    open_door = dict(SQL) | {"finish": SQL["finish"].replace(fence, "")}

    assert leases.finish(_ends([stale])) == frozenset()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("apps.runs.services.lifecycle.SQL", open_door)
        assert leases.finish(_ends([stale])) == {stale.lease}


def test_a_figure_counts_in_the_round_after_it_was_learnt(seat, echo):
    _submit(echo, 120)
    dispatcher = Dispatcher(seat)
    assert [len(message.dispatches) for message in dispatcher.claim(Room(now=2))] == [1, 1]
    assert dispatcher.meets_strangers
    pace.note(version_id=echo["agent"].current_id, mean_s=0.0002, runs=10)

    dispatcher.learn()

    assert not dispatcher.meets_strangers
    messages = dispatcher.claim(Room(now=2))
    assert [len(message.dispatches) for message in messages] == [50, 50]


def test_a_round_claims_no_more_than_it_can_send_soon(seat, echo):
    _submit(echo, 620)
    pace.note(version_id=echo["agent"].current_id, mean_s=0.0002, runs=10)
    dispatcher = Dispatcher(seat)
    dispatcher.learn()
    dispatcher.claim(Room(now=1))

    messages = dispatcher.claim(Room(now=4, far=32))

    assert sum(len(message.dispatches) for message in messages) == 500


def test_short_runs_of_one_function_are_leased_for_one_message(seat, echo):
    _submit(echo, 120)
    pace.note(version_id=echo["agent"].current_id, mean_s=0.0002, runs=10)
    dispatcher = Dispatcher(seat)
    dispatcher.learn()
    dispatcher.claim(Room(now=1))

    messages = dispatcher.claim(Room(now=2))

    assert [len(message.dispatches) for message in messages] == [50, 50]
    numbers = RunLease.objects.values_list("message", flat=True)
    assert len(set(numbers)) == 3


def test_a_message_takes_up_one_slot_however_many_runs_it_carries(seat, echo):
    make_worker(slots=4)
    _submit(echo, 60)
    pace.note(version_id=echo["agent"].current_id, mean_s=0.0002, runs=10)
    dispatcher = Dispatcher(seat)
    dispatcher.learn()
    dispatcher.claim(Room(now=1))
    dispatcher.claim(Room(now=1))

    assert dispatch.look().room.now == 2


def test_what_is_measured_last_counts_most(seat, echo):
    version = echo["agent"].current_id
    pace.note(version_id=version, mean_s=10, runs=1)
    for _ in range(20):
        pace.note(version_id=version, mean_s=1, runs=1)

    dispatcher = Dispatcher(seat)
    dispatcher.learn()

    assert dispatcher._paces[version].mean_s == pytest.approx(1, abs=0.2)


def test_a_receipt_of_a_run_that_never_started_and_of_one_that_did_have_the_same_fields(seat, echo):
    waiting, running = _submit(echo, 2)
    _, second = _claim(seat, 2)
    leases.finish(_ends(leases.start_many([second], worker=make_worker())))
    control.cancel(by=echo["by"], run=waiting)

    first, other = (
        OutboxEntry.objects.get(type=EventType.RECEIPT, run_id=run.public_id).payload
        for run in (waiting, running)
    )
    assert first.keys() == other.keys()
    assert (first["state"], first["duration_s"], first["attempts"]) == ("cancelled", None, 0)
    assert (other["state"], other["attempts"]) == ("succeeded", 1)
    assert other["duration_s"] >= 0


def test_many_are_accepted_in_one_transaction_with_one_entry(echo):
    later = TaskSpec(input={}, run_at=clock.now() + timedelta(days=1))
    made = submission.submit_many(
        **echo, tasks=[TaskSpec(input={}), later, TaskSpec(input={}, priority=2)]
    )

    assert [run.state for run in made] == ["queued"] * 3
    assert list(ReadyRun.objects.order_by("seq").values_list("run", flat=True)) == [
        made[0].pk,
        made[2].pk,
    ]
    assert RunEvent.objects.filter(run__in=[run.pk for run in made], seq=1).count() == 3
    (entry,) = AuditEntry.objects.filter(action="run.submit_many")
    assert entry.detail["runs"] == [str(run.public_id) for run in made]


def test_what_is_wrong_with_one_task_refuses_that_one():
    project = make_project()
    schema = {"type": "object", "required": ["n"]}
    agent = make_agent(
        organization=project.organization, spec=ECHO | {"input_schema": schema}, kind="function"
    )
    by = make_actor(organization=project.organization)

    good, bad = submission.submit_many(
        by=by, project=project, agent=agent, tasks=[TaskSpec(input={"n": 1}), TaskSpec(input={})]
    )

    assert good.pk
    assert isinstance(bad, Invalid)
    assert Run.objects.count() == 1


def test_a_queue_deadline_is_kept_where_the_run_waits(seat, echo):
    run = make_run(**echo, queue_deadline_s=60)
    assert ReadyRun.objects.get(run=run).queue_deadline is not None

    dispatch.claim(seat, slots=1)
    RunLease.objects.update(dispatch_deadline=Now() - timedelta(seconds=1))
    dispatch.hand_back_overdue()

    assert ReadyRun.objects.get(run=run).queue_deadline is not None


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"function": "os.system"}, "spec.function"),
        ({"function": ""}, "spec.function"),
        ({}, "spec"),
        ({"function": "aos.echo", "files": {}}, "spec"),
        ({"function": "aos.echo", "timeout_s": 0}, "spec.timeout_s"),
        ({"function": "aos.echo", "input_schema": {"type": "nonsense"}}, "spec.input_schema"),
    ],
)
def test_a_version_can_name_only_a_function_that_the_operator_installed(spec, field):
    by = make_actor()
    agent = registry.register(by=by, slug="echo", title="Echo", kind=AgentKind.FUNCTION)

    with pytest.raises(Invalid) as caught:
        registry.draft(by=by, agent=agent, spec=spec)

    assert [error["field"] for error in caught.value.params["errors"]] == [field]


# --- a connection of one's own --------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_a_line_keeps_its_statements_prepared_and_outlives_a_broken_connection():
    pids = "SELECT pg_backend_pid() AS pid, %(n)s::int AS n"
    with direct.line():
        (first,) = direct.fetch(pids, {"n": 1})
        (again,) = direct.fetch(pids, {"n": 2})
        (kept,) = direct.fetch(
            "SELECT count(*) AS n FROM pg_prepared_statements WHERE statement LIKE %(it)s",
            {"it": "SELECT pg_backend_pid()%"},
        )
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s), pg_sleep(0.1)", [first["pid"]])
        with pytest.raises(OperationalError):
            direct.fetch(pids, {"n": 3})
        (fresh,) = direct.fetch(pids, {"n": 4})
        direct.close()

    assert (first["pid"], again["n"], kept["n"]) == (again["pid"], 2, 1)
    assert fresh["pid"] != first["pid"]


@pytest.mark.django_db(transaction=True)
def test_inside_a_transaction_a_statement_belongs_to_it():
    with direct.line():
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            (row,) = direct.fetch("SELECT pg_backend_pid() AS pid", {})
            assert [row["pid"]] == list(cursor.fetchone())
        (apart,) = direct.fetch("SELECT pg_backend_pid() AS pid", {})
        direct.close()

    assert apart["pid"] != row["pid"]
