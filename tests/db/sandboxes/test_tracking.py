"""The rows of sandboxes: who may claim what, which changes there are, and that nothing is used twice."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from uuid import uuid4

import pytest
from django.db import IntegrityError, connection, transaction

from apps.core import blobs, clock
from apps.runs.models import Run
from apps.runs.services import contents, dispatch, leadership, leases
from apps.runs.types import RunState
from apps.sandboxes.models import Sandbox
from apps.sandboxes.services import tracking
from apps.sandboxes.types import TRANSITIONS, SandboxState
from tests.factories import make_run, make_worker, unwatched
from tests.support.threads import apart, at_once
from workers import reaper


@contextmanager
def past_triggers() -> Iterator[None]:
    """Switch the table's triggers off for a while: what the rest is worth without them."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE sandboxes_sandbox DISABLE TRIGGER USER")
        yield
        cursor.execute("ALTER TABLE sandboxes_sandbox ENABLE TRIGGER USER")


def a_holder(**fields) -> tracking.Holder:
    return tracking.Holder(**{"worker": "w1@test", "host": "test", "incarnation": uuid4()} | fields)


def a_use(**fields) -> tracking.Use:
    ids = {"organization_id": uuid4(), "project_id": uuid4(), "run_id": uuid4(), "attempt": 1}
    return tracking.Use(**ids | fields)


MAKE = tracking.Make(driver="docker", isolation="docker", image="i", profile="base", mould="m")


def warm(holder) -> Sandbox:
    row = tracking.opening(MAKE, holder, None)
    assert tracking.opened(row, container_id="c", image="sha256:1")
    row.refresh_from_db()
    return row


@pytest.mark.django_db
def test_a_sandbox_made_for_an_attempt_is_claimed_from_the_start():
    use = a_use()

    row = tracking.opening(MAKE, a_holder(), use)
    assert tracking.opened(row, container_id="c", image="sha256:1")

    row.refresh_from_db()
    assert (row.state, row.run_id, row.image) == (SandboxState.CLAIMED, use.run_id, "sha256:1")
    assert row.claimed_at


@pytest.mark.django_db
def test_a_warm_sandbox_is_nobodys_until_it_is_claimed():
    holder, use = a_holder(), a_use()
    row = warm(holder)
    assert (row.state, row.organization_id, row.run_id) == (SandboxState.WARM, None, None)

    claimed = tracking.claim(use, mould="m", incarnation=holder.incarnation)

    row.refresh_from_db()
    assert claimed == row.pk
    assert (row.state, row.organization_id, row.run_id, row.attempt) == (
        *(SandboxState.CLAIMED, use.organization_id, use.run_id, 1),
    )
    assert tracking.claim(a_use(), mould="m", incarnation=holder.incarnation) is None


@pytest.mark.django_db
def test_only_what_is_made_alike_and_held_here_is_claimed():
    holder = a_holder()
    warm(holder)

    assert tracking.claim(a_use(), mould="other", incarnation=holder.incarnation) is None
    assert tracking.claim(a_use(), mould="m", incarnation=uuid4()) is None


@pytest.mark.django_db(transaction=True)
def test_no_sandbox_is_given_to_two_attempts():
    holder = a_holder()
    for _ in range(20):
        warm(holder)

    def take():
        taken = []
        while pk := tracking.claim(a_use(), mould="m", incarnation=holder.incarnation):
            taken.append(pk)
        return taken

    taken = [pk for pks in at_once([take] * 5) for pk in pks]

    assert len(taken) == len(set(taken)) == 20
    assert Sandbox.objects.values("run_id").distinct().count() == 20


@pytest.mark.django_db(transaction=True)
def test_a_row_somebody_looks_at_is_passed_over_and_not_waited_for():
    holder = a_holder()
    first, second = warm(holder), warm(holder)
    with transaction.atomic():
        Sandbox.objects.select_for_update().get(pk=first.pk)
        claim = partial(tracking.claim, a_use(), mould="m", incarnation=holder.incarnation)
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(apart, claim).result(timeout=5) == second.pk


@pytest.mark.django_db
def test_what_is_retired_cannot_be_claimed_and_what_is_claimed_not_retired():
    holder = a_holder()
    oldest, kept = warm(holder), warm(holder)
    claimed = tracking.claim(a_use(), mould="m", incarnation=holder.incarnation)
    surplus = warm(holder)

    retired = tracking.retire(incarnation=holder.incarnation, keep=[kept.pk])

    assert claimed == oldest.pk
    assert retired == [surplus.pk]
    assert tracking.claim(a_use(), mould="m", incarnation=holder.incarnation) == kept.pk
    assert tracking.claim(a_use(), mould="m", incarnation=holder.incarnation) is None


@pytest.mark.django_db
def test_a_row_that_was_written_off_is_not_opened():
    row = tracking.opening(MAKE, a_holder(), a_use())
    tracking.failed(row.pk)

    assert not tracking.opened(row, container_id="c", image="sha256:1")


@pytest.mark.django_db
@pytest.mark.parametrize("old", SandboxState.values)
@pytest.mark.parametrize("new", SandboxState.values)
def test_the_trigger_allows_exactly_the_table_of_transitions(old, new):
    row = tracking.opening(MAKE, a_holder(), a_use())
    nobodys = {"run_id": None, "organization_id": None}
    somebodys = {"run_id": uuid4(), "organization_id": uuid4()}
    empty = {("creating", "warm"), ("creating", "serving"), ("paused", "serving")}
    begins_empty = old in {"warm", "serving"} or (old, new) in empty
    content = {"sha256": "0" * 64} if "snapshotted" in {old, new} else {}
    with past_triggers():
        began = content | (nobodys if begins_empty else {})
        Sandbox.objects.filter(pk=row.pk).update(state=old, **began)
    also = somebodys if (old, new) == ("warm", "claimed") else {}
    change = lambda: Sandbox.objects.filter(pk=row.pk).update(state=new, **also)  # noqa: E731

    if old == new or new in TRANSITIONS.get(SandboxState(old), ()):
        assert change() == 1
    else:
        with pytest.raises(IntegrityError, match="a sandbox cannot go"), transaction.atomic():
            change()


@pytest.mark.django_db
@pytest.mark.parametrize("field", [{"run_id": uuid4()}, {"attempt": 2}, {"run_id": None}])
def test_no_sandbox_is_used_twice_whoever_writes(field):
    row = tracking.opening(MAKE, a_holder(), a_use())

    with pytest.raises(IntegrityError, match="belongs to one attempt"), transaction.atomic():
        Sandbox.objects.filter(pk=row.pk).update(**field)
    # The sabotage: without the trigger the row would change hands.
    with past_triggers():
        assert Sandbox.objects.filter(pk=row.pk).update(**field) == 1


@pytest.mark.django_db
def test_a_claimed_sandbox_is_somebodys_and_a_warm_one_nobodys():
    row = warm(a_holder())

    for wrong in ({"organization_id": uuid4()}, {"state": "claimed"}):
        with pytest.raises(IntegrityError, match="sandboxes_sandbox_"), transaction.atomic():
            Sandbox.objects.filter(pk=row.pk).update(**wrong)


class Empty:
    """A host without sandboxes: only what the sweep does to rows counts."""

    def reap(self, keep):
        return len(keep(frozenset()))


@pytest.mark.django_db
def test_what_waits_is_spared_while_its_worker_lives():
    living, dead = make_worker(), make_worker()
    dead.gone_at = clock.now()
    dead.save(update_fields=["gone_at"])
    silent = make_worker()
    type(silent).objects.filter(pk=silent.pk).update(last_seen=clock.now() - timedelta(hours=1))
    rows = {
        name: warm(a_holder(incarnation=node.incarnation))
        for name, node in {"living": living, "dead": dead, "silent": silent}.items()
    }
    rows["made for a run nobody executes"] = tracking.opening(
        MAKE, a_holder(incarnation=living.incarnation), a_use()
    )
    rows["unknown"] = warm(a_holder())

    reaper.sweep(Empty())

    states = {name: Sandbox.objects.get(pk=row.pk).state for name, row in rows.items()}
    assert states.pop("living") == SandboxState.WARM
    assert set(states.values()) == {SandboxState.FAILED}


@pytest.mark.django_db
def test_a_running_attempts_sandbox_is_spared_until_its_process_is_known_to_be_gone():
    node, run = make_worker(), make_run()
    (claimed,) = dispatch.claim(leadership.take("test"), slots=1)
    started = leases.start(run_id=run.pk, token=claimed.token, worker=node)
    use = a_use(run_id=started.public_id, attempt=started.attempt)
    row = tracking.opening(MAKE, a_holder(incarnation=node.incarnation), use)
    # Silence alone is no proof: after an outage everybody is silent. The engine decides by leases.
    type(node).objects.filter(pk=node.pk).update(last_seen=clock.now() - timedelta(hours=1))

    reaper.sweep(Empty())
    row.refresh_from_db()
    assert row.state == SandboxState.CREATING

    type(node).objects.filter(pk=node.pk).update(gone_at=clock.now())
    reaper.sweep(Empty())
    row.refresh_from_db()
    assert row.state == SandboxState.FAILED


# --- paused, and put away ---

KEPT = tracking.Kept(sha256="a" * 64, snapshot_size=10, snapshot_files=1, snapshot_left_out=0)


def opened(use=None, holder=None) -> Sandbox:
    row = tracking.opening(MAKE, holder or a_holder(), use or a_use())
    assert tracking.opened(row, container_id="c", image="sha256:1")
    return row


def put_away(use=None, kept=KEPT, **fields) -> Sandbox:
    row = opened(use, **fields)
    assert tracking.paused(row.pk)
    assert tracking.put_away(row.pk, kept)
    return row


def old_content() -> str:
    content = blobs.put([b"workspace"], limit=100).sha256
    then = (clock.now() - timedelta(days=2)).timestamp()
    os.utime(blobs.configured()._path(content), (then, then))
    return content


def end(run) -> None:
    with unwatched():
        Run.objects.filter(pk=run.pk).update(state=RunState.CANCELLED, finished_at=clock.now())


def state_of(row) -> str:
    return Sandbox.objects.get(pk=row.pk).state


@pytest.mark.django_db
def test_what_stood_still_goes_on_as_what_it_was():
    claimed = opened()
    serving = tracking.opening(MAKE, a_holder(), None)
    assert tracking.serving(serving, container_id="c", image="sha256:1")

    for row, was in ((claimed, SandboxState.CLAIMED), (serving, SandboxState.SERVING)):
        assert tracking.paused(row.pk)
        assert state_of(row) == SandboxState.PAUSED
        assert tracking.resumed(row.pk)
        assert state_of(row) == was


@pytest.mark.django_db
def test_what_was_written_off_neither_stands_still_nor_goes_on_nor_is_kept():
    running, standing = opened(), opened()
    tracking.paused(standing.pk)
    for row in (running, standing):
        tracking.failed(row.pk)

    assert not tracking.paused(running.pk)
    assert not tracking.resumed(standing.pk)
    assert not tracking.put_away(standing.pk, KEPT)


@pytest.mark.django_db
def test_only_what_stands_still_is_put_away_and_only_with_its_content():
    running, standing = opened(), opened()
    tracking.paused(standing.pk)

    assert not tracking.put_away(running.pk, KEPT)
    with pytest.raises(IntegrityError, match="put_away_has_content"), transaction.atomic():
        Sandbox.objects.filter(pk=standing.pk).update(state="snapshotted")


@pytest.mark.django_db
def test_what_was_put_away_does_not_change():
    row = put_away()

    with pytest.raises(IntegrityError, match="does not change"), transaction.atomic():
        Sandbox.objects.filter(pk=row.pk).update(sha256="b" * 64)
    tracking.gone(row.pk)
    tracking.failed(row.pk)
    assert state_of(row) == SandboxState.SNAPSHOTTED


@pytest.mark.django_db
def test_the_last_attempts_workspace_is_the_runs_and_others_go():
    first = a_use()
    second = replace(first, attempt=2)
    old, strange = put_away(first), put_away()
    assert tracking.kept_of(first).pk == old.pk

    new = put_away(second)

    assert tracking.kept_of(first).pk == new.pk
    assert (state_of(old), state_of(strange)) == (SandboxState.GONE, SandboxState.SNAPSHOTTED)
    assert tracking.kept_of(replace(first, organization_id=uuid4())) is None


@pytest.mark.django_db
def test_who_is_behind_leaves_the_run_no_older_workspace():
    first = a_use()
    behind = opened(first)
    tracking.paused(behind.pk)
    opened(replace(first, attempt=2))

    assert not tracking.put_away(behind.pk, KEPT)

    assert tracking.kept_of(first) is None


@pytest.mark.django_db
def test_what_was_put_away_is_spared_until_its_run_has_ended():
    run, ended = make_run(), make_run()
    rows = [put_away(a_use(run_id=each.public_id)) for each in (run, ended)]
    rows.append(put_away())  # of a run that is not there any more
    end(ended)

    reaper.sweep(Empty())

    assert [state_of(row) for row in rows] == [
        *(SandboxState.SNAPSHOTTED, SandboxState.GONE, SandboxState.GONE),
    ]


@pytest.mark.django_db
def test_the_sandbox_behind_what_was_put_away_is_the_reapers():
    row = put_away(a_use(run_id=make_run().public_id))

    assert str(row.pk) not in tracking.alive_ids()


@pytest.mark.django_db
def test_what_stands_still_for_a_dead_process_is_written_off():
    node = make_worker()
    serving = tracking.opening(MAKE, a_holder(incarnation=node.incarnation), None)
    tracking.serving(serving, container_id="c", image="sha256:1")
    tracking.paused(serving.pk)
    attempts = opened()
    tracking.paused(attempts.pk)

    reaper.sweep(Empty())
    assert (state_of(serving), state_of(attempts)) == (SandboxState.PAUSED, SandboxState.FAILED)

    type(node).objects.filter(pk=node.pk).update(gone_at=clock.now())
    reaper.sweep(Empty())
    assert state_of(serving) == SandboxState.FAILED


@pytest.mark.django_db
def test_the_content_is_kept_for_as_long_as_it_is_put_away():
    row = put_away(a_use(run_id=make_run().public_id), replace(KEPT, sha256=old_content()))

    assert contents.remove_unreferred().count == 0

    with pytest.MonkeyPatch.context() as patch:
        # The sabotage: a retention that does not ask these rows removes what is still needed.
        query = str(contents.SQL["referred"])
        without = re.sub(r"\n   OR EXISTS \(SELECT FROM sandboxes_sandbox.*", "", query)
        patch.setattr(contents, "SQL", {**contents.SQL, "referred": without})
        assert contents.remove_unreferred().count == 1
    assert state_of(row) == SandboxState.SNAPSHOTTED


@pytest.mark.django_db
def test_the_content_goes_when_the_run_has_ended():
    content, run = old_content(), make_run()
    row = put_away(a_use(run_id=run.public_id), replace(KEPT, sha256=content))

    end(run)
    reaper.sweep(Empty())

    assert state_of(row) == SandboxState.GONE
    assert contents.remove_unreferred().count == 1


@pytest.mark.django_db(transaction=True)
def test_many_at_once_leave_each_run_exactly_one_workspace():
    uses = [a_use() for _ in range(10)]
    attempts = range(1, 6)

    def keep(attempt):
        kept = 0
        for use in uses:
            row = opened(replace(use, attempt=attempt))
            tracking.paused(row.pk)
            kept += tracking.put_away(row.pk, KEPT)
        return kept

    kept = sum(at_once([partial(keep, attempt) for attempt in attempts]))

    assert 10 <= kept <= 50
    for use in uses:
        assert tracking.kept_of(use).attempt == attempts[-1]
        rows = Sandbox.objects.filter(run_id=use.run_id)
        assert list(rows.put_away().values_list("attempt", flat=True))[:1] == [attempts[-1]]


@pytest.mark.django_db
def test_what_is_not_over_is_counted_by_state():
    opened(), put_away()
    tracking.gone(opened().pk)

    counts = tracking.counts()

    assert {state: count for state, count in counts.items() if count} == {
        "claimed": 1,
        "snapshotted": 1,
    }
    assert not {"gone", "failed"} & counts.keys()
