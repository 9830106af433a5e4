"""Makes ``.venv`` and installs the locked packages: the only part that runs outside ``.venv``.

Standard library only. Called as ``python3 -m launcher.bootstrap [base|dev]``; both sets are checked
against their hashes by pip, and nothing is installed twice.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from launcher.console import Console
from launcher.files import append_handle
from launcher.problems import Problem, from_os_error, tail, with_log

SETS: Final = {
    "base": ("requirements/base.txt", "requirements/embedded.txt"),
    "dev": ("requirements/dev.txt",),
}
# The larger set holds the smaller one.
SATISFIED_BY: Final = {"base": ("base", "dev"), "dev": ("dev",)}
LEAST_FREE_BYTES: Final = 1536 * 1024 * 1024
PIP_SECONDS: Final = 1800.0


def install(project: Path, wanted: str, console: Console) -> None:
    """Make sure the packages of a set are there. Does nothing when they are."""
    venv = project / ".venv"
    _refuse_other_system()
    if not _works(venv):
        _make(venv, console)
    if any(_is_installed(project, venv, name) for name in SATISFIED_BY[wanted]):
        return
    free = shutil.disk_usage(project).free
    if free < LEAST_FREE_BYTES:
        raise Problem(
            f"The disk of {project} has {free // 2**20} MB left; the packages need "
            f"{LEAST_FREE_BYTES // 2**20} MB.",
            step="Free some space, then run the same command again.",
        )
    console.step(f"installing the locked packages ({', '.join(SETS[wanted])}); once only")
    _pip(project, venv, wanted)
    for name in SETS:
        _stamp(venv, name).unlink(missing_ok=True)
    _stamp(venv, wanted).write_text(_digest(project, wanted), "ascii")
    console.done("packages installed")


def _refuse_other_system() -> None:
    if platform.system() != "Linux":
        raise Problem(
            f"The launcher runs on Linux, and this is {platform.system()}.",
            step="Use containers: make compose-env && docker compose up",
        )


def _works(venv: Path) -> bool:
    """Say whether the environment is whole: its Python may have left, or its making been cut off."""
    python = venv / "bin/python"
    if not python.exists():
        return False
    check = "import sys, pip; sys.exit(sys.version_info < (3, 11))"
    return subprocess.run([python, "-c", check], check=False, capture_output=True).returncode == 0


def _make(venv: Path, console: Console) -> None:
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if missing:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise Problem(
            f"This Python has no {' and no '.join(missing)}, so it cannot make .venv.",
            step=f"sudo apt install python3-venv (or python{version}-venv), then the same command again.",
        )
    console.step(f"making .venv with Python {platform.python_version()}")
    command = [sys.executable, "-m", "venv", "--clear", str(venv)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise Problem(
            ".venv could not be made.",
            step="Correct what the lines above name, then run the same command again.",
            lines=(done.stdout + done.stderr).splitlines()[-15:],
        )


def _pip(project: Path, venv: Path, wanted: str) -> None:
    log = venv / "install.log"
    log.unlink(missing_ok=True)
    files = [word for name in SETS[wanted] for word in ("-r", name)]
    handle = append_handle(log)
    command = [str(venv / "bin/python"), "-m", "pip", "install", "--disable-pip-version-check"]
    try:
        subprocess.run(
            [*command, "--no-input", "--require-hashes", *files],
            cwd=project,
            stdin=subprocess.DEVNULL,
            stdout=handle,
            stderr=subprocess.STDOUT,
            check=True,
            timeout=PIP_SECONDS,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise _explain(log) from error
    finally:
        os.close(handle)


def _explain(log: Path) -> Problem:
    text = "\n".join(tail(log, 60))
    if "No space left on device" in text:
        return Problem("The disk is full.", step="Free some space, then the same command again.")
    if "DO NOT MATCH THE HASHES" in text:
        return with_log(
            "A package is not the one that was locked: its hash differs, and it was not installed.",
            step="Do not work around this. Check where pip gets packages from: pip config list",
            log=log,
        )
    if any(sign in text for sign in ("NewConnectionError", "Temporary failure", "timed out")):
        return with_log(
            "The packages could not be fetched: the package index does not answer.",
            step="Check the network or the proxy (HTTPS_PROXY), then run the same command again.",
            log=log,
        )
    return with_log(
        "The packages could not be installed.",
        step="Correct what the lines above name, then run the same command again.",
        log=log,
    )


def _is_installed(project: Path, venv: Path, name: str) -> bool:
    stamp = _stamp(venv, name)
    return stamp.is_file() and stamp.read_text("ascii") == _digest(project, name)


def _stamp(venv: Path, name: str) -> Path:
    return venv / f"aos-{name}.sha256"


def _digest(project: Path, name: str) -> str:
    digest = hashlib.sha256()
    for file in SETS[name]:
        digest.update((project / file).read_bytes())
    return digest.hexdigest()


def main(arguments: Sequence[str]) -> int:
    console = Console()
    try:
        install(Path.cwd(), arguments[0] if arguments else "base", console)
    except Problem as problem:
        console.explain(problem)
        return 1
    except OSError as error:
        console.explain(from_os_error(error))
        return 1
    except KeyboardInterrupt:
        console.line("Interrupted; the same command goes on from here.")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
