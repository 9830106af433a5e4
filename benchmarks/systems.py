"""The systems that are measured: ours in its variants, and plain Celery in its."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks import stamps
from benchmarks.stage import Stage

_WARM_UP = 20
_ROUNDS = count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """What a submitter says: when, at what cost, and each job's key, before and after."""

    began: float
    ended: float
    cpu_s: float
    jobs: list[tuple[str, float, float]]

    @property
    def rate(self) -> float:
        return len(self.jobs) / (self.ended - self.began)


class System(ABC):
    """One system on a stage. Brought up for a round, then ended: an idle peer costs nothing."""

    #: Whether submitting one by one against a running worker is measured as well.
    streams = True

    def __init__(self, name: str, stage: Stage) -> None:
        self.name = name
        self.stage = stage
        self._stamps = self._fresh_stamps()

    @abstractmethod
    def start_rest(self) -> None:
        """Start all but the worker."""

    @property
    @abstractmethod
    def env(self) -> dict[str, str]:
        """What its processes find in their environment."""

    @abstractmethod
    def worker(self) -> list[str]:
        """The worker's command line."""

    @abstractmethod
    def submitter(self) -> list[str]:
        """The program that submits, to be followed by --count and --rate."""

    def begin(self) -> None:
        self._stamps = self._fresh_stamps()
        self.stage.settle()
        self.start_rest()

    def start_worker(self) -> None:
        env = self.env | {stamps.PLACE: str(self._stamps)}
        self.stage.start("worker", self.worker(), env=env)

    def warm_up(self) -> None:
        """Have a few jobs done, and forget them: connections are open, statements are known."""
        self.submit(_WARM_UP)
        self.await_finish(_WARM_UP)
        self._stamps.write_bytes(b"")

    def end(self) -> None:
        self.stage.end("web", "worker", "engine")

    def submit(self, number: int, *, rate: float = 0) -> Submitted:
        words = [*self.submitter(), "--count", str(number), "--rate", str(rate)]
        said: dict[str, Any] = json.loads(self.stage.run(*words, env=self.env))
        return Submitted(**said)

    def await_finish(self, number: int, *, seconds: float = 600) -> dict[str, dict[str, float]]:
        """Wait until so many jobs are done; returns the moments of each."""
        lines = number * self.lines_each
        self.stage.wait_for(
            f"{number} jobs of {self.name}",
            lambda: stamps.count(self._stamps) >= lines,
            seconds=seconds,
        )
        return stamps.read(self._stamps)

    def await_first(self) -> None:
        self.stage.wait_for(
            f"the first job of {self.name}",
            lambda: stamps.count(self._stamps) > 0,
            seconds=60,
        )

    @property
    def lines_each(self) -> int:
        return 2

    def _fresh_stamps(self) -> Path:
        return self.stage.folder / f"stamps-{next(_ROUNDS)}"


class Aos(System):
    """The engine and a worker, by the Procfile's command lines; only the work itself is replaced."""

    def __init__(
        self, name: str, stage: Stage, *, script: bool = False, over_http: bool = False,
        tells_claim: bool = False, bulk: int = 0, one_a_message: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(name, stage)
        self._own = {
            "AOS_FUNCTIONS": "bench.nothing=benchmarks.aos.functions:nothing",
            "AOS_BENCH_CLAIM": "1" if tells_claim else "0",
        }
        if one_a_message:
            self._own["AOS_MESSAGE_WORK_MS"] = "0"
        self._words = ["--sleep", "0"] * script + ["--bulk", str(bulk)] * bool(bulk)
        self._tells_claim = tells_claim
        self._over_http = over_http
        self._port = 0

    @property
    def env(self) -> dict[str, str]:
        return self.stage.env | self._own

    def start_rest(self) -> None:
        led = self._times_led()
        self.stage.start("engine", self.stage.procfile("engine"), env=self.env)
        # What its start costs is not what a run costs.
        self.stage.wait_for("the engine to lead", lambda: self._times_led() > led, seconds=60)
        if self._over_http:
            self._start_web()

    def worker(self) -> list[str]:
        argv = self.stage.procfile("worker")
        argv[argv.index("-A") + 1] = "benchmarks.aos.worker"
        return argv

    def submitter(self) -> list[str]:
        words = ["-m", "benchmarks.aos.submit", *self._words]
        return [*words, "--port", str(self._port)] if self._over_http else words

    @property
    def lines_each(self) -> int:
        return 3 if self._tells_claim else 2

    def _times_led(self) -> int:
        log = self.stage.folder / "engine.log"
        return log.read_text("utf-8", "replace").count("engine leads") if log.exists() else 0

    def _start_web(self) -> None:
        self._port = self.stage.fresh_port("AOS_PORT")
        self.stage.start("web", self.stage.procfile("web"), env=self.env)
        self.stage.wait_for("the web process", self._answers, seconds=60)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/healthz", timeout=2):
                return True
        except (urllib.error.URLError, OSError):
            return False


class Celery(System):
    """A plain worker with the same slots, pool and events as ours."""

    def __init__(self, name: str, stage: Stage, *, kind: str, pool: str = "threads") -> None:
        super().__init__(name, stage)
        self._kind = kind
        self._app = "benchmarks.peers.rows" if kind == "rows" else "benchmarks.peers.plain"
        self._pool = pool

    @property
    def env(self) -> dict[str, str]:
        return self.stage.plain_env

    def start_rest(self) -> None:
        return

    def worker(self) -> list[str]:
        slots = self.stage.env["AOS_WORKER_SLOTS"] if self._pool == "threads" else "2"
        argv = [sys.executable, "-m", "celery", "-A", self._app, "worker"]
        argv += ["--pool", self._pool, "--concurrency", slots, "-Q", "plain", "-E"]
        argv += ["--without-gossip", "--without-mingle", "--loglevel", "info", "-n", "plain@%h"]
        return argv

    def submitter(self) -> list[str]:
        return ["-m", "benchmarks.peers.submit", self._kind]


class Procrastinate(System):
    """Its worker with as many jobs at a time as ours."""

    @property
    def env(self) -> dict[str, str]:
        return self.stage.plain_env

    def start_rest(self) -> None:
        # The submitter makes the tables, and a worker must find them.
        self.submit(0)

    def worker(self) -> list[str]:
        argv = [
            sys.executable,
            "-m",
            "procrastinate",
            "--app",
            "benchmarks.peers.procrastinating.app",
        ]
        return [*argv, "worker", "--concurrency", self.stage.env["AOS_WORKER_SLOTS"]]

    def submitter(self) -> list[str]:
        return ["-m", "benchmarks.peers.procrastinating"]
