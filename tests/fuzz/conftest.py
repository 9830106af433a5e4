"""One web process for all campaigns; every test lays out organizations of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings as django_settings

from tests.support.platform import Platform


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(autouse=True)
def _own_data_dir(settings, data_dir):
    """The web process outlives a test, so its files do too."""
    settings.AOS_DATA_DIR = data_dir
    settings.AOS_AUDIT_FOLDER = data_dir / "audit"


@pytest.fixture(scope="session")
def platform(django_db_setup, data_dir, tmp_path_factory) -> Iterator[Platform]:
    running = Platform(
        tmp_path_factory.mktemp("fuzz"),
        overrides={
            "AOS_INSTANCE": django_settings.AOS_INSTANCE,
            "AOS_SECRET_KEY": django_settings.SECRET_KEY,
            "AOS_DATA_DIR": str(data_dir),
            "AOS_AUDIT_FOLDER": str(data_dir / "audit"),
            "AOS_LOG_LEVEL": "ERROR",
        },
    )
    yield running
    running.stop()


@pytest.fixture(scope="session")
def web(platform: Platform) -> str:
    return platform.web()
