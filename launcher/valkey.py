"""The embedded Valkey: its configuration file, and the service that runs it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import redis

from launcher import binaries
from launcher.files import write_private
from launcher.home import Home
from launcher.processes import MARKER
from launcher.service import Service

READY_SECONDS: Final = 60.0

# The password stands in this file because arguments are visible to every user of the machine.
# `set-proc-title no` keeps the environment readable, by which the launcher knows its own.
CONFIGURATION: Final = """\
bind 127.0.0.1
port {port}
unixsocket "{socket}"
unixsocketperm 700
requirepass {password}
dir "{data}"
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
daemonize no
set-proc-title no
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Valkey:
    home: Home
    program: Path
    port: int

    @property
    def data(self) -> Path:
        return self.home.servers / "valkey"

    @property
    def configuration(self) -> Path:
        return self.home.servers / "valkey.conf"

    def url(self, password: str) -> str:
        return f"redis://:{password}@127.0.0.1:{self.port}/0"

    def make(self, *, password: str) -> None:
        """Write the configuration for this start."""
        self.data.mkdir(mode=0o700, exist_ok=True)
        text = CONFIGURATION.format(
            port=self.port,
            socket=self.home.sockets / "valkey.sock",
            password=password,
            data=self.data,
        )
        write_private(self.configuration, text)
        if self.home.account is not None:
            for path in (self.data, self.configuration):
                os.chown(path, self.home.account.uid, self.home.account.gid)

    def service(self, env: Mapping[str, str]) -> Service:
        account = self.home.account
        kept = {name: env[name] for name in ("PATH", "TZ") if name in env}
        return Service(
            name="valkey",
            group="valkey",
            argv=[str(self.program), str(self.configuration)],
            env={**kept, "LC_ALL": "C", MARKER: str(self.home.state)},
            cwd=str(self.home.servers),
            uid=account.uid if account else None,
            gid=account.gid if account else None,
            data=str(self.data),
        )


def embedded(home: Home, port: int) -> Valkey:
    return Valkey(home=home, program=binaries.valkey(home), port=port)


def wait_until_ready(url: str, *, seconds: float = READY_SECONDS) -> bool:
    """Wait until the append-only file is loaded and commands are answered."""
    deadline = time.monotonic() + seconds
    with redis.Redis.from_url(url, socket_connect_timeout=3, socket_timeout=3) as client:
        while time.monotonic() < deadline:
            try:
                if client.ping():
                    return True
            except (redis.ConnectionError, redis.TimeoutError):
                time.sleep(0.05)
    return False
