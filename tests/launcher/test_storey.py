"""The launcher stands beside the project: what it may import, and what must do without packages."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2]
ALLOWED = {"launcher", "psycopg", "redis", "httpx"}


def imports(path: Path) -> set[str]:
    found = set[str]()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    return found


def test_the_launcher_imports_neither_django_nor_the_project():
    modules = list((PROJECT / "launcher").glob("*.py"))

    used = set[str]().union(*map(imports, modules))
    assert len(modules) > 20
    assert used - sys.stdlib_module_names - ALLOWED == set()


def test_nothing_of_the_project_imports_the_launcher():
    modules = [
        path
        for package in ("aos_project", "apps", "workers", "examples")
        for path in (PROJECT / package).rglob("*.py")
    ]

    assert [path for path in modules if "launcher" in imports(path)] == []


def test_what_runs_before_or_beside_the_packages_needs_none_of_them():
    for module in ("bootstrap", "compose_env", "process", "supervisor"):
        subprocess.run(
            [sys.executable, "-S", "-c", f"import launcher.{module}"], cwd=PROJECT, check=True
        )
