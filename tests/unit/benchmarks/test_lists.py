"""The measurement of lists, as small as it gets, and in full what it has to show."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support.servers import PROJECT


def measured(path, *words):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.lists", "--json", path, *words],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    [sheet] = json.loads(path.read_text("utf-8"))["sheets"]
    return sheet["systems"]


@pytest.mark.slow
@pytest.mark.processes
def test_a_quick_measurement_times_every_reader(tmp_path):
    systems = measured(tmp_path / "figures.json", "--quick")

    assert systems.keys() > {"no filter", "100 projects", "the oldest run", "nothing"}
    assert all(reader["p95"]["median"] > 0 for reader in systems.values())


@pytest.mark.proof
def test_permissions_make_a_list_of_200_000_rows_at_most_three_times_as_slow(tmp_path):
    systems = measured(tmp_path / "figures.json")
    ratios = {name: reader["p95"]["ratio"] for name, reader in systems.items()}

    assert {name: ratio for name, ratio in ratios.items() if ratio and ratio > 3} == {}
