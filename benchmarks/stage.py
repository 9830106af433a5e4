"""Where a measurement takes place: servers of its own, and processes that end with it.

PostgreSQL and Valkey are the embedded ones, as durable as ``make up`` starts them, in a temporary
folder. A platform that runs on this machine is not touched, whatever ``DATABASE_URL`` says.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Self

import psycopg

from benchmarks import proc
from launcher import environment, ports, procfile
from tests.support import servers

PROJECT: Final = Path(__file__).parents[1]
_STOP_S: Final = 20.0
# As much of PostgreSQL's log as any round writes.
_FILL: Final = (
    "SELECT pg_logical_emit_message(false, 'fill', repeat('.', 1024 * 1024))"
    " FROM generate_series(1, 160)"
)


class Stage:
    """Servers and named processes; leaving the ``with`` block ends them all."""

    def __init__(self) -> None:
        for name in environment.SETTINGS:
            os.environ.pop(name, None)  # noqa: TID251 - nobody's own database is measured
        self.servers = servers.start(durable=True)
        if self.servers.folder is None:
            raise RuntimeError("A measurement needs servers of its own.")
        self.folder = self.servers.folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        # Nothing of ours in it: where Celery sees Django settings, it loads Django into the peer.
        self.plain_env = {
            **environment.ambient(),
            "DATABASE_URL": self.servers.database_url,
            "CELERY_BROKER_URL": self.servers.redis_url,
        }
        self.env = {
            **environment.ambient(),
            **environment.DEFAULTS,
            "DATABASE_URL": self.servers.database_url,
            "REDIS_URL": self.servers.redis_url,
            "AOS_SECRET_KEY": secrets.token_urlsafe(48),
            "AOS_DATA_DIR": str(self.folder / "data"),
            "AOS_SANDBOX_DRIVER": "local",
            # One program stands for many here.
            "AOS_LIMIT_SUBMIT": "off",
            "AOS_LIMIT_SUBMIT_ORGANIZATION": "off",
            "AOS_LIMIT_ORGANIZATION": "off",
            "AOS_FLOWER_BASIC_AUTH": f"bench:{secrets.token_urlsafe(12)}",
            "AOS_PROCESS_NUMBER": "1",
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with ExitStack() as stack:
            stack.callback(self.servers.stop)
            stack.callback(self.end, *self._processes)

    def migrate(self) -> None:
        self.run("manage.py", "migrate", "--verbosity", "0", env=self.env)

    def settle(self) -> None:
        """Put PostgreSQL where one in use is: its log has files to write over, and nothing waits to be flushed.

        A fresh one makes each file of 16 MB when it needs it, and all commits wait for that.
        """
        with psycopg.connect(self.servers.database_url, autocommit=True) as line:
            line.execute(_FILL)
            # To copy files it takes a checkpoint first, for which by itself one must be more than its owner.
            line.execute("CREATE DATABASE settled STRATEGY FILE_COPY")
            line.execute("DROP DATABASE settled")

    def analyze(self) -> None:
        """Do what autovacuum does within a minute, so that no planner's luck is measured, whoever's tables they are."""
        with psycopg.connect(self.servers.database_url, autocommit=True) as line:
            line.execute("ANALYZE")

    def procfile(self, name: str) -> list[str]:
        """The command line of one kind of process, as ``make up`` starts it."""
        command = procfile.read(PROJECT / "Procfile")[name]
        return [procfile.expand(word, self.env) for word in shlex.split(command)]

    def fresh_port(self, name: str) -> int:
        """Give a setting that names a port one that is free."""
        port = ports.pick()
        self.env[name] = str(port)
        return port

    def start(self, name: str, argv: Sequence[str], *, env: Mapping[str, str]) -> None:
        """Start a process that ends when we do, its output in a file by its name."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", *argv],
                cwd=PROJECT,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def end(self, *names: str) -> None:
        """End these processes in an orderly way, and those that do not listen by force."""
        ending = [self._processes.pop(name) for name in names if name in self._processes]
        for process in ending:
            process.terminate()
        for process in ending:
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def run(self, *words: str, env: Mapping[str, str]) -> str:
        """Run a Python program to its end and return what it printed; show its complaint if any."""
        done = subprocess.run(
            [sys.executable, *words],
            cwd=PROJECT,
            env=dict(env),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{shlex.join(words)} failed:\n{done.stderr[-3000:]}")
        return done.stdout

    def figures(self, module: str, *words: object, **env: str) -> dict[str, list[float]]:
        """What a program of ours measured with the platform's own code, here and now."""
        mine = {"AOS_LOG_LEVEL": "ERROR", "DJANGO_SETTINGS_MODULE": "aos_project.settings.dev"}
        said = self.run("-m", module, *map(str, words), env=self.env | mine | env)
        found: dict[str, list[float]] = json.loads(said.splitlines()[-1])
        return found

    def pids(self, *names: str) -> list[int]:
        return [self._processes[name].pid for name in names if name in self._processes]

    @property
    def server_pids(self) -> dict[str, int]:
        return {service.name: process.pid for service, process in self.servers.started}

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds so far, by process; the servers are one."""
        used = {name: proc.cpu_s([process.pid]) for name, process in self._processes.items()}
        return used | {"servers": proc.cpu_s(self.server_pids.values())}

    def wait_for(self, what: str, condition: Callable[[], bool], *, seconds: float) -> None:
        """Poll until it is true. Raises when it does not come true, or a process has ended."""
        deadline = time.monotonic() + seconds
        while not condition():
            for name, process in self._processes.items():
                if process.poll() is not None:
                    raise RuntimeError(f"{name} ended:\n{self._last_words(name)}")
            if time.monotonic() > deadline:
                logs = "\n".join(self._last_words(name) for name in self._processes)
                raise RuntimeError(f"Waited {seconds:g} s for {what}.\n{logs}")
            time.sleep(0.005)

    def _last_words(self, name: str) -> str:
        text = (self.folder / f"{name}.log").read_text("utf-8", "replace")
        return f"--- {name}\n{text[-2000:]}"
