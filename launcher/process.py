"""`python -m launcher.process web`: becomes one process of the Procfile, as containers need it."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from launcher import procfile
from launcher.console import Console
from launcher.problems import Problem


def command(name: str, project: Path) -> list[str]:
    commands = procfile.read(project / "Procfile")
    if name not in commands:
        raise Problem(
            f"The Procfile has no process {name or '(none named)'}.",
            step=f"Name one of: {', '.join(commands)}",
        )
    environ = {"AOS_PROCESS_NUMBER": "1", **os.environ}
    return [procfile.expand(word, environ) for word in shlex.split(commands[name])]


def main(arguments: Sequence[str]) -> int:
    console = Console()
    try:
        words = command("".join(arguments), Path.cwd())
        # Replaces this program, so that the container's signals reach the process itself.
        os.execvp(words[0], words)  # noqa: S606 - there is no shell on purpose
    except Problem as problem:
        console.explain(problem)
    except FileNotFoundError as error:
        console.explain(Problem(f"{error.filename} is not installed.", step="Rebuild the image."))
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
