"""The rows of sandboxes: who may claim what, which changes there are, and that nothing is used twice."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from threading import Barrier
from uuid import uuid4

import pytest
from django.db import IntegrityError, connection, transaction

from apps.core import clock
from apps.runs.services import dispatch, leadership, leases
from apps.sandboxes.models import Sandbox
from apps.sandboxes.services import tracking
from apps.sandboxes.types import TRANSITIONS, SandboxState
from tests.factories import make_run, make_worker
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
    threads = 5
    start = Barrier(threads)

    def take(_):
        start.wait()
        taken = []
        while pk := tracking.claim(a_use(), mould="m", incarnation=holder.incarnation):
            taken.append(pk)
        connection.close()
        return taken

    with ThreadPoolExecutor(threads) as pool:
        taken = [pk for pks in pool.map(take, range(threads)) for pk in pks]

    assert len(taken) == len(set(taken)) == 20
    assert Sandbox.objects.values("run_id").distinct().count() == 20


@pytest.mark.django_db(transaction=True)
def test_a_row_somebody_looks_at_is_passed_over_and_not_waited_for():
    holder = a_holder()
    first, second = warm(holder), warm(holder)
    with transaction.atomic():
        Sandbox.objects.select_for_update().get(pk=first.pk)

        def claim():
            try:
                return tracking.claim(a_use(), mould="m", incarnation=holder.incarnation)
            finally:
                connection.close()

        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(claim).result(timeout=5) == second.pk


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
    begins_empty = old == "warm" or (old, new) == ("creating", "warm")
    with past_triggers():
        Sandbox.objects.filter(pk=row.pk).update(state=old, **(nobodys if begins_empty else {}))
    also = nobodys if new == "warm" else somebodys if (old, new) == ("warm", "claimed") else {}
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
