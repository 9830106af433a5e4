"""Collects static files when they changed, and only then."""

from __future__ import annotations

import hashlib
from pathlib import Path

from launcher.commands import manage
from launcher.files import write_private
from launcher.home import Home
from launcher.settings import Settings


def collect(home: Home, settings: Settings) -> bool:
    """Say whether there was anything to do."""
    note = home.run / "static.sha256"
    wanted = fingerprint(home.project, settings.env["AOS_STATIC_ROOT"])
    if note.is_file() and note.read_text("ascii") == wanted and _is_there(settings):
        return False
    manage(
        home,
        settings,
        "collectstatic",
        "--no-input",
        failed="The pages' static files could not be collected",
        step="Correct what the lines above name, then run the same command again.",
    )
    write_private(note, wanted)
    return True


def fingerprint(project: Path, root: str) -> str:
    """Sum up our own files by name, size and time, and those of packages by what is locked."""
    digest = hashlib.sha256(root.encode())
    digest.update((project / "requirements/base.txt").read_bytes())
    for path in sorted(project.glob("apps/*/static/**/*")):
        known = path.stat()
        digest.update(f"{path}:{known.st_size}:{known.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _is_there(settings: Settings) -> bool:
    return (Path(settings.env["AOS_STATIC_ROOT"]) / "staticfiles.json").is_file()
