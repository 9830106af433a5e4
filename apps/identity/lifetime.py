"""How long a browser stays signed in: so long after the person's last act, and so long in all.

A page that is left open goes on asking by itself, so not every request is an act.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from django.conf import settings
from django.http import HttpRequest

from apps.core import clock

_BEGAN: Final = "aos_began_at"
_ACTED: Final = "aos_acted_at"
# Writing on every request would make each read a write.
_GRAIN: Final = timedelta(minutes=1)
_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})


def begin(session: Any) -> None:
    """The person has just signed in: both times begin."""
    session[_BEGAN] = session[_ACTED] = clock.now().isoformat()


def note_act(session: Any) -> None:
    """The person has done something. A session that nobody signed in to is left alone."""
    acted = session.get(_ACTED)
    if acted is not None and clock.now() - datetime.fromisoformat(acted) >= _GRAIN:
        session[_ACTED] = clock.now().isoformat()


def left(session: Any) -> timedelta:
    """How long the session lasts from now on if nothing more is done in it."""
    idle: timedelta = settings.AOS_SESSION_IDLE
    began = session.get(_BEGAN)
    if began is None:
        return idle
    whole = datetime.fromisoformat(began) + settings.AOS_SESSION_LIFETIME - clock.now()
    return max(min(idle, whole), timedelta(0))


def is_act(request: HttpRequest) -> bool:
    """Whether a person asks, and not a page that is open: changes, pages that are gone to, and what a
    page says came of a key or a click (``hub/js/presence.js``)."""
    if request.method not in _READING or "X-Acted" in request.headers:
        return True
    is_page = request.headers.get("Sec-Fetch-Dest", "document") == "document"
    return is_page and "HX-Request" not in request.headers
