"""A stand-in for the engine and a worker: takes runs through their life with the real services.

For tests of pages and sockets, which need runs in every state and no sandbox.
"""

from __future__ import annotations

from collections.abc import Sequence

from django.db import transaction

from apps.core import blobs
from apps.events.services import relay
from apps.runs.models import Run, RunLease
from apps.runs.services import dispatch, leadership, leases
from apps.runs.types import ArtifactData, Entry, EventKind, Failure, Started
from tests.factories import make_worker


class StandIn:
    """Holds one run at a time, like a worker's thread."""

    def __init__(self, run: Run, *, isolation: str = "docker") -> None:
        seat = leadership.take("stand-in")
        assert seat is not None
        worker = make_worker()
        # Claims every run that waits: another stand-in finds the lease of its own.
        dispatch.claim(seat, slots=50)
        token = RunLease.objects.get(run=run).token
        started = leases.start(run_id=run.pk, token=token, worker=worker)
        assert started is not None
        self.started: Started = started
        self._said = started.last_event_seq
        leases.note_isolation(started, isolation)
        publish()

    def say(self, *entries: Entry) -> None:
        self._said = leases.append(self.started, entries, after=self._said)
        publish()

    def log(self, text: str, *, level: str = "info", source: str = "stdout") -> None:
        payload = {"level": level, "source": source, "text": text}
        self.say(Entry(kind=EventKind.LOG, payload=payload))

    def milestone(self, title: str, progress: float | None = None, **facts: object) -> None:
        payload = {"title": title, "progress": progress, "facts": facts}
        self.say(Entry(kind=EventKind.MESSAGE, payload=payload))

    def plan(self, *items: tuple[str, str]) -> None:
        listed = [{"title": title, "state": state} for title, state in items]
        self.say(Entry(kind=EventKind.TODO, payload={"items": listed}))

    def succeed(
        self, summary: str = "Done.", *, artifacts: Sequence[ArtifactData] = (), **facts: object
    ) -> None:
        leases.succeed(
            self.started, result={"summary": summary, "facts": facts}, artifacts=artifacts
        )
        publish()

    def fail(self, code: str, detail: str, *, retryable: bool = False) -> None:
        leases.fail(self.started, Failure(code=code, detail=detail, retryable=retryable))
        publish()

    def confirm_cancelled(self) -> None:
        leases.confirm_cancelled(self.started)
        publish()


def publish() -> None:
    """Do the relay's work: bring what is in the outbox to the projects' logs."""
    with transaction.atomic():
        relay.move()


def artifact(name: str, content: bytes, media_type: str) -> ArtifactData:
    blob = blobs.put([content], limit=10_000_000)
    return ArtifactData(name=name, sha256=blob.sha256, size=blob.size, media_type=media_type)
