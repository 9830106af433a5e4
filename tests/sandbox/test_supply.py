"""Sandboxes kept warm: claimed once, replaced, never given on, and gone with their worker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from uuid import uuid4

import pytest

from apps.core import clock
from apps.sandboxes.models import Sandbox
from apps.sandboxes.services import tracking
from apps.sandboxes.types import EgressMode, SandboxState
from tests.contracts.engine import IMAGE
from tests.contracts.sandbox_driver import becomes_true, found_by, said, sh
from tests.factories import make_worker
from tests.support.threads import at_once
from workers import reaper
from workers.sandbox import base
from workers.sandbox.errors import SandboxError
from workers.sandbox.profiles import Profile, Warm
from workers.supply import Supply, mould

pytestmark = [pytest.mark.docker, pytest.mark.django_db(transaction=True)]

SMALL = {"memory_mb": 128, "pids": 64}


class Host:
    """One worker process's supply on a real engine, whose profiles a test can change."""

    def __init__(self, driver, **warm) -> None:
        self.node = make_worker()
        self.driver = driver
        self.profile = Profile(name="base", image=IMAGE, limits=SMALL, warm=Warm(**warm))
        holder = tracking.Holder(
            worker=self.node.name, host="test", incarnation=self.node.incarnation
        )
        self.supply = Supply(driver, holder=holder, profiles=lambda: {"base": self.profile})

    def spec(self, **wanted):
        return self.profile.spec(wanted, most_egress=EgressMode.OPEN)

    def sandbox(self, **wanted):
        return used(self.supply, self.spec(**wanted), a_use())

    def waiting(self) -> list[Sandbox]:
        return list(Sandbox.objects.filter(state=SandboxState.WARM))


@contextmanager
def used(supply: Supply, spec: base.SandboxSpec, use: tracking.Use) -> Iterator[base.Sandbox]:
    with supply.hold(spec, use) as held, held.awake() as sandbox:
        yield sandbox


def a_use() -> tracking.Use:
    return tracking.Use(organization_id=uuid4(), project_id=uuid4(), run_id=uuid4(), attempt=1)


def replaced(profile: Profile, **fields) -> Profile:
    from dataclasses import replace

    return replace(profile, **fields)


@pytest.fixture
def host(driver):
    made = []

    def host(**warm) -> Host:
        made.append(Host(driver, **warm))
        return made[-1]

    yield host
    for each in made:
        each.supply.close()


def test_a_warm_sandbox_is_claimed_used_and_destroyed(host, driver):
    one = host(least=1, most=2)
    one.supply.keep()
    (row,) = one.waiting()

    with one.sandbox() as sandbox:
        assert sandbox.id == str(row.pk)
        assert said(sandbox, sh("echo warm")) == "warm\n"
        row.refresh_from_db()
        assert row.state == SandboxState.CLAIMED

    row.refresh_from_db()
    assert row.state == SandboxState.GONE
    assert found_by(driver) == frozenset()


def test_the_first_command_comes_without_a_start(host):
    one = host(least=1, most=1)
    one.supply.keep()
    starts = []
    one.driver.start, real = (lambda *a, **k: starts.append(1) or real(*a, **k)), one.driver.start
    try:
        with one.sandbox() as sandbox:
            said(sandbox, sh("true"))
    finally:
        one.driver.start = real

    assert starts == []


def test_no_two_attempts_get_the_same_sandbox(host):
    one = host(least=3, most=3)
    one.supply.keep()

    def use():
        with one.sandbox() as sandbox:
            return sandbox.id, said(sandbox, sh("ls; echo mine > mark"))

    used = at_once([use] * 5)

    assert len({sandbox_id for sandbox_id, _ in used}) == 5
    assert {marks for _, marks in used} == {"out\n"}


def test_what_was_used_is_never_on_the_shelf_again(host):
    one = host(least=1, most=1)
    seen = set()
    for _ in range(3):
        one.supply.keep()
        with one.sandbox() as sandbox:
            seen.add(sandbox.id)

    assert len(seen) == 3
    assert one.waiting() == []


@pytest.mark.parametrize(
    "wanted",
    [
        {"memory_mb": 64},
        {"lifetime_s": 86400},
        {"pids": 32},
    ],
)
def test_another_wish_gets_a_fresh_one(host, wanted):
    one = host(least=1, most=1)
    one.supply.keep()
    (row,) = one.waiting()

    with one.sandbox(**wanted) as sandbox:
        assert sandbox.id != str(row.pk)

    assert [left.pk for left in one.waiting()] == [row.pk]


def test_what_a_version_reaches_is_no_part_of_the_kind_but_needs_a_fresh_one(host):
    one = host(least=1, most=1)
    reaching = one.spec(egress={"mode": "allowlist", "allow": ["api.example.com"]})
    one.supply.keep()

    assert mould(reaching) == mould(one.spec())
    # The suite's driver has no folder for ways out, so a fresh start says so; a warm one would not.
    with pytest.raises(SandboxError, match="ways out"), used(one.supply, reaching, a_use()):
        raise AssertionError("not reached")
    assert len(one.waiting()) == 1


def test_a_sandbox_that_died_while_it_waited_is_written_off_and_the_next_taken(
    host, engine, container_of
):
    one = host(least=2, most=2)
    one.supply.keep()
    first, second = sorted(one.waiting(), key=lambda row: row.pk)
    engine.kill(container_of(first.pk))
    assert becomes_true(
        lambda: not engine.inspect_container(container_of(first.pk))["State"]["Running"]
    )

    with one.sandbox() as sandbox:
        assert sandbox.id == str(second.pk)

    first.refresh_from_db()
    assert first.state == SandboxState.FAILED


def test_when_all_died_a_fresh_one_is_made(host, engine, container_of):
    one = host(least=1, most=1)
    one.supply.keep()
    (row,) = one.waiting()
    engine.kill(container_of(row.pk))
    assert becomes_true(
        lambda: not engine.inspect_container(container_of(row.pk))["State"]["Running"]
    )

    with one.sandbox() as sandbox:
        assert said(sandbox, sh("echo fresh")) == "fresh\n"


def test_a_new_image_under_the_same_name_replaces_what_waits(host, engine):
    tag = f"aos/warm-{uuid4().hex[:8]}"
    engine.tag(IMAGE, tag)
    one = host(least=1, most=1)
    one.profile = replaced(one.profile, image=tag)
    made = engine.create_container(IMAGE, ["touch", "/opt/new"], user="0")
    try:
        one.supply.keep()
        (old,) = one.waiting()
        engine.start(made)
        engine.wait(made)
        engine.commit(made, repository=tag)

        one.supply.keep()

        (new,) = one.waiting()
        assert new.pk != old.pk
        old.refresh_from_db()
        assert old.state == SandboxState.GONE
        with one.sandbox() as sandbox:
            assert said(sandbox, sh("ls /opt/new")) == "/opt/new\n"
    finally:
        engine.remove_container(made, force=True)
        one.supply.close()
        engine.remove_image(tag, force=True)


def test_old_ones_and_a_changed_profile_are_replaced(host):
    one = host(least=1, most=1)
    one.supply.keep()
    (first,) = one.waiting()
    Sandbox.objects.filter(pk=first.pk).update(created_at=clock.now() - timedelta(minutes=31))
    one.supply.keep()
    (second,) = one.waiting()
    one.profile = replaced(one.profile, limits=SMALL | {"pids": 32})
    one.supply.keep()
    (third,) = one.waiting()

    assert len({first.pk, second.pk, third.pk}) == 3


def test_the_shelf_grows_with_demand_up_to_the_most_and_shrinks_to_the_most(host):
    one = host(least=1, most=2)
    one.supply.keep()
    assert len(one.waiting()) == 1
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(one.sandbox())
        one.supply.keep()
        assert len(one.waiting()) == 2
    one.profile = replaced(one.profile, warm=Warm(least=1, most=1))
    one.supply.keep()

    assert len(one.waiting()) == 1


def test_a_profile_that_is_not_kept_warm_has_nothing_waiting(host):
    one = host(least=0, most=0)
    with one.sandbox():
        one.supply.keep()

    assert one.waiting() == []


def test_the_thread_keeps_the_shelf_by_itself_and_a_close_leaves_nothing(host, driver):
    one = host(least=1, most=1)
    one.supply.start()
    assert becomes_true(lambda: len(one.waiting()) == 1, within=20)
    with one.sandbox() as sandbox:
        used = sandbox.id
        assert becomes_true(lambda: len(one.waiting()) == 1, within=20)

    one.supply.close()

    assert Sandbox.objects.alive().count() == 0
    assert found_by(driver) == frozenset()
    assert used


def test_the_reaper_spares_what_a_living_worker_keeps_and_takes_a_dead_ones(host, driver):
    one, other = host(least=1, most=1), host(least=1, most=1)
    one.supply.keep()
    other.supply.keep()
    type(other.node).objects.filter(pk=other.node.pk).update(gone_at=clock.now())

    assert reaper.sweep(driver) == 1

    assert {row.incarnation for row in one.waiting()} == {one.node.incarnation}
    with one.sandbox() as sandbox:
        assert said(sandbox, sh("echo alive")) == "alive\n"
    # The dead one's own hand is fended off as well: its row is no longer to be had.
    kind = mould(other.spec())
    assert tracking.claim(a_use(), mould=kind, incarnation=other.node.incarnation) is None
    other.supply.keep()
    assert len(other.supply._waiting) == 1


def test_a_row_that_was_written_off_while_the_sandbox_was_made_gives_no_sandbox(host, driver):
    one = host(least=1, most=1)
    real = driver.start

    def start(spec, *, sandbox_id):
        Sandbox.objects.filter(pk=sandbox_id).update(state=SandboxState.FAILED, gone_at=clock.now())
        return real(spec, sandbox_id=sandbox_id)

    driver.start = start
    try:
        with pytest.raises(SandboxError, match="killed"):
            one.supply.keep()
    finally:
        driver.start = real

    assert found_by(driver) == frozenset()


def test_an_engine_that_is_away_keeps_nobody_from_trying_again(host, monkeypatch):
    one = host(least=1, most=1)
    answers = iter([SandboxError(detail="away"), SandboxError(detail="away")])
    real = one.driver.exact_image

    def exact(image):
        if error := next(answers, None):
            raise error
        return real(image)

    monkeypatch.setattr(one.driver, "exact_image", exact)
    one.supply.start()

    assert becomes_true(lambda: len(one.waiting()) == 1, within=20)
