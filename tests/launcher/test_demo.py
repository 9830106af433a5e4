"""`make demo` as a person sees it in a pipe: events, receipt, artifacts, doors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import pytest

from tests.launcher.clone import Clone, plant
from tests.launcher.platform_stub import CHART, RUN


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Clone, str]]:
    """A clone after `make demo`, and what that printed."""
    planted = plant(tmp_path_factory.mktemp("demo") / "clone")
    done = planted.make("demo")
    assert done.returncode == 0, done.stdout
    yield planted, done.stdout
    planted.remove()


pytestmark = [pytest.mark.slow, pytest.mark.processes]


def test_demo_follows_the_main_job_to_its_receipt(shown: tuple[Clone, str]):
    _, text = shown

    lines = text.splitlines()
    told = [line for line in lines if "acceptance" in line or "milestone" in line]
    assert "Clean the table" in told[0]
    assert "50%" in told[1]
    assert "rows 2" in told[1]
    for words in ("Receipt: succeeded", "2 rows in, 1 row out", "rows 1,200", "isolation  none"):
        assert words in text
    assert "Trace id   4bf92f3577b34da6" in lines
    assert "olivia     correct horse" in text
    assert "other" not in text
    assert "somebody else" not in text


def test_demo_submits_the_seeds_input_with_its_token(shown: tuple[Clone, str]):
    clone, _ = shown

    body = json.loads((clone.folder / "submitted.json").read_text())
    assert body == {"project": "demo", "agent": "csv-report", "input": {"csv": "a,b\n1,2\n"}}


def test_demo_stores_artifacts_that_are_what_the_receipt_says(shown: tuple[Clone, str]):
    clone, text = shown

    path = clone.home.state / "demo" / RUN / "chart.svg"
    assert path.read_bytes() == CHART
    assert f"{path}  6 bytes  sha256 {hashlib.sha256(CHART).hexdigest()}" in text


def test_the_sample_is_kept_for_scripts_and_nobody_else(shown: tuple[Clone, str]):
    clone, _ = shown

    assert clone.sample().keys() == {"url", "token", "project", "agent", "input", "users"}
    assert clone.home.demo.stat().st_mode & 0o777 == 0o600


def test_demo_refuses_an_artifact_that_differs_from_its_receipt(clone: Clone):
    (clone.folder / "fail-artifact").touch()

    done = clone.make("demo")

    assert done.returncode == 1
    assert "its sha256 differs" in done.stdout


def test_demo_fails_when_its_run_does_and_the_platform_stays_up(clone: Clone):
    (clone.folder / "fail-run").touch()

    done = clone.make("demo")

    assert done.returncode == 1
    assert "Receipt: failed" in done.stdout
    assert "script_failed: exit code 3" in done.stdout
    assert clone.make("status").returncode == 0


def test_passwords_given_out_once_are_shown_again(clone: Clone):
    clone.make("demo")

    done = clone.make("up")

    assert "olivia     correct horse" in done.stdout
    assert [user["password"] for user in clone.sample()["users"]] == ["correct horse"]
    assert clone.calls().count("seed") == 2
    assert "first_start" not in clone.calls()


def test_lost_sign_ins_are_made_anew(clone: Clone):
    clone.make("demo")
    (clone.home.state / "people.json").unlink()

    done = clone.make("demo")

    assert "olivia     correct horse" in done.stdout
    assert clone.calls().count("seed") == 3
