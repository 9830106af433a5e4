"""Every folder under examples/ is an agent that the platform takes as it is."""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from apps.agents.services.registry import SCRIPT_SPEC

EXAMPLES = Path(__file__).parents[3] / "examples"
SLUGS = sorted(path.parent.name for path in EXAMPLES.glob("*/agent.json"))


def manifest(slug):
    return json.loads((EXAMPLES / slug / "agent.json").read_text("utf-8"))


def test_the_examples_are_these():
    assert SLUGS == ["csv-report", "hello", "sleeper"]


@pytest.mark.parametrize("slug", SLUGS)
def test_a_manifest_is_named_like_its_folder(slug):
    read = manifest(slug)

    assert read["slug"] == slug
    assert read["kind"] == "script"
    assert read["title"]
    assert read["description"]


@pytest.mark.parametrize("slug", SLUGS)
def test_a_manifest_lists_every_source_file(slug):
    sources = {path.name for path in (EXAMPLES / slug).glob("*.py")}

    assert set(manifest(slug)["spec"]["files"]) == sources


@pytest.mark.parametrize("slug", SLUGS)
def test_the_platform_accepts_the_spec(slug):
    spec = manifest(slug)["spec"]
    spec["files"] = {name: (EXAMPLES / slug / name).read_text("utf-8") for name in spec["files"]}

    Draft202012Validator(SCRIPT_SPEC).validate(spec)
    Draft202012Validator.check_schema(spec["input_schema"])


@pytest.mark.parametrize("slug", SLUGS)
def test_an_agent_imports_the_standard_library_and_its_own_files_only(slug):
    own = {path.stem for path in (EXAMPLES / slug).glob("*.py")}
    imported = set()
    for path in (EXAMPLES / slug).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module.partition(".")[0])

    assert imported <= own | sys.stdlib_module_names


@pytest.mark.parametrize(
    "task",
    [
        {"csv": "a\n1\n"},
        {"file": "x.csv", "title": "T", "date_columns": ["d"]},
    ],
)
def test_the_input_schema_of_csv_report_takes_a_good_input(task):
    assert Draft202012Validator(manifest("csv-report")["spec"]["input_schema"]).is_valid(task)


@pytest.mark.parametrize(
    "task",
    [{}, {"csv": "a", "file": "b"}, {"csv": 1}, {"file": ""}, {"csv": "a", "colour": "red"}],
)
def test_the_input_schema_of_csv_report_refuses_a_bad_input(task):
    assert not Draft202012Validator(manifest("csv-report")["spec"]["input_schema"]).is_valid(task)
