"""What every place for checkpoints can do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A signed checkpoint as it is kept everywhere: its number and one line of JSON."""

    number: int
    line: str


class CheckpointSink(Protocol):
    """Keeps checkpoints under their numbers. Putting one again changes nothing; none is replaced."""

    @property
    def name(self) -> str:
        """What logs and reports call it: tells the place, and no secret."""

    @property
    def readable(self) -> bool:
        """Whether ``read`` works, so that a verification can compare."""

    @property
    def near(self) -> bool:
        """Whether reading it waits for no other host: then a web request may."""

    def put(self, checkpoint: Checkpoint) -> None:
        """Keep it. Raises ``SinkAway`` (nothing is known to be kept) or ``SinkConflict``."""

    def read(self) -> Iterator[str]:
        """All lines in the order of their numbers. Raises ``SinkAway``."""
