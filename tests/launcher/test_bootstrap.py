"""From a bare machine to `.venv`: what is missing is named, and nothing is installed twice."""

from __future__ import annotations

import importlib.util
import io
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from launcher import bootstrap
from launcher.console import Console
from launcher.problems import Problem

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project without dependencies, so that pip needs no network."""
    (tmp_path / "requirements").mkdir()
    for name in ("base", "embedded", "dev"):
        (tmp_path / f"requirements/{name}.txt").write_text("# nothing\n")
    return tmp_path


def install(project: Path, wanted: str = "base") -> str:
    out = io.StringIO()
    bootstrap.install(project, wanted, Console(out))
    return out.getvalue()


@pytest.mark.slow
def test_packages_are_installed_once_and_again_when_the_lock_changes(project: Path):
    first = install(project)
    second = install(project)
    (project / "requirements/base.txt").write_text("# changed\n")
    third = install(project)

    assert "making .venv" in first
    assert "packages installed" in first
    assert second == ""
    assert "making .venv" not in third
    assert "packages installed" in third


@pytest.mark.slow
def test_the_larger_set_satisfies_the_smaller_one(project: Path):
    install(project, "dev")

    assert install(project, "base") == ""
    assert "requirements/dev.txt" not in install(project, "dev")


@pytest.mark.slow
def test_an_environment_cut_off_while_it_was_made_is_made_again(project: Path):
    install(project)
    shutil.rmtree(next((project / ".venv/lib").glob("python3.*/site-packages")))

    assert "making .venv" in install(project)


@pytest.mark.slow
def test_a_package_without_a_hash_is_not_installed(project: Path):
    (project / "requirements/base.txt").write_text("six==1.16.0\n")

    with pytest.raises(Problem) as caught:
        install(project)

    assert "hash" in " ".join(caught.value.lines).lower()
    assert not (project / ".venv/aos-base.sha256").exists()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("ERROR: [Errno 28] No space left on device", "The disk is full"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES", "not the one that was locked"),
        ("NewConnectionError: Failed to establish", "the package index does not answer"),
        ("ERROR: something else", "could not be installed"),
    ],
)
def test_what_pip_says_becomes_a_sentence(tmp_path: Path, text: str, sentence: str):
    log = tmp_path / "install.log"
    log.write_text(f"Collecting x\n{text}\n")

    assert sentence in bootstrap._explain(log).sentence


def test_a_python_without_venv_is_told_which_package_to_install(
    project: Path, monkeypatch: pytest.MonkeyPatch
):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "ensurepip" else real(name)
    )

    with pytest.raises(Problem) as caught:
        install(project)

    assert "This Python has no ensurepip" in caught.value.sentence
    assert "sudo apt install python3-venv" in caught.value.step


def test_another_system_is_sent_to_containers(project: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(platform, "system", lambda: "Darwin")

    with pytest.raises(Problem, match="this is Darwin") as caught:
        install(project)

    assert "docker compose" in caught.value.step


def fake_python(folder: Path, name: str, *, is_new: bool) -> Path:
    path = folder / name
    path.write_text(
        "#!/bin/sh\n"
        'if [ "$1" = -V ]; then echo "Python 3.9.2"; exit 0; fi\n'
        f"exit {0 if is_new else 1}\n"
    )
    path.chmod(0o755)
    return path


def find_python(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", PROJECT / "launcher/find_python.sh"],
        env={"PATH": str(folder), **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_newer_python_is_found_beside_an_old_one(tmp_path: Path):
    fake_python(tmp_path, "python3", is_new=False)
    fake_python(tmp_path, "python3.12", is_new=True)

    assert find_python(tmp_path).stdout == "python3.12\n"


def test_an_old_python_alone_is_named_with_what_to_install(tmp_path: Path):
    fake_python(tmp_path, "python3", is_new=False)

    done = find_python(tmp_path)

    assert done.returncode == 1
    assert "needs Python 3.11 or newer; this machine has: Python 3.9.2." in done.stderr
    assert "Next: sudo apt install python3.11" in done.stderr


def test_a_machine_without_python_is_told_so(tmp_path: Path):
    done = find_python(tmp_path)

    assert done.returncode == 1
    assert "Next: " in done.stderr


def test_a_named_python_is_used_or_refused(tmp_path: Path):
    old = fake_python(tmp_path, "old", is_new=False)

    assert find_python(tmp_path, PYTHON=sys.executable).stdout == f"{sys.executable}\n"
    assert f"PYTHON={old} is not Python 3.11" in find_python(tmp_path, PYTHON=str(old)).stderr


def test_make_alone_lists_every_target_a_person_may_call():
    done = subprocess.run(["make"], cwd=PROJECT, capture_output=True, text=True, check=True)

    targets = {line.split()[1] for line in done.stdout.splitlines()}
    assert targets >= {
        *("help", "demo", "up", "stop", "restart", "status", "logs", "reset", "install"),
        *("test", "check", "lock", "proof", "bench", "compose-env"),
    }


def test_what_only_needs_a_running_platform_installs_nothing(tmp_path: Path):
    shutil.copy(PROJECT / "Makefile", tmp_path)

    for target in ("stop", "status", "logs", "reset"):
        done = subprocess.run(
            ["make", target], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (0, "AOS was never started here.\n")
