"""A small project the launcher can start: real servers, real processes, no application."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from launcher import environment, home, orphans, ports, status, supervision
from launcher.home import Home
from launcher.status import ServiceStatus

PROJECT = Path(__file__).parents[2]
PLATFORM = Path(__file__).with_name("platform_stub.py")
PROCFILE = """\
engine: python platform_stub.py engine
web: python platform_stub.py web $AOS_HOST $AOS_PORT
"""


@dataclass
class Clone:
    folder: Path
    port: int
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Home:
        return home.at(self.folder, self.folder / ".aos")

    def make(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return self.begin(*words, **variables).complete(timeout=120)

    def begin(self, *words: str, **variables: str) -> Running:
        process = subprocess.Popen(
            # What a shell starts in the background ignores Ctrl-C, and so would all it starts.
            ["env", "--default-signal=INT", sys.executable, "-m", "launcher", *words],
            cwd=self.folder,
            env=self.environ(variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return Running(process)

    def environ(self, variables: Mapping[str, str]) -> dict[str, str]:
        """Return an environment without what the suite itself runs on."""
        kept = {**environment.ambient(), "PYTHONPATH": str(PROJECT), "AOS_PORT": str(self.port)}
        kept |= {"AOS_SANDBOX_DRIVER": "local", **self.variables, **variables}
        return {name: value for name, value in kept.items() if value}

    def status(self) -> status.Status:
        found = status.read(self.home.status)
        assert found is not None
        return found

    def service(self, name: str) -> ServiceStatus:
        found = self.status().service(name)
        assert found is not None
        return found

    def pid(self, name: str) -> int:
        pid = self.service(name).pid
        assert pid is not None
        return pid

    def calls(self) -> list[str]:
        """Return the ``manage.py`` commands run so far."""
        path = self.folder / "calls.txt"
        return path.read_text().split() if path.exists() else []

    def database(self) -> psycopg.Connection[Any]:
        return psycopg.connect(environment.read(self.home)["DATABASE_URL"], autocommit=True)

    def log(self, name: str) -> str:
        path = self.home.log(name)
        return path.read_text() if path.exists() else ""

    def sample(self) -> dict[str, Any]:
        return json.loads(self.home.demo.read_text())

    def remove(self) -> None:
        if self.home.run.is_dir():
            supervision.stop(self.home, tell=lambda _: None)
            orphans.end(self.home)
        if self.home.account is not None:
            shutil.rmtree(self.home.servers, ignore_errors=True)


@dataclass
class Running:
    process: subprocess.Popen[str]

    def complete(self, timeout: float) -> subprocess.CompletedProcess[str]:
        output, _ = self.process.communicate(timeout=timeout)
        return subprocess.CompletedProcess(self.process.args, self.process.returncode, output)


@contextmanager
def program(*words: str | Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program beside the test and end it, whatever the test comes to."""
    with subprocess.Popen(words, **options) as process:
        try:
            # Popen returns when the kernel lets go of the old program, before the new one's environment is there.
            environ = Path(f"/proc/{process.pid}/environ")
            until(lambda: process.poll() is not None or environ.read_bytes() != b"")
            yield process
        finally:
            process.kill()


def plant(folder: Path, procfile: str = PROCFILE) -> Clone:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "Procfile").write_text(procfile)
    (folder / "requirements").mkdir()
    (folder / "requirements/base.txt").write_text("")
    for name in ("manage.py", "platform_stub.py"):
        shutil.copy(PLATFORM, folder / name)
    return Clone(folder, port=ports.pick())


def until(condition: Callable[[], bool], *, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
