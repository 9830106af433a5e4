"""Whose rows the database shows: the second wall behind ``visible_to``.

A web request may see one organization's rows, and none at all before its person is known. That is
told to PostgreSQL at the start of each transaction (``apps.core.postgres``), whose row security then
holds whatever a query forgot. Engine, workers and commands act for the platform and see everything.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Final
from uuid import UUID

PLATFORM: Final = "platform"
NOBODY: Final = ""

_viewer: ContextVar[str] = ContextVar("aos_viewer", default=PLATFORM)


def viewer() -> str:
    """``PLATFORM``, ``NOBODY``, or the id of the organization whose rows are shown."""
    return _viewer.get()


def platform() -> AbstractContextManager[None]:
    """See all organizations for a moment: to find out who asks, or how the platform is."""
    return _shown(PLATFORM)


def nobody() -> AbstractContextManager[None]:
    """See no organization's rows."""
    return _shown(NOBODY)


def organization(organization_id: UUID) -> AbstractContextManager[None]:
    """See one organization's rows."""
    return _shown(str(organization_id))


def enter(organization_id: UUID) -> None:
    """See one organization's rows from here to the end of the request, unless all are shown anyway.

    Called where a request's person becomes known. Outside a request it changes nothing.
    """
    if _viewer.get() != PLATFORM:
        _viewer.set(str(organization_id))


@contextmanager
def _shown(viewer: str) -> Iterator[None]:
    before = _viewer.set(viewer)
    try:
        yield
    finally:
        _viewer.reset(before)
