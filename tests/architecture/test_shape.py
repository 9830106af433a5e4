"""The size of things. The limits are what the code bases we admire do without being told.

Measured in 2026 on procrastinate, Healthchecks, NetBox and structlog: functions of 7-8 lines in
the middle, 29-32 at the ninetieth percentile, 75-88 at the ninety-ninth.
"""

from __future__ import annotations

import ast
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from statistics import median, quantiles

ROOT = Path(__file__).parents[2]
PACKAGES = ("apps", "workers", "aos_project", "launcher")
LONGEST_FUNCTION = 80
LONGEST_MODULE = 700


def modules() -> Iterator[Path]:
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            if "migrations" not in path.parts:
                yield path


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions() -> Iterator[tuple[int, str]]:
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                yield lines, f"{name_of(path)}:{node.lineno} {node.name}"


def test_functions_fit_on_a_screen():
    sizes = sorted(functions())
    lengths = [lines for lines, _ in sizes]

    assert sizes[-1][0] <= LONGEST_FUNCTION, sizes[-5:]
    assert median(lengths) <= 10
    assert quantiles(lengths, n=10)[-1] <= 35


def test_modules_have_one_subject():
    sizes = sorted((len(path.read_text("utf-8").splitlines()), name_of(path)) for path in modules())

    assert sizes[-1][0] <= LONGEST_MODULE, sizes[-5:]


def test_there_is_something_to_measure():
    assert {path.relative_to(ROOT).parts[0] for path in modules()} == set(PACKAGES)


def comments(path: Path) -> Iterator[tuple[int, str]]:
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type == tokenize.COMMENT:
                yield token.start[0], token.string


def test_nothing_is_left_for_later():
    notes = [
        f"{name_of(path)}:{number}"
        for path in modules()
        for number, text in comments(path)
        if re.search(r"\b(TODO|FIXME|XXX|HACK)\b", text)
    ]

    assert notes == []


def bare_saves(path: Path) -> Iterator[str]:
    """Calls of ``save()`` that write every column, over whatever somebody else wrote meanwhile."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        if node.func.attr == "save" and not node.args and not node.keywords:
            yield f"{name_of(path)}:{node.lineno}"


def test_nothing_saves_a_whole_row():
    assert [place for path in modules() for place in bare_saves(path)] == []


def swallowers(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ExceptHandler) and all(
            isinstance(line, ast.Pass) for line in node.body
        ):
            yield f"{name_of(path)}:{node.lineno}"


def test_no_exception_is_swallowed():
    assert [place for path in modules() for place in swallowers(path)] == []
