"""Sandboxes: how long until one has said its first word, how long a command takes, what one weighs.

``python -m benchmarks.sandbox``. Our driver, ``docker run --rm`` and the client library take turns
on one engine, with the same image and the same hardening. The library ``llm-sandbox`` takes part where it
is installed (``pip install llm-sandbox``), with its own settings but the same image, user and network.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Final

from benchmarks import proc, report, stats
from benchmarks.peers import llm
from benchmarks.peers.containers import Containers, Taken
from benchmarks.report import Sheet
from launcher import docker
from launcher.docker import Docker
from workers.sandbox.base import Command, Sandbox, SandboxSpec
from workers.sandbox.docker import DockerDriver
from workers.sandbox.errors import SandboxError

SAY: Final = ("sh", "-c", "echo ready")
IMAGE: Final = "aos/sandbox-base:latest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    cold: int
    commands: int
    held: int
    megabytes: int
    rests: int


FULL: Final = Size(cold=20, commands=60, held=50, megabytes=100, rests=10)
QUICK: Final = Size(cold=2, commands=3, held=2, megabytes=2, rests=2)
KEPT_MB: Final = 10


def measure(*, image: str, size: Size, rounds: int) -> list[Sheet]:
    """Raises ``SandboxError`` when the engine or the image is missing."""
    spec = SandboxSpec(image=image, memory_mb=512, pids=128)
    driver = DockerDriver(instance=f"bench-{os.getpid()}")
    peers = Containers(spec, instance=driver.instance, cpus=os.cpu_count() or 1)
    cold, command = _sheets()
    held, moved = _weights(size)
    rested, kept = _rests()
    try:
        for _ in report.rounds("sandboxes", rounds):
            _measure_cold(driver, peers, spec, number=size.cold, sheet=cold)
            _measure_commands(driver, peers, spec, number=size.commands, sheet=command)
            _measure_held(driver, peers, spec, number=size.held, sheet=held)
            _measure_moved(driver, peers, spec, megabytes=size.megabytes, sheet=moved)
            _measure_rested(driver, peers, spec, number=size.rests, sheet=rested)
            _measure_kept(driver, peers, spec, number=size.rests, sheet=kept)
    finally:
        driver.reap(lambda _: ())
        driver.close()
        peers.close()
    return [cold, command, held, moved, rested, kept]


def _rests() -> tuple[Sheet, Sheet]:
    return (
        Sheet(
            title="A sandbox that stands still and goes on (milliseconds)",
            baseline="docker pause",
            notes=("wake: until the next command has answered, for docker by docker exec.",),
        ),
        Sheet(
            title=f"A workspace of {KEPT_MB} MB kept, and in a fresh sandbox again (milliseconds)",
            baseline="docker cp",
            notes=(
                "Ours is checked file by file and hashed on the way out, and checked again on the way "
                "in; docker cp is the engine's own archive as it comes.",
                "docker commit takes no part in what is compared: it leaves out volumes, so it keeps "
                "nothing of the workspace. It is here for its time alone.",
            ),
        ),
    )


def _weights(size: Size) -> tuple[Sheet, Sheet]:
    return (
        Sheet(
            title=f"{size.held} sandboxes held at once (MiB of each, milliseconds)",
            baseline="docker, asleep",
            notes=(
                "memory: as the engine counts it for the container, without what the kernel may drop.",
                "command: p50 of one in each, one after the other. all: until one in each has ended, all "
                "begun at once.",
                "worker: how much the process that holds ours grew, for each.",
            ),
        ),
        Sheet(
            title=f"A file of {size.megabytes} MB into the workspace and out of it (milliseconds)",
            baseline="docker cp",
            notes=(
                "Ours goes through the supervisor, which follows no link, and is hashed on the way out; "
                "docker cp is the engine's own archive call.",
            ),
        ),
    )


def _sheets() -> tuple[Sheet, Sheet]:
    return (
        Sheet(
            title="A fresh sandbox for one command (milliseconds)",
            baseline="docker run --rm",
            notes=(
                "first: from the call to the command's first output. all: until nothing is left.",
                "Ours runs the command under a supervisor that caps output, time and what it leaves "
                "behind; docker and its library run it as the container's own process.",
                "warm: made beforehand, and asked whether it lives. The one statement that claims it in "
                "PostgreSQL comes on top.",
            ),
        ),
        Sheet(
            title="One command in a sandbox that runs (milliseconds)",
            baseline="docker exec",
            notes=("From the call to the exit code: sh -c 'echo ready'.",),
        ),
    )


def _measure_cold(
    driver: DockerDriver, peers: Containers, spec: SandboxSpec, *, number: int, sheet: Sheet
) -> None:
    systems: dict[str, Callable[[], Taken]] = {
        "docker run --rm": lambda: peers.run_by_cli(SAY),
        "docker library": lambda: peers.run_by_api(SAY),
        "aos": lambda: _fresh(driver, spec),
        "aos, warm": lambda: _warm(driver, spec),
    }
    taken: dict[str, list[Taken]] = {name: [] for name in systems}
    # One of each in turn: what else happens on the machine meets all of them.
    for _ in range(number):
        for name, once in systems.items():
            taken[name].append(once())
    if llm.is_here():  # waits ten seconds for each container to stop, so it has fewer turns
        taken["llm-sandbox"] = [
            llm.fresh(spec, f"sh -c '{SAY[2]}'") for _ in range(max(1, number // 5))
        ]
    for name, times in taken.items():
        first = [each.first_output * 1000 for each in times]
        whole = [each.all * 1000 for each in times]
        sheet.add(
            name,
            first_p50=stats.percentile(first, 0.50),
            first_p95=stats.percentile(first, 0.95),
            all_p50=stats.percentile(whole, 0.50),
            all_p95=stats.percentile(whole, 0.95),
        )


def _fresh(driver: DockerDriver, spec: SandboxSpec) -> Taken:
    begun = time.perf_counter()
    with driver.start(spec, sandbox_id=uuid.uuid4().hex) as sandbox:
        execution = sandbox.run(Command(argv=SAY))
        output = iter(execution)
        next(output)
        first = time.perf_counter() - begun
        for _ in output:
            pass
    return Taken(first_output=first, all=time.perf_counter() - begun)


def _warm(driver: DockerDriver, spec: SandboxSpec) -> Taken:
    with driver.start(spec, sandbox_id=uuid.uuid4().hex) as sandbox:
        begun = time.perf_counter()
        sandbox.ping()
        output = iter(sandbox.run(Command(argv=SAY)))
        next(output)
        first = time.perf_counter() - begun
        for _ in output:
            pass
    return Taken(first_output=first, all=time.perf_counter() - begun)


def _measure_held(
    driver: DockerDriver, peers: Containers, spec: SandboxSpec, *, number: int, sheet: Sheet
) -> None:
    asleep = [peers.standing() for _ in range(number)]
    try:
        names = [name for name, _ in asleep]
        use = _used([partial(peers.exec_by_cli, name, SAY) for name in names])
        sheet.add("docker, asleep", memory=peers.memory_mib(names), **use)
    finally:
        for _, remove in asleep:
            remove()
    with ExitStack() as stack:
        before = proc.pss_mb([os.getpid()])
        held = [
            stack.enter_context(driver.start(spec, sandbox_id=uuid.uuid4().hex))
            for _ in range(number)
        ]
        grown = proc.pss_mb([os.getpid()]) - before
        memory = peers.memory_mib([sandbox.handle for sandbox in held])
        use = _used([partial(_command, sandbox) for sandbox in held])
        sheet.add("aos, warm", memory=memory, **use, worker=grown / number)


def _used(commands: Sequence[Callable[[], None]]) -> dict[str, float]:
    """How long commands of several sandboxes take, one after the other and all at once."""
    each = [_timed_ms(command) for command in commands]
    with ThreadPoolExecutor(len(commands)) as pool:
        together = _timed_ms(lambda: [one.result() for one in [pool.submit(c) for c in commands]])
    return {"command": stats.percentile(each, 0.50), "all": together}


def _measure_moved(
    driver: DockerDriver, peers: Containers, spec: SandboxSpec, *, megabytes: int, sheet: Sheet
) -> None:
    data = os.urandom(megabytes * 1_000_000)
    name, remove = peers.standing()
    try:
        into = _timed_ms(lambda: peers.copy_in(name, data))
        sheet.add("docker cp", into=into, out=_timed_ms(lambda: peers.copy_out(name, len(data))))
    finally:
        remove()
    with driver.start(spec, sandbox_id=uuid.uuid4().hex) as sandbox:
        into = _timed_ms(lambda: sandbox.put_files({"out/data": data}))
        sheet.add("aos", into=into, out=_timed_ms(lambda: _collect(sandbox, len(data))))


def _collect(sandbox: Sandbox, size: int) -> None:
    (artifact,) = sandbox.collect(("data",), sink=_Nowhere()).artifacts
    if artifact.size != size:
        raise RuntimeError(f"{artifact.size} bytes came out of {size}")


def _measure_rested(
    driver: DockerDriver, peers: Containers, spec: SandboxSpec, *, number: int, sheet: Sheet
) -> None:
    name, remove = peers.standing()
    try:
        with driver.start(spec, sandbox_id=uuid.uuid4().hex) as sandbox:
            for system, pause, wake in (
                ("docker pause", lambda: peers.pause(name), lambda: _wake_peer(peers, name)),
                ("aos", sandbox.pause, lambda: _wake(sandbox)),
            ):
                times = [(_timed_ms(pause), _timed_ms(wake)) for _ in range(number)]
                sheet.add(
                    system,
                    pause=stats.percentile([paused for paused, _ in times], 0.50),
                    wake=stats.percentile([woken for _, woken in times], 0.50),
                )
    finally:
        remove()


def _wake(sandbox: Sandbox) -> None:
    sandbox.resume()
    _command(sandbox)


def _wake_peer(peers: Containers, name: str) -> None:
    peers.unpause(name)
    peers.exec_by_cli(name, SAY)


def _measure_kept(
    driver: DockerDriver, peers: Containers, spec: SandboxSpec, *, number: int, sheet: Sheet
) -> None:
    data = os.urandom(KEPT_MB * 1_000_000)
    name, remove = peers.standing()
    try:
        peers.copy_in(name, data)
        kept = [_timed_ms(lambda: peers.copy_out(name, len(data))) for _ in range(number)]
        back = [_timed_ms(lambda: _again(peers, data)) for _ in range(number)]
        sheet.add("docker cp", **_halves(kept, back))
        commits = [_timed_ms(lambda: peers.commit(name)) for _ in range(number)]
        sheet.add("docker commit", kept=stats.percentile(commits, 0.50))
    finally:
        remove()
    with driver.start(spec, sandbox_id=uuid.uuid4().hex) as sandbox:
        sandbox.put_files({"data": data})
        archive = io.BytesIO()
        sandbox.snapshot(archive)
        kept = [_timed_ms(lambda: sandbox.snapshot(io.BytesIO())) for _ in range(number)]
    back = [_timed_ms(lambda: _restored(driver, spec, archive)) for _ in range(number)]
    sheet.add("aos", **_halves(kept, back))


def _halves(kept: Sequence[float], back: Sequence[float]) -> dict[str, float]:
    return {"kept": stats.percentile(kept, 0.50), "back": stats.percentile(back, 0.50)}


def _again(peers: Containers, data: bytes) -> None:
    name, remove = peers.standing()
    try:
        peers.copy_in(name, data)
    finally:
        remove()


def _restored(driver: DockerDriver, spec: SandboxSpec, archive: io.BytesIO) -> None:
    archive.seek(0)
    with driver.start(spec, sandbox_id=uuid.uuid4().hex) as sandbox:
        sandbox.restore(archive)


class _Nowhere:
    """Where collected bytes go that nobody wants."""

    def open(self, name: str, *, size: int) -> _Nowhere:
        return self

    def write(self, data: bytes) -> None:
        """Nothing is kept."""

    def keep(self, *, sha256: str) -> None:
        """Nothing is kept."""

    def discard(self) -> None:
        """Nothing is kept."""


def _measure_commands(
    driver: DockerDriver, peers: Containers, spec: SandboxSpec, *, number: int, sheet: Sheet
) -> None:
    name, remove = peers.standing()
    try:
        with driver.start(spec, sandbox_id=uuid.uuid4().hex) as sandbox:
            systems: dict[str, Callable[[], None]] = {
                "docker exec": lambda: peers.exec_by_cli(name, SAY),
                "docker library": lambda: peers.exec_by_api(name, SAY),
                "aos": lambda: _command(sandbox),
            }
            for system, once in systems.items():
                times = [_timed_ms(once) for _ in range(number)]
                sheet.add(
                    system,
                    p50=stats.percentile(times, 0.50),
                    p95=stats.percentile(times, 0.95),
                )
    finally:
        remove()


def _command(sandbox: Sandbox) -> None:
    if error := sandbox.run(Command(argv=SAY)).wait().error():
        raise error


def _timed_ms(once: Callable[[], None]) -> float:
    begun = time.perf_counter()
    once()
    return (time.perf_counter() - begun) * 1000


def sheets(options: argparse.Namespace) -> list[Sheet]:
    """What can be measured here: nothing where no engine answers or the image is missing."""
    found = docker.look()
    if found is not Docker.ANSWERS:
        print(f"sandboxes: {found.value}. {docker.cure(found)}", file=sys.stderr)
        return []
    try:
        return measure(image=IMAGE, size=QUICK if options.quick else FULL, rounds=options.rounds)
    except SandboxError as error:
        print(f"sandboxes: {error}", file=sys.stderr)
        return []


if __name__ == "__main__":
    report.measure(__doc__, sheets)
