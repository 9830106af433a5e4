"""What a script finds in its sandbox."""

from __future__ import annotations

from types import SimpleNamespace

from workers import workspace


def test_input_files_are_read_one_at_a_time(monkeypatch):
    read = []
    monkeypatch.setattr(
        workspace.blobs, "read", lambda sha256: read.append(sha256) or sha256.encode()
    )
    files = [{"name": f"{name}.csv", "sha256": name} for name in ("one", "two")]
    started = SimpleNamespace(
        agent_spec={"files": {"main.py": "pass"}}, spec={"files": files, "input": {"ä": 1}}
    )
    found = []

    for path, data in workspace.files_for(started):
        found.append((path, data, tuple(read)))

    assert found == [
        ("agent/main.py", b"pass", ()),
        ("in/files/one.csv", b"one", ("one",)),
        ("in/files/two.csv", b"two", ("one", "two")),
        ("in/input.json", '{"ä": 1}'.encode(), ("one", "two")),
    ]
