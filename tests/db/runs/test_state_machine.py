"""Any order of acts, stale ones among them, leaves each run where a model of twenty lines says."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from uuid import uuid4

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models.functions import Now
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from apps.events.models import OutboxEntry
from apps.events.types import EventType
from apps.runs.errors import LeaseLost, ParentIsOver, RunIsOver, TooDeep
from apps.runs.kin_models import RunDeadline
from apps.runs.models import ReadyRun, Run, RunEvent, RunLease, ScheduledRun
from apps.runs.services import (
    children,
    control,
    dispatch,
    fleet,
    leadership,
    leases,
    orphans,
    recovery,
)
from apps.runs.services.kin import Bond
from apps.runs.services.leadership import SeatLost
from apps.runs.types import FINAL, Entry, EventKind, Failure, RunState, TaskSpec
from tests.factories import make_actor, make_agent, make_project, make_run, make_worker

pytestmark = pytest.mark.usefixtures("long_seats")
MAY_PASS = Failure(code="sandbox_unavailable", detail="No engine.", retryable=True)
WILL_NOT = Failure(code="command_failed", detail="Exit code 3.")
ATTEMPTS, POISON, GENERATIONS = 3, 3, 5
Q, R, C = RunState.QUEUED, RunState.RUNNING, RunState.CANCELLING


@pytest.fixture
def long_seats(settings):
    """A machine that is busy must not depose the leader in the middle of an example."""
    settings.AOS_LEADER_TTL = timedelta(hours=1)


@dataclass
class Known:
    """A run as the model knows it."""

    state: RunState = Q
    # ready, scheduled, dispatched, held; nothing when it is over
    place: str | None = "ready"
    token: int = 0
    worker: int = 0
    attempts: int = 0
    counted: int = 0
    crashes: int = 0
    parent: Known | None = None

    @property
    def depth(self) -> int:
        return 0 if self.parent is None else self.parent.depth + 1

    @property
    def ends(self) -> bool:
        """It is over, or somebody wants it to be."""
        return self.state in FINAL or self.state == C

    def end(self, state: RunState) -> None:
        self.state, self.place, self.token = state, None, 0

    def again(self, place: str) -> None:
        self.state, self.place, self.token = Q, place, 0


class Runs(RuleBasedStateMachine):
    made = Bundle("made")
    sent = Bundle("sent")
    started = Bundle("started")

    def __init__(self):
        super().__init__()
        # Each example in a savepoint of the test's transaction.
        self.frame = transaction.atomic()
        self.frame.__enter__()
        project = make_project()
        self.scene = {
            "project": project,
            "agent": make_agent(organization=project.organization),
            "by": make_actor(organization=project.organization),
        }
        self.known: dict[int, Known] = {}
        self.stale_seats: list[leadership.Seat] = []
        self.engines = 1
        self.seat = leadership.take("engine-1")
        self.worker = make_worker(slots=100)

    def teardown(self):
        transaction.set_rollback(True)
        self.frame.__exit__(None, None, None)

    def _holds(self, started) -> Known | None:
        """The run, if this worker's lease on it is still the one that counts."""
        run = self.known[started.lease.run_id]
        return run if run.place == "held" and run.token == started.lease.token else None

    # --- people ---

    @initialize(target=made)
    def first(self):
        return self.submit(later=False)

    @rule(target=made, later=st.booleans())
    def submit(self, later):
        run = make_run(**self.scene, retry={"max_attempts": ATTEMPTS}, total_deadline_s=9999)
        self.known[run.pk] = Known()
        if later:
            # As one whose time has not come; a run_at would be the clock's business.
            ReadyRun.objects.filter(run=run).delete()
            ScheduledRun.objects.create(run=run, due_at=Now() + timedelta(hours=1))
            self.known[run.pk].place = "scheduled"
        return run

    @rule(target=made, run=made)
    def put_under(self, run):
        above = self.known[run.pk]
        wanted = {
            "by": self.scene["by"],
            "bond": Bond(parent=run),
            "project": self.scene["project"],
            "agent": self.scene["agent"],
            "task": TaskSpec(input={}, retry={"max_attempts": ATTEMPTS}),
            "key": uuid4().hex,
        }
        if above.ends or above.depth >= GENERATIONS:
            with pytest.raises(ParentIsOver if above.ends else TooDeep), transaction.atomic():
                children.submit(**wanted)
            return multiple()
        child = children.submit(**wanted).run
        self.known[child.pk] = Known(parent=above)
        return child

    @rule(run=made)
    def cancel(self, run):
        known = self.known[run.pk]
        if known.state in FINAL and known.state != RunState.CANCELLED:
            with pytest.raises(RunIsOver):
                control.cancel(by=self.scene["by"], run=run)
            return
        control.cancel(by=self.scene["by"], run=run)
        if known.state == Q:
            known.end(RunState.CANCELLED)
        elif known.state == R:
            known.state = C

    # --- the engine ---

    @rule(target=sent, slots=st.integers(1, 3))
    def claim(self, slots):
        claimed = dispatch.claim(self.seat, slots=slots)
        ready = [pk for pk, known in self.known.items() if known.place == "ready"]
        assert len(claimed) == min(slots, len(ready))
        assert {each.run_id for each in claimed} <= set(ready)
        for each in claimed:
            self.known[each.run_id].place = "dispatched"
            self.known[each.run_id].token = each.token
        return claimed

    @rule()
    def another_engine_leads(self):
        leadership.leave(self.seat)
        self.stale_seats.append(self.seat)
        self.engines += 1
        self.seat = leadership.take(f"engine-{self.engines}")

    @rule()
    def a_deposed_engine_wakes(self):
        for seat in self.stale_seats:
            assert dispatch.claim(seat, slots=9) == []
            with pytest.raises(SeatLost), transaction.atomic():
                leadership.require(seat)

    @rule()
    def time_passes(self):
        ScheduledRun.objects.update(due_at=Now() - timedelta(seconds=1))
        dispatch.promote()
        for known in self.known.values():
            if known.place == "scheduled":
                known.place = "ready"

    @rule()
    def messages_were_lost(self):
        RunLease.objects.filter(state="d").update(dispatch_deadline=Now() - timedelta(seconds=1))
        dispatch.hand_back_overdue()
        for known in self.known.values():
            if known.place == "dispatched":
                known.again("ready")

    @rule()
    def the_worker_dies(self):
        fleet.depart(worker_id=self.worker.pk)
        dead, self.worker = self.worker, make_worker(slots=100)
        while recovery.reclaim(self.seat, trust_silence=False):
            pass
        for known in self.known.values():
            if known.place == "held" and known.worker == dead.pk:
                self._lose(known)

    def _lose(self, known):
        if known.state == C:
            known.end(RunState.CANCELLED)
            return
        known.crashes += 1
        if known.crashes >= POISON or known.counted >= ATTEMPTS:
            known.end(RunState.DEAD)
        else:
            known.again("ready")

    @rule(run=made)
    def it_waits_too_long(self, run):
        if self.known[run.pk].place != "ready" or self.known[run.pk].attempts:
            return
        ReadyRun.objects.filter(run=run).update(queue_deadline=Now() - timedelta(seconds=1))
        recovery.expire_queued(self.seat)
        self.known[run.pk].end(RunState.EXPIRED)

    @rule(run=made)
    def its_time_is_over(self, run):
        known = self.known[run.pk]
        RunDeadline.objects.filter(run=run).update(at=Now() - timedelta(seconds=1))
        ended = recovery.expire_overdue(self.seat)
        assert ended == (known.state not in FINAL)
        if ended:
            known.end(RunState.CANCELLED if known.state == C else RunState.EXPIRED)

    @rule()
    def the_leader_looks_for_orphans(self):
        orphans.end(self.seat)
        # Parents come before their children.
        for _, known in sorted(self.known.items()):
            if known.parent is None or not known.parent.ends or known.ends:
                continue
            if known.state == Q:
                known.end(RunState.CANCELLED)
            else:
                known.state = C

    @rule(run=made)
    def it_runs_too_long(self, run):
        known = self.known[run.pk]
        if known.place != "held":
            return
        RunLease.objects.filter(run=run).update(hard_deadline=Now() - timedelta(seconds=1))
        recovery.reclaim(self.seat, trust_silence=False)
        known.end(RunState.CANCELLED if known.state == C else RunState.EXPIRED)

    # --- workers, in time or much too late ---

    @rule(target=started, messages=sent)
    def start(self, messages):
        begun = []
        for message in messages:
            known = self.known[message.run_id]
            expected = known.place == "dispatched" and known.token == message.token
            got = leases.start(run_id=message.run_id, token=message.token, worker=self.worker)
            assert (got is not None) is expected
            if got:
                known.state, known.place, known.worker = R, "held", self.worker.pk
                known.attempts += 1
                known.counted += 1
                begun.append(got)
        return begun

    @rule(batch=started)
    def log(self, batch):
        for one in batch:
            line = Entry(kind=EventKind.LOG, payload={"text": "here"})
            after = RunEvent.objects.filter(run=one.lease.run_id).count()
            self._act(one, lambda one=one: leases.append(one, [line], after=after))  # noqa: B023

    @rule(batch=started)
    def succeed(self, batch):
        for one in batch:
            if known := self._act(one, lambda one=one: leases.succeed(one, result={})):
                known.end(RunState.SUCCEEDED)

    @rule(batch=consumes(started), failure=st.sampled_from([MAY_PASS, WILL_NOT]))
    def fail(self, batch, failure):
        for one in batch:
            if known := self._act(one, lambda one=one: leases.fail(one, failure)):
                if known.state == C:
                    known.end(RunState.CANCELLED)
                elif failure.retryable and known.counted < ATTEMPTS:
                    known.again("scheduled")
                else:
                    known.end(RunState.DEAD if failure.retryable else RunState.FAILED)

    @rule(batch=started)
    def give_back(self, batch):
        for one in batch:
            if known := self._act(one, lambda one=one: leases.give_back(one)):
                if known.state == C:
                    known.end(RunState.CANCELLED)
                else:
                    known.counted -= 1
                    known.again("ready")

    @rule(batch=started)
    def confirm_cancelled(self, batch):
        for one in batch:
            known = self._holds(one)
            if known and known.state != C:
                continue  # no worker does so unasked
            if known := self._act(one, lambda one=one: leases.confirm_cancelled(one)):
                known.end(RunState.CANCELLED)

    def _act(self, started, act) -> Known | None:
        """Do it; the run if it was the worker's to do, and proof that nothing happened if not."""
        known = self._holds(started)
        if known is not None:
            act()
            return known
        with pytest.raises(LeaseLost), transaction.atomic():
            act()
        return None

    # --- what must be true after each of them ---

    @invariant()
    def the_database_agrees(self):
        rows = {run.pk: run for run in Run.objects.filter(pk__in=self.known)}
        places = _places()
        receipts = Counter(
            OutboxEntry.objects.filter(
                run_id__in=[run.public_id for run in rows.values()], type=EventType.RECEIPT
            ).values_list("run_id", flat=True)
        )
        for pk, known in self.known.items():
            found = rows[pk]
            assert (found.state, found.attempts, found.crash_count, places.get(pk)) == (
                known.state,
                known.attempts,
                known.crashes,
                known.place,
            )
            assert receipts[found.public_id] == (known.state in FINAL)

    @invariant()
    def logs_have_no_gap(self):
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT run_id FROM runs_event GROUP BY run_id "
                "HAVING min(seq) <> 1 OR max(seq) <> count(*)"
            )
            assert cursor.fetchall() == []


def _places() -> dict[int, str]:
    found = dict.fromkeys(ReadyRun.objects.values_list("run_id", flat=True), "ready")
    for pk in ScheduledRun.objects.values_list("run_id", flat=True):
        assert pk not in found
        found[pk] = "scheduled"
    for pk, state in RunLease.objects.values_list("run_id", "state"):
        assert pk not in found
        found[pk] = {"d": "dispatched", "r": "held"}[state]
    return found


def _explore(examples: int, steps: int, *, machine=Runs, phases=tuple(Phase)) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            derandomize=True,
            phases=phases,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.django_db
def test_runs_are_where_a_small_model_says_they_are():
    _explore(examples=12, steps=25)


@pytest.mark.proof
@pytest.mark.django_db
def test_runs_are_where_a_small_model_says_they_are_after_20000_acts():
    _explore(examples=400, steps=50)


class FewerActs(Runs):
    """The same walk without what leads away from a worker that was given up for dead."""

    put_under = cancel = log = it_waits_too_long = its_time_is_over = it_runs_too_long = None
    the_leader_looks_for_orphans = another_engine_leads = a_deposed_engine_wakes = None
    confirm_cancelled = None


@pytest.mark.django_db
def test_without_the_token_the_model_and_the_database_part(monkeypatch):
    """The sabotage: the same walk with the fence of FINISH taken out. A stale worker ends the run, or
    meets the last wall, the trigger of transitions."""
    fence = "AND lease.token = ANY (ARRAY[held.token])"
    statements = dict(leadership.SQL)
    assert fence in statements["finish"]
    statements["finish"] = statements["finish"].replace(fence, "")
    monkeypatch.setattr("apps.runs.services.lifecycle.SQL", statements)

    with pytest.raises((pytest.fail.Exception, IntegrityError)):
        _explore(examples=200, steps=50, machine=FewerActs, phases=[Phase.generate])
