"""Rules about code that ruff, bandit and mypy do not know, held against every file of the product."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from scripts import audit_packages

ROOT = Path(__file__).parents[2]
CODE = sorted(
    path
    for folder in ("aos_project", "apps", "workers", "launcher", "scripts")
    for path in (ROOT / folder).rglob("*.py")
    if "migrations" not in path.parts
)
TEMPLATES = sorted((ROOT / "apps").rglob("*.html"))

Finder = Callable[[ast.AST], Iterator[int]]


def name_of(node: ast.AST) -> str:
    """``a.b.c`` for what is called or read."""
    if isinstance(node, ast.Attribute):
        return f"{name_of(node.value)}.{node.attr}".lstrip(".")
    return node.id if isinstance(node, ast.Name) else ""


def calls(tree: ast.AST) -> Iterator[tuple[ast.Call, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node, name_of(node.func)


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((each.value for each in call.keywords if each.arg == name), None)


def trusted_markup(tree: ast.AST) -> Iterator[int]:
    """Text that is declared to be markup, past the escaping."""
    for call, name in calls(tree):
        last = name.rpartition(".")[2]
        if last in {"mark_safe", "SafeString", "SafeText", "Markup"}:
            yield call.lineno
        if last == "format_html" and call.args and not isinstance(call.args[0], ast.Constant):
            yield call.lineno


def open_transport(tree: ast.AST) -> Iterator[int]:
    """Clients that wait for ever, believe any certificate, or go wherever they are sent."""
    for call, name in calls(tree):
        asks = r"(httpx|requests)\.(Async)?(Client|get|post|put|request|stream)|(.+\.)?urlopen"
        if re.fullmatch(asks, name) and keyword(call, "timeout") is None:
            yield call.lineno
        for word, bad in (("verify", False), ("follow_redirects", True), ("allow_redirects", True)):
            value = keyword(call, word)
            if isinstance(value, ast.Constant) and value.value is bad:
                yield call.lineno


def early_comparison(tree: ast.AST) -> Iterator[int]:
    """Secrets compared letter by letter, which tells how many were right."""
    secret = re.compile(r"(^|_)(secret|signature|mac|hmac|otp|pepper|code_hash)$")
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Eq | ast.NotEq):
            sides = [node.left, *node.comparators]
            named = [side for side in sides if secret.search(name_of(side).rpartition(".")[2])]
            if named and not any(isinstance(side, ast.Constant) for side in sides):
                yield node.lineno


def unpacked_archive(tree: ast.AST) -> Iterator[int]:
    """Archives that are unpacked by their own word."""
    for call, name in calls(tree):
        if name.rpartition(".")[2] in {"extractall", "unpack_archive"}:
            yield call.lineno


def statement_from_text(tree: ast.AST) -> Iterator[int]:
    """SQL through doors whose text nobody checks."""
    for call, name in calls(tree):
        if name.rpartition(".")[2] in {"RawSQL", "extra"} and "logger" not in name:
            yield call.lineno


def redirect_by_request(tree: ast.AST) -> Iterator[int]:
    """Redirects to what the request says."""
    for call, name in calls(tree):
        if name.rpartition(".")[2] in {"redirect", "HttpResponseRedirect"} and call.args:
            told = ast.unparse(call.args[0])
            if re.match(r"request\.(GET|POST|META|headers|COOKIES)\b", told):
                yield call.lineno


def forged_form(tree: ast.AST) -> Iterator[int]:
    """Views that take a form from anywhere."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names = {name_of(each).rpartition(".")[2] for each in node.decorator_list}
            if "csrf_exempt" in names:
                yield node.lineno


def loose_cookie(tree: ast.AST) -> Iterator[int]:
    """Cookies beside those of the settings."""
    for call, name in calls(tree):
        if name.rpartition(".")[2] in {"set_cookie", "set_signed_cookie"}:
            yield call.lineno


# Each rule, what it must find, and where an exception is known, with its reason.
RULES: dict[Finder, tuple[str, dict[str, str]]] = {
    trusted_markup: ("mark_safe(text)\nformat_html(text)", {}),
    open_transport: ("httpx.get(url)\nhttpx.post(url, timeout=1, verify=False)\nurlopen(url)", {}),
    early_comparison: ("given == self.secret\ncode.signature != found", {}),
    unpacked_archive: ("tarfile.open(name).extractall(folder)", {}),
    statement_from_text: ("RawSQL(text, [])\nqueryset.extra(where=[text])", {}),
    redirect_by_request: ("redirect(request.GET['next'])", {}),
    forged_form: (
        "@csrf_exempt\ndef view(request): ...",
        {"apps/hub/flower.py": "its one POST only reads, and Flower's page has no token of ours"},
    ),
    loose_cookie: ("response.set_cookie('a', 'b')", {}),
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_no_code_breaks_the_rule(rule):
    _, known = RULES[rule]
    found = {
        f"{path.relative_to(ROOT)}:{line}"
        for path in CODE
        for line in rule(ast.parse(path.read_text("utf-8")))
    }

    assert {place for place in found if place.partition(":")[0] not in known} == set()
    assert {place.partition(":")[0] for place in found} >= set(known)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_rule_finds_what_it_is_about(rule):
    bad, _ = RULES[rule]

    # Each statement is one mistake; a decorator stands a line above its function.
    assert len(set(rule(ast.parse(bad)))) == len(ast.parse(bad).body)


def test_no_template_switches_escaping_off():
    loud = re.compile(r"\|\s*(safe|safeseq)\b|autoescape\s+off|\{%\s*debug")

    assert [path.name for path in TEMPLATES if loud.search(path.read_text("utf-8"))] == []
    assert len(TEMPLATES) > 50
    assert loud.search("{{ text|safe }}")


# --- the tools ------------------------------------------------------------------------------------


def test_the_checks_run_in_make_check_and_that_in_ci():
    recipe = (ROOT / "Makefile").read_text("utf-8").partition("\ncheck: ")[2].partition("\n\n")[0]

    for tool in ("ruff check", "mypy", "lint-imports", "bandit", "audit_packages.py"):
        assert tool in recipe
    ci = (ROOT / ".ci" / "run").read_text("utf-8")
    assert re.search(r"make [^\n]*\bcheck\b[^\n]*\|\|[^\n]*status=1", ci)


def test_bandit_finds_nothing_and_would_find_a_mistake(tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text("import pickle\npickle.loads(b'')\n", "utf-8")

    assert bandit("scripts", "aos_project").returncode == 0
    assert "B301" in bandit(str(bad)).stdout


def bandit(*paths: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bandit", "-q", "-c", "pyproject.toml", "-r", *paths]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture
def source():
    """A place that answers as PyPI does."""
    answer = {"status": 200, "body": b'{"vulnerabilities": []}'}

    class Pypi(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(answer["status"])
            self.end_headers()
            self.wfile.write(answer["body"])

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = HTTPServer(("127.0.0.1", 0), Pypi)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/{{name}}/{{version}}", answer
    server.shutdown()
    server.server_close()


def test_packages_are_audited_where_advisories_are_told_and_nowhere_else(source):
    url, answer = source
    assert audit_packages.answers(url)

    answer["body"] = b"{}"
    assert not audit_packages.answers(url)
    answer["status"] = 404
    assert not audit_packages.answers(url)
    assert not audit_packages.answers("http://127.0.0.1:1/{name}/{version}")


def test_packages_that_cannot_be_audited_are_said_to_be_so(monkeypatch, capsys):
    monkeypatch.setattr(audit_packages, "answers", lambda: False)
    monkeypatch.setattr(sys, "argv", ["audit_packages.py"])
    assert audit_packages.main() == 0
    assert "were not audited" in capsys.readouterr().out

    monkeypatch.setattr(sys, "argv", ["audit_packages.py", "--required"])
    assert audit_packages.main() == 1


@pytest.mark.parametrize("worst", [0, 1])
def test_one_package_with_a_hole_fails_all(monkeypatch, worst):
    audited = []
    monkeypatch.setattr(audit_packages, "answers", lambda: True)
    monkeypatch.setattr(sys, "argv", ["audit_packages.py"])
    monkeypatch.setattr(
        audit_packages,
        "audit",
        lambda lock: audited.append(lock) or (worst if "embedded" in lock.name else 0),
    )

    assert audit_packages.main() == worst
    assert len(audited) == len(audit_packages.LOCKS)
