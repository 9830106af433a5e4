"""Waits until the platform answers."""

from __future__ import annotations

import time
from typing import Final

import httpx

from launcher import supervision
from launcher.home import Home
from launcher.problems import with_log
from launcher.settings import Settings
from launcher.status import Status

SECONDS: Final = 90.0


def wait(home: Home, settings: Settings, *, since: Status) -> None:
    """Return when ``/readyz`` says so; raise the problem of what keeps it from doing so."""
    deadline = time.monotonic() + SECONDS
    answer = "no answer"
    # Never through a proxy: this is our own machine.
    with httpx.Client(base_url=settings.url, timeout=5, trust_env=False) as client:
        while time.monotonic() < deadline:
            ready, answer = _ask(client, answer)
            if ready:
                return
            supervision.refuse_hopeless(home, since=since)
            time.sleep(0.1)
    raise with_log(
        f"AOS did not become ready in {SECONDS:.0f} s; {settings.url}/readyz says: {answer}.",
        step="Read the lines above and `make logs`, then run the same command again.",
        log=home.log("web"),
    )


def _ask(client: httpx.Client, last: str) -> tuple[bool, str]:
    try:
        response = client.get("/readyz")
    except httpx.TransportError:
        return False, last
    return response.status_code == httpx.codes.OK, " ".join(response.text.split())[:300]
