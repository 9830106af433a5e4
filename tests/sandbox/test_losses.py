"""Engines, containers and workers that go away, and what is left behind: nothing."""

from __future__ import annotations

import random
import threading
import time
from uuid import uuid4

import docker
import pytest
from docker.errors import APIError

from tests.contracts.engine import IMAGE, INSTANCE, small_spec
from tests.contracts.sandbox_driver import (
    a_long_sleep,
    becomes_true,
    found_by,
    said,
    sh,
    sleepers,
)
from tests.support.bridge import Bridge
from tests.support.orphans import kill_a_worker_with_a_sandbox
from workers.sandbox.base import Outcome
from workers.sandbox.docker import DockerDriver
from workers.sandbox.errors import ImageMissing, ImageUnfit, SandboxLost, SandboxUnavailable

pytestmark = pytest.mark.docker


def test_a_container_killed_behind_our_back_is_a_lost_sandbox(sandbox, engine, container_of):
    outputs = iter(sandbox.run(sh("echo ready; sleep 60")))
    next(outputs)
    started = time.monotonic()

    engine.kill(container_of(sandbox.id))

    with pytest.raises(SandboxLost) as caught:
        list(outputs)
    assert caught.value.retryable
    assert time.monotonic() - started < 5


def test_a_container_removed_behind_our_back_leaves_no_volume(driver, spec, engine, container_of):
    with driver.start(spec, sandbox_id="removed") as sandbox:
        engine.remove_container(container_of(sandbox.id), force=True)

        with pytest.raises(SandboxLost):
            sandbox.run(sh("true")).wait()

    assert "removed" not in found_by(driver)


@pytest.fixture
def would_not_stand_still(monkeypatch):
    """The engine gives up so many times, as runc does under cgroup v1 on a busy machine."""

    def times(count):
        really, left = docker.APIClient.pause, iter(range(count))

        def pause(api, name):
            if next(left, None) is not None:
                told = f"Cannot pause container {name}: OCI runtime pause failed: unable to freeze: unknown"
                raise APIError("500 Server Error", explanation=told)
            really(api, name)

        monkeypatch.setattr(docker.APIClient, "pause", pause)
        monkeypatch.setattr("workers.sandbox.docker._FREEZE_PAUSE_S", 0)

    return times


def test_a_container_that_would_not_stand_still_is_asked_again(
    sandbox, engine, container_of, would_not_stand_still
):
    would_not_stand_still(3)

    sandbox.pause()

    assert engine.inspect_container(container_of(sandbox.id))["State"]["Paused"]


def test_a_container_that_never_stands_still_goes_on_and_the_reason_is_told(
    sandbox, would_not_stand_still
):
    would_not_stand_still(1000)

    with pytest.raises(SandboxUnavailable, match="unable to freeze"):
        sandbox.pause()

    assert said(sandbox, sh("echo well")) == "well\n"


def test_a_sandbox_ends_by_itself_when_its_life_is_over(driver):
    with driver.start(small_spec(lifetime_s=2), sandbox_id=str(uuid4())) as sandbox:
        started = time.monotonic()

        with pytest.raises(SandboxLost):
            sandbox.run(sh("sleep 60")).wait()

        assert time.monotonic() - started < 8


def test_an_engine_that_is_not_there_is_unavailable_and_worth_a_retry(spec, tmp_path):
    driver = DockerDriver(instance=INSTANCE, base_url=f"unix://{tmp_path}/no.sock")

    with pytest.raises(SandboxUnavailable) as caught:
        driver.start(spec, sandbox_id="nowhere")

    assert caught.value.retryable
    assert [finding.code for finding in driver.check(image=IMAGE)] == ["engine_unreachable"]


def test_an_image_that_is_not_there_is_named_with_the_next_step(driver):
    with pytest.raises(ImageMissing, match=r"aos/none:latest.*manage.py images build"):
        driver.start(small_spec(image="aos/none:latest"), sandbox_id="imageless")

    assert [finding.code for finding in driver.check(image="aos/none:latest")] == ["image_missing"]
    assert found_by(driver) == frozenset()


@pytest.mark.parametrize("removed", ["/opt/aos", "/usr/bin/python3", "/bin/sleep"])
def test_an_image_without_a_supervisor_is_unfit_and_leaves_nothing(driver, engine, removed):
    tag = f"aos/unfit-{uuid4().hex[:8]}"
    made = engine.create_container(IMAGE, ["rm", "-rf", removed], user="0")
    try:
        engine.start(made)
        engine.wait(made)
        engine.commit(made, repository=tag)
        with pytest.raises(ImageUnfit, match=tag):
            driver.start(small_spec(image=tag), sandbox_id="unfit")
    finally:
        engine.remove_container(made, force=True)
        engine.remove_image(tag, force=True)

    assert found_by(driver) == frozenset()


def test_an_image_of_another_version_says_so_and_what_to_do(driver, engine):
    tag = f"aos/older-{uuid4().hex[:8]}"
    older = ["sed", "-i", "s/^VERSION = .*/VERSION = 1/", "/opt/aos/supervisor/loop.py"]
    made = engine.create_container(IMAGE, older, user="0")
    try:
        engine.start(made)
        engine.wait(made)
        engine.commit(made, repository=tag)
        with pytest.raises(ImageUnfit, match=r"speaks version 1, not 2.*manage.py images build"):
            driver.start(small_spec(image=tag), sandbox_id="older")
    finally:
        engine.remove_container(made, force=True)
        engine.remove_image(tag, force=True)

    assert found_by(driver) == frozenset()


def test_the_reaper_touches_only_what_is_ours(driver, spec, engine):
    other = DockerDriver(instance=f"{INSTANCE}-other")
    stranger = engine.create_container(IMAGE, ["sleep", "60"], name=f"stranger-{uuid4().hex}")
    try:
        with other.start(spec, sandbox_id="theirs") as theirs:
            assert driver.reap(lambda _: frozenset()) == 0
            assert said(theirs, sh("echo alive")) == "alive\n"
        assert engine.inspect_container(stranger)["State"]["Status"] == "created"
    finally:
        engine.remove_container(stranger, force=True)
        other.close()


def test_the_reaper_finds_a_volume_whose_container_was_never_made(driver, engine, container_of):
    marks = {"aos.managed": "1", "aos.instance": INSTANCE, "aos.sandbox": "half-made"}
    engine.create_volume(container_of("half-made"), labels=marks)

    assert driver.reap(lambda _: frozenset()) == 1

    assert found_by(driver) == frozenset()


@pytest.mark.parametrize(("state", "is_found"), [("removing", False), ("exited", True)])
def test_what_the_engine_is_removing_is_not_the_reapers(driver, monkeypatch, state, is_found):
    """It may be a ghost: listed for ever, and not there when it is asked for."""
    marks = {"aos.managed": "1", "aos.instance": INSTANCE, "aos.sandbox": "ghost"}
    ghost = {"State": state, "Names": [], "Labels": marks}
    listed = docker.APIClient.containers
    with monkeypatch.context() as patch:
        patch.setattr(
            docker.APIClient, "containers", lambda api, **asked: [*listed(api, **asked), ghost]
        )

        assert found_by(driver) == (frozenset({"ghost"}) if is_found else frozenset())


def test_a_worker_killed_without_warning_leaves_nothing_running(driver):
    amount = a_long_sleep()
    kill_a_worker_with_a_sandbox(
        f"""
        from workers.sandbox.docker import DockerDriver
        driver = DockerDriver(instance={INSTANCE!r})
        """,
        image=IMAGE,
        amount=amount,
    )

    assert becomes_true(lambda: sleepers(amount) == 0, within=10)
    assert driver.reap(lambda _: frozenset()) == 1
    assert found_by(driver) == frozenset()


def test_kills_at_any_moment_leave_nothing(driver, spec):
    dice = random.Random(7)
    for _ in range(8):
        with driver.start(spec, sandbox_id=str(uuid4())) as sandbox:
            killer = threading.Timer(dice.random() * 0.2, sandbox.kill)
            execution = sandbox.run(sh("trap '' TERM; while true; do echo x; done"))
            killer.start()
            started = time.monotonic()

            assert execution.wait().outcome == Outcome.KILLED
            assert time.monotonic() - started < 5
            killer.join()

    assert found_by(driver) == frozenset()


def test_an_engine_that_goes_away_in_the_middle_is_a_lost_sandbox(driver, spec, tmp_path):
    bridge = Bridge(tmp_path / "engine.sock")
    fragile = DockerDriver(instance=INSTANCE, base_url=f"unix://{tmp_path}/engine.sock")
    sandbox = fragile.start(spec, sandbox_id="stranded")
    outputs = iter(sandbox.run(sh("echo ready; sleep 60")))
    next(outputs)

    bridge.cut()

    with pytest.raises(SandboxLost):
        list(outputs)
    sandbox.kill()  # neither may raise: there is nobody to do it
    sandbox.destroy()
    assert found_by(driver) == {"stranded"}
    assert driver.reap(lambda _: frozenset()) == 1
    assert found_by(driver) == frozenset()
    fragile.close()


def test_an_engine_that_came_back_is_used_again(spec, tmp_path, driver):
    path = tmp_path / "engine.sock"
    bridge = Bridge(path)
    fragile = DockerDriver(instance=INSTANCE, base_url=f"unix://{path}")
    assert fragile.check(image=IMAGE) == []
    bridge.cut()
    assert [finding.code for finding in fragile.check(image=IMAGE)] == ["engine_unreachable"]

    bridge = Bridge(path)

    with fragile.start(spec, sandbox_id=str(uuid4())) as sandbox:
        assert said(sandbox, sh("echo again")) == "again\n"
    bridge.cut()
    fragile.close()


def test_many_workers_share_one_engine(driver, spec):
    endings: list[str] = []

    def work() -> None:
        for _ in range(2):
            with driver.start(spec, sandbox_id=str(uuid4())) as sandbox:
                endings.append(said(sandbox, sh("echo done")))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert endings == ["done\n"] * 8
    assert found_by(driver) == frozenset()
