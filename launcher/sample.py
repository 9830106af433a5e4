"""The example organization, project, agent and people that `manage.py seed` makes and we show."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final, TypedDict

from launcher.commands import manage
from launcher.files import write_private
from launcher.home import Home
from launcher.problems import Problem
from launcher.settings import Settings

STEP: Final = "Correct what the lines above name, then run the same command again."


class Sample(TypedDict):
    """What `.aos/demo.json` holds, for people and for scripts."""

    url: str
    token: str
    project: str
    agent: str
    input: dict[str, Any]
    users: list[dict[str, str]]


def is_made(home: Home, wanted: Settings) -> bool:
    """Whether `make demo` has made it in this database before."""
    return bool(_known_passwords(home, wanted))


def make(home: Home, wanted: Settings) -> Sample:
    """Make the example data, or find it, and keep what is needed to sign in and to submit."""
    known = _known_passwords(home, wanted)
    found = _seed(home, wanted)
    if any(user["password"] is None and user["username"] not in known for user in found["users"]):
        # The database outlived the file with the passwords, and holds only their hashes.
        found = _seed(home, wanted, "--reset-passwords")
    for user in found["users"]:
        known[user["username"]] = user["password"] = user["password"] or known[user["username"]]
    _keep_passwords(home, wanted, known)
    write_private(home.demo, json.dumps(found, indent=1) + "\n")
    return found


def _seed(home: Home, wanted: Settings, *words: str) -> Sample:
    text = manage(
        home,
        wanted,
        "seed",
        "--json",
        *words,
        failed="The example data could not be made",
        step=STEP,
    )
    try:
        found = json.loads(text)
        return Sample(
            url=wanted.url,
            token=found["token"],
            project=found["project"],
            agent=found["agent"],
            input=found["input"],
            users=found["users"],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise Problem(
            "`manage.py seed --json` printed something else than the example data.",
            step=STEP,
            # Not what it printed: that may hold a password.
        ) from error


def _known_passwords(home: Home, wanted: Settings) -> dict[str, str]:
    """Return the passwords given out before, if they were for this database."""
    try:
        kept = json.loads((home.state / "people.json").read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    passwords: dict[str, str] = kept["passwords"] if kept["database"] == _database(wanted) else {}
    return passwords


def _keep_passwords(home: Home, wanted: Settings, passwords: dict[str, str]) -> None:
    kept = {"database": _database(wanted), "passwords": passwords}
    write_private(home.state / "people.json", json.dumps(kept, indent=1) + "\n")


def _database(wanted: Settings) -> str:
    if wanted.postgres is not None:
        return "embedded"
    return hashlib.sha256(wanted.env["DATABASE_URL"].encode()).hexdigest()
