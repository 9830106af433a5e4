"""The Procfile: what it may say, how often a process is started, what its words become."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from launcher import process, procfile
from launcher.home import Home
from launcher.problems import Problem
from launcher.processes import MARKER

PROJECT = Path(__file__).parents[2]
ENV = {
    "AOS_HOST": "127.0.0.1",
    "AOS_PORT": "8000",
    "AOS_FLOWER_HOST": "127.0.0.1",
    "AOS_FLOWER_PORT": "5555",
    "AOS_WORKER_SLOTS": "4",
}


def home(folder: Path) -> Home:
    state = folder / ".aos"
    return Home(project=folder, state=state, servers=state, sockets=state, account=None)


def test_our_own_procfile_gives_two_engines_and_one_of_the_rest():
    services = procfile.services(home(PROJECT), ENV)

    names = [service.name for service in services]
    assert names == ["engine-1", "engine-2", "worker", "flower", "web"]


def test_our_own_procfile_keeps_secrets_out_of_arguments():
    text = (PROJECT / "Procfile").read_text()

    used = {first or second for first, second in procfile.VARIABLE.findall(text)}
    assert used - {"NAMES"} <= ENV.keys() | {"AOS_PROCESS_NUMBER"}


def test_a_formation_changes_how_often_a_process_is_started():
    services = procfile.services(home(PROJECT), {**ENV, "AOS_FORMATION": "worker=2, engine=1"})

    names = [service.name for service in services if service.group in {"worker", "engine"}]
    assert names == ["engine", "worker-1", "worker-2"]
    nodes = [word for service in services for word in service.argv if word.endswith("@%h")]
    assert nodes == ["worker-1@%h", "worker-2@%h"]


@pytest.mark.parametrize("text", ["worker", "worker=", "worker=-1", "worker=33", "nobody=1", "=1"])
def test_a_formation_that_does_not_fit_is_refused(text: str):
    with pytest.raises(Problem, match="does not fit the Procfile"):
        procfile.services(home(PROJECT), {**ENV, "AOS_FORMATION": text})


def test_a_process_knows_its_name_and_carries_our_marker(tmp_path: Path):
    (tmp_path / "Procfile").write_text("web: serve --name $AOS_PROCESS_NAME\n")

    (service,) = procfile.services(home(tmp_path), {})

    assert service.argv == ["serve", "--name", "web"]
    assert service.env[MARKER] == str(tmp_path / ".aos")


def test_words_in_quotes_stay_together_and_no_shell_reads_them(tmp_path: Path):
    (tmp_path / "Procfile").write_text("web: serve 'two words' $WORDS `date`\n")

    (service,) = procfile.services(home(tmp_path), {"WORDS": "a b; rm -rf /"})

    assert service.argv == ["serve", "two words", "a b; rm -rf /", "`date`"]


@pytest.mark.parametrize("line", ["web", "web:", ": serve", "Web serve", "web: a\nweb: b"])
def test_a_line_that_is_none_is_named_by_its_number(tmp_path: Path, line: str):
    (tmp_path / "Procfile").write_text(f"# comment\n\n{line}\n")

    with pytest.raises(Problem, match=re.escape("Line ")):
        procfile.read(tmp_path / "Procfile")


def test_a_container_runs_the_same_words(monkeypatch: pytest.MonkeyPatch):
    for name, value in ENV.items():
        monkeypatch.setenv(name, value)
    services = {service.group: service for service in procfile.services(home(PROJECT), ENV)}

    for group in ("engine", "worker", "flower", "web"):
        assert process.command(group, PROJECT) == services[group].argv


def test_a_process_that_is_not_in_the_procfile_is_refused():
    with pytest.raises(Problem, match="has no process nobody"):
        process.command("nobody", PROJECT)
