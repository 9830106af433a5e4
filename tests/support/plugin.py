"""Starts real PostgreSQL and Valkey before Django reads its settings, and stops them at the end.

Loaded with ``-p`` because pytest-django reads the settings before any conftest is imported.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support import servers

# By then the browser's files have begun.
_EARLY = 0.75
_STARTED = pytest.StashKey[servers.Servers]()


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    if _only_hands_out(early_config):
        return
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
    """Leave the long proofs to ``make proof``, and spread the browser's tests among the others."""
    if "proof" not in config.option.markexpr:
        long = [item for item in items if item.get_closest_marker("proof")]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]
    items[:] = _spread(items)


def _only_hands_out(config: pytest.Config) -> bool:
    """Whether other processes run the tests, each on servers of its own: see pytest-xdist."""
    several = getattr(config.known_args_namespace, "numprocesses", None)
    return bool(several) and "PYTEST_XDIST_WORKER" not in os.environ


def _spread(items: list[pytest.Item]) -> list[pytest.Item]:
    """File by file, those of the browser evenly between the others.

    Side by side, two Chromiums would keep each other from what their tests wait for. The last of their
    files takes minutes, the last of the others seconds: all would wait for it at the end.
    """
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    browser = [path for path, found in files.items() if found[0].get_closest_marker("browser")]
    others = [path for path in files if path not in browser]
    place = {
        path: share * (number + 0.5) / len(paths)
        for paths, share in ((browser, _EARLY), (others, 1))
        for number, path in enumerate(paths)
    }
    return [item for path in sorted(files, key=place.__getitem__) for item in files[path]]
