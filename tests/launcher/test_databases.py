"""What is said about addresses of servers that cannot be used; never a password."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from launcher import databases
from launcher.problems import Problem
from tests.support import servers

SECRET = "h0rsebattery"  # noqa: S105 - must never be repeated


@pytest.fixture(scope="module")
def real() -> Iterator[servers.Servers]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DATABASE_URL", "REDIS_URL"):
            patch.delenv(name, raising=False)
        started = servers.start()
    yield started
    started.stop()


def problem(name: str, url: str) -> Problem:
    check = {
        "DATABASE_URL": databases.check_database,
        "REDIS_URL": lambda value: databases.check_redis("REDIS_URL", value),
        "BROKER_URL": databases.check_broker,
    }[name]
    with pytest.raises(Problem) as caught:
        check(url)
    told = f"{caught.value.sentence} {caught.value.step} {caught.value.lines}"
    assert SECRET not in told
    return caught.value


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        f"mysql://root:{SECRET}@localhost/aos",
        f"postgresql://aos:{SECRET}@localhost:port/aos",
        f"postgresql://aos:{SECRET}@[::1/aos",
        f"postgresql://aos:{SECRET}%zz@localhost/aos",
        f"postgresql://aos:{SECRET}@localhost/aos?no_such_option=1",
    ],
)
def test_what_is_no_address_of_a_database_is_said_to_be_none(url: str):
    assert "not an address of a PostgreSQL database" in problem("DATABASE_URL", url).sentence


def test_an_address_without_a_database_is_refused():
    found = problem("DATABASE_URL", f"postgresql://aos:{SECRET}@localhost")

    assert "names no database" in found.sentence


def test_a_refused_connection_names_host_and_port():
    port = closed_port()

    found = problem("DATABASE_URL", f"postgresql://aos:{SECRET}@127.0.0.1:{port}/aos")

    assert found.sentence == f"PostgreSQL at 127.0.0.1:{port} does not answer."
    assert "unset it to use the embedded one" in found.step


def test_a_host_that_does_not_exist_is_named():
    found = problem("DATABASE_URL", f"postgresql://aos:{SECRET}@host.invalid/aos")

    assert found.sentence == "No machine is called host.invalid."


def test_a_wrong_password_names_the_user(real: servers.Servers):
    folder = real.database_url.partition("?host=")[2]
    port = urlsplit(real.database_url).port

    found = problem("DATABASE_URL", f"postgresql://aos:{SECRET}@:{port}/aos?host={folder}")

    assert "refuses the password of aos" in found.sentence


def test_a_missing_database_comes_with_the_command_that_makes_it(real: servers.Servers):
    found = problem("DATABASE_URL", real.database_url.replace("/aos?", "/elsewhere?"))

    assert "has no database elsewhere" in found.sentence
    assert "createdb" in found.step


def test_a_role_that_may_not_create_tables_is_told_so(real: servers.Servers):
    found = problem("DATABASE_URL", real.database_url.replace("/aos?", "/postgres?"))

    assert "may not create tables in postgres" in found.sentence


def test_a_good_database_raises_nothing_and_has_vectors(real: servers.Servers):
    assert databases.check_database(real.database_url) == []


@pytest.mark.parametrize("url", ["nonsense", f"http://:{SECRET}@localhost", "redis://localhost:x"])
def test_what_is_no_address_of_a_redis_is_said_to_be_none(url: str):
    assert "REDIS_URL is not an address of a Redis server" in problem("REDIS_URL", url).sentence


def test_a_redis_that_does_not_answer_is_named():
    port = closed_port()

    found = problem("REDIS_URL", f"redis://:{SECRET}@127.0.0.1:{port}/0")

    assert found.sentence == f"No Redis server answers at 127.0.0.1:{port}."


@pytest.mark.parametrize("password", ["", f":{SECRET}@"])
def test_a_wrong_or_missing_redis_password_is_told(real: servers.Servers, password: str):
    port = urlsplit(real.redis_url).port

    found = problem("REDIS_URL", f"redis://{password}127.0.0.1:{port}/0")

    assert "refuses the password" in found.sentence


def test_a_good_redis_raises_nothing_as_server_and_as_broker(real: servers.Servers):
    databases.check_redis("REDIS_URL", real.redis_url)
    databases.check_broker(real.redis_url)


def test_a_broker_of_a_kind_we_cannot_use_is_refused():
    assert "sqs://" in problem("BROKER_URL", f"sqs://key:{SECRET}@").sentence


def test_a_rabbitmq_that_does_not_answer_is_named():
    port = closed_port()

    found = problem("BROKER_URL", f"amqp://aos:{SECRET}@127.0.0.1:{port}//")

    assert found.sentence == f"No broker answers at 127.0.0.1:{port}."
