"""Clones of a small project, stopped and removed whatever a test did to them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.launcher.clone import Clone, plant


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Clone]:
    planted = plant(tmp_path / "clone")
    yield planted
    planted.remove()


@pytest.fixture
def running(clone: Clone) -> Clone:
    """A clone whose platform is up."""
    done = clone.make("up")
    assert done.returncode == 0, done.stdout
    return clone


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    """A platform for tests that only look."""
    planted = plant(tmp_path_factory.mktemp("shared") / "clone")
    done = planted.make("up")
    assert done.returncode == 0, done.stdout
    yield planted
    planted.remove()
