"""The queue measurement itself, as small as it gets: does every part of it run?"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support.servers import PROJECT

pytestmark = [pytest.mark.slow, pytest.mark.processes]


def test_a_quick_measurement_compares_us_with_celery(tmp_path):
    path = tmp_path / "figures.json"

    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.queue", "--quick", "--json", path],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    latency, drain, stream, cost = json.loads(path.read_text("utf-8"))["sheets"]
    assert {"celery late", "aos", "aos over HTTP"} <= latency["systems"].keys()
    assert latency["systems"]["aos"]["p50"]["ratio"] > 0
    assert drain["systems"]["aos, one run a message"]["drain"]["median"] > 0
    assert drain["systems"]["procrastinate"]["drain"]["ratio"] > 0
    assert stream["systems"]["aos"]["end_to_end"]["median"] > 0
    assert cost["systems"]["aos"]["engine"]["median"] >= 0
    assert "| aos " in done.stdout
