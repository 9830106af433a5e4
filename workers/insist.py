"""How a worker insists on being heard by a database that is away."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

from django.conf import settings
from django.db import InterfaceError, OperationalError, connection

from apps.core.postgres import direct

_TRY_AGAIN_S: Final = 0.5

Answer = TypeVar("Answer")


def insist(act: Callable[[], Answer]) -> Answer:
    """Report an outcome, waiting for a database that is away as long as we may still act.

    Safe to repeat: a report that did arrive took the lease, and the repetition is ``LeaseLost``. A process
    that stood still until it was too late tries once more: the lease decides whether it was.
    """
    give_up = time.monotonic() + settings.AOS_SELF_FENCE.total_seconds()
    while True:
        began = time.monotonic()
        try:
            return act()
        except (OperationalError, InterfaceError):
            connection.close()
            direct.close()
            if began > give_up:
                raise
            time.sleep(_TRY_AGAIN_S)
