"""`make demo`: the main job, from submission to receipt, as a person watches it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Final

from launcher.api import Api, Event, Follower
from launcher.console import Console
from launcher.home import Home
from launcher.problems import Problem
from launcher.sample import Sample

LONGEST_SECONDS: Final = 900.0
SILENT_SECONDS: Final = 60.0
REDRAW_SECONDS: Final = 0.2
MARKS: Final = {"success": ("+", "green"), "warning": ("!", "yellow"), "error": ("x", "red")}


@dataclass(slots=True)
class View:
    """What the moving line shows."""

    title: str = "waiting for a worker"
    fraction: float | None = None
    begun: float = field(default_factory=time.monotonic)


def demo(home: Home, console: Console, sample: Sample) -> bool:
    """Run the main job; say whether it succeeded."""
    api = Api(sample["url"], sample["token"])
    after = api.last_seq(sample["project"])
    run = api.submit(project=sample["project"], agent=sample["agent"], payload=sample["input"])
    console.step(f"submitted run {run['id']} of {sample['agent']}")
    follower = Follower(api, sample["project"], after=after)
    receipt = watch(console, follower, str(run["id"]))
    show_receipt(console, receipt)
    show_artifacts(home, console, api, receipt)
    trace = receipt.get("trace_id") or run.get("trace_id")
    console.line(f"\nTrace id   {trace}")
    console.line(f"Run        {sample['url']}/runs/{run['id']}")
    show_doors(home, console, sample)
    return bool(receipt["payload"]["state"] == "succeeded")


def watch(console: Console, follower: Follower, run: str) -> Event:
    """Print the run's value events until its receipt, and return that."""
    view, heard = View(), time.monotonic()
    while time.monotonic() - view.begun < LONGEST_SECONDS:
        event = follower.next(REDRAW_SECONDS)
        now = time.monotonic()
        if event is None:
            _refuse_silence(follower, now - heard)
            console.progress(view.title, view.fraction, view.begun)
            continue
        heard = now
        if event["run"] != run:
            continue
        if event["type"] == "task.receipt":
            console.clear()
            return event
        show_event(console, event, view)
    raise Problem(
        f"The run has not ended after {LONGEST_SECONDS:.0f} s; it goes on in the background.",
        step="Watch it on its page, or in `make logs`.",
    )


def _refuse_silence(follower: Follower, silence: float) -> None:
    if follower.trouble and silence > SILENT_SECONDS:
        raise Problem(
            f"The platform stopped answering: {follower.trouble}",
            step="Look at `make status` and `make logs`, then run `make demo` again.",
        )


def show_event(console: Console, event: Event, view: View) -> None:
    payload: dict[str, Any] = event["payload"]
    kind = event["type"].removeprefix("task.").removeprefix("progress.")
    title = str(payload.get("title", ""))
    fraction = payload.get("progress")
    share = f"{fraction:4.0%}" if isinstance(fraction, int | float) else "    "
    facts = _facts(payload.get("facts") or {})
    mark, colour = MARKS.get(event["severity"], ("-", "blue"))
    detail = str(payload.get("detail") or facts)
    console.line(
        f"{console.paint(mark, colour)} {time.monotonic() - view.begun:6.1f} s  {share}  "
        f"{kind:<12} {title}{'  ' + console.paint(detail, 'dim') if detail else ''}"
    )
    view.title = title
    if isinstance(fraction, int | float):
        view.fraction = float(fraction)


def show_receipt(console: Console, receipt: Event) -> None:
    payload: dict[str, Any] = receipt["payload"]
    good = payload["state"] == "succeeded"
    console.line()
    console.line(console.paint(f"Receipt: {payload['state']}", "green" if good else "red"))
    rows = {
        "summary": payload.get("summary") or payload.get("title"),
        "facts": _facts(payload.get("facts") or {}),
        "attempts": payload.get("attempts"),
        "duration": _seconds(payload.get("duration_s")),
        "isolation": payload.get("isolation"),
    }
    if error := payload.get("error"):
        rows["error"] = f"{error['code']}: {error['detail']}"
    for name, value in rows.items():
        if value not in (None, ""):
            console.line(f"  {name:<10} {value}")


def show_artifacts(home: Home, console: Console, api: Api, receipt: Event) -> None:
    folder = home.state / "demo" / str(receipt["run"])
    artifacts = receipt["payload"].get("artifacts") or []
    if artifacts:
        console.line("\nArtifacts")
    for artifact in artifacts:
        path = api.fetch(str(receipt["run"]), artifact, folder)
        console.line(f"  {path}  {artifact['size']:,} bytes  sha256 {artifact['sha256']}")


def show_doors(home: Home, console: Console, sample: Sample) -> None:
    """Print where to go and as whom."""
    console.line(f"Chat Hub   {sample['url']}/")
    console.line("Sign in as")
    for user in sample["users"]:
        console.line(f"  {user['username']:<10} {user['password']:<28} {user['role']}")
    console.line(f"For scripts: {home.demo}    End: make stop")


def _seconds(value: object) -> str:
    return f"{value:.2f} s" if isinstance(value, int | float) else ""


def _facts(facts: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:,}" if isinstance(value, int) else f"{name} {value}"
        for name, value in facts.items()
    )
