"""Sandboxes: how long until a fresh one has said its first word, and how long a command takes.

``python -m benchmarks.sandbox``. Our driver, ``docker run --rm`` and the client library take turns
on one engine, with the same image and the same hardening.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks import report, stats
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


FULL: Final = Size(cold=20, commands=60)
QUICK: Final = Size(cold=2, commands=3)


def measure(*, image: str, size: Size, rounds: int) -> list[Sheet]:
    """Raises ``SandboxError`` when the engine or the image is missing."""
    spec = SandboxSpec(image=image, memory_mb=512, pids=128)
    driver = DockerDriver(instance=f"bench-{os.getpid()}")
    peers = Containers(spec, instance=driver.instance, cpus=os.cpu_count() or 1)
    cold, command = _sheets()
    try:
        for turn in range(1, rounds + 1):
            print(f"sandboxes, round {turn} of {rounds}", file=sys.stderr, flush=True)
            _measure_cold(driver, peers, spec, number=size.cold, sheet=cold)
            _measure_commands(driver, peers, spec, number=size.commands, sheet=command)
    finally:
        driver.reap(lambda _: ())
        driver.close()
        peers.close()
    return [cold, command]


def _sheets() -> tuple[Sheet, Sheet]:
    return (
        Sheet(
            title="A fresh sandbox for one command (milliseconds)",
            baseline="docker run --rm",
            notes=(
                "first: from the call to the command's first output. all: until nothing is left.",
                "Ours runs the command under a supervisor that caps output, time and what it leaves "
                "behind; the others run it as the container's own process.",
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
    }
    taken: dict[str, list[Taken]] = {name: [] for name in systems}
    # One of each in turn: what else happens on the machine meets all of them.
    for _ in range(number):
        for name, once in systems.items():
            taken[name].append(once())
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


def main(arguments: Sequence[str] | None = None) -> None:
    options = report.options(__doc__ or "", arguments)
    began = report.machine()
    report.publish(sheets(options), began=began, path=options.json)


if __name__ == "__main__":
    main()
