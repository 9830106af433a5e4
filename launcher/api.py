"""The launcher as an ordinary client of the platform: a token, HTTP and server-sent events."""

from __future__ import annotations

import hashlib
import json
import queue
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx

from launcher.problems import Problem

Event = dict[str, Any]
PAGE: Final = 200
# The stream sends a heartbeat more often than this.
SILENCE_SECONDS: Final = 60.0
RECONNECT_SECONDS: Final = 0.5


class Api:
    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self._client = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {token}"},
            timeout=httpx.Timeout(30, read=SILENCE_SECONDS),
            # Never through a proxy: this is our own machine.
            trust_env=False,
        )

    def submit(self, *, project: str, agent: str, payload: dict[str, Any]) -> dict[str, Any]:
        """Submit a run. The key makes a repeated request the same run."""
        response = self._client.post(
            "/api/run",
            json={"project": project, "agent": agent, "input": payload},
            headers={"Idempotency-Key": str(uuid.uuid4())},
        )
        return _body(response)

    def last_seq(self, project: str) -> int:
        """Return the number of the project's latest event, 0 before the first."""
        seq = 0
        while True:
            query: dict[str, str | int] = {"project": project, "after": seq, "limit": PAGE}
            results = _body(self._client.get("/api/events", params=query))["results"]
            if not results:
                return seq
            seq = int(results[-1]["seq"])

    def events(self, project: str, *, after: int) -> Iterator[Event]:
        """Yield the project's events as they come, once each, until the connection ends."""
        query: dict[str, str | int] = {"project": project, "after": after}
        headers = {"Accept": "text/event-stream"}
        with self._client.stream(
            "GET", "/api/events/stream", params=query, headers=headers
        ) as response:
            if response.is_error:
                response.read()
                _body(response)
            yield from read_stream(response.iter_lines())

    def fetch(self, run: str, artifact: dict[str, Any], folder: Path) -> Path:
        """Store an artifact of a run and make sure that it is what the receipt says."""
        name = str(artifact["name"])
        path = _inside(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        address = f"/api/runs/{run}/artifacts/{quote(name)}"
        with self._client.stream("GET", address) as response:
            if response.is_error:
                response.read()
                _body(response)
            with path.open("wb") as file:
                for chunk in response.iter_bytes():
                    digest.update(chunk)
                    file.write(chunk)
        if digest.hexdigest() != artifact["sha256"]:
            raise Problem(
                f"The artifact {name} is not what the receipt says: its sha256 differs.",
                step="Run `make demo` again, and look at `make logs` if it happens twice.",
            )
        return path


class Follower:
    """Reads a project's events in the background and gets over a web process that restarts."""

    def __init__(self, api: Api, project: str, *, after: int) -> None:
        self._api = api
        self._project = project
        self._after = after
        self._found: queue.Queue[Event] = queue.Queue()
        self.trouble: str | None = None
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def next(self, seconds: float) -> Event | None:
        try:
            return self._found.get(timeout=seconds)
        except queue.Empty:
            return None

    def _read(self) -> None:
        while True:
            try:
                for event in self._api.events(self._project, after=self._after):
                    self.trouble = None
                    self._after = int(event["seq"])
                    self._found.put(event)
            except (httpx.TransportError, Problem) as error:
                self.trouble = str(error)
            time.sleep(RECONNECT_SECONDS)


def read_stream(lines: Iterator[str]) -> Iterator[Event]:
    """Read the events of a server-sent stream; comments and other fields are skipped."""
    data = list[str]()
    for line in lines:
        if line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif not line and data:
            event = json.loads("\n".join(data))
            data.clear()
            if "seq" in event:
                yield event


def _body(response: httpx.Response) -> dict[str, Any]:
    if response.is_success:
        body: dict[str, Any] = response.json()
        return body
    try:
        problem = response.json()
        said = f"{problem.get('title', '')} {problem.get('detail', '')}".strip()
    except ValueError:
        said = response.reason_phrase
    raise Problem(
        f"The platform answered {response.status_code} to {response.request.url.path}: {said}",
        step="Look at `make logs`, then run the same command again.",
    )


def _inside(folder: Path, name: str) -> Path:
    """Return where an artifact is stored, and nowhere outside *folder* whatever its name is."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise Problem(
            f"The artifact name {name!r} leads out of its folder.",
            step="Fetch it by hand from the page of the run.",
        )
    return path
