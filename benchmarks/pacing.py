"""The submitting half of a measurement: a process of its own, so that its CPU time is its own.

Prints one JSON line: when it began and ended, its CPU seconds, and each job's key with the moments
before and after it was handed over.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
import time
from collections.abc import Callable
from typing import Final

# The same arrivals for every system and round.
_SEED: Final = 20


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--rate", type=float, default=0, help="jobs a second; 0: without a pause")
    return parser


def run(submit: Callable[[], str], *, count: int, rate: float) -> None:
    """Hand over ``count`` jobs; ``submit`` does one and returns its key."""
    arrivals = _arrivals(count, rate)
    jobs = []
    cpu = _cpu_s()
    began = time.time()
    for offset in arrivals:
        if (pause := began + offset - time.time()) > 0:
            time.sleep(pause)
        before = time.time()
        key = submit()
        jobs.append((key, before, time.time()))
    ended = time.time()
    json.dump({"began": began, "ended": ended, "cpu_s": _cpu_s() - cpu, "jobs": jobs}, sys.stdout)


def run_in_bulk(submit: Callable[[int], list[str]], *, count: int, size: int) -> None:
    """Hand over ``count`` jobs, ``size`` a call."""
    jobs = []
    cpu = _cpu_s()
    began = time.time()
    while len(jobs) < count:
        before = time.time()
        keys = submit(min(size, count - len(jobs)))
        jobs += [(key, before, time.time()) for key in keys]
    ended = time.time()
    json.dump({"began": began, "ended": ended, "cpu_s": _cpu_s() - cpu, "jobs": jobs}, sys.stdout)


def _arrivals(count: int, rate: float) -> list[float]:
    """Evenly many in each interval, at a random moment of it.

    A fixed beat would fall in step with whatever polls at the same pace, always early or always late.
    """
    if not rate:
        return [0.0] * count
    dice = random.Random(_SEED)  # noqa: S311 - arrivals, not secrets
    return [(index + dice.random()) / rate for index in range(count)]


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
