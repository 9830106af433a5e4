"""`make reset`: deletes what this clone has stored, after asking."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from launcher.console import Console
from launcher.home import ROOT_SERVERS, Home
from launcher.problems import Problem
from launcher.stop import stop


def reset(home: Home, console: Console, *, ask: Callable[[str], str], sure: bool) -> bool:
    """Delete everything this clone has stored, after asking; say whether it was done."""
    folders = [folder for folder in _owned(home) if folder.exists()]
    if not folders:
        console.done("there is nothing to delete")
        return True
    console.warn(
        "this deletes the database, all runs, artifacts, logs and passwords of this clone:"
    )
    for folder in folders:
        console.line(f"    {folder}")
    if not sure and _answer(ask) != "yes":
        console.line("Nothing was deleted.")
        return False
    stop(home, console)
    for folder in folders:
        shutil.rmtree(folder)
    console.done("deleted; `make demo` starts anew")
    return True


def _answer(ask: Callable[[str], str]) -> str:
    try:
        return ask("Type yes to delete: ").strip().lower()
    except EOFError as error:
        raise Problem(
            "`make reset` asks before it deletes, and there is nobody to answer.",
            step="Run it in a terminal, or say so: make reset YES=1",
        ) from error


def _owned(home: Home) -> list[Path]:
    found = [home.state]
    if home.servers.parent == ROOT_SERVERS:
        found.append(home.servers)
    if not home.sockets.is_relative_to(home.servers):
        found.append(home.sockets)
    return found
