"""Memory: what the platform takes when nobody uses it, and what each further run adds.

``python -m benchmarks.idle``. The platform is started by the launcher, as ``make up`` does, in a
folder of its own; plain Celery with Flower follows on a Valkey of the same kind.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg
from docker import APIClient

from benchmarks import proc, report, stats
from benchmarks.report import Sheet
from benchmarks.stage import PROJECT, Stage
from benchmarks.systems import Celery
from launcher import docker, environment, ports, status
from launcher.docker import Docker
from workers.sandbox.docker import INSTANCE_LABEL

PEER: Final = "celery with flower"
OURS: Final = "aos"


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    settle_s: float
    runs: tuple[int, ...]


FULL: Final = Size(settle_s=15, runs=(1, 2, 4, 8))
QUICK: Final = Size(settle_s=1, runs=(1, 2))
_RUN_SETTLE_S: Final = 3.0
_SUPERVISOR: Final = "supervisor"


def measure(*, size: Size, rounds: int) -> list[Sheet]:
    memory, cpu, growth = _sheets()
    for _ in report.rounds("idle", rounds):
        with _peer() as pids:
            _note(PEER, pids, settle_s=size.settle_s, memory=memory, cpu=cpu)
        with _platform() as pids:
            _note(OURS, pids, settle_s=size.settle_s, memory=memory, cpu=cpu)
        _measure_growth(size, growth)
    return [memory, cpu, growth]


def _sheets() -> tuple[Sheet, Sheet, Sheet]:
    return (
        Sheet(
            title="Memory when idle (PSS, MiB)",
            baseline=PEER,
            notes=(
                "PSS: memory shared between processes counts by its share. Children included.",
                "The peer has no web, engine, database or supervisor: it offers none of what they do.",
            ),
        ),
        Sheet(
            title="CPU when idle (milliseconds a second)",
            baseline=PEER,
            notes=("Polling, heartbeats, leadership, Flower's events.",),
        ),
        Sheet(
            title="Memory for each further run at the same time (PSS, MiB)",
            baseline="",
            notes=(
                "worker: slope of the worker process over the number of runs that sleep.",
                "sandbox: processes in the container and its shim, slope alike; nothing of it is "
                "in the worker. Its files would come on top: they are in memory.",
            ),
        ),
    )


def _note(
    name: str, pids: Mapping[str, int], *, settle_s: float, memory: Sheet, cpu: Sheet
) -> None:
    time.sleep(settle_s)
    begun, before = time.monotonic(), _cpu_s(pids)
    time.sleep(settle_s)
    passed = time.monotonic() - begun
    after = _cpu_s(pids)
    used = {each: (after[each] - before[each]) * 1000 / passed for each in pids}
    # The supervisor's children are the services, which stand for themselves.
    held = {
        each: proc.pss_mb([pid], with_children=each != _SUPERVISOR) for each, pid in pids.items()
    }
    memory.add(name, all=sum(held.values()), **held)
    cpu.add(name, all=sum(used.values()), **used)


def _cpu_s(pids: Mapping[str, int]) -> dict[str, float]:
    return {
        each: proc.cpu_s([pid], with_children=each != _SUPERVISOR) for each, pid in pids.items()
    }


@contextmanager
def _platform() -> Iterator[dict[str, int]]:
    """The platform by ``python -m launcher up``; its services and their process ids."""
    state = Path(tempfile.mkdtemp(prefix="aos-bench-"))
    env = environment.ambient() | {
        "AOS_DATA_DIR": str(state),
        "AOS_PORT": str(ports.pick()),
        "AOS_SANDBOX_DRIVER": _driver(),
    }
    try:
        _launcher("up", env=env)
        now = status.read(state / "run" / "status.json")
        if now is None:
            raise RuntimeError("The launcher left no status.")
        services = {each.name: each.pid for each in now.services if each.pid is not None}
        yield services | {_SUPERVISOR: now.pid}
    finally:
        _launcher("reset", "--yes", env=env)


def _launcher(*words: str, env: Mapping[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "launcher", *words],
        cwd=PROJECT,
        env=dict(env),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"launcher {words[0]} failed:\n{done.stdout}{done.stderr}")


@contextmanager
def _peer() -> Iterator[dict[str, int]]:
    """A plain worker, Flower and Valkey."""
    with Stage() as stage:
        celery = Celery(PEER, stage, kind="early")
        celery.start_worker()
        port = stage.fresh_port("AOS_FLOWER_PORT")
        flower = ["celery", "-A", "benchmarks.peers.plain", "flower", f"--port={port}"]
        stage.start("flower", [*flower, "--address=127.0.0.1"], env=stage.plain_env)
        celery.submit(20)
        celery.await_finish(20)
        (worker,) = stage.pids("worker")
        (watcher,) = stage.pids("flower")
        yield {"worker": worker, "flower": watcher, "valkey": stage.server_pids["valkey"]}


def _measure_growth(size: Size, sheet: Sheet) -> None:
    """Real runs that sleep, more and more of them; what each adds to worker and sandboxes."""
    # Apart from any platform on the same Docker engine, whose reaper would meet ours.
    instance = f"bench-{os.getpid()}"
    with Stage() as stage:
        stage.env |= {
            "AOS_INSTANCE": instance,
            "AOS_SANDBOX_DRIVER": _driver(),
            "AOS_WORKER_SLOTS": str(max(size.runs)),
        }
        stage.migrate()
        stage.start("worker", stage.procfile("worker"), env=stage.env)
        stage.start("engine", stage.procfile("engine"), env=stage.env)
        points = [(runs, *_hold(stage, runs, instance)) for runs in size.runs]
    sheet.add(
        OURS,
        worker=stats.slope([(runs, worker) for runs, worker, _ in points]),
        sandbox=stats.slope([(runs, sandbox) for runs, _, sandbox in points]),
        worker_with_one=points[0][1],
    )


def _hold(stage: Stage, runs: int, instance: str) -> tuple[float, float]:
    """Bring the number of sleeping runs to ``runs``; MiB of the worker and of the sandboxes."""
    missing = runs - _running(stage)
    words = ["--sleep", "600", "--count", str(missing)]
    stage.run("-m", "benchmarks.aos.submit", *words, env=stage.env)
    stage.wait_for(f"{runs} runs", lambda: _running(stage) >= runs, seconds=60)
    # Scripts have to start, and logs to be written.
    time.sleep(_RUN_SETTLE_S)
    (worker,) = stage.pids("worker")
    alone = proc.pss_mb([worker], with_children=False)
    sandboxes = _container_pids(instance) if _driver() == "docker" else proc.below(worker)
    return alone, proc.pss_mb(sandboxes, with_children=False)


def _running(stage: Stage) -> int:
    with psycopg.connect(stage.servers.database_url) as connection:
        found = connection.execute(
            "SELECT count(*) FROM sandboxes_sandbox WHERE state = 'claimed'"
        ).fetchone()
    return int(found[0]) if found else 0


def _container_pids(instance: str) -> list[int]:
    """The processes of our containers as the host sees them, and the shim of each."""
    client = APIClient(version="auto")
    try:
        pids: list[int] = []
        for made in client.containers(filters={"label": f"{INSTANCE_LABEL}={instance}"}):
            inside = [int(row[1]) for row in client.top(made["Id"])["Processes"]]
            pids += [*inside, proc.parent(min(inside))]
    finally:
        client.close()
    return pids


def _driver() -> str:
    return "docker" if docker.look() is Docker.ANSWERS else "local"


def sheets(options: argparse.Namespace) -> list[Sheet]:
    return measure(size=QUICK if options.quick else FULL, rounds=options.rounds)


if __name__ == "__main__":
    report.measure(__doc__, sheets)
