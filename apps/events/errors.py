from __future__ import annotations

from apps.core.errors import AosError


class SinkAway(AosError):
    """A place for audit checkpoints did not take or give one. Try again later: none is lost."""

    code = "sink_away"
    retryable = True
    template = "{sink} {reason}"


class SinkConflict(AosError):
    """The sink holds another checkpoint under this number, and keeps it: one of both is forged.

    ``held`` is the newest number it is known to hold; a checkpoint above it will be taken.
    """

    code = "sink_conflict"
    template = "{sink} holds another checkpoint {number}"

    def __init__(self, *, sink: str, number: int, held: int) -> None:
        super().__init__(sink=sink, number=number, held=held)
        self.held = held
