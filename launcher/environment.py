"""The environment of everything the launcher starts: what a person set, what AOS made up, what fits.

Order of say: a variable given to this command, then what the running platform was started with, then
the default. Passwords are made once and kept in ``.aos/secrets.json``; nothing else outlives a stop.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from launcher.files import write_private
from launcher.home import Home
from launcher.problems import Problem
from launcher.processes import MARKER

SETTINGS: Final = frozenset({"DATABASE_URL", "REDIS_URL", "BROKER_URL", "DJANGO_SETTINGS_MODULE"})
SETTING_PREFIXES: Final = ("AOS_", "OTEL_")
# Of the caller's environment only what programs need to work at all: a shell's other variables
# would make two starts of the same platform differ.
AMBIENT: Final = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "PYTHONPATH"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
        *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
        *("DOCKER_HOST", "DOCKER_CONFIG", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY"),
        "XDG_RUNTIME_DIR",
    }
)
AMBIENT_PREFIXES: Final = ("LC_",)
# Set for each process by the supervisor or by a worker: never a wish of the caller.
OURS: Final = frozenset(
    {
        MARKER,
        "AOS_PROCESS_NAME",
        "AOS_PROCESS_NUMBER",
        "AOS_RUN_ID",
        "AOS_ATTEMPT",
        "AOS_IN",
        "AOS_OUT",
    }
)
DEFAULTS: Final = {
    "AOS_HOST": "127.0.0.1",
    "AOS_PORT": "8000",
    "AOS_FLOWER_HOST": "127.0.0.1",
    "AOS_SANDBOX_IMAGE": "aos/sandbox-base:latest",
    "AOS_WORKER_SLOTS": "4",
    "AOS_WORKER_TTL_SECONDS": "45",
    "AOS_HEARTBEAT_SECONDS": "10",
    "AOS_LEADER_TTL_SECONDS": "3",
    "DJANGO_SETTINGS_MODULE": "aos_project.settings.dev",
}


def wishes(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the settings this command was given. An empty one counts as not given."""
    found = {
        name: value
        for name, value in environ.items()
        if value and name not in OURS and (name in SETTINGS or name.startswith(SETTING_PREFIXES))
    }
    for name in sorted(SETTINGS):
        if (path := environ.get(f"{name}_FILE")) and name not in found:
            found[name] = _mounted(f"{name}_FILE", path)
    return found


def ambient(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    kept = {
        name: value
        for name, value in environ.items()
        if name in AMBIENT or name.startswith(AMBIENT_PREFIXES)
    }
    # The Procfile says `python`, `celery`: those of this virtual environment, wherever make was run.
    programs = str(Path(sys.executable).parent)
    kept["PATH"] = os.pathsep.join([programs, kept.get("PATH", os.defpath)])
    kept["PYTHONUNBUFFERED"] = "1"
    return kept


def passwords(home: Home) -> dict[str, str]:
    """Return the secrets and the name of this clone, making those that are missing."""
    kept: dict[str, str] = _read_json(home.secrets)
    made = {
        # Tells this clone's sandboxes and queues from another's: its reaper must spare theirs.
        "AOS_INSTANCE": f"aos-{secrets.token_hex(3)}",
        "AOS_SECRET_KEY": secrets.token_urlsafe(48),
        "AOS_FLOWER_BASIC_AUTH": f"aos:{secrets.token_urlsafe(24)}",
        "postgres_superuser": secrets.token_hex(24),
        "postgres": secrets.token_hex(24),
        "valkey": secrets.token_hex(24),
    }
    if missing := made.keys() - kept.keys():
        kept |= {name: made[name] for name in missing}
        write_private(home.secrets, json.dumps(kept, indent=1, sort_keys=True) + "\n")
    return kept


def write(home: Home, values: Mapping[str, str]) -> None:
    """Write the environment so that a shell can take it: ``set -a; . .aos/env``."""
    lines = [f"{name}={shlex.quote(value)}\n" for name, value in sorted(values.items())]
    write_private(home.env, "".join(lines))


def read(home: Home) -> dict[str, str]:
    """Return what the last start wrote, nothing if there was none."""
    try:
        text = home.env.read_text("utf-8")
    except FileNotFoundError:
        return {}
    values = dict[str, str]()
    for line in text.splitlines():
        name, _, quoted = line.partition("=")
        values[name] = "".join(shlex.split(quoted))
    return values


def _read_json(path: Path) -> dict[str, str]:
    try:
        values: dict[str, str] = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise Problem(
            f"{path} is damaged: {error}.",
            step="Restore it from a backup, or start anew with `make reset` (its data is lost).",
        ) from error
    return values


def _mounted(name: str, path: str) -> str:
    try:
        return Path(path).read_text("utf-8").strip()
    except OSError as error:
        raise Problem(
            f"{name}={path} cannot be read: {error.strerror}.",
            step="Correct the path, or unset it.",
        ) from error
