"""How a script talks to AOS: lines on stdout that begin with ``::aos``, one JSON command each.

Every other line it prints is log. Copy this file into any script agent.
"""

from __future__ import annotations

import json
import sys

# AOS keeps a longer title as a plain log line, so that one odd cell cannot cost a milestone.
TITLE_LENGTH = 120


def milestone(title: str, *, progress: float, **facts: object) -> None:
    _send("milestone", title=title[:TITLE_LENGTH], progress=round(progress, 3), facts=facts)


def todo(states: dict[str, str]) -> None:
    """Show the plan: each step's title with ``pending``, ``doing`` or ``done``."""
    _send("todo", items=[{"title": title, "state": state} for title, state in states.items()])


def result(summary: str, **facts: object) -> None:
    _send("result", summary=summary, facts=facts)


def log(text: str) -> None:
    _write(text.replace("\n", " "))


def _send(kind: str, **fields: object) -> None:
    _write("::aos " + json.dumps({"type": kind, **fields}))


def _write(line: str) -> None:
    # A pipe is buffered: without the flush, people would see all progress at the very end.
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
