"""`make status`: what runs, since when, and how often it had to be started again."""

from __future__ import annotations

from launcher import environment, orphans, settings, status, supervision
from launcher.console import Console
from launcher.home import Home
from launcher.status import ServiceStatus, State


def show(home: Home, console: Console) -> bool:
    """Print what runs; say whether all of it does."""
    running = supervision.current(home)
    if running is None:
        console.line("AOS is stopped.")
        if home.run.is_dir() and (left := orphans.find(home)):
            console.warn(f"{len(left)} processes of an earlier start are left; `make up` repairs")
        return False
    env, decision = environment.read(home), settings.kept(home)
    console.line(f"{'process':<12}{'state':<10}{'pid':>8}  {'for':<8}{'restarts':>8}  last exit")
    for service in running.services:
        console.line(_row(console, service))
    host = settings.reachable(env.get("AOS_HOST", "127.0.0.1"))
    console.line(f"\nURL       http://{host}:{env.get('AOS_PORT')}")
    console.line(f"Sandbox   {decision.driver if decision else '?'}")
    console.line(f"State     {home.state}   logs: make logs")
    return all(service.state == State.RUNNING for service in running.services)


def _row(console: Console, service: ServiceStatus) -> str:
    colour = "green" if service.state == State.RUNNING else "yellow"
    return (
        f"{service.name:<12}{console.paint(f'{service.state:<10}', colour)}"
        f"{service.pid or '-':>8}  {status.age(service.since):<8}{service.restarts:>8}"
        f"  {service.last_exit or ''}"
    )
