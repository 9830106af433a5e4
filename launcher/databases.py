"""Tries the servers a person named, and says in a sentence what is wrong with one.

No message repeats an address as it was given: it may hold a password.
"""

from __future__ import annotations

import socket
from typing import Final
from urllib.parse import SplitResult, urlsplit

import psycopg
import redis
from psycopg.conninfo import conninfo_to_dict

from launcher.problems import Problem

CONNECT_SECONDS: Final = 5
OLDEST_POSTGRES: Final = 150_000
REDIS_SCHEMES: Final = frozenset({"redis", "rediss", "unix"})
EXAMPLE: Final = "postgresql://aos:password@localhost:5432/aos"
AMQP_PORTS: Final = {"amqp": 5672, "amqps": 5671, "pyamqp": 5672}


def check_database(url: str) -> list[str]:
    """Raise the problem of a database AOS cannot use; return what is merely worth knowing."""
    words = _database_words(url)
    place = _database_place(words)
    try:
        with psycopg.connect(url, connect_timeout=CONNECT_SECONDS) as connection:
            return _judge(connection, place)
    except psycopg.OperationalError as error:
        raise _database_problem(str(error), words, place) from error


def _database_words(url: str) -> dict[str, str]:
    unusable = Problem(
        "DATABASE_URL is not an address of a PostgreSQL database.",
        step=f"Write it like {EXAMPLE}; special characters in the password as %40, %2F, ...",
    )
    if not url.startswith(("postgresql://", "postgres://")):
        raise unusable
    try:
        found = conninfo_to_dict(url)
    except psycopg.ProgrammingError as error:
        raise unusable from error
    words = {name: str(value) for name, value in found.items() if value is not None}
    if not words.get("port", "5432").replace(",", "").isdigit():
        raise unusable
    if not words.get("dbname"):
        raise Problem("DATABASE_URL names no database.", step=f"Write it like {EXAMPLE}")
    return words


def _database_place(words: dict[str, str]) -> str:
    return f"{words.get('host', 'localhost')}:{words.get('port', '5432')}"


def _judge(connection: psycopg.Connection, place: str) -> list[str]:
    version = connection.info.server_version
    if version < OLDEST_POSTGRES:
        raise Problem(
            f"PostgreSQL at {place} is version {version // 10_000}; AOS needs 15 or newer.",
            step="Upgrade it, or unset DATABASE_URL to use the embedded one.",
        )
    row = connection.execute(
        "SELECT has_schema_privilege('public', 'CREATE'),"
        " EXISTS (SELECT 1 FROM pg_available_extensions WHERE name = 'vector')"
    ).fetchone()
    may_create, has_vector = row or (False, False)
    if not may_create:
        raise Problem(
            f"The role of DATABASE_URL may not create tables in {connection.info.dbname}.",
            step=f"As an administrator: ALTER DATABASE {connection.info.dbname} OWNER TO {connection.info.user}",
        )
    return [] if has_vector else [f"PostgreSQL at {place} has no pgvector: memory will be off."]


def _database_problem(text: str, words: dict[str, str], place: str) -> Problem:
    name, user = words["dbname"], words.get("user", "you")
    no_host = (f"No machine is called {words.get('host')}.", "Correct the host in DATABASE_URL.")
    known = {
        "password authentication failed": (
            f"PostgreSQL at {place} refuses the password of {user}.",
            "Correct user and password in DATABASE_URL.",
        ),
        "no password supplied": (
            f"PostgreSQL at {place} wants a password for {user}.",
            f"Add it: {EXAMPLE}",
        ),
        f'database "{name}" does not exist': (
            f"PostgreSQL at {place} has no database {name}.",
            f"Create it: createdb -h {words.get('host', 'localhost')} -O {user} {name}",
        ),
        f'role "{user}" does not exist': (
            f"PostgreSQL at {place} knows no role {user}.",
            f"Create it, or correct DATABASE_URL: createuser --pwprompt {user}",
        ),
        "too many clients": (
            f"PostgreSQL at {place} has no connection left.",
            "Raise max_connections there, or end what uses them up.",
        ),
        "no pg_hba.conf entry": (
            f"PostgreSQL at {place} does not let {user} in from this machine.",
            "Allow it in pg_hba.conf there.",
        ),
        "could not translate host name": no_host,  # said by libpq
        "failed to resolve host": no_host,  # said by psycopg
    }
    for sign, (sentence, step) in known.items():
        if sign in text:
            return Problem(sentence, step=step)
    return Problem(
        f"PostgreSQL at {place} does not answer.",
        step="Start it or correct DATABASE_URL; unset it to use the embedded one.",
        lines=text.strip().splitlines()[:1],
    )


def check_redis(name: str, url: str) -> None:
    """Raise the problem of a Redis or Valkey that *name* points to."""
    try:
        client = redis.Redis.from_url(
            url, socket_connect_timeout=CONNECT_SECONDS, socket_timeout=CONNECT_SECONDS
        )
    except ValueError as error:
        raise Problem(
            f"{name} is not an address of a Redis server.",
            step="Write it like redis://:password@localhost:6379/0",
        ) from error
    place = _place(urlsplit(url), 6379)
    try:
        with client:
            client.ping()
    except (redis.AuthenticationError, redis.exceptions.NoPermissionError) as error:
        raise _redis_password_problem(name, place) from error
    except redis.ResponseError as error:
        raise Problem(f"The server at {place} says: {error}.", step=f"Correct {name}.") from error
    except (redis.ConnectionError, redis.TimeoutError) as error:
        if isinstance(error.__cause__, redis.AuthenticationError) or "AUTH" in str(error):
            raise _redis_password_problem(name, place) from error
        raise Problem(
            f"No Redis server answers at {place}.",
            step=f"Start it or correct {name}; unset it to use the embedded one.",
        ) from error


def _redis_password_problem(name: str, place: str) -> Problem:
    return Problem(
        f"The Redis server at {place} refuses the password.",
        step=f"Correct the password in {name}.",
    )


def check_broker(url: str) -> None:
    scheme = urlsplit(url).scheme
    if scheme in REDIS_SCHEMES:
        check_redis("BROKER_URL", url)
        return
    if scheme not in AMQP_PORTS:
        raise Problem(
            f"BROKER_URL begins with {scheme or 'no scheme'}:// , which AOS cannot use.",
            step="Give a Redis (redis://) or RabbitMQ (amqp://) address.",
        )
    parts = urlsplit(url)
    address = (parts.hostname or "localhost", parts.port or AMQP_PORTS[scheme])
    try:
        socket.create_connection(address, timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise Problem(
            f"No broker answers at {address[0]}:{address[1]}.",
            step="Start it or correct BROKER_URL; unset it to use Redis.",
        ) from error


def _place(parts: SplitResult, port: int) -> str:
    if parts.scheme == "unix":
        return parts.path
    return f"{parts.hostname or 'localhost'}:{parts.port or port}"
