"""What workers say of the sandboxes on their hosts, for whoever asks from afar.

The web process has no Docker socket and must not get one: workers look, and leave word in Redis for a
while. Nothing depends on it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from django.conf import settings

from apps.core import doorbell

# Three times as long as workers take between two reports.
_KEPT_S: Final = 90


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """Something that is wrong with sandboxes on a worker's host, and the cure."""

    is_error: bool
    message: str
    hint: str


def leave(worker: str, remarks: Sequence[Remark]) -> None:
    """Leave word for a while; no remark at all says that all is well. Raises ``RedisError``."""
    with doorbell.connect() as client:
        client.set(_key(worker), json.dumps([asdict(remark) for remark in remarks]), ex=_KEPT_S)


def read(workers: Iterable[str]) -> dict[str, list[Remark]]:
    """What each of these workers said last, of those that said anything. Raises ``RedisError``."""
    names = list(workers)
    if not names:
        return {}
    with doorbell.connect() as client:
        said: list[bytes | None] = client.mget([_key(name) for name in names])
    return {
        name: [Remark(**remark) for remark in json.loads(text)]
        for name, text in zip(names, said, strict=True)
        if text is not None
    }


def _key(worker: str) -> str:
    return f"{settings.AOS_INSTANCE}:sandboxes:{worker}"
