"""Eight processes write, relays crash and compete, and the log is complete and in order."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import contextmanager
from uuid import uuid4

import pytest
from django.conf import settings
from django.db import transaction

from apps.events.models import Event, OutboxEntry, Stream
from apps.events.services import relay
from tests.support.platform import database_url
from tests.support.servers import PROJECT

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.processes,
    pytest.mark.slow,
]

WRITERS = 8
START = "import django; django.setup(); from tests.events import writer; writer.fork({})"


class Crash(Exception):
    """The relay dies here."""


@contextmanager
def writers(count, projects):
    """Eight processes that write ``count`` events each. Yields whether they still do."""
    env = os.environ | {
        "DATABASE_URL": database_url(),
        "REDIS_URL": settings.AOS_REDIS_URL,
        "DJANGO_SETTINGS_MODULE": "aos_project.settings.test",
    }
    process = subprocess.Popen(
        [sys.executable, "-c", START.format(f"{WRITERS}, {count}, {projects}")],
        cwd=PROJECT,
        env=env,
        start_new_session=True,
    )
    try:
        yield lambda: process.poll() is None
        assert process.wait(60) == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def move_or_crash(dice):
    """Move a batch of some size; one in ten dies before or after the move. Returns whether it did."""
    fate = dice.random()
    try:
        with transaction.atomic():
            die(fate < 0.05)
            relay.move(limit=dice.choice([1, 7, 50, 500]))
            die(fate > 0.95)
    except Crash:
        return True
    return False


def die(now):
    if now:
        raise Crash


def test_ten_thousand_events_of_eight_writers_are_neither_lost_nor_doubled_nor_reordered():
    projects = [str(uuid4()) for _ in range(4)]
    dice = random.Random(1)  # repeatable, not secret
    crashes = 0

    with writers(10_000 // WRITERS, projects) as are_writing:
        while are_writing() or OutboxEntry.objects.exists():
            crashes += move_or_crash(dice)
    logs = {project: list(Event.objects.after(0, project_id=project)) for project in projects}
    everything = [event for log in logs.values() for event in log]

    assert crashes > 5
    assert len(everything) == 10_000
    assert len({(e.payload["writer"], e.payload["n"]) for e in everything}) == 10_000
    assert all(event.payload["kept"] for event in everything)
    for project, log in logs.items():
        assert [event.seq for event in log] == list(range(1, len(log) + 1))
        assert Stream.objects.get(pk=project).last_seq == len(log)
        by_writer = defaultdict(list)
        for event in log:
            by_writer[event.payload["writer"]].append(event.payload["n"])
        assert len(by_writer) == WRITERS
        assert all(written == sorted(written) for written in by_writer.values())


def test_the_same_writers_defeat_a_reader_that_takes_ids_for_a_cursor():
    """The test above has teeth: this is what the relay is there for."""
    cursor, seen = 0, 0

    with writers(250, [str(uuid4())]) as are_writing:
        more = True
        while more:
            more = are_writing()
            for entry in OutboxEntry.objects.filter(id__gt=cursor).order_by("id"):
                cursor, seen = entry.pk, seen + 1
            time.sleep(0.001)

    assert OutboxEntry.objects.count() == 250 * WRITERS
    assert seen < 250 * WRITERS
