"""Sandboxes that are used now and then: they stand still, are put away, and come back elsewhere."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from uuid import uuid4

import pytest
from django.db import connection

from apps.core import blobs
from apps.core.errors import ContentGone, StoreUnavailable
from apps.sandboxes.models import Sandbox
from apps.sandboxes.services import tracking
from apps.sandboxes.types import SandboxState
from tests.contracts.engine import INSTANCE, small_spec
from tests.contracts.sandbox_driver import becomes_true, found_by, said, sh
from tests.factories import make_worker
from workers.held import Held, Patience
from workers.sandbox.docker import DockerDriver
from workers.sandbox.errors import SandboxKilled, SandboxLost, SnapshotTooLarge
from workers.sandbox.snapshots import SnapshotLimits
from workers.supply import Supply

pytestmark = [pytest.mark.docker, pytest.mark.django_db(transaction=True)]

NEVER = Patience(pause_s=0, snapshot_s=0, limits=SnapshotLimits())
SMALL = small_spec(memory_mb=64, pids=32)


def a_use(**fields) -> tracking.Use:
    ids = {"organization_id": uuid4(), "project_id": uuid4(), "run_id": uuid4(), "attempt": 1}
    return tracking.Use(**ids | fields)


def a_supply(driver, host="here") -> Supply:
    node = make_worker()
    holder = tracking.Holder(worker=node.name, host=host, incarnation=node.incarnation)
    return Supply(driver, holder=holder, profiles=dict)


@pytest.fixture
def supply(driver):
    supply = a_supply(driver)
    yield supply
    supply.close()


@pytest.fixture
def elsewhere():
    """A worker of another host: another engine's instance, another process's record."""
    driver = DockerDriver(instance=f"{INSTANCE}-far")
    supply = a_supply(driver, host="elsewhere")
    yield supply
    supply.close()
    assert driver.reap(lambda _: ()) == 0, "this test left a sandbox elsewhere"
    driver.close()


def rows(use) -> list[str]:
    return list(
        Sandbox.objects.filter(run_id=use.run_id).order_by("id").values_list("state", flat=True)
    )


def test_it_stands_still_after_a_while_and_goes_on_at_the_next_use(supply):
    use = a_use()
    patience = replace(NEVER, pause_s=0.1)
    with supply.hold(SMALL, use, patience=patience) as held:
        with held.awake() as sandbox:
            said(sandbox, sh("echo kept > file; echo kept > /tmp/file"))
        assert becomes_true(lambda: rows(use) == [SandboxState.PAUSED], within=10)

        with held.awake() as same:
            assert same is sandbox
            assert rows(use) == [SandboxState.CLAIMED]
            # It is the same one, with all that was in it.
            assert said(same, sh("cat file /tmp/file")) == "kept\nkept\n"

    assert rows(use) == [SandboxState.GONE]


def test_it_does_not_stand_still_while_it_is_used(supply):
    use = a_use()
    with (
        supply.hold(SMALL, use, patience=replace(NEVER, pause_s=0.1, snapshot_s=0.2)) as held,
        held.awake() as sandbox,
    ):
        assert said(sandbox, sh("sleep 2.5; echo done")) == "done\n"
        assert rows(use) == [SandboxState.CLAIMED]


def test_after_a_longer_while_only_its_files_are_left_and_the_next_use_has_them(supply, driver):
    use = a_use()
    patience = replace(NEVER, pause_s=0.1, snapshot_s=0.2)
    with supply.hold(SMALL, use, patience=patience) as held:
        with held.awake() as sandbox:
            said(sandbox, sh("echo kept > file; chmod 700 file; echo lost > /tmp/file; ln -s a b"))
        assert becomes_true(lambda: rows(use) == [SandboxState.SNAPSHOTTED], within=20)
        assert becomes_true(lambda: found_by(driver) == frozenset())

        with held.awake() as other:
            assert other.id != sandbox.id
            assert other.is_restored
            told = said(other, sh("cat file; stat -c %a file; ls /tmp; ls"))
            assert told == "kept\n700\nfile\nout\n"
            # What was kept stays: this one may be lost.
            assert rows(use) == [SandboxState.SNAPSHOTTED, SandboxState.CLAIMED]
            new = Sandbox.objects.get(pk=other.id)
            assert str(new.restored_from) == sandbox.id
    kept = Sandbox.objects.get(pk=sandbox.id)
    assert (kept.snapshot_files, kept.snapshot_left_out) == (2, 1)


def test_what_was_put_away_here_goes_on_elsewhere(supply, elsewhere):
    use = a_use()
    with supply.hold(SMALL, use, patience=NEVER) as held:
        with held.awake() as sandbox:
            said(sandbox, sh("mkdir a; echo here > a/file"))
        contents = held.put_away()
    assert (contents.count, contents.size) == (3, 5)

    later = replace(use, attempt=2)
    with (
        elsewhere.hold(SMALL, later, patience=NEVER) as held,
        held.awake() as sandbox,
    ):
        assert said(sandbox, sh("cat a/file; echo there >> a/file")) == "here\n"
        assert Sandbox.objects.get(pk=sandbox.id).host == "elsewhere"
    assert rows(use) == [SandboxState.SNAPSHOTTED, SandboxState.GONE]


def test_another_runs_workspace_is_nobody_elses(supply):
    use = a_use()
    with supply.hold(SMALL, use, patience=NEVER) as held:
        with held.awake() as sandbox:
            said(sandbox, sh("echo secret > file"))
        held.put_away()

    with supply.hold(SMALL, a_use(), patience=NEVER) as held, held.awake() as other:
        assert not other.is_restored
        assert said(other, sh("ls")) == "out\n"


def test_over_the_limit_it_stays_paused_and_says_why(supply):
    use = a_use()
    patience = Patience(pause_s=0.1, snapshot_s=0.2, limits=SnapshotLimits(total_bytes=1000))
    with supply.hold(SMALL, use, patience=patience) as held:
        with held.awake() as sandbox:
            said(sandbox, sh("head -c 5000 /dev/zero > file"))
        assert becomes_true(lambda: held.complaint is not None, within=20)
        assert held.complaint.code == "snapshot_too_large"
        assert rows(use) == [SandboxState.PAUSED]
        with pytest.raises(SnapshotTooLarge):
            held.put_away()

        with held.awake() as same:
            assert said(same, sh("rm file; echo fits > file; cat file")) == "fits\n"
        assert becomes_true(lambda: rows(use) == [SandboxState.SNAPSHOTTED], within=20)


def test_a_store_that_does_not_take_it_loses_nothing(supply, monkeypatch):
    use = a_use()

    def full(*_):
        raise StoreUnavailable(store="file", reason="No space left on device")

    with supply.hold(SMALL, use, patience=NEVER) as held:
        with held.awake() as sandbox:
            said(sandbox, sh("echo kept > file"))
        with monkeypatch.context() as patch:
            patch.setattr(blobs.Writer, "write", full)
            with pytest.raises(StoreUnavailable):
                held.put_away()
        assert rows(use) == [SandboxState.PAUSED]
        with held.awake() as same:
            assert said(same, sh("cat file")) == "kept\n"


def test_without_its_content_nothing_is_begun_and_nothing_left(supply, driver):
    use = a_use()
    with supply.hold(SMALL, use, patience=NEVER) as held:
        with held.awake() as sandbox:
            said(sandbox, sh("echo kept > file"))
        held.put_away()
        sha256 = Sandbox.objects.get(pk=sandbox.id).sha256
        blobs.configured().remove(sha256)

        with pytest.raises(ContentGone), held.awake():
            pass

    assert found_by(driver) == frozenset()
    assert rows(use) == [SandboxState.SNAPSHOTTED, SandboxState.GONE]


def use_again(held):
    with held.awake():
        pass


@pytest.mark.parametrize("act", [Held.put_away, use_again])
def test_who_was_written_off_while_it_stood_still_neither_keeps_nor_goes_on(supply, act):
    use = a_use()
    with supply.hold(SMALL, use, patience=NEVER) as held:
        with held.awake() as sandbox:
            said(sandbox, sh("true"))
        held.pause()
        tracking.failed(sandbox.id)

        with pytest.raises(SandboxKilled):
            act(held)
    assert rows(use) == [SandboxState.FAILED]


def test_what_died_while_it_stood_still_is_lost_and_says_so(supply, driver, engine, container_of):
    use = a_use()
    with supply.hold(SMALL, use, patience=NEVER) as held:
        with held.awake() as sandbox:
            said(sandbox, sh("true"))
        held.pause()
        engine.remove_container(container_of(sandbox.id), force=True)

        with pytest.raises(SandboxLost), held.awake():
            pass
    assert rows(use) == [SandboxState.GONE]


@pytest.mark.parametrize("moment", ["paused", "put away", "before its first use"])
def test_what_is_killed_does_not_begin_again(supply, moment):
    use = a_use()
    with supply.hold(SMALL, use, patience=NEVER) as held:
        if moment != "before its first use":
            with held.awake() as sandbox:
                said(sandbox, sh("true"))
            held.pause() if moment == "paused" else held.put_away()

        held.kill()

        with pytest.raises(SandboxKilled), held.awake():
            pass


def test_a_kill_ends_the_use_that_is_under_way(supply):
    with supply.hold(SMALL, a_use(), patience=NEVER) as held, held.awake() as sandbox:
        threading.Timer(0.5, held.kill).start()
        began = time.monotonic()
        assert sandbox.run(sh("sleep 60")).wait().outcome == "killed"
        assert time.monotonic() - began < 10


@pytest.mark.slow
def test_fifty_are_put_away_and_come_back_each_with_its_own(supply, elsewhere, driver):
    def keep(use):
        try:
            with supply.hold(SMALL, use, patience=NEVER) as held:
                with held.awake() as sandbox:
                    said(sandbox, sh(f"echo {use.run_id} > file"))
                held.put_away()
        finally:
            connection.close()

    def come_back(use):
        try:
            later = replace(use, attempt=2)
            with elsewhere.hold(SMALL, later, patience=NEVER) as held, held.awake() as sandbox:
                return said(sandbox, sh("cat file")).strip()
        finally:
            connection.close()

    uses = [a_use() for _ in range(50)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(keep, uses))
        back = list(pool.map(come_back, uses))

    assert back == [str(use.run_id) for use in uses]
    assert found_by(driver) == frozenset()
