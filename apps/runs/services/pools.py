"""Which workers may take a run that requires something of its worker, and how much room they have.

Workers with the same labels and version are a pool. What a run requires may be met by several pools, and
one pool may meet several requirements; a ``Pools`` is used up as a round of the leader goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from django.conf import settings

from apps.core import sql
from apps.core.labels import satisfies, spelled
from apps.core.postgres import direct
from apps.runs.models import Run
from apps.runs.services.leadership import SQL


@dataclass(slots=True, kw_only=True)
class Pool:
    """Living workers that are alike, and how many more messages they can take."""

    pool: str
    labels: Mapping[str, str]
    free: int


class Pools:
    """All pools in one round."""

    def __init__(self, pools: Sequence[Pool]) -> None:
        # A run goes where the least besides what it requires is used up.
        self._pools = sorted(pools, key=lambda pool: len(pool.labels))

    @classmethod
    def read(cls) -> Self:
        return cls([Pool(**row) for row in direct.fetch(SQL["pools"], _params())])

    def free(self, requires: Mapping[str, str]) -> int:
        """How many messages of runs that require this can be taken up now."""
        return sum(pool.free for pool in self._pools if satisfies(pool.labels, requires))

    def take(self, requires: Mapping[str, str]) -> str | None:
        """Use up a slot for a message of such runs; the pool that has it, none where all are full."""
        for pool in self._pools:
            if pool.free and satisfies(pool.labels, requires):
                pool.free -= 1
                return pool.pool
        return None


def _params() -> dict[str, Any]:
    return {"ttl_s": settings.AOS_WORKER_TTL.total_seconds()}


def why_unserved(run: Run) -> str:
    """Why a queued run finds no worker with what it requires, as a sentence; empty when one has room."""
    if not run.requires:
        return ""
    pools = [Pool(**row) for row in sql.fetch(SQL["pools"], _params())]
    able = [pool for pool in pools if satisfies(pool.labels, run.requires)]
    wanted = _and(run.requires)
    if not able:
        return _nobody(run.requires, pools)
    if not any(pool.free for pool in able):
        return f"All slots of the workers with {wanted} are taken."
    return ""


def _nobody(requires: Mapping[str, str], pools: Sequence[Pool]) -> str:
    lacking = {
        name: word
        for name, word in requires.items()
        if not any(satisfies(pool.labels, {name: word}) for pool in pools)
    }
    if lacking:
        return f"No worker has {_and(lacking)}, which it requires."
    return f"No worker has {_and(requires)} together, which it requires."


def _and(labels: Mapping[str, str]) -> str:
    return " and ".join(spelled(labels).split(","))
