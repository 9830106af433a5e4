"""The measurement behind many ended runs, as small as it gets: does every part of it run?"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support.servers import PROJECT

pytestmark = [pytest.mark.slow, pytest.mark.processes]


def test_a_quick_measurement_compares_empty_tables_with_full_ones(tmp_path):
    path = tmp_path / "figures.json"

    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.history", "--quick", "--json", path],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    drain, cost = json.loads(path.read_text("utf-8"))["sheets"]
    assert drain["systems"]["empty"]["drain"]["median"] > 0
    assert drain["systems"]["1,000 ended runs"]["drain"]["ratio"] > 0
    assert cost["systems"]["1,000 ended runs"]["all"]["ratio"] > 0
