"""Limits: caps, rates and pauses hold exactly, and what they stop costs nothing while it waits."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from queue import Queue
from threading import Barrier, Event

import pytest
from django.db import IntegrityError, connection
from django.db.models import F

from apps.core.errors import Invalid, NotAllowed, NotFound
from apps.events.models import AuditEntry
from apps.identity.types import Role
from apps.runs.errors import QueueFull
from apps.runs.limit_models import Bucket, Hold, Limit
from apps.runs.models import Lane, ReadyRun, Run, RunLease
from apps.runs.services import (
    backlog,
    control,
    dispatch,
    gates,
    leases,
    limits,
    queues,
    recovery,
    submission,
)
from apps.runs.services.dispatch import Dispatcher
from apps.runs.services.fairness import Room
from apps.runs.services.gates import Rate
from apps.runs.types import Failure, Lease, Need, Priority, TaskSpec
from tests.faces import api, problem, session
from tests.faces import key as idempotency_key
from tests.factories import (
    make_actor,
    make_agent,
    make_organization,
    make_project,
    make_worker,
    unwatched,
)
from tests.support.threads import at_once

pytestmark = pytest.mark.django_db
KEY = "invoices"


@pytest.fixture
def project():
    return make_project()


@pytest.fixture
def by(project):
    return make_actor(Role.ADMIN, organization=project.organization)


def runs(number, project, agent=None, **task):
    return submission.submit_many(
        by=make_actor(organization=project.organization),
        project=project,
        agent=agent or make_agent(organization=project.organization),
        tasks=[TaskSpec(**{"input": {}} | task)] * number,
    )


def claim(seat, slots=50):
    return [dispatched.run_id for dispatched in dispatch.claim(seat, slots=slots)]


def end(*run_ids):
    """Let claimed runs be started and succeed."""
    tokens = dict(RunLease.objects.filter(run__in=run_ids).values_list("run_id", "token"))
    wanted = [Lease(run_id=run_id, token=tokens[run_id]) for run_id in run_ids]
    for started in leases.start_many(wanted, worker=make_worker()):
        leases.succeed(started, result={})


# --- what is limited ------------------------------------------------------------------------------


def test_runs_of_one_key_run_one_at_a_time_in_their_order(seat, project):
    first, second, third = runs(3, project, concurrency_key=KEY)

    assert claim(seat) == [first.pk]
    assert claim(seat) == []
    end(first.pk)
    assert claim(seat) == [second.pk]
    end(second.pk)
    assert claim(seat) == [third.pk]


def test_a_key_belongs_to_its_organization(seat, project):
    mine, theirs = (
        runs(1, project, concurrency_key=KEY),
        runs(1, make_project(), concurrency_key=KEY),
    )

    assert set(claim(seat)) == {mine[0].pk, theirs[0].pk}


def test_a_limit_says_how_many_runs_of_a_key_run_at_once(seat, project, by):
    limits.put(by=by, about=limits.of_key(project.organization_id, KEY), cap=3)
    waiting = runs(5, project, concurrency_key=KEY)

    assert claim(seat) == [run.pk for run in waiting[:3]]
    end(waiting[1].pk)
    assert claim(seat) == [waiting[3].pk]


@pytest.mark.parametrize("scope", ["organization", "project", "agent"])
def test_an_organization_a_project_and_an_agent_have_caps(seat, project, by, scope):
    agent = make_agent(organization=project.organization)
    about = {
        "organization": limits.of_organization(project.organization_id),
        "project": limits.of_project(project),
        "agent": limits.of_agent(agent),
    }[scope]
    limits.put(by=by, about=about, cap=2)
    waiting = runs(4, project, agent=agent)
    elsewhere = runs(3, make_project())

    claimed = claim(seat)

    assert set(claimed) == {run.pk for run in [*waiting[:2], *elsewhere]}
    assert claim(seat) == []
    end(waiting[0].pk)
    assert claim(seat) == [waiting[2].pk]


def test_a_run_waits_for_all_its_gates(seat, project, by):
    limits.put(by=by, about=limits.of_project(project), cap=2)
    keyed = runs(2, project, concurrency_key=KEY)
    plain = runs(2, project)

    assert claim(seat) == [keyed[0].pk, plain[0].pk]
    end(keyed[0].pk)
    assert claim(seat) == [keyed[1].pk]
    end(plain[0].pk)
    assert claim(seat) == [plain[1].pk]
    assert not ReadyRun.objects.exists()


def test_a_queue_has_a_cap_of_its_own(seat, project, by):
    waiting = runs(3, project)
    urgent = runs(1, project, priority=Priority.URGENT)
    limits.cap_queue(by=by, queue="default", priority=Priority.NORMAL, cap=1)

    assert claim(seat) == [urgent[0].pk, waiting[0].pk]
    assert claim(seat) == []
    end(waiting[0].pk)
    assert claim(seat) == [waiting[1].pk]
    assert not ReadyRun.objects.exclude(
        gate=None
    ).exists()  # its lane is left out, nothing is moved


def test_a_rate_lets_so_many_start_and_then_one_after_the_other(seat, project, by):
    limits.put(by=by, about=limits.of_agent(agent := make_agent(organization=project.organization)),
               rate=Rate(count=3, seconds=30))  # fmt: skip
    waiting = runs(6, project, agent=agent)

    assert claim(seat) == [run.pk for run in waiting[:3]]
    assert claim(seat) == []
    Bucket.objects.update(full_at=F("full_at") - timedelta(seconds=11))
    assert claim(seat) == [waiting[3].pk]
    assert claim(seat) == []
    Bucket.objects.update(full_at=F("full_at") - timedelta(days=1))
    assert claim(seat) == [run.pk for run in waiting[4:]]


def test_the_engine_knows_when_a_rate_lets_the_next_one_start(seat, project, by):
    limits.put(by=by, about=limits.of_project(project), rate=Rate(count=1, seconds=10))
    runs(2, project)
    dispatcher = Dispatcher(seat)

    dispatcher.claim(Room(now=5))
    dispatcher.claim(Room(now=5))

    assert 8 < dispatcher.opens_in_s <= 10


def test_a_token_is_not_given_for_a_run_that_is_being_cancelled(seat, project, by, monkeypatch):
    limits.put(by=by, about=limits.of_project(project), rate=Rate(count=1, seconds=10))
    gone, stays = runs(2, project)
    choose = dispatch.fairness.choose

    def choose_while_it_goes(*args, **named):
        chosen = choose(*args, **named)
        ReadyRun.objects.filter(run=gone).delete()
        return chosen

    monkeypatch.setattr(dispatch.fairness, "choose", choose_while_it_goes)
    assert claim(seat) == []
    monkeypatch.undo()

    assert claim(seat) == [stays.pk]


def test_a_paused_agent_starts_nothing_until_it_is_resumed(seat, project, by):
    agent = make_agent(organization=project.organization)
    waiting = runs(2, project, agent=agent)
    other = runs(1, project)
    limits.set_agent_paused(by=by, agent=agent, paused=True, reason="the bank is closed")

    assert claim(seat) == [other[0].pk]
    limits.set_agent_paused(by=by, agent=agent, paused=False)
    assert claim(seat) == [run.pk for run in waiting]
    assert not Limit.objects.exists()


# --- what waits -----------------------------------------------------------------------------------


def test_what_is_parked_is_not_looked_at_again(seat, project):
    """With 400 runs of one busy key before it, a run of none starts in the next rounds, and then none is read."""
    agent = make_agent(organization=project.organization)
    runs(400, project, agent=agent, concurrency_key=KEY)
    free = runs(1, project, agent=agent)
    dispatcher = Dispatcher(seat)
    looked = []
    look = dispatcher._look

    def counting(*args, **named):
        heads = look(*args, **named)
        looked.append(len(heads))
        return heads

    dispatcher._look = counting
    claimed = []
    for _ in range(20):
        for message in dispatcher.claim(Room(now=4)):
            claimed += [dispatched.run_id for dispatched in message.dispatches]
        if free[0].pk in claimed:
            break
    before = sum(looked)
    for _ in range(5):
        assert dispatcher.claim(Room(now=4)) == []

    assert claimed[1:] == [free[0].pk]
    assert ReadyRun.objects.exclude(gate=None).count() == 399
    assert before < 450
    assert sum(looked) == before
    view = dispatch.look()
    assert (view.has_ready, view.has_parked) == (False, True)


def test_a_parked_run_is_cancelled_and_expires_like_any_other(seat, project):
    running, cancelled, late = runs(3, project, concurrency_key=KEY, queue_deadline_s=60)
    assert claim(seat) == [running.pk]

    control.cancel(by=make_actor(organization=project.organization), run=cancelled)
    ReadyRun.objects.filter(run=late).update(queue_deadline="2026-01-01T00:00Z")
    recovery.expire_queued(seat)

    states = dict(Run.objects.values_list("pk", "state"))
    assert (states[cancelled.pk], states[late.pk]) == ("cancelled", "expired")
    assert not ReadyRun.objects.exists()


def test_an_urgent_run_of_a_key_goes_before_those_that_waited_longer(seat, project):
    first, normal = runs(2, project, concurrency_key=KEY)
    assert claim(seat) == [first.pk]
    claim(seat)
    (urgent,) = runs(1, project, concurrency_key=KEY, priority=Priority.URGENT)
    claim(seat)

    end(first.pk)

    assert claim(seat) == [urgent.pk]
    end(urgent.pk)
    assert claim(seat) == [normal.pk]


@pytest.mark.parametrize(
    "way", ["succeeds", "fails and is tried again", "is handed back", "is lost"]
)
def test_a_place_is_free_again_however_its_run_leaves_its_worker(seat, project, way):
    leaving, waiting = runs(2, project, concurrency_key=KEY, retry={"base_s": 60, "jitter": 0})
    (dispatched,) = dispatch.claim(seat, slots=1)
    worker = make_worker()
    if way == "is handed back":
        dispatch.hand_back([dispatched])
        ReadyRun.objects.filter(run=leaving).delete()
    else:
        started = leases.start(run_id=leaving.pk, token=dispatched.token, worker=worker)
        if way == "succeeds":
            leases.succeed(started, result={})
        elif way == "fails and is tried again":
            leases.fail(started, Failure(code="x", detail="It broke.", retryable=True))
        else:
            RunLease.objects.filter(run=leaving).delete()

    assert not Hold.objects.exists()
    assert claim(seat) == [waiting.pk]


# --- exactness, with real connections ---------------------------------------------------------------

concurrent = pytest.mark.django_db(transaction=True)
WATCH = """
CREATE TABLE seen_at_once (key text, number int);
CREATE FUNCTION note_at_once() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO seen_at_once
    SELECT run.concurrency_key, (SELECT count(*) FROM runs_lease AS lease JOIN runs_run AS other
                                   ON other.id = lease.run_id
                                WHERE other.concurrency_key = run.concurrency_key)
      FROM runs_run AS run WHERE run.id = NEW.run_id;
    RETURN NULL;
END $$;
CREATE TRIGGER note_at_once AFTER INSERT ON runs_lease FOR EACH ROW EXECUTE FUNCTION note_at_once();
"""
UNWATCH = """
DROP TRIGGER note_at_once ON runs_lease; DROP FUNCTION note_at_once(); DROP TABLE seen_at_once;
"""


@contextmanager
def watching():
    """Let the database itself count, at each claim, how many runs of a key have a lease."""
    with connection.cursor() as cursor:
        cursor.execute(WATCH)
        try:
            yield cursor
        finally:
            cursor.execute(UNWATCH)


@concurrent
def test_a_cap_of_three_is_never_exceeded_under_fifty_concurrent_finishes(seat, project, by):
    agent = make_agent(organization=project.organization)
    for key in ("a", "b"):
        limits.put(by=by, about=limits.of_key(project.organization_id, key), cap=3)
        runs(60, project, agent=agent, concurrency_key=key)

    with watching() as cursor:
        _work_off(seat, people=50)
        cursor.execute("SELECT key, max(number), count(*) FROM seen_at_once GROUP BY key")
        seen = cursor.fetchall()

    assert sorted(seen) == [("a", 3, 60), ("b", 3, 60)]
    assert not Hold.objects.exists()


def _work_off(seat, *, people):
    """One claims without end, the others start and finish what it claims, until nothing is left."""
    sent, over = Queue(), Event()
    worker = make_worker()

    def work(_):
        while (lease := sent.get(timeout=60)) is not None:
            for started in leases.start_many([lease], worker=worker):
                leases.succeed(started, result={})
        connection.close()

    def lead():
        dispatcher = Dispatcher(seat)
        while not over.is_set():
            for message in dispatcher.claim(Room(now=people)):
                for each in message.dispatches:
                    sent.put(Lease(run_id=each.run_id, token=each.token))
        connection.close()

    with ThreadPoolExecutor(people + 1) as pool:
        leader = pool.submit(lead)
        workers = [pool.submit(work, number) for number in range(people)]
        _wait_for_the_end(leader, over)
        leader.result()
        for _ in workers:
            sent.put(None)
        for each in workers:
            each.result()


def _wait_for_the_end(leader, over):
    while Run.objects.open().exists() and not leader.done():
        over.wait(0.1)
    over.set()


def _without_the_index():
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE runs_hold DROP CONSTRAINT runs_hold_once")


def _with_the_index():
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM runs_hold")
        cursor.execute("ALTER TABLE runs_hold ADD CONSTRAINT runs_hold_once UNIQUE (gate, number)")


@concurrent
@pytest.mark.parametrize("sabotaged", [False, True], ids=["as built", "without the index"])
def test_two_claims_at_the_same_moment_cannot_take_the_same_place(
    seat, project, by, monkeypatch, sabotaged
):
    """Both saw three places free. The index over places lets one of them commit; without it they take six."""
    limits.put(by=by, about=limits.of_key(project.organization_id, KEY), cap=3)
    runs(8, project, concurrency_key=KEY)
    together = Barrier(2)
    lease = Dispatcher._lease
    spread = iter([0, 3])

    def meet(dispatcher, chosen, book):
        together.wait(timeout=20)
        return lease(dispatcher, chosen, book)

    look = Dispatcher._look

    def other_runs(dispatcher, room, book, *, depth):
        skip = next(spread)
        heads = sorted(look(dispatcher, room, book, depth=50), key=lambda head: head.seq)[skip:]
        together.wait(timeout=20)
        return heads

    monkeypatch.setattr(Dispatcher, "_lease", meet)
    monkeypatch.setattr(Dispatcher, "_look", other_runs)

    if sabotaged:
        _without_the_index()
    try:
        claimed = sorted(map(len, at_once([lambda: claim(seat, slots=3)] * 2)))
        leases_held = RunLease.objects.count()
    finally:
        if sabotaged:
            _with_the_index()

    assert (claimed, leases_held) == (([3, 3], 6) if sabotaged else ([0, 3], 3))


@concurrent
@pytest.mark.parametrize("sabotaged", [False, True], ids=["as built", "without the version"])
def test_no_claim_is_made_by_limits_that_have_changed(seat, project, by, monkeypatch, sabotaged):
    agent = make_agent(organization=project.organization)
    runs(2, project, agent=agent)
    choose = dispatch.fairness.choose

    def choose_and_pause(*args, **named):
        chosen = choose(*args, **named)
        limits.set_agent_paused(by=by, agent=agent, paused=True)
        return chosen

    monkeypatch.setattr(dispatch.fairness, "choose", choose_and_pause)
    if sabotaged:
        ours = dict(dispatch.SQL)
        ours["claim"] = ours["claim"].replace("AND rules = %(rules)s", "")
        monkeypatch.setattr(dispatch, "SQL", ours)

    assert len(claim(seat)) == (2 if sabotaged else 0)


@concurrent
@pytest.mark.parametrize("of", ["project", "queue", "key"])
def test_a_new_cap_counts_what_runs_already(seat, project, by, of):
    about = limits.of_key(project.organization_id, KEY)
    if of == "key":
        limits.put(by=by, about=about, rate=Rate(count=1000, seconds=1))
    waiting = runs(5, project, concurrency_key=KEY if of == "key" else "")
    running = claim(seat, slots=3)

    if of == "queue":
        limits.cap_queue(by=by, queue="default", priority=Priority.NORMAL, cap=3)
    else:
        limits.put(by=by, about=about if of == "key" else limits.of_project(project), cap=3)

    assert claim(seat) == []
    end(running[0])
    assert claim(seat) == [waiting[3].pk]


@concurrent
def test_a_lowered_cap_lets_nobody_through_before_enough_have_left(seat, project, by):
    about = limits.of_project(project)
    limits.put(by=by, about=about, cap=4)
    waiting = runs(6, project)
    running = claim(seat)

    limits.put(by=by, about=about, cap=2)

    end(*running[:2])
    assert claim(seat) == []
    end(running[2])
    assert claim(seat) == [waiting[4].pk]


# --- setting them ---------------------------------------------------------------------------------


def test_a_limit_that_is_taken_away_holds_nobody_back(seat, project, by):
    about = limits.of_project(project)
    limits.put(by=by, about=about, cap=1)
    waiting = runs(3, project)
    assert claim(seat) == [waiting[0].pk]
    claim(seat)

    limits.remove(by=by, about=about)

    assert claim(seat) == [run.pk for run in waiting[1:]]


def test_removing_a_limit_leaves_the_pause(seat, project, by):
    agent = make_agent(organization=project.organization)
    limits.put(by=by, about=limits.of_agent(agent), cap=5)
    limits.set_agent_paused(by=by, agent=agent, paused=True)
    runs(1, project, agent=agent)

    limits.remove(by=by, about=limits.of_agent(agent))

    assert claim(seat) == []


def test_setting_changing_and_removing_are_recorded(project, by):
    about = limits.of_key(project.organization_id, KEY)
    limits.put(by=by, about=about, cap=3)
    limits.put(by=by, about=about, cap=4)
    limits.remove(by=by, about=about)

    entries = AuditEntry.objects.filter(action__startswith="limit.").order_by("id")
    told = [(entry.action, entry.resource_id, entry.detail["changes"]["cap"]) for entry in entries]
    assert told == [
        ("limit.set", "key invoices", [None, 3]),
        ("limit.change", "key invoices", [3, 4]),
        ("limit.remove", "key invoices", [4, None]),
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"cap": 0},
        {"cap": 10**7},
        {"rate": Rate(count=0, seconds=1)},
        {"rate": Rate(count=1, seconds=10**6)},
        {"queue_limit": 5},
    ],
    ids=str,
)
def test_a_limit_that_makes_no_sense_is_refused(project, by, wrong):
    with pytest.raises(Invalid):
        limits.put(by=by, about=limits.of_project(project), **wrong)

    assert not Limit.objects.exists()


def test_limits_are_set_by_administrators_of_the_organization_only(project):
    about = limits.of_project(project)
    with pytest.raises(NotAllowed):
        limits.put(
            by=make_actor(Role.OPERATOR, organization=project.organization), about=about, cap=1
        )
    with pytest.raises(NotFound):
        limits.put(by=make_actor(Role.OWNER), about=about, cap=1)


def test_an_administrator_of_an_agent_may_pause_it(project):
    agent = make_agent(organization=project.organization)
    with pytest.raises(NotAllowed):
        limits.set_agent_paused(
            by=make_actor(Role.OPERATOR, organization=project.organization),
            agent=agent,
            paused=True,
        )
    assert not Limit.objects.exists()


def test_the_database_refuses_a_limit_about_nothing(project):
    fields = {"organization_id": project.organization_id, "gate": project.pk, "cap": 1}
    with pytest.raises(IntegrityError, match="runs_limit_names_its_subject"), unwatched():
        Limit.objects.create(scope="project", **fields)


def test_gates_of_keys_are_told_from_those_of_rows():
    organization = make_organization()
    lane = Lane.objects.create(organization_id=organization.pk, queue="q", priority=1)
    lane.refresh_from_db()
    versions = Counter(
        gate.version for gate in (gates.of_key(organization.pk, KEY), organization.pk, lane.gate)
    )

    assert versions == {5: 1, 7: 1, 4: 1}


# --- how many may wait ----------------------------------------------------------------------------


@pytest.fixture
def three_may_wait(project, by):
    limits.put(by=by, about=limits.of_organization(project.organization_id), queue_limit=3)
    yield
    backlog.forget()


@pytest.mark.usefixtures("three_may_wait")
def test_what_is_beyond_the_queue_limit_is_refused_and_not_stored(seat, project):
    waiting = runs(3, project)
    runs(1, make_project())  # another organization's

    with pytest.raises(QueueFull):
        runs(1, project)
    assert Run.objects.filter(project=project).count() == 3

    dispatch.claim(seat, slots=9)
    end(waiting[0].pk)
    with pytest.raises(QueueFull):
        runs(4, project)
    assert len(runs(3, project)) == 3


@pytest.mark.usefixtures("three_may_wait")
def test_runs_that_wait_for_others_take_up_room_from_their_submission(seat, project):
    (first,) = runs(1, project)
    held = runs(2, project, depends_on=(Need(run=first.public_id),))
    backlog.forget()

    with pytest.raises(QueueFull):
        runs(1, project)
    with pytest.raises(QueueFull):
        runs(1, project, depends_on=(Need(run=first.public_id),))

    dispatch.claim(seat, slots=9)
    end(first.pk)
    dispatch.promote()
    assert set(ReadyRun.objects.values_list("run", flat=True)) == {run.pk for run in held}
    backlog.forget()
    assert len(runs(1, project)) == 1


@pytest.mark.usefixtures("three_may_wait")
def test_what_is_tried_again_is_never_refused(seat, project):
    (first,) = runs(1, project)
    (dispatched,) = dispatch.claim(seat, slots=1)
    started = leases.start(run_id=first.pk, token=dispatched.token, worker=make_worker())
    runs(3, project)

    leases.give_back(started)

    assert ReadyRun.objects.filter(run__project=project).count() == 4


@pytest.mark.usefixtures("three_may_wait")
def test_a_refused_submission_says_what_to_do(project):
    runs(3, project)
    agent = make_agent(organization=project.organization)
    client = api(make_actor(organization=project.organization).user)
    task = {"project": project.slug, "agent": agent.slug, "input": {}}

    answer = client.post("/api/run", task, format="json", headers=idempotency_key())

    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "10")
    told = problem(answer)
    assert (told["code"], told["params"]["limit"]) == ("queue_full", 3)
    assert "raise queue_limit" in told["detail"]


@concurrent
@pytest.mark.parametrize("sabotaged", [False, True], ids=["as built", "without taking turns"])
def test_the_last_place_in_the_queue_is_given_once(project, by, monkeypatch, sabotaged):
    limits.put(by=by, about=limits.of_organization(project.organization_id), queue_limit=3)
    runs(2, project)
    agent = make_agent(organization=project.organization)
    together = Barrier(4)
    waiting = backlog._waiting

    def count_at_once(*args, **named):
        found = waiting(*args, **named)
        if sabotaged or not met.is_set():
            together.wait(timeout=20)
            met.set()
        return found

    met = Event()
    monkeypatch.setattr(backlog, "_waiting", count_at_once)
    if sabotaged:
        monkeypatch.setattr(backlog, "_one_after_the_other", lambda _: None)

    told = at_once([lambda: runs(1, project, agent=agent)] * 4, errors=QueueFull)

    refused = [each for each in told if isinstance(each, QueueFull)]
    assert len(refused) == (0 if sabotaged else 3)


# --- why it waits ---------------------------------------------------------------------------------


def test_a_run_says_which_limit_it_waits_for(seat, project, by):
    make_worker()
    agent = make_agent(organization=project.organization)
    first, second = runs(2, project, agent=agent, concurrency_key=KEY)
    claim(seat)

    assert queues.why_waiting(second) == "The key invoices is at its cap of 1."
    limits.set_agent_paused(by=by, agent=agent, paused=True, reason="the bank is closed")
    assert queues.why_waiting(second) == f"The agent {agent.slug} is paused: the bank is closed."
    limits.set_agent_paused(by=by, agent=agent, paused=False)
    limits.cap_queue(by=by, queue="default", priority=Priority.NORMAL, cap=1)
    end(first.pk)
    assert queues.why_waiting(second).startswith("It is next")


def test_a_run_says_when_its_rate_lets_it_start(seat, project, by):
    make_worker()
    limits.put(by=by, about=limits.of_organization(project.organization_id), rate=Rate(count=1, seconds=60))  # fmt: skip
    first, second = runs(2, project)
    assert claim(seat) == [first.pk]

    why = queues.why_waiting(second)

    assert why.startswith("The organization may have 1 starts in 60 s; the next is in ")
    assert 50 < int(why.split()[-2]) <= 60


def test_a_queue_at_its_cap_is_named(seat, project, by):
    make_worker()
    first, second = runs(2, project)
    limits.cap_queue(by=by, queue="default", priority=Priority.NORMAL, cap=1)
    assert claim(seat) == [first.pk]

    assert queues.why_waiting(second) == "The queue default/normal is at its cap of 1."


# --- over HTTP ------------------------------------------------------------------------------------


def test_a_limit_is_set_read_listed_and_removed_over_the_api(seat, project, by):
    client = api(by.user)
    wanted = {"cap": 1, "rate": {"count": 5, "seconds": 60}}
    put = client.put(f"/api/limits/projects/{project.slug}", wanted, format="json")
    assert put.status_code == 200
    runs(3, project)
    claim(seat)

    told = client.get(f"/api/limits/projects/{project.slug}").json()

    assert (told["cap"], told["rate"], told["in_use"], told["parked"]) == (1, wanted["rate"], 1, 2)
    assert client.get("/api/limits").json()["results"] == [told]
    assert client.delete(f"/api/limits/projects/{project.slug}").status_code == 204
    assert client.get("/api/limits").json()["results"] == []


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("keys/has spaces", {"cap": 1}, 404),
        ("keys/a/b:c@d", {"cap": 1}, 200),
        ("organization", {}, 422),
        ("organization", {"cap": 0}, 422),
        ("organization", {"cap": 1, "colour": "red"}, 422),
        ("projects/nothing", {"cap": 1}, 404),
        ("agents/nothing", {"cap": 1}, 404),
    ],
)
def test_what_a_limit_may_say(by, path, body, status):
    answer = api(by.user).put(f"/api/limits/{path}", body, format="json")

    assert answer.status_code == status, answer.content


# --- on the queue page ----------------------------------------------------------------------------


def test_administrators_set_limits_on_the_queue_page(seat, project, by):
    client = session(by.user)
    agent = make_agent(organization=project.organization)
    runs(3, project, agent=agent, concurrency_key=KEY)
    sent = {"about": "key", "key": KEY, "cap": "2", "count": "9", "seconds": "60"}
    assert client.post("/queue/limit", sent).status_code == 302
    claim(seat)
    client.post("/queue/cap", {"queue": "default", "priority": "normal", "cap": "7"})
    client.post("/queue/agent", {"agent": agent.slug, "paused": "true", "reason": "closed today"})

    seen = client.get("/queue").content.decode()

    for words in ("2 of 2", "9 in", "2 of 7", "closed today", "1 of them for a limit"):
        assert words in seen, words
    client.post("/queue/limit/remove", {"about": f"key:{KEY}"})
    client.post("/queue/agent", {"agent": agent.slug, "paused": "false"})
    client.post("/queue/cap", {"queue": "default", "priority": "normal", "cap": ""})
    assert not Limit.objects.exists()
    assert not Lane.objects.exclude(cap=None).exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"about": "key", "key": "two words", "cap": "1"},
        {"about": "key", "key": KEY, "cap": "many"},
        {"about": "key", "key": KEY, "cap": ""},
        {"about": "organization", "count": "5"},
        {"about": "organization", "cap": "0"},
    ],
    ids=str,
)
def test_a_wrong_form_says_what_is_wrong(by, wrong):
    client = session(by.user)

    client.post("/queue/limit", wrong)

    assert (
        "must be" in (seen := client.get("/queue").content.decode())
        or "needs" in seen
        or "say at least" in seen
    )
    assert not Limit.objects.exists()


def test_operators_see_limits_and_cannot_set_them(project, by):
    limits.put(by=by, about=limits.of_project(project), cap=4)
    client = session(make_actor(Role.OPERATOR, organization=project.organization).user)

    seen = client.get("/queue").content.decode()

    assert "0 of 4" in seen
    assert "Set a limit" not in seen
    for path in ("limit", "limit/remove", "cap", "agent"):
        assert client.post(f"/queue/{path}", {"about": "organization"}).status_code == 403
