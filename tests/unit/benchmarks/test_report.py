from __future__ import annotations

import json

from benchmarks import report
from benchmarks.report import Sheet


def _sheet() -> Sheet:
    sheet = Sheet(title="Speed", baseline="peer", plain=frozenset({"own"}))
    for theirs, ours in ((10, 30), (20, 40), (10, 20)):
        sheet.add("peer", per_second=theirs)
        sheet.add("aos", per_second=ours, own=1)
    return sheet


def test_a_cell_tells_median_range_and_ratio():
    lines = _sheet().as_text().splitlines()

    assert lines[0] == "### Speed"
    assert lines[2].split("|")[2].strip() == "per second"
    assert lines[4].split("|")[2].strip() == "10.0 (10.0-20.0)"
    assert lines[5].split("|")[2].strip() == "30.0 (20.0-40.0) x2.00"


def test_a_metric_that_the_peer_does_not_have_has_no_ratio():
    assert _sheet().ratio("aos", "own") is None
    assert _sheet().ratio("peer", "per_second") is None


def test_the_json_holds_every_round(tmp_path, capsys):
    path = tmp_path / "figures.json"

    report.publish([_sheet()], began={"cores": 2}, path=path)

    (sheet,) = json.loads(path.read_text("utf-8"))["sheets"]
    assert sheet["systems"]["aos"]["per_second"] == {
        "rounds": [30, 40, 20],
        "median": 30,
        "ratio": 2.0,
    }
    assert "cores: 2" in capsys.readouterr().out


def test_quick_means_one_round():
    assert report.options("", ["--quick"]).rounds == 1
    assert report.options("", []).rounds == 3
