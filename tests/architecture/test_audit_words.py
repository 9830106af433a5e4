"""Whatever is written into the audit log has a sentence that people can read."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from apps.hub.audit import words

ROOT = Path(__file__).parents[2]
ACTION = re.compile(r"[a-z_]+\.[a-z_]+")


def actions(tree: ast.AST) -> Iterator[str]:
    """What calls of ``outbox.audit``, and of a module's own ``_audit``, name as the action."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in {
            "audit",
            "_audit",
        }:
            for part in (found for given in node.args for found in ast.walk(given)):
                if isinstance(part, ast.Constant) and ACTION.fullmatch(str(part.value)):
                    yield str(part.value)


def test_every_action_that_is_recorded_has_a_sentence():
    recorded = {
        action
        for folder in ("apps", "workers")
        for path in (ROOT / folder).rglob("*.py")
        if "migrations" not in path.parts
        for action in actions(ast.parse(path.read_text(encoding="utf-8")))
    }

    assert len(recorded) > 15
    # Add its sentence to apps/hub/audit/words.py: what comes after the actor's name.
    assert recorded - set(words.SENTENCES) == set()


def test_the_gate_would_see_an_action_without_a_sentence():
    tree = ast.parse(
        'outbox.audit(by.ref, "moon.land" if new else "moon.leave", resource_type="m")'
    )

    assert set(actions(tree)) == {"moon.land", "moon.leave"}
