"""Decides with what the platform runs: addresses, servers, sandbox driver.

What was decided is kept beside the running platform, so that a second start, from another shell and
without the first one's variables, means the same platform.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Final

from launcher import docker, environment, ports, postgres, valkey
from launcher.docker import Docker
from launcher.files import write_private
from launcher.home import Home
from launcher.postgres import Postgres
from launcher.problems import Problem
from launcher.valkey import Valkey

FLOWER_PORT: Final = 5555
DRIVERS: Final = ("docker", "local")
# Listening there means every address of the machine; nobody can connect to it.
EVERY_ADDRESS: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - recognised, not bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What one start settled, as far as the same wishes could come out differently next time."""

    wishes: dict[str, str]
    ambient: dict[str, str]
    driver: str
    flower_port: int
    postgres_port: int
    valkey_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    decision: Decision
    env: dict[str, str]
    passwords: dict[str, str]
    postgres: Postgres | None  # None: DATABASE_URL names another
    valkey: Valkey | None  # None: REDIS_URL names another
    docker: Docker

    @property
    def url(self) -> str:
        """Return where this machine reaches the web process."""
        return f"http://{reachable(self.env['AOS_HOST'])}:{self.port}"

    @property
    def port(self) -> int:
        return int(self.env["AOS_PORT"])

    @property
    def is_isolated(self) -> bool:
        return self.decision.driver != "local"


def reachable(host: str) -> str:
    if host in EVERY_ADDRESS:
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def decide(home: Home, *, earlier: Decision | None) -> Settings:
    """Settle every setting; *earlier* is the decision of the platform that already runs."""
    wishes = {**(earlier.wishes if earlier else {}), **environment.wishes()}
    engine = docker.look()
    web = ports.number("AOS_PORT", wishes.get("AOS_PORT", environment.DEFAULTS["AOS_PORT"]))
    driver = _driver(wishes.get("AOS_SANDBOX_DRIVER"), engine, earlier)
    if earlier:
        flower, first, second = earlier.flower_port, earlier.postgres_port, earlier.valkey_port
    else:
        flower = ports.pick(FLOWER_PORT, taken=frozenset({web}))
        first = ports.pick(taken=frozenset({web, flower}))
        second = ports.pick(taken=frozenset({web, flower, first}))
    if wish := wishes.get("AOS_FLOWER_PORT"):
        flower = ports.number("AOS_FLOWER_PORT", wish)
    decision = Decision(
        wishes=wishes,
        ambient=earlier.ambient if earlier else environment.ambient(),
        driver=driver,
        flower_port=flower,
        postgres_port=first,
        valkey_port=second,
    )
    return _settle(home, decision, engine)


def changed(earlier: Decision, wanted: Decision) -> list[str]:
    """Name the settings that differ, never their values: some are passwords."""
    before, after = earlier.wishes, wanted.wishes
    return sorted(
        name for name in before.keys() | after.keys() if before.get(name) != after.get(name)
    )


def keep(home: Home, settings: Settings) -> None:
    own = settings.env.keys() - settings.decision.ambient.keys()
    environment.write(home, {name: settings.env[name] for name in own})
    write_private(home.run / "decision.json", json.dumps(asdict(settings.decision), indent=1))


def kept(home: Home) -> Decision | None:
    """Return the last decision kept, None when there is none that can be read."""
    try:
        return Decision(**json.loads((home.run / "decision.json").read_text("utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _settle(home: Home, decision: Decision, engine: Docker) -> Settings:
    passwords = environment.passwords(home)
    wishes = decision.wishes
    first = None if "DATABASE_URL" in wishes else postgres.embedded(home, decision.postgres_port)
    second = None if "REDIS_URL" in wishes else valkey.embedded(home, decision.valkey_port)
    env = {
        **environment.DEFAULTS,
        **{name: value for name, value in passwords.items() if name.startswith("AOS_")},
        "AOS_STATIC_ROOT": str(home.state / "static"),
        "AOS_FLOWER_URL": f"http://127.0.0.1:{decision.flower_port}",
        **decision.ambient,
        **wishes,
        "AOS_DATA_DIR": str(home.state),
        "AOS_FLOWER_PORT": str(decision.flower_port),
        "AOS_SANDBOX_DRIVER": decision.driver,
    }
    if first:
        env["DATABASE_URL"] = first.url(passwords["postgres"])
    if second:
        env["REDIS_URL"] = second.url(passwords["valkey"])
    env.setdefault("BROKER_URL", env["REDIS_URL"])
    env.setdefault("AOS_PUBLIC_URL", f"http://{reachable(env['AOS_HOST'])}:{env['AOS_PORT']}")
    # Flower reads options from variables of its own; as an argument everybody could read it.
    env["FLOWER_BASIC_AUTH"] = env["AOS_FLOWER_BASIC_AUTH"]
    return Settings(
        decision=decision,
        env=env,
        passwords=passwords,
        postgres=first,
        valkey=second,
        docker=engine,
    )


def _driver(wish: str | None, engine: Docker, earlier: Decision | None) -> str:
    if wish is not None:
        if wish not in DRIVERS:
            raise Problem(
                f"AOS_SANDBOX_DRIVER={wish} is not a sandbox driver.",
                step=f"Set it to one of: {', '.join(DRIVERS)}",
            )
        return wish
    if earlier is not None:
        return earlier.driver
    return "docker" if engine is Docker.ANSWERS else "local"
