"""Queue: how soon a submitted job starts, and how many jobs a second one worker gets done.

``python -m benchmarks.queue``. Ours, Celery and Procrastinate take turns on the same servers. A job does
nothing on either side, so that only the way to it is measured.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Final

from benchmarks import report, stamps, stats
from benchmarks.report import Sheet
from benchmarks.stage import Stage
from benchmarks.systems import Aos, Celery, Procrastinate, Submitted, System

RATE: Final = 20.0
# Acknowledged after the work: the safest that Celery on Redis offers by itself.
BASELINE: Final = "celery late"
# So many runs a call of the bulk API.
BULK: Final = 500
_DURABLE: Final = (
    "Plain celery keeps no durable record of a job; it loses it with Redis. All emit task events but "
    "procrastinate, which Flower does not know.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    seconds: float
    backlog: int
    # Celery's variants differ by a flag: one of them shows whether the measurement runs.
    all_peers: bool = True


FULL: Final = Size(seconds=20, backlog=5000)
QUICK: Final = Size(seconds=1, backlog=40, all_peers=False)


def measure(stage: Stage, *, size: Size, rounds: int) -> list[Sheet]:
    latency, drain, stream, cost = _sheets(size)
    for turn in range(1, rounds + 1):
        for system in _for_latency(stage, size):
            report.say(f"latency, round {turn} of {rounds}: {system.name}")
            _measure_latency(system, size, latency)
        for system in _for_throughput(stage, size):
            report.say(f"throughput, round {turn} of {rounds}: {system.name}")
            measure_drain(system, size.backlog, drain, cost)
            if system.streams:
                _measure_stream(system, size, stream)
    return [latency, drain, stream, cost]


def _sheets(size: Size) -> tuple[Sheet, Sheet, Sheet, Sheet]:
    return (
        Sheet(
            title=f"Submit to start, {RATE:g} jobs a second for {size.seconds:g} s (milliseconds)",
            baseline=BASELINE,
            notes=(
                "From before the submitting call until the worker begins the job's own code.",
                "call: the submitting call itself. to claim: from there until the engine has given "
                "the run to a worker. to start: from there until the job's code begins.",
                *_DURABLE,
            ),
        ),
        Sheet(
            title=f"A backlog of {size.backlog:,} jobs, drained by one worker (jobs a second)",
            baseline=BASELINE,
            notes=(
                "drain: first to last finish. submit: one caller, nobody consuming; ours in calls of "
                f"{BULK} runs, as the bulk API does, but for the scripts. Before the drain each system's "
                "tables are analyzed, as autovacuum does within a minute.",
                *_DURABLE,
            ),
        ),
        Sheet(
            title="Submitted one by one while a worker consumes (jobs a second)",
            baseline=BASELINE,
            notes=("From the first submitting call to the last finish.",),
        ),
        Sheet(
            title="CPU per job during submission and drain (milliseconds)",
            baseline=BASELINE,
            plain=frozenset({"engine"}),
            notes=("servers: PostgreSQL and Valkey with all their processes.",),
        ),
    )


def _for_latency(stage: Stage, size: Size) -> Iterator[System]:
    yield Celery("celery late", stage, kind="late")
    if size.all_peers:
        yield Celery("celery early", stage, kind="early")
        yield Celery("celery + rows", stage, kind="rows")
        yield Procrastinate("procrastinate", stage)
    yield Aos("aos", stage, tells_claim=True)
    yield Aos("aos over HTTP", stage, over_http=True, tells_claim=True)


def _for_throughput(stage: Stage, size: Size) -> Iterator[System]:
    yield Celery("celery late", stage, kind="late")
    if size.all_peers:
        yield Celery("celery early", stage, kind="early")
        yield Celery("celery late, prefork 2", stage, kind="late", pool="prefork")
        yield Celery("celery + rows", stage, kind="rows")
    yield Procrastinate("procrastinate", stage)
    yield Aos("aos", stage, bulk=BULK)
    yield Aos("aos, one run a message", stage, bulk=BULK, one_a_message=True)
    yield Aos("aos, scripts", stage, script=True)


def _measure_latency(system: System, size: Size, sheet: Sheet) -> None:
    number = int(size.seconds * RATE)
    system.begin()
    try:
        system.start_worker()
        system.warm_up()
        submitted = system.submit(number, rate=RATE)
        moments = system.await_finish(number)
    finally:
        system.end()
    starts, claims = moments[stamps.START], moments[stamps.CLAIM]
    waits = [(starts[key] - before) * 1000 for key, before, _ in submitted.jobs]
    sheet.add(
        system.name,
        p50=stats.percentile(waits, 0.50),
        p95=stats.percentile(waits, 0.95),
        p99=stats.percentile(waits, 0.99),
        call=_median_ms(after - before for _, before, after in submitted.jobs),
    )
    if claims:
        sheet.add(
            system.name,
            to_claim=_median_ms(claims[key] - after for key, _, after in submitted.jobs),
            to_start=_median_ms(starts[key] - at for key, at in claims.items()),
        )


def measure_drain(system: System, backlog: int, sheet: Sheet, cost: Sheet) -> None:
    """Submit a backlog with nobody at work, then start a worker and wait until all has ended."""
    system.begin()
    try:
        idle = system.stage.cpu_s()
        submitted = system.submit(backlog)
        accepting = _spent(idle, system.stage.cpu_s())
        system.stage.analyze()
        system.start_worker()
        system.await_first()
        begun = system.stage.cpu_s()
        ends = sorted(system.await_finish(backlog)[stamps.FINISH].values())
        draining = _spent(begun, system.stage.cpu_s())
    finally:
        system.end()
    sheet.add(system.name, drain=(len(ends) - 1) / (ends[-1] - ends[0]), submit=submitted.rate)
    cost.add(system.name, **_cost(submitted, accepting, draining))


def _measure_stream(system: System, size: Size, sheet: Sheet) -> None:
    system.begin()
    try:
        system.start_worker()
        system.warm_up()
        submitted = system.submit(size.backlog)
        ends = system.await_finish(size.backlog)[stamps.FINISH].values()
    finally:
        system.end()
    sheet.add(system.name, end_to_end=len(ends) / (max(ends) - submitted.began))


def _cost(
    submitted: Submitted, accepting: dict[str, float], draining: dict[str, float]
) -> dict[str, float]:
    each = 1000 / len(submitted.jobs)
    by_role = {
        "submitter": submitted.cpu_s,
        "servers": accepting["servers"] + draining["servers"],
        "worker": draining["worker"],
    }
    if "engine" in draining:
        by_role["engine"] = accepting["engine"] + draining["engine"]
    return {"all": sum(by_role.values()) * each} | {
        role: seconds * each for role, seconds in by_role.items()
    }


def _spent(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    return {name: after[name] - before.get(name, 0) for name in after}


def _median_ms(seconds: Iterable[float]) -> float:
    return median(seconds) * 1000


def sheets(options: argparse.Namespace) -> list[Sheet]:
    with Stage() as stage:
        stage.migrate()
        return measure(stage, size=QUICK if options.quick else FULL, rounds=options.rounds)


if __name__ == "__main__":
    report.measure(__doc__, sheets)
