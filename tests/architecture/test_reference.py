"""The reference pages of the API say what the code says."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from django.urls import URLPattern, get_resolver

from apps.agents.services.registry import SCRIPT_SPEC
from apps.core.errors import AosError
from apps.core.rest.exceptions import _CODES
from apps.identity.matrix import MATRIX
from apps.runs.api.serializers import RetrySerializer, RunSerializer, SubmissionRequestSerializer

ROOT = Path(__file__).parents[2]
API = (ROOT / "docs" / "reference" / "api.md").read_text("utf-8")
ERRORS = (ROOT / "docs" / "reference" / "errors.md").read_text("utf-8")


def section(page: str, title: str) -> list[list[str]]:
    """The cells of the table under a heading, without its head."""
    text = page.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip(" `") for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def leaves(patterns, prefix="") -> Iterator[tuple[str, type]]:
    for pattern in patterns:
        route = prefix + str(pattern.pattern)
        if isinstance(pattern, URLPattern):
            yield route, getattr(pattern.callback, "cls", None)
        else:
            yield from leaves(pattern.url_patterns, route)


def decided() -> dict[str, tuple[str, str]]:
    """Each operation with its least role and its scope."""
    found = {}
    for route, cls in leaves(get_resolver().url_patterns):
        for method, action in getattr(cls, "actions", {}).items():
            if route.startswith("api/"):
                path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", route)
                rule = MATRIX[action]
                found[f"{method.upper()} /{path}"] = (str(rule.role), rule.scope)
    return found


def test_every_operation_is_told_with_its_role_and_scope():
    told = {cells[0]: (cells[1], cells[2]) for cells in section(API, "Operations")}

    for path in ("/api/me", "/api/rbac/roles", "/api/rbac/check"):
        assert told.pop(f"GET {path}") == ("anybody signed in", "any")
    assert told == decided()


@pytest.mark.parametrize(
    ("title", "fields"),
    [
        ("The task", SubmissionRequestSerializer().fields),
        ("The run", RunSerializer().fields),
        ("Agent versions", SCRIPT_SPEC["properties"]),
    ],
)
def test_every_field_is_told(title, fields):
    assert {cells[0] for cells in section(API, title)} == set(fields)


def test_every_word_of_a_retry_policy_is_told():
    (row,) = [cells for cells in section(API, "The task") if cells[0] == "retry"]

    assert set(re.findall(r"`?(\w+)`?(?:,|$)", row[1].partition(": ")[2])) >= {
        name for name in RetrySerializer().fields if name != "give_up_on"
    }
    assert "give_up_on" in row[1]


def test_every_spec_of_a_sandbox_is_told():
    (row,) = [cells for cells in section(API, "Agent versions") if cells[0] == "sandbox"]

    for name in SCRIPT_SPEC["properties"]["sandbox"]["properties"]:
        assert name in row[1]


def kinds(base: type[AosError] = AosError) -> Iterator[type[AosError]]:
    yield base
    for kind in base.__subclasses__():
        yield from kinds(kind)


def sources() -> Iterator[Path]:
    for package in ("apps", "workers"):
        for path in (ROOT / package).rglob("*.py"):
            if "migrations" not in path.parts:
                yield path


@pytest.fixture(scope="module")
def errors() -> set[type[AosError]]:
    """Every error class there is, wherever it is defined."""
    for path in sources():
        if "AosError" in path.read_text("utf-8") or path.name == "errors.py":
            import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    return {kind for kind in kinds() if kind.__module__.startswith(("apps.", "workers."))}


def failures() -> dict[str, bool]:
    """What code writes into a run's error without an error class: code and retryable."""
    found = {}
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Failure":
                words = {word.arg: word.value for word in node.keywords}
                if isinstance(words["code"], ast.Constant):
                    again = words.get("retryable", ast.Constant(False))
                    found[words["code"].value] = ast.literal_eval(again)
    return found


def told_of_the_api() -> dict[str, tuple[int, str]]:
    return {cells[0]: (int(cells[1]), cells[2]) for cells in section(ERRORS, "Of the API")}


def told_of_runs() -> dict[str, str]:
    return {cells[0]: cells[1] for cells in section(ERRORS, "Of runs")}


def told_between() -> set[str]:
    return {cells[0] for cells in section(ERRORS, "Between the parts")}


def yes(again: bool) -> str:
    return "yes" if again else "no"


def test_every_error_of_the_code_is_told_truly(errors):
    api, runs, between = told_of_the_api(), told_of_runs(), told_between()

    for kind in errors:
        assert kind.code in api or kind.code in runs or kind.code in between, kind
        if kind.code in api:
            assert api[kind.code] == (kind.status, yes(kind.retryable)), kind
        if kind.code in runs and kind.code != "sandbox_error":
            assert runs[kind.code] == yes(kind.retryable), kind


def test_every_failure_of_a_run_is_told_truly():
    runs = told_of_runs()

    assert {code: runs.get(code) for code in failures()} == {
        code: yes(again) for code, again in failures().items()
    }


def test_every_answer_of_the_framework_is_told():
    told = {(code, status) for code, (status, _) in told_of_the_api().items()}

    assert {(code, int(status)) for status, code in _CODES.items()} <= told


def test_no_error_is_told_that_does_not_exist(errors):
    known = {kind.code for kind in errors} | set(failures()) | set(_CODES.values())

    assert {*told_of_the_api(), *told_of_runs(), *told_between()} - known == set()
