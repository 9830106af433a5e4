"""Runs that runs start: who may, what they inherit, and how they end with their parents."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier, Event
from uuid import uuid4

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models.functions import Now

from apps.core import clock
from apps.core.errors import AosError, Invalid, NotAllowed, NotFound
from apps.events.models import AuditEntry
from apps.identity.actor import Actor
from apps.identity.types import Role
from apps.runs.errors import (
    ChildKeyReused,
    LeaseLost,
    ParentIsOver,
    QueueFull,
    TooDeep,
    TooManyChildren,
)
from apps.runs.kin_models import ChildRun, RunDeadline
from apps.runs.models import Run, RunLease, WorkerNode
from apps.runs.services import (
    backlog,
    children,
    control,
    dispatch,
    kin,
    leadership,
    lifecycle,
    orphans,
    queues,
    recovery,
)
from apps.runs.services.children import Wish
from apps.runs.services.kin import Bond
from apps.runs.types import Failure, Need, OnParentEnd, Priority, RunState, TaskSpec
from tests.faces import api, key, problem
from tests.factories import (
    make_actor,
    make_agent,
    make_binding,
    make_project,
    make_run,
    make_user,
)
from tests.support.stand_in import StandIn
from tests.support.threads import apart, at_once

pytestmark = pytest.mark.django_db
WHY = Failure(code="command_failed", detail="No.")


def _wish(**fields):
    return Wish(**{"agent": "work", "input": {}} | fields)


def _put_under(scene, parent, *, on_parent_end="cancel", **task):
    """A child that a person puts under a run, over the API's service."""
    return children.submit(
        by=scene["by"],
        bond=Bond(parent=Run.objects.get(pk=parent.pk), on_parent_end=OnParentEnd(on_parent_end)),
        project=scene["project"],
        agent=scene["agent"],
        task=TaskSpec(**{"input": {}} | task),
        key=uuid4().hex,
    ).run


def _end(run, state="failed"):
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT set_config('aos.audited', pg_current_xact_id()::text, true)")
        lifecycle.close(lifecycle.lock(run.pk), RunState(state), failure=WHY)


def _state(run):
    return Run.objects.values_list("state", flat=True).get(pk=run.pk)


# --- starting -------------------------------------------------------------------------------------


def test_the_code_of_a_run_starts_a_child_in_the_name_of_its_person(scene):
    parent = make_run(**scene, labels={"team": "ops", "of": "parent"}, priority=Priority.BULK)
    worker = StandIn(parent)

    child = children.start(worker.started, _wish(labels={"of": "child"}), key="first")

    row = ChildRun.objects.get(run=child)
    assert (row.parent_id, row.root_id, row.depth, row.key) == (parent.pk, parent.pk, 1, "first")
    assert child.submitted_by == scene["by"].user
    assert child.labels == {"team": "ops", "of": "child"}
    assert child.priority == Priority.BULK
    assert (child.trace, child.trace_id) == (parent.trace, parent.trace_id)
    assert set(Run.objects.values_list("kin", flat=True)) == {True}
    entry = AuditEntry.objects.filter(action="run.submit").latest("pk")
    assert entry.detail["parent"] == str(parent.public_id)


def test_asking_again_under_the_same_key_gives_the_same_child_in_the_next_attempt_too(scene, seat):
    parent = make_run(**scene, retry={"base_s": 0.0, "jitter": 0.0})
    worker = StandIn(parent)
    first = children.start(worker.started, _wish(), key="only")
    assert children.start(worker.started, _wish(), key="only") == first
    worker.fail("x", "Again.", retryable=True)
    dispatch.promote()
    again = StandIn(parent)
    assert again.started.attempt == 2

    assert children.start(again.started, _wish(), key="only") == first
    with pytest.raises(ChildKeyReused):
        children.start(again.started, _wish(input={"other": 1}), key="only")
    assert ChildRun.objects.count() == 1


def _lose(parent):
    """Its worker is lost and the run is put back, as the leader does it."""
    worker = StandIn(parent)
    RunLease.objects.filter(run=parent).delete()
    return worker


def test_a_stale_attempt_starts_no_child(scene):
    worker = _lose(make_run(**scene))

    with pytest.raises(LeaseLost):
        children.start(worker.started, _wish(), key="late")
    assert Run.objects.count() == 1


def test_without_the_proof_of_the_lease_a_stale_attempt_would_start_one(scene, monkeypatch):
    monkeypatch.setattr(kin, "_holds", lambda *_: True)
    worker = _lose(make_run(**scene))

    children.start(worker.started, _wish(), key="late")

    assert Run.objects.count() == 2


def test_a_child_of_a_child_belongs_to_the_same_tree(scene):
    root = make_run(**scene)
    child = children.start(StandIn(root).started, _wish(), key="a")
    grandchild = children.start(StandIn(child).started, _wish(), key="a")

    row = ChildRun.objects.get(run=grandchild)
    assert (row.parent_id, row.root_id, row.depth) == (child.pk, root.pk, 2)
    assert [(each.run, each.depth) for each in kin.family(root, to=scene["by"].user).branches] == [
        (child, 1),
        (grandchild, 2),
    ]
    assert kin.family(child, to=scene["by"].user).parent == root


@pytest.mark.parametrize("bad", ["", "x" * 201, "a b", "é"])
def test_a_child_needs_a_usable_key(scene, bad):
    worker = StandIn(make_run(**scene))

    with pytest.raises(Invalid):
        children.start(worker.started, _wish(), key=bad)


def test_its_labels_and_those_of_the_parent_are_bounded_together(scene):
    worker = StandIn(make_run(**scene, labels={f"a{n}": "" for n in range(30)}))

    with pytest.raises(Invalid):
        children.start(worker.started, _wish(labels={f"b{n}": "" for n in range(3)}), key="a")


# --- what it may ----------------------------------------------------------------------------------


def test_a_run_starts_only_what_its_person_sees(scene):
    make_agent(slug="theirs")
    worker = StandIn(make_run(**scene))

    with pytest.raises(NotFound):
        children.start(worker.started, _wish(agent="theirs"), key="a")


def test_a_run_starts_nothing_for_a_person_who_may_not_any_more(scene):
    worker = StandIn(make_run(**scene))
    scene["by"].user.bindings.all().delete()

    with pytest.raises((NotAllowed, NotFound)):
        children.start(worker.started, _wish(), key="a")
    assert Run.objects.count() == 1


def test_a_child_can_never_do_what_the_parents_person_may_not(scene):
    """Oscar may run one agent only; an owner who puts another under his run does not lend him more."""
    only = make_agent(organization=scene["project"].organization, slug="only")
    oscar = make_user(role=Role.VIEWER, organization=scene["project"].organization)
    make_binding(oscar, Role.OPERATOR, only)
    parent = make_run(project=scene["project"], agent=only, by=Actor(user=oscar))
    owner = make_actor(Role.OWNER, organization=scene["project"].organization)

    with pytest.raises(NotAllowed):
        _put_under(scene | {"by": owner}, parent)
    assert _put_under(scene | {"by": owner, "agent": only}, parent).kin


def test_a_viewer_of_the_parent_puts_nothing_under_it(scene):
    parent = make_run(**scene)
    mine = make_agent(organization=scene["project"].organization, slug="mine")
    vera = make_user(role=Role.VIEWER, organization=scene["project"].organization)
    make_binding(vera, Role.OPERATOR, mine)

    with pytest.raises(NotAllowed):
        _put_under(scene | {"by": Actor(user=vera), "agent": mine}, parent)


# --- what it inherits -----------------------------------------------------------------------------


def test_a_child_ends_no_later_than_its_parent(scene):
    parent = make_run(**scene, total_deadline_s=600)
    worker = StandIn(parent)

    longer = children.start(worker.started, _wish(total_deadline_s=6000), key="a")
    shorter = children.start(worker.started, _wish(total_deadline_s=60), key="b")
    silent = children.start(worker.started, _wish(), key="c")

    parent.refresh_from_db()
    assert longer.total_deadline == silent.total_deadline == parent.total_deadline
    assert shorter.total_deadline < parent.total_deadline
    assert RunDeadline.objects.count() == 4


def test_a_queue_that_is_full_refuses_the_child_and_stores_nothing(scene, settings):
    worker = StandIn(make_run(**scene))
    settings.AOS_QUEUE_LIMIT = 1
    backlog.forget()
    children.start(worker.started, _wish(), key="a")
    backlog.forget()

    with pytest.raises(QueueFull):
        children.start(worker.started, _wish(), key="b")
    backlog.forget()
    assert ChildRun.objects.count() == 1


# --- bounds ---------------------------------------------------------------------------------------


def test_there_are_only_so_many_generations(scene, settings):
    settings.AOS_CHILD_DEPTH = 2
    run = make_run(**scene)
    for _ in range(2):
        run = _put_under(scene, run)

    with pytest.raises(TooDeep):
        _put_under(scene, run)
    assert Run.objects.count() == 3


def test_there_are_only_so_many_runs_in_a_tree(scene, settings):
    settings.AOS_CHILDREN = 2
    root = make_run(**scene)
    child = _put_under(scene, root)
    _put_under(scene, child)

    with pytest.raises(TooManyChildren):
        _put_under(scene, root)
    assert Run.objects.count() == 3


@pytest.mark.parametrize("state", ["succeeded", "cancelled", "failed", "cancelling"])
def test_a_parent_that_is_over_or_ends_gets_no_more_children(scene, state):
    parent = make_run(**scene)
    worker = StandIn(parent)
    if state.startswith("cancel"):
        control.cancel(by=scene["by"], run=parent)
    if state == "cancelled":
        worker.confirm_cancelled()
    elif state != "cancelling":
        _end(parent, state)

    with pytest.raises(ParentIsOver):
        _put_under(scene, parent)
    with pytest.raises((ParentIsOver, LeaseLost)):
        children.start(worker.started, _wish(), key="a")
    assert Run.objects.count() == 1


def test_a_child_belongs_to_the_project_of_its_parent(scene):
    other = make_project(organization=scene["project"].organization)
    parent = make_run(**scene)

    with pytest.raises(Invalid):
        _put_under(scene | {"project": other}, parent)


# --- the end of the parent ------------------------------------------------------------------------


def _queued(scene, seat, parent):
    return _put_under(scene, parent)


def _later(scene, seat, parent):
    return _put_under(scene, parent, run_at=clock.now() + timedelta(hours=1))


def _held(scene, seat, parent):
    return _put_under(scene, parent, depends_on=(Need(run=make_run(**scene).public_id),))


def _parked(scene, seat, parent):
    make_run(**scene, concurrency_key="one")
    child = _put_under(scene, parent, concurrency_key="one")
    dispatch.claim(seat, slots=9)
    return child


def _dispatched(scene, seat, parent):
    child = _put_under(scene, parent)
    dispatch.claim(seat, slots=9)
    return child


def _running(scene, seat, parent):
    child = _put_under(scene, parent)
    StandIn(child)
    return child


CHILDREN = [_queued, _later, _held, _parked, _dispatched, _running]


@pytest.mark.parametrize("made", CHILDREN, ids=lambda made: made.__name__.strip("_"))
@pytest.mark.parametrize("end", ["cancelled", "failed", "succeeded", "expired"])
def test_the_end_of_a_parent_ends_its_children_in_every_state(scene, seat, made, end):
    parent = make_run(**scene)
    if end != "cancelled":
        StandIn(parent)
    child = made(scene, seat, parent)
    stays = _put_under(scene, parent, on_parent_end="leave")
    assert orphans.end(seat) == 0

    _end(parent, end)
    assert orphans.end(seat) == 1

    assert _state(child) == ("cancelling" if made is _running else "cancelled")
    assert _state(stays) == "queued"
    assert orphans.end(seat) == 0


def test_without_the_leaders_part_children_live_on(scene, seat):
    parent = make_run(**scene)
    child = _put_under(scene, parent)
    control.cancel(by=scene["by"], run=parent)

    recovery.expire_queued(seat)
    recovery.expire_overdue(seat)
    recovery.reclaim(seat, trust_silence=True)

    assert _state(child) == "queued"


def test_without_the_trigger_the_leader_would_not_know(scene, seat):
    parent = make_run(**scene)
    child = _put_under(scene, parent)
    with connection.cursor() as cursor:
        cursor.execute("DROP TRIGGER runs_run_doom ON runs_run")
    control.cancel(by=scene["by"], run=parent)

    assert orphans.end(seat) == 0
    assert _state(child) == "queued"


def test_cancelling_a_running_parent_reaches_all_generations_at_once(scene, seat):
    root = make_run(**scene)
    StandIn(root)
    child = _put_under(scene, root)
    StandIn(child)
    grandchild = _put_under(scene, child)
    StandIn(grandchild)
    last = _put_under(scene, grandchild)
    control.cancel(by=scene["by"], run=root)

    assert orphans.end(seat) == 3

    assert [_state(run) for run in (root, child, grandchild)] == ["cancelling"] * 3
    assert _state(last) == "cancelled"
    assert Run.objects.get(pk=last.pk).error["code"] == "parent_ended"
    entry = AuditEntry.objects.filter(action="run.cancel_children").latest("pk")
    assert entry.detail["runs"]


def test_children_with_dead_workers_end_with_their_parent(scene, seat):
    root = make_run(**scene)
    StandIn(root)
    child = _put_under(scene, root)
    StandIn(child)
    WorkerNode.objects.update(last_seen=Now() - timedelta(seconds=30))
    control.cancel(by=scene["by"], run=root)
    ChildRun.objects.update(doomed_at=Now() - timedelta(seconds=11))
    orphans.end(seat)
    RunLease.objects.filter(run=root).update(cancel_requested_at=Now() - timedelta(seconds=11))

    for _ in range(3):
        recovery.reclaim(seat, trust_silence=False)

    assert [_state(run) for run in (root, child)] == ["cancelled"] * 2
    assert not RunLease.objects.exists()


def test_a_retry_of_the_parent_is_no_end_of_it(scene, seat):
    parent = make_run(**scene)
    worker = StandIn(parent)
    child = children.start(worker.started, _wish(), key="a")
    worker.fail("x", "Again.", retryable=True)

    assert orphans.end(seat) == 0
    assert _state(child) == "queued"


def test_a_child_that_ended_by_itself_is_left_alone(scene, seat):
    parent = make_run(**scene)
    child = _put_under(scene, parent)
    StandIn(child).succeed()
    control.cancel(by=scene["by"], run=parent)

    assert orphans.end(seat) == 0
    assert _state(child) == "succeeded"


def test_a_deposed_leader_ends_nothing(scene, seat):
    parent = make_run(**scene)
    child = _put_under(scene, parent)
    control.cancel(by=scene["by"], run=parent)
    leadership.leave(seat)
    leadership.take("successor")

    with pytest.raises(leadership.SeatLost):
        orphans.end(seat)
    assert _state(child) == "queued"


# --- what the database refuses --------------------------------------------------------------------


def _row(run, parent, **fields):
    return ChildRun(
        **{"run": run, "parent": parent, "root": parent, "depth": 1, "on_parent_end": "cancel"}
        | fields
    )


def _foreign(scene):
    return _row(make_run(), make_run(**scene)), "project of its parent"


def _older(scene):
    child, parent = make_run(**scene), make_run(**scene)
    return _row(child, parent), "runs_child_of_an_earlier_run"


def _itself(scene):
    run = make_run(**scene)
    return _row(run, run), "runs_child_of_an_earlier_run"


def _wrong_depth(scene):
    parent, child = make_run(**scene), make_run(**scene)
    return _row(child, parent, depth=3), "follow from its parent"


def _wrong_root(scene):
    other, parent, child = make_run(**scene), make_run(**scene), make_run(**scene)
    return _row(child, parent, root=other), "follow from its parent"


def _of_an_ended_run(scene):
    parent, child = make_run(**scene), make_run(**scene)
    _end(parent, "cancelled")
    return _row(child, parent), "no more children"


def _after_its_start(scene):
    parent, child = make_run(**scene), make_run(**scene)
    StandIn(child)
    return _row(child, parent), "born as a child"


def _grafted(scene):
    parent, child = make_run(**scene), make_run(**scene)
    _put_under(scene, child)
    return _row(child, parent), "born as a child"


def _without_end(scene):
    parent, child = make_run(**scene, total_deadline_s=60), make_run(**scene)
    return _row(child, parent), "no later than its parent"


def _ending_later(scene):
    parent = make_run(**scene, total_deadline_s=60)
    child = make_run(**scene, total_deadline_s=600)
    return _row(child, parent), "no later than its parent"


ILLEGAL = [
    _foreign,
    _older,
    _itself,
    _wrong_depth,
    _wrong_root,
    _of_an_ended_run,
    _after_its_start,
    _grafted,
    _without_end,
    _ending_later,
]


@pytest.mark.parametrize("made", ILLEGAL, ids=lambda made: made.__name__.strip("_"))
def test_the_database_refuses_what_would_be_no_tree(scene, made):
    row, why = made(scene)

    with pytest.raises(IntegrityError, match=why), transaction.atomic():
        row.save(force_insert=True)


@pytest.mark.parametrize("column", ["parent_id", "root_id", "depth", "key", "on_parent_end"])
def test_whose_child_a_run_is_never_changes(scene, column):
    parent = make_run(**scene)
    other = make_run(**scene)
    child = _put_under(scene, parent)
    value = {"depth": 2, "key": "x", "on_parent_end": "leave"}.get(column, other.pk)

    with pytest.raises(IntegrityError, match="never changes"), transaction.atomic():
        ChildRun.objects.filter(run=child).update(**{column: value})


# --- waiting --------------------------------------------------------------------------------------


def test_a_child_at_its_parents_cap_says_what_keeps_it(scene, seat):
    parent = make_run(**scene, concurrency_key="one")
    worker = StandIn(parent)
    child = children.start(worker.started, _wish(concurrency_key="one"), key="a")
    dispatch.claim(seat, slots=5)

    told = queues.why_waiting(Run.objects.get(pk=child.pk))

    assert "at its cap of 1" in told
    assert "The run that started it" in told
    worker.succeed()
    orphans.end(seat)
    assert _state(child) == "cancelled"


# --- many at once ---------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_many_who_ask_for_one_key_at_once_get_one_child(scene):
    worker = StandIn(make_run(**scene))

    told = at_once([lambda: children.start(worker.started, _wish(), key="one")] * 8)

    assert len({run.pk for run in told}) == 1
    assert ChildRun.objects.count() == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("sabotaged", [False, True], ids=["as built", "sabotaged"])
def test_many_at_once_do_not_exceed_the_bound_of_a_tree(scene, settings, monkeypatch, sabotaged):
    settings.AOS_CHILDREN = 3
    worker = StandIn(make_run(**scene))
    if sabotaged:
        everybody = Barrier(8)
        monkeypatch.setattr(kin, "lock", lambda *_, **__: None)
        create = ChildRun.objects.create

        def together(**row):
            everybody.wait(timeout=20)
            return create(**row)

        monkeypatch.setattr(ChildRun.objects, "create", together)

    told = at_once(
        [
            lambda place=place: children.start(worker.started, _wish(), key=f"k{place}")
            for place in range(8)
        ],
        errors=TooManyChildren,
    )

    made = [each for each in told if isinstance(each, Run)]
    assert ChildRun.objects.count() == len(made) == (8 if sabotaged else 3)


@pytest.mark.django_db(transaction=True)
def test_a_child_that_somebody_stalls_on_does_not_keep_the_leader(scene, seat):
    parent = make_run(**scene)
    stalled, other = _put_under(scene, parent), _put_under(scene, parent)
    held, let_go = Event(), Event()

    def stall():
        with transaction.atomic():
            lifecycle.lock(stalled.pk)
            held.set()
            assert let_go.wait(timeout=30)

    with ThreadPoolExecutor(1) as pool:
        stalling = pool.submit(apart, stall)
        assert held.wait(timeout=30)
        control.cancel(by=scene["by"], run=parent)
        try:
            assert orphans.end(seat) == 1
        finally:
            let_go.set()
        stalling.result()

    assert [_state(run) for run in (stalled, other)] == ["queued", "cancelled"]
    assert orphans.end(seat) == 1
    assert _state(stalled) == "cancelled"


@pytest.mark.django_db(transaction=True)
def test_no_child_slips_past_the_end_of_its_parent(scene):
    for round_ in range(6):
        parent = make_run(**scene)
        worker = StandIn(parent)
        asked = [
            lambda n=n, worker=worker: children.start(worker.started, _wish(), key=f"k{n}")
            for n in range(4)
        ]
        by = scene["by"]
        at_once(
            [*asked, lambda by=by, parent=parent: control.cancel(by=by, run=parent)],
            errors=AosError,
        )
        seat = leadership.take("stand-in")
        orphans.end(seat)

        left = Run.objects.filter(child_of__parent=parent).exclude(state="cancelled")
        assert not left.exists(), round_
        leadership.leave(seat)


# --- over the API ---------------------------------------------------------------------------------


def test_over_the_api_a_person_puts_a_run_under_another(scene):
    parent = make_run(**scene, priority=Priority.BULK, labels={"a": "b"}, total_deadline_s=600)
    client = api(scene["by"].user)
    task = {
        "project": scene["project"].slug,
        "agent": "work",
        "input": {},
        "parent": str(parent.public_id),
    }

    answer = client.post("/api/runs", task, headers=key())

    assert answer.status_code == 202, answer.json()
    body = answer.json()
    assert body["parent"] == body["root"] == str(parent.public_id)
    assert (body["priority"], body["labels"]) == ("bulk", {"a": "b"})
    listed = client.get(f"/api/runs?parent={parent.public_id}").json()["results"]
    assert [run["id"] for run in listed] == [body["id"]]
    below = client.get(f"/api/runs?root={parent.public_id}").json()["results"]
    assert [run["id"] for run in below] == [body["id"]]
    assert client.get(f"/api/runs/{parent.public_id}").json()["parent"] is None


def test_the_same_request_makes_one_child_and_another_parent_is_another_request(scene):
    first, second = make_run(**scene), make_run(**scene)
    client = api(scene["by"].user)
    header = key()
    task = {"project": scene["project"].slug, "agent": "work", "input": {}}

    one = client.post("/api/run", task | {"parent": str(first.public_id)}, headers=header)
    two = client.post("/api/run", task | {"parent": str(first.public_id)}, headers=header)
    other = client.post("/api/run", task | {"parent": str(second.public_id)}, headers=header)

    assert (one.status_code, two.status_code) == (202, 200)
    assert one.json()["id"] == two.json()["id"]
    assert other.status_code == 422
    assert problem(other)["code"] == "idempotency_key_reused"


def test_a_parent_that_one_cannot_see_does_not_exist(scene):
    theirs = make_run()
    task = {"project": scene["project"].slug, "agent": "work", "input": {}}

    answer = api(scene["by"].user).post(
        "/api/run", task | {"parent": str(theirs.public_id)}, headers=key()
    )

    assert answer.status_code == 404


def test_an_ended_parent_is_a_conflict_that_says_so(scene):
    parent = make_run(**scene)
    control.cancel(by=scene["by"], run=parent)
    task = {"project": scene["project"].slug, "agent": "work", "input": {}}

    answer = api(scene["by"].user).post(
        "/api/run", task | {"parent": str(parent.public_id)}, headers=key()
    )

    assert (answer.status_code, problem(answer)["code"]) == (409, "parent_is_over")
