from __future__ import annotations

import uuid

from benchmarks import stamps


def test_what_workers_note_is_counted_and_read_back(tmp_path, monkeypatch):
    path = tmp_path / "stamps"
    first, second = str(uuid.uuid4()), str(uuid.uuid4())

    with path.open("ab", buffering=0) as file:
        monkeypatch.setattr(stamps, "_file", file.fileno())
        stamps.note(stamps.START, first, 1_700_000_000.25)
        stamps.note(stamps.START, second)
        stamps.note(stamps.FINISH, first)
        stamps.note(stamps.START, first, 1_700_000_009.0)

    moments = stamps.read(path)
    assert stamps.count(path) == 4
    assert moments[stamps.START].keys() == {first, second}
    assert moments[stamps.START][first] == 1_700_000_000.25
    assert moments[stamps.FINISH].keys() == {first}


def test_a_file_that_is_not_there_yet_holds_nothing(tmp_path):
    assert stamps.count(tmp_path / "missing") == 0
