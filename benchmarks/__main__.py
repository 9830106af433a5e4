"""All measurements, one after the other: ``python -m benchmarks``."""

from __future__ import annotations

import argparse
from typing import Final

from benchmarks import bulk, history, idle, limits, lists, queue, report, sandbox
from benchmarks.report import Sheet

_PARTS: Final = (queue, history, sandbox, idle, limits, lists, bulk)


def sheets(options: argparse.Namespace) -> list[Sheet]:
    return [sheet for part in _PARTS for sheet in part.sheets(options)]


if __name__ == "__main__":
    report.measure(__doc__, sheets)
