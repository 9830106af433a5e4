"""The only door to the process environment.

Every value is read once, at start-up, and a bad one stops the process with a message that names it.
"""

from __future__ import annotations

import json
import os
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

from apps.core.labels import VERSION, fault


def text(name: str, *, default: str | None = None) -> str:
    value = os.environ.get(name, default)
    if value is None:
        raise ImproperlyConfigured(f"{name} is required and not set.")
    return value


def integer(name: str, *, default: int, minimum: int | None = None) -> int:
    raw = os.environ.get(name)
    if raw is None:
        return default
    try:
        value = int(raw)
    except ValueError as error:
        raise ImproperlyConfigured(f"{name}={raw!r} is not a whole number.") from error
    if minimum is not None and value < minimum:
        raise ImproperlyConfigured(f"{name}={value} is below its minimum of {minimum}.")
    return value


def secret(name: str, *, default: str | None = None) -> str:
    """Prefer the file named by ``{name}_FILE`` (a mounted secret) over the variable itself."""
    if path := os.environ.get(f"{name}_FILE"):
        try:
            return Path(path).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ImproperlyConfigured(f"{name}_FILE={path} cannot be read.") from error
    return text(name, default=default)


def secrets(name: str, *, default: tuple[str, ...] = ()) -> list[str]:
    """Several secrets, separated by commas or, in a file, by lines."""
    given = secret(name, default=",".join(default)).replace("\n", ",")
    return [word.strip() for word in given.split(",") if word.strip()]


def flag(name: str, *, default: bool) -> bool:
    raw = os.environ.get(name, "").strip().lower()
    if not raw:
        return default
    if raw in {"1", "true", "yes", "on"}:
        return True
    if raw in {"0", "false", "no", "off"}:
        return False
    raise ImproperlyConfigured(f"{name}={raw!r} is not a yes or no (use 1 or 0).")


_PERIODS = {"s": 1, "m": 60, "h": 3600}


def rate(name: str, *, default: str) -> tuple[int, int] | None:
    """How many in how many seconds, from ``60/s``, ``600/m`` or ``100/h``; ``off`` is no limit."""
    raw = text(name, default=default).strip().lower()
    if raw == "off":
        return None
    count, _, period = raw.partition("/")
    if not count.isdecimal() or int(count) < 1 or period not in _PERIODS:
        raise ImproperlyConfigured(f"{name}={raw!r} is not a rate such as 600/m, or off.")
    return int(count), _PERIODS[period]


def words(name: str, *, default: tuple[str, ...] = ()) -> list[str]:
    """A comma-separated list; empty entries are dropped."""
    raw = os.environ.get(name)
    if raw is None:
        return list(default)
    return [word.strip() for word in raw.split(",") if word.strip()]


def choice(name: str, *, default: str, among: tuple[str, ...]) -> str:
    value = text(name, default=default)
    if value not in among:
        raise ImproperlyConfigured(f"{name}={value!r} is not one of {', '.join(among)}.")
    return value


def networks(name: str, *, default: tuple[str, ...]) -> tuple[IPv4Network | IPv6Network, ...]:
    """A comma-separated list of networks such as ``198.51.100.0/24``."""
    try:
        return tuple(ip_network(word) for word in words(name, default=default))
    except ValueError as error:
        raise ImproperlyConfigured(f"{name}: {error}.") from error


def mapping(name: str, *, default: str = "") -> dict[str, str]:
    """A JSON object of texts; nothing stands for an empty one."""
    raw = os.environ.get(name, default).strip()
    if not raw:
        return {}
    try:
        found = json.loads(raw)
    except ValueError as error:
        raise ImproperlyConfigured(f"{name} is not JSON.") from error
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise ImproperlyConfigured(f"{name} must be a JSON object of texts.")
    return found


def pairs(name: str, *, default: str) -> dict[str, str]:
    """A comma-separated list of ``key=value``."""
    found = dict[str, str]()
    for word in filter(None, map(str.strip, text(name, default=default).split(","))):
        key, sign, value = word.partition("=")
        if not (key.strip() and sign and value.strip()):
            raise ImproperlyConfigured(f"{name} holds {word!r}, which is not key=value.")
        found[key.strip()] = value.strip()
    return found


def labels(name: str, *, default: str) -> dict[str, str]:
    """What a worker says of itself, as ``gpu=true,zone=eu``."""
    found = pairs(name, default=default)
    if VERSION in found:
        raise ImproperlyConfigured(f"{name} names {VERSION!r}, which every worker has by itself.")
    if wrong := fault(found):
        raise ImproperlyConfigured(f"{name}: labels {wrong}.")
    return found


def word(name: str, *, default: str) -> str:
    """A word as a label's."""
    value = text(name, default=default)
    if wrong := fault({"it": value}):
        raise ImproperlyConfigured(f"{name}: {wrong}.")
    return value


def database(name: str, *, default: str | None = None) -> dict[str, Any]:
    """Django's DATABASES entry from a ``postgresql://`` URL; ``?host=`` may name a socket folder."""
    url = secret(name, default=default)
    parts = urlsplit(url)
    if parts.scheme not in {"postgres", "postgresql"} or not parts.path.strip("/"):
        raise ImproperlyConfigured(
            f"{name} must look like postgresql://user:password@host:5432/database."
        )
    try:
        port = parts.port
    except ValueError as error:
        raise ImproperlyConfigured(f"{name} has a port that is not a number.") from error
    options = dict(parse_qsl(parts.query))
    host = options.pop("host", parts.hostname or "")
    return {
        "ENGINE": "apps.core.postgres",
        "NAME": unquote(parts.path.strip("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": host,
        "PORT": str(port or ""),
        "OPTIONS": options,
    }
