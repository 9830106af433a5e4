"""The servers the suite itself runs on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
import redis

from launcher import environment, processes
from tests.support import servers

pytestmark = [pytest.mark.slow, pytest.mark.processes]
PROJECT = Path(__file__).parents[2]


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)


def test_they_are_real_hasty_and_gone_afterwards(bare):
    started = servers.start()
    folder = started.folder
    assert folder is not None
    with psycopg.connect(started.database_url, autocommit=True) as connection:
        assert connection.execute("SHOW fsync").fetchone() == ("off",)
        connection.execute("CREATE DATABASE test_mine")
    with redis.Redis.from_url(started.redis_url) as client:
        assert client.ping()

    started.stop()
    started.stop()

    assert not folder.exists()
    assert not [p for p in processes.everyone() if processes.works_in(p, folder)]


def test_they_are_durable_when_asked(bare):
    started = servers.start(durable=True)

    with psycopg.connect(started.database_url) as connection:
        assert connection.execute("SHOW fsync").fetchone() == ("on",)
    started.stop()


def test_given_servers_are_used_and_left_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql://me@db/mine")
    monkeypatch.setenv("REDIS_URL", "redis://cache")

    started = servers.start()

    assert (started.database_url, started.redis_url) == ("postgresql://me@db/mine", "redis://cache")
    assert started.folder is None
    started.stop()


def test_they_end_with_a_session_that_is_killed_and_the_next_one_cleans_up(bare):
    text = (
        "import os; from tests.support import servers; started = servers.start();"
        "print(started.folder, flush=True); os.kill(os.getpid(), 9)"
    )
    env = {**environment.ambient(), "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        [sys.executable, "-c", text],
        env=env,
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    folder = Path(done.stdout.strip())
    assert folder.is_dir()

    servers.start().stop()

    assert not folder.exists()
    assert not [p for p in processes.everyone() if processes.works_in(p, folder)]


AS_NOBODY = """
import os
from tests.support import servers
servers.start().stop()  # loads all that is needed, while root's own Python can still be read
os.setgroups([]), os.setgid(65534), os.setuid(65534)
started = servers.start()
print(started.database_url)
started.stop()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_an_ordinary_user_can_start_them_too(bare):
    words = ["test", "-r", str(PROJECT / "launcher/home.py")]
    if subprocess.run(words, user=65534, check=False, cwd="/").returncode != 0:
        pytest.skip("this clone lies in a folder only root may enter")

    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY],
        env={**environment.ambient(), "PYTHONPATH": str(PROJECT)},
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("postgresql://aos:")
