"""The function that runs of a measurement call: it does nothing, and tells when."""

from __future__ import annotations

from benchmarks import stamps
from workers.functions import Call


def nothing(call: Call) -> None:
    stamps.note(stamps.START, call.run_id)
