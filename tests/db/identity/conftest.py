"""What tests of sign-in and passwords share."""

from __future__ import annotations

from datetime import timedelta

import pytest

from apps.core import clock


@pytest.fixture
def now(monkeypatch):
    """A clock that stands still until it is moved, as with ``now(minutes=5)``."""
    state = {"at": clock.now().replace(microsecond=0)}
    monkeypatch.setattr(clock, "now", lambda: state["at"])

    def later(**by):
        state["at"] += timedelta(**by)

    return later
