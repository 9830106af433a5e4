"""When a session last proved who it is: at sign-in, and again when it is asked to."""

from __future__ import annotations

from collections.abc import MutableMapping
from datetime import datetime
from typing import Any, Final

from django.conf import settings

from apps.core import clock

_KEY: Final = "aos_verified_at"


def note(session: MutableMapping[str, Any], *, at: datetime | None = None) -> None:
    """The person has proved who they are: just now, or when somebody else saw it."""
    session[_KEY] = (min(at, clock.now()) if at else clock.now()).isoformat()


def is_stale(session: Any) -> bool:
    """Whether the last proof is too old for what needs a fresh one, or was never given."""
    noted = session.get(_KEY) if session is not None else None
    if noted is None:
        return True
    return clock.now() - datetime.fromisoformat(noted) > settings.AOS_STEP_UP
