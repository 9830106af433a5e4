from __future__ import annotations

import docker
import pytest

from apps.runs.models import Run
from tests.contracts.engine import required_driver
from tests.support.platform import Platform


@pytest.fixture
def engine():
    """Docker's engine; there is a driver for it, or the test is skipped."""
    required_driver().close()
    client = docker.APIClient(version="auto")
    yield client
    client.close()


@pytest.fixture
def platform(transactional_db, tmp_path):
    """Engine and workers on the test database. Their logs are shown when the test fails."""
    running = Platform(tmp_path)
    yield running
    for run in Run.objects.values("public_id", "state", "attempts", "error"):
        print(run)
    running.stop()
    print(running.logs())
