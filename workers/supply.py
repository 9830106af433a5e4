"""Where attempts get their sandboxes: one that waits warm where it fits, a fresh one otherwise.

A warm sandbox is held by a line to its supervisor, so it belongs to the process that made it. It is
claimed in the database, by one statement, for one attempt, and destroyed after it like any other.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from django.db import Error as DatabaseError
from django.db import connection
from opentelemetry import trace

from apps.core import blobs, clock, tracing
from apps.core.errors import AosError
from apps.sandboxes.models import Sandbox as Row
from apps.sandboxes.services import tracking
from apps.sandboxes.types import EgressMode, SandboxState
from workers.held import Held, Patience, Resting
from workers.sandbox.base import Sandbox, SandboxDriver, SandboxSpec
from workers.sandbox.errors import SandboxError, SandboxKilled
from workers.sandbox.profiles import Profile

logger = logging.getLogger(__name__)

#: A warm sandbox is replaced when it is this old, and ends by itself when it is that old.
FRESH: Final = timedelta(minutes=30)
LIFETIME: Final = timedelta(hours=2)

_PASS_EVERY_S: Final = 2.0
#: Claims of this many seconds are what the next ones are expected to be.
_DEMAND_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """Sandboxes made alike: a profile as it is now, with the image that is there now."""

    spec: SandboxSpec
    image: str
    least: int
    most: int


def mould(spec: SandboxSpec) -> str:
    """Equal for specs that one warm sandbox can serve: all but how long it lives and what it reaches."""
    told = asdict(spec)
    del told["lifetime_s"], told["egress"]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


class Supply:
    """The sandboxes of one worker process. Safe to use from many threads."""

    def __init__(
        self,
        driver: SandboxDriver,
        *,
        holder: tracking.Holder,
        profiles: Callable[[], Mapping[str, Profile]],
    ) -> None:
        self.driver = driver
        self._holder = holder
        self._profiles = profiles
        self._waiting: dict[UUID, Sandbox] = {}
        self._demand: deque[tuple[float, str]] = deque(maxlen=1000)
        self._wanted = threading.Event()
        self._closing = threading.Event()
        self._passing = threading.Lock()
        self._resting = Resting()
        self._keeper: threading.Thread | None = None

    @contextmanager
    def hold(
        self, spec: SandboxSpec, use: tracking.Use, *, patience: Patience | None = None
    ) -> Iterator[Held]:
        """A sandbox for one attempt that is used now and then, and stands still in between.

        When the block ends nothing is left of it but the workspace, if that was put away.
        """
        held = Held(lambda: self.take(spec, use), patience=patience or Patience.from_settings())
        with self._resting.watching(held), held:
            yield held

    def take(self, spec: SandboxSpec, use: tracking.Use) -> tuple[UUID, Sandbox]:
        """A sandbox for one attempt, with the workspace that was put away of its run, if one was.

        The caller destroys it and says so. Raises ``SandboxError``, and what the store raises.
        """
        with tracing.TRACER.start_as_current_span("sandbox start") as span:
            pk, sandbox = self._warm(spec, use) or self._fresh(spec, use)
            span.set_attribute("aos.sandbox.id", str(pk))
            try:
                self._restore(pk, sandbox, use)
            except BaseException:
                sandbox.destroy()
                tracking.gone(pk)
                raise
        return pk, sandbox

    @staticmethod
    def _restore(pk: UUID, sandbox: Sandbox, use: tracking.Use) -> None:
        kept = tracking.kept_of(use)
        if kept is None:
            return
        with (
            tracing.TRACER.start_as_current_span("sandbox restore"),
            blobs.open_blob(kept.sha256) as archive,
        ):
            sandbox.restore(archive)
        tracking.restored(pk, kept=kept)

    # --- from the shelf, or fresh ---

    def _warm(self, spec: SandboxSpec, use: tracking.Use) -> tuple[UUID, Sandbox] | None:
        if not self.driver.supports_waiting or not _can_wait(spec):
            return None
        kind = mould(spec)
        self._demand.append((time.monotonic(), kind))
        try:
            while pk := tracking.claim(use, mould=kind, incarnation=self._holder.incarnation):
                if sandbox := self._living(pk):
                    trace.get_current_span().set_attribute("aos.sandbox.warm", True)  # noqa: FBT003
                    return pk, sandbox
        finally:
            self._wanted.set()
        return None

    def _living(self, pk: UUID) -> Sandbox | None:
        """A claimed sandbox that answers. One that died while it waited is written off."""
        sandbox = self._waiting.pop(pk)
        try:
            sandbox.ping()
        except SandboxError as error:
            logger.warning("warm sandbox was dead", extra={"sandbox": pk, "error": str(error)})
            sandbox.destroy()
            tracking.failed(pk)
            return None
        return sandbox

    def _fresh(self, spec: SandboxSpec, use: tracking.Use) -> tuple[UUID, Sandbox]:
        row = tracking.opening(self._make(spec), self._holder, use)
        sandbox = self._started(row, spec)
        self._require_row(row, sandbox)
        return row.pk, sandbox

    def _started(self, row: Row, spec: SandboxSpec) -> Sandbox:
        try:
            return self.driver.start(spec, sandbox_id=str(row.pk))
        except BaseException:
            tracking.gone(row.pk)
            raise

    def _require_row(self, row: Row, sandbox: Sandbox) -> None:
        """Say what was made. Somebody may have thought us dead meanwhile and written it off."""
        if not tracking.opened(row, container_id=sandbox.handle, image=sandbox.image):
            sandbox.destroy()
            raise SandboxKilled

    def _make(self, spec: SandboxSpec, *, kind: str = "") -> tracking.Make:
        return tracking.Make(
            driver=self.driver.name,
            isolation=self.driver.isolation,
            image=spec.image,
            profile=spec.profile,
            mould=kind,
        )

    # --- keeping the shelf ---

    def start(self) -> None:
        """Begin to keep sandboxes warm, where the driver can."""
        if self.driver.supports_waiting:
            self._keeper = threading.Thread(target=self._keep_for_ever, name="supply", daemon=True)
            self._keeper.start()

    def stop(self) -> None:
        """Make no more. What waits can still be claimed."""
        self._closing.set()
        self._wanted.set()

    def close(self) -> None:
        """Destroy what waits. Called once, when nothing is executed here any more."""
        self.stop()
        self._resting.close()
        if self._keeper:
            self._keeper.join()
        with self._passing:
            self._let_go(tracking.retire(incarnation=self._holder.incarnation, keep=()))
            self._let_go(list(self._waiting))

    def _keep_for_ever(self) -> None:
        while not self._closing.is_set():
            try:
                self.keep()
            except (AosError, DatabaseError) as error:
                connection.close()
                logger.warning("warm sandboxes will be tried again", extra={"error": str(error)})
            self._wanted.wait(_PASS_EVERY_S)
            self._wanted.clear()
        connection.close()

    def keep(self) -> None:
        """One pass: take away what no longer fits, then make what is missing."""
        with self._passing:
            kinds = self._kinds()
            kept = self._fitting(kinds)
            fitting = {pk for pks in kept.values() for pk in pks}
            self._let_go(tracking.retire(incarnation=self._holder.incarnation, keep=fitting))
            self._let_go(tracking.written_off(list(self._waiting)))
            for kind, wanted in kinds.items():
                for _ in range(self._target(kind, wanted) - len(kept[kind])):
                    if not self._closing.is_set():
                        self._put_by(kind, wanted.spec)

    def _put_by(self, kind: str, spec: SandboxSpec) -> None:
        row = tracking.opening(self._make(spec, kind=kind), self._holder, None)
        # On the shelf before its row says so: from that moment on it may be claimed.
        self._waiting[row.pk] = sandbox = self._started(row, spec)
        try:
            self._require_row(row, sandbox)
        except SandboxKilled:
            del self._waiting[row.pk]
            raise

    def _kinds(self) -> dict[str, _Kind]:
        found = {}
        for profile in self._profiles().values():
            if profile.warm.most:
                limits = {"lifetime_s": int(LIFETIME.total_seconds())}
                spec = profile.spec(limits, most_egress=EgressMode.NONE)
                found[mould(spec)] = _Kind(
                    spec=spec,
                    image=self.driver.exact_image(spec.image),
                    least=profile.warm.least,
                    most=profile.warm.most,
                )
        return found

    def _fitting(self, kinds: Mapping[str, _Kind]) -> dict[str, list[UUID]]:
        """Which of those that wait are to be kept: young, of a kind and image wanted now, not too many."""
        waiting = Row.objects.filter(
            incarnation=self._holder.incarnation,
            state=SandboxState.WARM,
            created_at__gt=clock.now() - FRESH,
        ).order_by("-id")
        kept: dict[str, list[UUID]] = {kind: [] for kind in kinds}
        for row in waiting:
            wanted = kinds.get(row.mould)
            if wanted and row.image == wanted.image and row.pk in self._waiting:
                kept[row.mould].append(row.pk)
        return {kind: pks[: kinds[kind].most] for kind, pks in kept.items()}

    def _target(self, kind: str, wanted: _Kind) -> int:
        since = time.monotonic() - _DEMAND_S
        lately = sum(1 for at, asked in tuple(self._demand) if asked == kind and at > since)
        return max(wanted.least, min(wanted.most, lately))

    def _let_go(self, pks: list[UUID]) -> None:
        for pk in pks:
            if sandbox := self._waiting.pop(pk, None):
                sandbox.destroy()
            tracking.gone(pk)


def _can_wait(spec: SandboxSpec) -> bool:
    """Whether a warm sandbox can serve this: it has no way out, and its own end must be far enough."""
    spare = LIFETIME - FRESH
    return spec.egress.mode == EgressMode.NONE and spec.lifetime_s <= spare.total_seconds()
