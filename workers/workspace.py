"""What a script finds in its sandbox: its own files, its input, and the files it asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final

from django.conf import settings

from apps.core import blobs, tracing
from apps.runs.types import Started
from apps.sandboxes.types import EgressMode
from workers.output import MARK
from workers.sandbox import profiles, profiles_from_settings
from workers.sandbox.base import Command, SandboxSpec

_OUTPUT_LIMIT_BYTES: Final = 1024 * 1024
_SPARE_S: Final = 120
_LONGEST_S: Final = 24 * 3600


def files_for(started: Started) -> Iterator[tuple[str, bytes]]:
    """Paths relative to the workspace, with their contents: one at a time, for they may be large."""
    for name, text in started.agent_spec["files"].items():
        yield f"agent/{name}", text.encode()
    for file in started.spec["files"]:
        yield f"in/files/{file['name']}", blobs.read(file["sha256"])
    yield "in/input.json", json.dumps(started.spec["input"], ensure_ascii=False).encode()


def command_for(started: Started, *, workspace: str) -> Command:
    """The version's command line, started in the workspace with the run's bounds."""
    spec = started.agent_spec
    return Command(
        argv=tuple(spec.get("command") or ["python3", spec["entry"]]),
        cwd="agent",
        env=dict(_environment(started).get("variables", {}))
        | {
            "AOS_RUN_ID": str(started.public_id),
            "AOS_ATTEMPT": str(started.attempt),
            "AOS_IN": f"{workspace}/in",
            "AOS_OUT": f"{workspace}/out",
            "TRACEPARENT": tracing.carrier()["traceparent"],
        },
        timeout=timedelta(seconds=started.timeout_s),
        output_limit=spec.get("output_limit_bytes", _OUTPUT_LIMIT_BYTES),
        mark=MARK,
    )


def sandbox_spec(started: Started) -> SandboxSpec:
    """The profile the agent version or its environment picks, with the limits and the way out."""
    asked = _environment(started).get("sandbox") or started.agent_spec.get("sandbox", {})
    # Ends by itself a while after the attempt's own time-out, should nobody be left to end it.
    wanted = asked | {"lifetime_s": min(started.timeout_s + _SPARE_S, _LONGEST_S)}
    profile = profiles.named(profiles_from_settings(), wanted.pop("profile", profiles.DEFAULT))
    return profile.spec(wanted, most_egress=EgressMode(settings.AOS_SANDBOX_EGRESS))


def _environment(started: Started) -> dict[str, Any]:
    """What the run was given of the environment its version names, when it was accepted."""
    given: dict[str, Any] = started.spec.get("environment", {})
    return given
