from __future__ import annotations

import pytest

from apps.events import feed


@pytest.fixture
async def live(async_db):
    """The feed of this test's event loop, ended before the database is taken away."""
    yield feed.current()
    await feed.stop()
