"""A RabbitMQ of one test's own, where the host has the program (Debian: rabbitmq-server)."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from amqp.exceptions import PreconditionFailed
from kombu import Connection

from aos_project import env
from launcher import ports, processes

# Not the wrapper in the path, which changes to a user of its own.
PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")


class Rabbit:
    """The server, to be killed and started again on the same data."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = ports.pick()
        self._env = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "RABBITMQ_NODENAME": f"aos{os.getpid()}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self._port),
            "RABBITMQ_DIST_PORT": str(ports.pick()),
            "ERL_EPMD_PORT": str(ports.pick()),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_PID_FILE": str(folder / "rabbit.pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
        }
        (folder / "rabbitmq.conf").write_text(
            "vm_memory_high_watermark.absolute = 512MB\n", "ascii"
        )
        (folder / "plugins").write_text("[].\n", "ascii")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self._port}//"

    def start(self) -> None:
        with (self._folder / "rabbit.log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(PROGRAM)],
                env=self._env,
                cwd=self._folder,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        deadline = time.monotonic() + 90
        while not self._answers():
            if time.monotonic() > deadline:
                pytest.fail((self._folder / "rabbit.log").read_text("utf-8", "replace")[-3000:])
            time.sleep(0.3)

    def kill(self) -> None:
        """The server and what it started, among them the daemon that knows its name."""
        if self._process is None:
            return
        home = f"HOME={self._folder}".encode()
        for each in processes.everyone():
            environ = Path(f"/proc/{each.pid}/environ")
            try:
                if home in environ.read_bytes().split(b"\0"):
                    os.kill(each.pid, signal.SIGKILL)
            except OSError:
                continue  # gone, or another's
        self._process.wait()
        self._process = None

    def is_quorum(self, queue: str) -> bool:
        """Whether a queue is of this type: the server refuses to declare it again as another."""
        with Connection(self.url) as connection, connection.channel() as channel:
            try:
                channel.queue_declare(queue, durable=True, auto_delete=False)
            except PreconditionFailed as refused:
                return "x-queue-type" in str(refused)
            return False

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=1):
                pass
            with Connection(self.url, connect_timeout=2) as connection:
                connection.connect()
        except OSError:
            return False
        return True


@contextmanager
def private_rabbitmq(folder: Path) -> Iterator[Rabbit]:
    """Skips the test where the program is missing; with AOS_REQUIRE_RABBITMQ=1 that is a failure."""
    if not PROGRAM.exists() or shutil.which("erl") is None:
        missing = "needs RabbitMQ: apt-get install rabbitmq-server"
        if env.flag("AOS_REQUIRE_RABBITMQ", default=False):
            pytest.fail(missing)
        pytest.skip(missing)
    server = Rabbit(folder)
    try:
        server.start()
        yield server
    finally:
        server.kill()
