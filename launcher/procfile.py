"""Reads the Procfile: one process kind a line, started top to bottom and stopped bottom to top."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from launcher.home import Home
from launcher.problems import Problem
from launcher.processes import MARKER
from launcher.service import Service

LINE: Final = re.compile(r"(?P<name>[a-z][a-z0-9_]*):\s+(?P<command>\S.*)")
VARIABLE: Final = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
# A leader and a standby that takes over when it dies.
FORMATION: Final = {"engine": 2}
# A worker lets its runs finish or hands them back; the rest only close connections.
GRACE: Final = {"worker": 70.0}
FEWEST, MOST = 0, 32


def read(path: Path) -> dict[str, str]:
    commands = dict[str, str]()
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        match = LINE.fullmatch(text)
        if match is None or match["name"] in commands:
            raise Problem(
                f"Line {number} of {path} is not `name: command` with a name of its own: {text}",
                step="Correct the line.",
            )
        commands[match["name"]] = match["command"]
    return commands


def services(home: Home, env: Mapping[str, str]) -> list[Service]:
    """Return the processes of the Procfile, each as often as the formation says."""
    commands = read(home.project / "Procfile")
    counts = FORMATION | formation(env.get("AOS_FORMATION", ""), known=commands)
    return [
        _service(home, env, group, number=number, is_alone=count == 1, command=commands[group])
        for group, count in ((group, counts.get(group, 1)) for group in commands)
        for number in range(1, count + 1)
    ]


def formation(text: str, *, known: Mapping[str, str]) -> dict[str, int]:
    """Read ``worker=2,engine=1``."""
    counts = dict[str, int]()
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, _, count = part.partition("=")
        if name not in known or not count.isdigit() or not FEWEST <= int(count) <= MOST:
            raise Problem(
                f"AOS_FORMATION={text} does not fit the Procfile ({', '.join(known)}).",
                step="Write it like AOS_FORMATION=engine=2,worker=1",
            )
        counts[name] = int(count)
    return counts


def _service(
    home: Home,
    env: Mapping[str, str],
    group: str,
    *,
    number: int,
    is_alone: bool,
    command: str,
) -> Service:
    name = group if is_alone else f"{group}-{number}"
    own = {MARKER: str(home.state), "AOS_PROCESS_NAME": name, "AOS_PROCESS_NUMBER": str(number)}
    full = {**env, **own}
    return Service(
        name=name,
        group=group,
        argv=[expand(word, full) for word in shlex.split(command)],
        env=full,
        cwd=str(home.project),
        grace=GRACE.get(group, 15.0),
    )


def expand(word: str, env: Mapping[str, str]) -> str:
    """Fill in variables without a shell between us and the process, which would catch its signals."""

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in env:
            raise Problem(f"The Procfile uses ${name}, which is not set.", step=f"Set {name}.")
        return env[name]

    return VARIABLE.sub(value, word)
