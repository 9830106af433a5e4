"""Waits until the platform answers."""

from __future__ import annotations

import time
from typing import Final

import httpx

from launcher import ports, status, supervision
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
                if _listens(home, settings.port):
                    return
                # Another clone took the port at the same moment. Ours does not stay up then.
                answer = "another program answers there"
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


def _listens(home: Home, port: int) -> bool:
    """Whether it is our own web process that listens there."""
    now = status.read(home.status)
    web = now.service("web") if now else None
    return web is not None and web.pid is not None and ports.is_held_by(web.pid, port)
