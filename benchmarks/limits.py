"""What the rate limits cost: ``python -m benchmarks.limits``.

Two web processes side by side, one with every limit on (far above what is asked here) and one with
all of them off, are asked the same in turn over connections that stay open.
"""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.request
from collections.abc import Callable
from typing import Any, Final

from benchmarks import report
from benchmarks.report import Sheet
from benchmarks.stage import Stage

OFF: Final = "limits off"
ON: Final = "limits on"
_NAMES: Final = (
    *("ANONYMOUS", "SIGN_IN", "READ", "WRITE", "SUBMIT", "EXPORT", "STREAM"),
    *("ORGANIZATION", "SUBMIT_ORGANIZATION"),
)
_SCENE: Final = """
import django, os
django.setup()
from tests import factories
print(factories.make_token(factories.make_cast().vera))
"""


def sheets(options: Any) -> list[Sheet]:
    sheet = Sheet(
        title="One request with the rate limits (milliseconds)",
        baseline=OFF,
        notes=(
            "GET /api/me with a token, one after the other: two buckets in one round trip.",
            "Both processes are asked in turn, request by request.",
        ),
    )
    with Stage() as stage:
        stage.migrate()
        token = stage.run("-c", _SCENE, env=stage.env | {"AOS_LOG_LEVEL": "ERROR"}).split()[-1]
        lines = {system: _web(stage, system, token) for system in (OFF, ON)}
        for _ in report.rounds("limits", options.rounds):
            _measure(lines, sheet, count=50 if options.quick else 1_000)
    return [sheet]


def _web(stage: Stage, system: str, token: str) -> Callable[[], float]:
    port = stage.fresh_port("AOS_PORT")
    rate = "off" if system == OFF else "1000000/m"
    limits = {f"AOS_LIMIT_{name}": rate for name in _NAMES}
    stage.start(system, stage.procfile("web"), env=stage.env | limits)
    stage.wait_for(system, lambda: _answers(port), seconds=60)
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {"Authorization": f"Bearer {token}"}

    def ask() -> float:
        began = time.perf_counter()
        line.request("GET", "/api/me", headers=headers)
        answer = line.getresponse()
        body = json.load(answer)
        took = time.perf_counter() - began
        if answer.status != http.HTTPStatus.OK or (system == ON) != ("RateLimit" in answer.headers):
            raise RuntimeError(f"HTTP {answer.status}: {body}")
        return took * 1000

    return ask


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2):
            return True
    except OSError:
        return False


def _measure(lines: dict[str, Callable[[], float]], sheet: Sheet, *, count: int) -> None:
    taken: dict[str, list[float]] = {system: [] for system in lines}
    for number in range(count + 10):
        for system, ask in lines.items():
            took = ask()
            if number >= 10:
                taken[system].append(took)
    sheet.add_times(taken)


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "aos_project.settings.dev")  # noqa: TID251
    report.measure(__doc__, sheets)


if __name__ == "__main__":
    main()
