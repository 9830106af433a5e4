"""Fixtures for the whole suite. The servers it runs on are started by ``tests.support.plugin``."""

from __future__ import annotations

import pytest
from asgiref.sync import sync_to_async
from django.db import connections


@pytest.fixture
async def async_db(transactional_db):
    """A database for async tests that also closes the connection Channels' test client keeps open.

    ``channels.testing`` turns off connection clean-up while a socket is being driven, so the worker
    thread would still hold the test database when the suite tries to drop it.
    """
    yield
    await sync_to_async(connections.close_all)()


@pytest.fixture(autouse=True)
def _own_data_dir(settings, tmp_path):
    settings.AOS_DATA_DIR = tmp_path / "data"
    settings.AOS_AUDIT_FOLDER = tmp_path / "audit"
