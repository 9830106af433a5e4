"""The agent that docs/how-to/write-a-script-agent.md builds works as the page says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from workers.output import Transcript

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "write-a-script-agent.md"


def block(language):
    found = re.findall(
        rf"^```{language}\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    return found[0]


@pytest.fixture
def word_count(tmp_path):
    (tmp_path / "main.py").write_text(block("python"), encoding="utf-8")
    (tmp_path / "out").mkdir()

    def run(task):
        (tmp_path / "input.json").write_text(json.dumps(task), encoding="utf-8")
        return subprocess.run(
            [sys.executable, "-B", "-S", "main.py"],
            cwd=tmp_path,
            env={"AOS_IN": str(tmp_path), "AOS_OUT": str(tmp_path / "out")},
            capture_output=True,
            encoding="utf-8",
            timeout=60,
            check=False,
        )

    return run


def test_the_program_prints_what_the_page_shows(word_count, tmp_path):
    task = {"text": "to be or not to be"}
    ended = word_count(task)
    transcript = Transcript()
    list(transcript.feed("stdout", ended.stdout.encode()))

    assert ended.returncode == 0, ended.stderr
    assert json.dumps(task) in block("sh")
    assert ended.stdout == block("text")
    assert transcript.result["facts"] == {"words": 6, "distinct": 4, "most": 2}
    assert (tmp_path / "out" / "words.csv").read_text("utf-8").startswith("word,count\nto,2\n")


def test_the_program_refuses_an_empty_text_in_one_sentence(word_count):
    ended = word_count({"text": " \n"})

    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", "The text is empty.\n")


def test_the_manifest_is_complete_and_its_schema_takes_the_input():
    manifest = json.loads(block("json"))
    schema = Draft202012Validator(manifest["spec"]["input_schema"])

    assert manifest.keys() == {"slug", "title", "description", "kind", "spec"}
    assert schema.is_valid({"text": "to be"})
    assert not schema.is_valid({})
