"""The measurement of bulk submissions, as small as it gets."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support.servers import PROJECT


@pytest.mark.slow
@pytest.mark.processes
def test_a_quick_measurement_times_every_way_of_writing(tmp_path):
    path = tmp_path / "figures.json"

    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bulk", "--quick", "--json", path],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    [sheet] = json.loads(path.read_text("utf-8"))["sheets"]
    assert set(sheet["systems"]) == {
        "COPY of the same rows", "the insert alone", "the whole call", "the request", "single calls",
    }  # fmt: skip
    ratios = {name: way["p50"]["ratio"] for name, way in sheet["systems"].items()}
    # However busy the machine: one by one is far dearer than together.
    assert ratios["single calls"] > 3 * ratios["the whole call"]
