"""A platform of a test's own, down to its servers, in which everything may be struck at any time."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import redis
from django.core.management import call_command
from django.db import connection

from aos_project import env
from apps.core.failpoints import Action, Place
from tests.support import servers
from tests.support.platform import Platform, kill
from tests.support.servers import Servers

FUNCTIONS: Final = "test.work=tests.chaos.functions:work"
# How long a worker may be silent in here, and an engine. Strikes that stall outlast both, and the time a
# busy machine takes to free what the silent one has locked and to reclaim it.
WORKER_TTL_S: Final = 4
LEADER_TTL_S: Final = 2
STALL_S: Final = WORKER_TTL_S + 5.0


@dataclass
class Post:
    """A place in the fleet that is always filled again, and who fills it now."""

    name: str
    process: subprocess.Popen[bytes]
    stalled_until: float = 0.0

    @property
    def is_up(self) -> bool:
        return self.process.poll() is None and not self.stalled_until


@dataclass
class Arena:
    servers: Servers
    platform: Platform
    dice: random.Random
    engines: list[Post] = field(default_factory=list)
    workers: list[Post] = field(default_factory=list)
    # How many successors of killed processes there were.
    successors: int = 0

    @property
    def posts(self) -> list[Post]:
        return self.engines + self.workers

    def man(self, *, engines: int, workers: int) -> None:
        """Fill these posts, unless they were before."""
        if self.posts:
            return
        self.engines = [
            Post(f"engine-{number}", self.platform.engine()) for number in range(engines)
        ]
        self.workers = [
            Post(f"worker-{number}", self.platform.worker(f"worker-{number}"))
            for number in range(workers)
        ]

    def keep(self) -> None:
        """Fill the posts of the dead; let go on who has stalled for long enough."""
        for post in self.posts:
            if post.stalled_until and time.monotonic() > post.stalled_until:
                post.stalled_until = 0.0
                post.process.send_signal(signal.SIGCONT)
            if post.process.poll() is not None:
                post.stalled_until = 0.0
                post.process = self._successor(post)
            elif not post.stalled_until and _stands_still(post.process.pid):
                # It hit an armed place.
                post.stalled_until = time.monotonic() + STALL_S

    def _successor(self, post: Post) -> subprocess.Popen[bytes]:
        self.successors += 1
        if post in self.engines:
            return self.platform.engine()
        # Under its old name it frees what it held at once; under another, silence has to tell.
        if self.dice.random() < 0.5:
            post.name = f"{post.name.partition('.')[0]}.{self.successors}"
        return self.platform.worker(post.name)

    def kill(self, post: Post) -> None:
        kill(post.process, signal.SIGKILL)

    def stall(self, post: Post) -> None:
        """Stop a process until after its lease; ``keep`` lets it go on."""
        post.process.send_signal(signal.SIGSTOP)
        post.stalled_until = time.monotonic() + STALL_S

    def restart_postgres(self) -> None:
        """As after a power cut: nothing is shut down, and everything is recovered from the log."""
        self.servers.strike("postgres", signal.SIGQUIT)
        connection.close()

    def kill_redis(self, *, flush: bool) -> None:
        if flush:
            with redis.Redis.from_url(self.servers.redis_url) as client:
                client.flushall()
        self.servers.strike("valkey", signal.SIGKILL)

    def arm(self, place: Place, action: Action) -> None:
        new = self._failpoints / f"{place}.new"
        new.write_text(action, "ascii")
        new.rename(self._failpoints / place)

    def was_hit(self, place: Place) -> bool:
        return any(self._failpoints.glob(f"{place}.*.hit"))

    def struck(self, place: Place) -> int:
        """The process that hit an armed place."""
        (mark,) = self._failpoints.glob(f"{place}.*.hit")
        return int(mark.name.split(".")[-2])

    def words_of(self, pid: int) -> str:
        """What the process has logged, with others that had its post."""
        names = [post.name for post in self.workers if post.process.pid == pid]
        logs = [self.platform.folder / f"{name}.log" for name in names]
        return "".join(log.read_text("utf-8", "replace") for log in logs)

    def spawn(self, argv: list[str]) -> subprocess.Popen[bytes]:
        return self.platform.spawn("client", argv)

    def wake(self, process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGCONT)

    def disarm(self) -> None:
        for mark in self._failpoints.iterdir():
            mark.unlink()

    @property
    def _failpoints(self) -> Path:
        return Path(self.platform.overrides["TEST_FAILPOINTS"])

    def stop(self) -> None:
        for post in self.posts:
            if post.process.poll() is None:
                post.process.send_signal(signal.SIGCONT)
        self.platform.stop()


def _stands_still(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state == "T"


@contextmanager
def arena(folder: Path, *, seed: int) -> Iterator[Arena]:
    """Durable servers of its own with a migrated database, which this process talks to meanwhile."""
    own = servers.start(durable=True, private=True)
    failpoints = folder / "failpoints"
    failpoints.mkdir()
    try:
        with _database(own.database_url):
            platform = Platform(folder, _overrides(own, failpoints))
            built = Arena(servers=own, platform=platform, dice=random.Random(seed))
            try:
                yield built
            finally:
                built.stop()
    finally:
        own.stop()


def _overrides(own: Servers, failpoints: Path) -> dict[str, str]:
    return {
        "DJANGO_SETTINGS_MODULE": "tests.chaos.settings",
        "REDIS_URL": own.redis_url,
        "AOS_FUNCTIONS": FUNCTIONS,
        "AOS_WORKER_SLOTS": "4",
        "AOS_WORKER_TTL_SECONDS": str(WORKER_TTL_S),
        "AOS_HEARTBEAT_SECONDS": "1",
        "AOS_LEADER_TTL_SECONDS": str(LEADER_TTL_S),
        "AOS_DISPATCH_DEADLINE_SECONDS": "4",
        "TEST_FAILPOINTS": str(failpoints),
    }


@contextmanager
def _database(url: str) -> Iterator[None]:
    """Point Django's connections of this process at another server, with its tables made."""
    kept = dict(connection.settings_dict)
    environ, os.environ["DATABASE_URL"] = os.environ["DATABASE_URL"], url
    try:
        named = env.database("DATABASE_URL")
    finally:
        os.environ["DATABASE_URL"] = environ
    connection.close()
    connection.settings_dict.update(
        {key: named[key] for key in ("HOST", "PORT", "USER", "PASSWORD", "NAME")}
    )
    try:
        call_command("migrate", verbosity=0)
        yield
    finally:
        connection.close()
        connection.settings_dict.update(kept)
