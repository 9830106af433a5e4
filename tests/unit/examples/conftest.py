"""Runs example agents the way a sandbox does: a process of their own, no site-packages, two folders."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from workers.output import Transcript

EXAMPLES = Path(__file__).parents[3] / "examples"


@dataclass(frozen=True)
class Ran:
    """What one run of an agent left behind."""

    code: int
    out: Path
    stdout: str
    stderr: str
    commands: list[dict]

    def milestones(self):
        return [command for command in self.commands if command["type"] == "milestone"]

    @property
    def result(self):
        return self.commands[-1]

    def text(self, name):
        return (self.out / name).read_text("utf-8")

    def rows(self):
        """The rows of ``clean.csv`` under its header."""
        with (self.out / "clean.csv").open(encoding="utf-8", newline="") as file:
            return list(csv.reader(file))[1:]


@pytest.fixture(scope="session")
def run_agent(tmp_path_factory):
    def run(slug, task, *, files=None, environment=None, memory_mb=None, folder=None):
        folder = folder or tmp_path_factory.mktemp(slug)
        inbox, outbox = folder / "in", folder / "out"
        (inbox / "files").mkdir(parents=True, exist_ok=True)
        outbox.mkdir(exist_ok=True)
        text = task if isinstance(task, str) else json.dumps(task)
        (inbox / "input.json").write_text(text, encoding="utf-8")
        for name, content in (files or {}).items():
            (inbox / "files" / name).write_bytes(content)
        limit = f"ulimit -v {memory_mb * 1024} && " if memory_mb else ""
        ended = subprocess.run(
            ["/bin/sh", "-c", f'{limit}exec "$0" -B -S main.py', sys.executable],
            cwd=EXAMPLES / slug,
            env={"AOS_IN": str(inbox), "AOS_OUT": str(outbox)} | (environment or {}),
            capture_output=True,
            encoding="utf-8",
            timeout=60,
            check=False,
        )
        lines = ended.stdout.splitlines()
        commands = [json.loads(line[6:]) for line in lines if line.startswith("::aos ")]
        return Ran(ended.returncode, outbox, ended.stdout, ended.stderr, commands)

    return run


@pytest.fixture(scope="session")
def clean(run_agent):
    """Run csv-report on CSV text and expect it to succeed."""

    def run(text, **options):
        ran = run_agent("csv-report", {"csv": text, **options})
        assert ran.code == 0, ran.stderr
        return ran

    return run


@pytest.fixture(scope="session")
def platform_log():
    """What AOS makes of a script's output: its log lines of level WARN are commands it refused."""

    def read(ran):
        transcript = Transcript()
        entries = [*transcript.feed("stdout", ran.stdout.encode()), *transcript.close()]
        return [entry.payload for entry in entries]

    return read


@pytest.fixture(scope="session")
def csv_report():
    """The agent's modules, for properties that need hundreds of runs."""
    folder = str(EXAMPLES / "csv-report")
    before = set(sys.modules)
    sys.path.insert(0, folder)
    try:
        import main  # a script: it has no other name

        return main
    finally:
        sys.path.remove(folder)
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(folder):
                del sys.modules[name]
