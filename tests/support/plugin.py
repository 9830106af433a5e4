"""Starts real PostgreSQL and Valkey before Django reads its settings, and stops them at the end.

Loaded with ``-p`` because pytest-django reads the settings before any conftest is imported.
"""

from __future__ import annotations

import os

import pytest

from tests.support import servers

_STARTED = pytest.StashKey[servers.Servers]()


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    started = servers.start()
    early_config.stash[_STARTED] = started
    os.environ["DATABASE_URL"] = started.database_url
    os.environ["REDIS_URL"] = started.redis_url
    os.environ.pop("BROKER_URL", None)


def pytest_unconfigure(config: pytest.Config) -> None:
    if started := config.stash.get(_STARTED, None):
        started.stop()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the long proofs to ``make proof``, and put the browser tests last: Playwright keeps an
    event loop in this thread for good."""
    if "proof" not in config.option.markexpr:
        long = [item for item in items if item.get_closest_marker("proof")]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]
    items.sort(key=lambda item: item.get_closest_marker("browser") is not None)
