"""Fixtures for the whole suite. The servers it runs on are started by ``tests.support.plugin``."""

from __future__ import annotations

import pytest
from asgiref.sync import sync_to_async
from django.db import connection, connections
from django.test import TransactionTestCase

from tests.support import emptying


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup, django_db_blocker):
    """Let the tests empty the audit tables between them, which the database refuses otherwise."""
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        for table in ("entry", "seal", "checkpoint"):
            keep = f"events_audit{table}_keep"
            cursor.execute(f"ALTER TABLE events_audit{table} DISABLE TRIGGER {keep}")


@pytest.fixture(scope="session", autouse=True)
def _emptied_between_tests():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransactionTestCase, "_fixture_teardown", emptying.empty_tables)
        yield


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
