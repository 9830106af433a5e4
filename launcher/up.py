"""`make up`: from whatever is there to a platform that answers."""

from __future__ import annotations

import time

from launcher import (
    databases,
    demo,
    docker,
    first_start,
    orphans,
    ports,
    postgres,
    procfile,
    readiness,
    sample,
    settings,
    static,
    supervision,
    valkey,
)
from launcher.commands import manage
from launcher.console import Console
from launcher.exclusive import only_command
from launcher.home import Home
from launcher.problems import Problem, with_log
from launcher.sample import Sample
from launcher.service import Service
from launcher.settings import Settings
from launcher.status import Status


def up(home: Home, console: Console) -> None:
    """Start everything, and say how to get in: as the demo's people where the demo was made, or else
    by the first start."""
    wanted, found = _up(home, console, with_sample=False)
    if found:
        demo.show_doors(home, console, found)
    else:
        first_start.show(home, console, wanted)


def with_sample(home: Home, console: Console) -> Sample:
    """Start everything, with the demo's organization in it."""
    _, found = _up(home, console, with_sample=True)
    assert found is not None  # noqa: S101  # it was asked for
    return found


def _up(home: Home, console: Console, *, with_sample: bool) -> tuple[Settings, Sample | None]:
    home.prepare()
    with only_command(home, console):
        running = _running(home, console)
        earlier = settings.kept(home) if running else None
        wanted = settings.decide(home, earlier=earlier)
        if running and (earlier is None or settings.changed(earlier, wanted.decision)):
            names = settings.changed(earlier, wanted.decision) if earlier else ["the settings"]
            console.step(f"{', '.join(names)} changed: stopping the platform to start it anew")
            supervision.stop(home, tell=console.nothing)
            running = None
        with_sample = with_sample or sample.is_made(home, wanted)
        try:
            found = _bring_up(home, console, wanted, running, with_sample=with_sample)
        except (Problem, KeyboardInterrupt):
            if running is None:
                supervision.stop(home, tell=console.nothing)
            raise
    return wanted, found


def _running(home: Home, console: Console) -> Status | None:
    running = supervision.current(home)
    if running is not None and running.stopping:
        supervision.stop(home, tell=console.nothing)
        return None
    return running


def _bring_up(
    home: Home,
    console: Console,
    wanted: Settings,
    running: Status | None,
    *,
    with_sample: bool,
) -> Sample | None:
    if running is None and (count := orphans.end(home)):
        console.step(f"ended {count} processes that an earlier start left behind")
    if running is None or running.service("web") is None:
        ports.require(wanted.env["AOS_HOST"], wanted.port)
        if "AOS_FLOWER_PORT" in wanted.decision.wishes:
            ports.require("127.0.0.1", wanted.decision.flower_port)
    settings.keep(home, wanted)
    _check_foreign(console, wanted)
    servers = _start_servers(home, console, wanted, running)
    _prepare_database(home, console, wanted)
    found = sample.make(home, wanted) if with_sample else None
    _prepare_sandbox(home, console, wanted)
    services = [*servers, *procfile.services(home, wanted.env)]
    since = supervision.extend(home, services)
    readiness.wait(home, wanted, since=since)
    console.done(f"AOS runs at {wanted.url}")
    return found


def _check_foreign(console: Console, wanted: Settings) -> None:
    """Try the servers a person named before anything is started for them."""
    if wanted.postgres is None:
        for remark in databases.check_database(wanted.env["DATABASE_URL"]):
            console.warn(remark)
    if wanted.valkey is None:
        databases.check_redis("REDIS_URL", wanted.env["REDIS_URL"])
    if "BROKER_URL" in wanted.decision.wishes:
        databases.check_broker(wanted.env["BROKER_URL"])


def _start_servers(
    home: Home, console: Console, wanted: Settings, running: Status | None
) -> list[Service]:
    services = list[Service]()
    begin = time.monotonic()
    if wanted.postgres:
        if running is None:
            _make_postgres(console, wanted)
        services.append(wanted.postgres.service(wanted.env))
    if wanted.valkey:
        wanted.valkey.make(password=wanted.passwords["valkey"])
        services.append(wanted.valkey.service(wanted.env))
    processes = procfile.services(home, wanted.env) if running and running.service("web") else []
    since = supervision.extend(home, [*services, *processes])
    if wanted.postgres:
        _await_server(home, "postgres", wanted, since)
    if wanted.valkey:
        _await_server(home, "valkey", wanted, since)
    if running is None and services:
        names = " and ".join(service.name for service in services)
        console.done(f"{names} up in {time.monotonic() - begin:.1f} s")
    return services


def _make_postgres(console: Console, wanted: Settings) -> None:
    server = wanted.postgres
    if server is None:
        return
    secret = {
        "password": wanted.passwords["postgres"],
        "superuser_password": wanted.passwords["postgres_superuser"],
    }
    if server.is_made:
        server.refuse_other_version()
        server.mend_roles(**secret)
    else:
        console.step("making the database")
        server.make(**secret)


def _await_server(home: Home, name: str, wanted: Settings, since: Status) -> None:
    """Wait in short turns, so that a server that keeps dying is noticed at once."""
    total = postgres.READY_SECONDS if name == "postgres" else valkey.READY_SECONDS
    deadline = time.monotonic() + total
    while time.monotonic() < deadline:
        if name == "postgres" and postgres.wait_until_ready(wanted.env["DATABASE_URL"], seconds=1):
            return
        if name == "valkey" and valkey.wait_until_ready(wanted.env["REDIS_URL"], seconds=1):
            return
        supervision.refuse_hopeless(home, since=since)
    raise with_log(
        f"{name} did not let us in within {total:.0f} s.",
        step="Read the lines above, then run the same command again.",
        log=home.log(name),
    )


def _prepare_database(home: Home, console: Console, wanted: Settings) -> None:
    console.step("bringing the database up to date")
    manage(
        home,
        wanted,
        "migrate",
        "--no-input",
        failed="The database could not be brought up to date",
        step="Correct what the lines above name, then run the same command again.",
    )
    static.collect(home, wanted)


def _prepare_sandbox(home: Home, console: Console, wanted: Settings) -> None:
    if not wanted.is_isolated:
        reason = "AOS_SANDBOX_DRIVER=local"
        if "AOS_SANDBOX_DRIVER" not in wanted.decision.wishes:
            reason = f"{wanted.docker.value}. To change that: {docker.cure(wanted.docker)}"
        console.warn(f"runs are NOT isolated from this machine (isolation: none): {reason}")
        return
    console.step("building or finding the sandbox image")
    manage(
        home,
        wanted,
        "images",
        "build",
        "base",
        failed="The sandbox image could not be built",
        step="Correct what the lines above name; or run without isolation: AOS_SANDBOX_DRIVER=local make demo",
    )
