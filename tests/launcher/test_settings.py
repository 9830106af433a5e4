"""What a start is run with: what was asked for, what runs already, what is made up."""

from __future__ import annotations

import stat
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from launcher import docker, environment, settings
from launcher.docker import Docker
from launcher.home import Home
from launcher.problems import Problem


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    for name in environment.wishes():
        monkeypatch.delenv(name)
    state = tmp_path / ".aos"
    found = Home(
        project=tmp_path, state=state, servers=state, sockets=state / "sockets", account=None
    )
    found.prepare()
    return found


def test_without_wishes_the_servers_are_embedded(place: Home):
    found = settings.decide(place, earlier=None)

    assert found.postgres is not None
    assert found.valkey is not None
    assert found.env["BROKER_URL"] == found.env["REDIS_URL"]
    assert urlsplit(found.env["DATABASE_URL"]).port == found.postgres.port
    assert found.url == found.env["AOS_PUBLIC_URL"] == "http://127.0.0.1:8000"


def test_servers_are_replaced_one_by_one(place: Home, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql://me@db/mine")
    monkeypatch.setenv("BROKER_URL", "amqp://rabbit")

    found = settings.decide(place, earlier=None)

    assert found.postgres is None
    assert found.valkey is not None
    assert found.env["DATABASE_URL"] == "postgresql://me@db/mine"
    assert found.env["BROKER_URL"] == "amqp://rabbit"


def test_a_mounted_secret_is_read_from_its_file(place: Home, monkeypatch: pytest.MonkeyPatch):
    path = place.state / "url"
    path.write_text("postgresql://me@db/mine\n")
    monkeypatch.setenv("DATABASE_URL_FILE", str(path))

    assert environment.wishes()["DATABASE_URL"] == "postgresql://me@db/mine"

    path.unlink()
    with pytest.raises(Problem, match=r"DATABASE_URL_FILE=.* cannot be read"):
        environment.wishes()


def test_a_second_start_decides_the_same_without_the_variables_of_the_first(
    place: Home, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AOS_PORT", "8123")
    monkeypatch.setenv("DATABASE_URL", "postgresql://me@db/mine")
    first = settings.decide(place, earlier=None)
    settings.keep(place, first)
    monkeypatch.delenv("AOS_PORT")
    monkeypatch.delenv("DATABASE_URL")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")

    second = settings.decide(place, earlier=settings.kept(place))

    assert second.env == first.env
    assert settings.changed(first.decision, second.decision) == []


def test_a_new_wish_is_named_as_the_change(place: Home, monkeypatch: pytest.MonkeyPatch):
    first = settings.decide(place, earlier=None)
    monkeypatch.setenv("AOS_WORKER_SLOTS", "9")

    second = settings.decide(place, earlier=first.decision)

    assert settings.changed(first.decision, second.decision) == ["AOS_WORKER_SLOTS"]


def test_passwords_are_made_once_and_kept_private(place: Home):
    first = environment.passwords(place)

    assert environment.passwords(place) == first
    assert stat.S_IMODE(place.secrets.stat().st_mode) == 0o600
    assert len(set(first.values())) == len(first)
    # The clone's name is kept beside them, and is no secret.
    assert min(len(value) for name, value in first.items() if name != "AOS_INSTANCE") >= 28


def test_the_environment_file_can_be_read_back_and_holds_nothing_of_the_shell(place: Home):
    found = settings.decide(place, earlier=None)
    settings.keep(place, found)

    read = environment.read(place)
    assert read["DATABASE_URL"] == found.env["DATABASE_URL"]
    assert "PATH" not in read
    assert stat.S_IMODE(place.env.stat().st_mode) == 0o600


@pytest.mark.parametrize("value", ["a b", "it's", "$HOME", 'quote"d', "", "a=b", "`id`", "ü"])
def test_any_value_survives_the_environment_file(place: Home, value: str):
    environment.write(place, {"NAME": value})

    assert environment.read(place) == {"NAME": value}


def test_an_empty_variable_counts_as_not_given(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DATABASE_URL", "")

    assert "DATABASE_URL" not in environment.wishes()


def test_what_a_run_is_given_is_no_wish(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AOS_RUN_ID", "42")

    assert "AOS_RUN_ID" not in environment.wishes()


def test_listening_everywhere_is_reached_on_this_machine(
    place: Home, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AOS_HOST", "0.0.0.0")  # noqa: S104 - nothing is bound

    assert settings.decide(place, earlier=None).url == "http://127.0.0.1:8000"


@pytest.mark.parametrize(
    ("wish", "engine", "driver"),
    [
        (None, Docker.ANSWERS, "docker"),
        (None, Docker.ABSENT, "local"),
        (None, Docker.FORBIDDEN, "local"),
        ("docker", Docker.ABSENT, "docker"),
        ("local", Docker.ANSWERS, "local"),
    ],
)
def test_the_sandbox_is_docker_where_an_engine_answers(
    place: Home, monkeypatch: pytest.MonkeyPatch, *, wish: str | None, engine: Docker, driver: str
):
    monkeypatch.setattr(docker, "look", lambda: engine)
    if wish:
        monkeypatch.setenv("AOS_SANDBOX_DRIVER", wish)

    found = settings.decide(place, earlier=None)

    assert found.env["AOS_SANDBOX_DRIVER"] == driver
    assert found.is_isolated == (driver == "docker")


def test_flower_reads_its_password_from_a_variable_of_its_own(place: Home):
    found = settings.decide(place, earlier=None)

    assert found.env["FLOWER_BASIC_AUTH"] == found.env["AOS_FLOWER_BASIC_AUTH"]


def test_a_damaged_decision_counts_as_none(place: Home):
    (place.run / "decision.json").write_text('{"wishes": {}}')

    assert settings.kept(place) is None
