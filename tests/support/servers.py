"""Real PostgreSQL and Valkey for one test session: private, temporary, beside any running platform.

``DATABASE_URL`` and ``REDIS_URL`` replace them one by one. The servers are started by this process
and end with it, even when it is killed: the kernel signals them when their parent dies.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from launcher import accounts, environment, ports, postgres, processes, valkey
from launcher.files import append_handle
from launcher.home import LONGEST_SOCKET, Home
from launcher.problems import tail
from launcher.service import Service

PREFIX = "aos-test-"
PROJECT = Path(__file__).parents[2]
# Tests lose nothing by a crash of the machine. Those about crashes ask for durable servers.
HASTE = ("fsync=off", "full_page_writes=off", "synchronous_commit=off", "autovacuum_naptime=10s")


@dataclass(kw_only=True)
class Servers:
    database_url: str
    redis_url: str
    folder: Path | None = None
    home: Home | None = None
    started: list[tuple[Service, subprocess.Popen[bytes]]] = field(default_factory=list)

    def strike(self, name: str, number: signal.Signals) -> None:
        """Signal the server of this name, wait for its end and start it again.

        From a thread that lives as long as the servers shall: the kernel counts it as their parent.
        """
        assert self.home is not None
        (found,) = [each for each in self.started if each[0].name == name]
        service, process = found
        process.send_signal(number)
        process.wait()
        self.started.remove(found)
        _spawn(self.home, self, service)
        if name == "postgres":
            _await(
                self.home, name, lambda: postgres.wait_until_ready(self.database_url, seconds=60)
            )
        else:
            _await(self.home, name, lambda: valkey.wait_until_ready(self.redis_url, seconds=60))

    def stop(self) -> None:
        """End what was started and remove its folder. May be called twice."""
        while self.started:
            service, process = self.started.pop()
            process.send_signal(signal.Signals[service.stop_signal])
            try:
                process.wait(service.grace)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder = None


def start(*, durable: bool = False, private: bool = False) -> Servers:
    """Start what ``DATABASE_URL`` and ``REDIS_URL`` do not name; both when they shall be ``private``."""
    given = {} if private else environment.wishes()
    database_url, redis_url = given.get("DATABASE_URL", ""), given.get("REDIS_URL", "")
    servers = Servers(database_url=database_url, redis_url=redis_url)
    if database_url and redis_url:
        return servers
    _remove_stale()
    home = _home()
    servers.folder, servers.home = home.state, home
    try:
        if not database_url:
            servers.database_url = _start_postgres(home, servers, durable=durable)
        if not redis_url:
            servers.redis_url = _start_valkey(home, servers)
    except BaseException:
        servers.stop()
        raise
    return servers


def _home() -> Home:
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    if len(os.fsencode(folder / "sockets")) > LONGEST_SOCKET:
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir="/tmp"))
    owner = processes.this_process()
    (folder / "owner.json").write_text(json.dumps([owner.pid, owner.started]), "ascii")
    account = accounts.for_servers()
    # The servers' account passes through, and sees nothing.
    folder.chmod(0o711 if account else 0o700)
    home = Home(
        project=PROJECT,
        state=folder,
        servers=folder / "servers",
        sockets=folder / "sockets",
        account=account,
    )
    for place in (home.servers, home.sockets):
        place.mkdir(mode=0o700)
        if account is not None:
            os.chown(place, account.uid, account.gid)
    home.logs.mkdir()
    return home


def _start_postgres(home: Home, servers: Servers, *, durable: bool) -> str:
    server = postgres.embedded(home, ports.pick())
    options = () if durable else HASTE
    password = secrets.token_hex(16)
    server.make(password=password, superuser_password=secrets.token_hex(16), extra=options)
    _spawn(home, servers, server.service(environment.ambient(), options))
    url = server.url(password)
    _await(home, "postgres", lambda: postgres.wait_until_ready(url, seconds=60))
    return url


def _start_valkey(home: Home, servers: Servers) -> str:
    server = valkey.embedded(home, ports.pick())
    password = secrets.token_hex(16)
    server.make(password=password)
    _spawn(home, servers, server.service(environment.ambient()))
    url = server.url(password)
    _await(home, "valkey", lambda: valkey.wait_until_ready(url, seconds=60))
    return url


def _spawn(home: Home, servers: Servers, service: Service) -> None:
    log = append_handle(home.log(service.name))
    try:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", service.stop_signal.removeprefix("SIG"), *service.argv],
            env=service.env,
            cwd=service.cwd,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # Ctrl-C in the terminal is for pytest, which stops them when it is done.
            start_new_session=True,
            user=service.uid,
            group=service.gid,
            extra_groups=None if service.gid is None else [],
        )
    finally:
        os.close(log)
    servers.started.append((service, process))


def _await(home: Home, name: str, is_ready: Callable[[], bool]) -> None:
    if not is_ready():
        lines = "\n".join(tail(home.log(name)))
        raise RuntimeError(f"{name} for the tests did not start:\n{lines}")


def _remove_stale() -> None:
    """Remove what a killed session left: its servers ended with it, its folder did not."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            pid, started = json.loads((folder / "owner.json").read_text("ascii"))
        except (OSError, ValueError):
            continue
        owner = processes.Process(pid, started)
        if owner.is_alive or folder.stat().st_uid != os.geteuid():
            continue
        left = [each for each in processes.everyone() if processes.works_in(each, folder)]
        processes.end(left, ask=signal.SIGINT, grace=10)
        shutil.rmtree(folder, ignore_errors=True)
