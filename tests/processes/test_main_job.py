"""The main job from the shell, on real input, in a real sandbox."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from apps.agents.models import AgentVersion
from apps.agents.services import examples
from apps.core import blobs
from apps.events.models import Event
from apps.events.types import EventType
from apps.identity.models import User
from apps.projects.models import WorkspaceFile
from apps.runs.models import Run
from tests.contracts.engine import required_driver
from tests.support.platform import PROJECT

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.docker]
DATA = examples.FOLDER / "csv-report" / "data" / "birdstrikes.csv"


@pytest.fixture
def _docker():
    required_driver().close()


def _manage(platform, *words):
    return subprocess.run(
        [sys.executable, "manage.py", *words],
        cwd=PROJECT,
        env=platform.env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.usefixtures("_docker")
def test_the_main_job_is_submitted_and_followed_from_the_shell(platform):
    platform.overrides["AOS_SANDBOX_DRIVER"] = "docker"
    seeded = json.loads(_manage(platform, "seed", "--json").stdout)
    platform.engine()
    platform.worker()

    told = _manage(platform, "run", "csv-report", "--input", str(DATA), "--follow")

    assert told.returncode == 0, told.stderr
    assert "== succeeded" in told.stdout
    assert "100% The report and the chart are ready" in told.stdout
    run = Run.objects.get()
    names = list(run.artifacts.values_list("name", flat=True))
    assert names == ["chart.svg", "clean.csv", "report.md"]
    types = list(
        Event.objects.filter(run_id=run.public_id).order_by("seq").values_list("type", flat=True)
    )
    assert types[0] == EventType.ACCEPTANCE
    assert types.count(EventType.MILESTONE) == 4
    assert types.count(EventType.RECEIPT) == 1
    assert seeded["input"] == {"file": DATA.name}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nobody-made-this"], "There is no agent 'nobody-made-this'."),
        (["hello", "--project", "elsewhere"], "There is no project 'elsewhere'."),
        (["hello", "--as", "stranger"], "There is no user 'stranger'."),
        (["csv-report", "--input", "/no/such/file.csv"], "No such file"),
        (["csv-report"], "is not valid"),
        (["hello", "--as", "vera"], "Your role does not allow run.submit"),
    ],
)
def test_a_wrong_word_gives_one_sentence(db, words, sentence):
    from django.core.management import CommandError, call_command

    examples.seed()

    with pytest.raises(CommandError) as refused:
        call_command("run", *words)

    assert sentence in str(refused.value)
    assert not Run.objects.exists()


def test_seeding_again_makes_nothing_twice_and_keeps_passwords(db):
    first = examples.seed()
    again = examples.seed()

    assert User.objects.count() == len(examples.CAST)
    assert AgentVersion.objects.count() == 3
    assert all(user["password"] for user in first["users"])
    assert not any(user["password"] for user in again["users"])
    assert first["token"] != again["token"]


def test_seeding_again_brings_back_a_sample_whose_content_was_deleted(db, settings):
    examples.seed()
    shutil.rmtree(settings.AOS_DATA_DIR)

    examples.seed()

    for file in WorkspaceFile.objects.all():
        assert len(blobs.read(file.sha256)) == file.size
    assert WorkspaceFile.objects.exists()
