"""Submits runs: ``python -m benchmarks.aos.submit --count N``, through the service or over HTTP."""

from __future__ import annotations

import http.client
import json
import os
import uuid
from collections.abc import Callable
from typing import Any

import django

from benchmarks import pacing

django.setup()

# Models can be imported only once Django is set up.
from apps.runs.models import Run  # noqa: E402
from apps.runs.services import submission  # noqa: E402
from apps.runs.types import TaskSpec  # noqa: E402
from tests import factories  # noqa: E402

# The worker is told where it is (see ``benchmarks.systems``).
NOTHING = "bench.nothing"


def by_service(scene: dict[str, Any]) -> Callable[[], str]:
    """The call that the API makes."""

    def submit() -> str:
        return str(submission.submit(**scene, task=TaskSpec(input={})).run.public_id)

    return submit


def over_http(scene: dict[str, Any], port: int) -> Callable[[], str]:
    """POST /api/run with a token, over one connection that stays open."""
    token = factories.make_token(scene["by"].user)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    body = json.dumps(
        {"project": str(scene["project"].pk), "agent": str(scene["agent"].pk), "input": {}}
    )
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def submit() -> str:
        key = {"Idempotency-Key": uuid.uuid4().hex}
        line.request("POST", "/api/run", body=body, headers=headers | key)
        answer = line.getresponse()
        text = answer.read()
        if answer.status != http.HTTPStatus.ACCEPTED:
            raise RuntimeError(f"HTTP {answer.status}: {text.decode()[:500]}")
        return str(json.loads(text)["id"])

    return submit


def in_bulk(scene: dict[str, Any]) -> Callable[[int], list[str]]:
    """The call that the bulk API makes."""

    def submit(number: int) -> list[str]:
        made = submission.submit_many(**scene, tasks=[TaskSpec(input={})] * number)
        return [str(run.public_id) for run in made if isinstance(run, Run)]

    return submit


def _scene(name: str, *, sleep_s: float | None) -> dict[str, Any]:
    """An organization with one project, agent and person, apart from those of earlier rounds.

    The agent is a function that does nothing, or a script that sleeps.
    """
    home = factories.make_organization(slug=name)
    script = {
        "entry": "main.py",
        "files": {"main.py": f"import time\ntime.sleep({sleep_s})\n"},
        "artifacts": [],
        "sandbox": {"memory_mb": 128, "pids": 16},
    }
    kind, spec = ("function", {"function": NOTHING}) if sleep_s is None else ("script", script)
    return {
        "by": factories.make_actor(organization=home, username=name),
        "project": factories.make_project(organization=home, slug=name),
        "agent": factories.make_agent(organization=home, slug=name, spec=spec, kind=kind),
    }


def main() -> None:
    parser = pacing.arguments()
    parser.add_argument("--port", type=int, help="submit over HTTP to this port")
    parser.add_argument("--sleep", type=float, help="a script that sleeps so many seconds")
    parser.add_argument("--bulk", type=int, default=0, help="so many runs a call")
    options = parser.parse_args()
    scene = _scene(f"bench-{os.getpid()}-{uuid.uuid4().hex[:6]}", sleep_s=options.sleep)
    if options.bulk:
        pacing.run_in_bulk(in_bulk(scene), count=options.count, size=options.bulk)
        return
    submit = over_http(scene, options.port) if options.port else by_service(scene)
    pacing.run(submit, count=options.count, rate=options.rate)


if __name__ == "__main__":
    main()
