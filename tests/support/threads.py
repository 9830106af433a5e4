"""Doing things at the same moment, each on a database connection of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier
from typing import Any

from django.db import connection

_PATIENCE_S = 30


def at_once(acts: Iterable[Callable[[], Any]], *, errors: Any = ()) -> list[Any]:
    """Begin all of these at the same moment; what each returned, in their order.

    An error of these kinds stands in the place of the one that raised it; any other is raised.
    """
    acts = list(acts)
    start = Barrier(len(acts))

    def do(act: Callable[[], Any]) -> Any:
        start.wait(timeout=_PATIENCE_S)
        try:
            return act()
        except errors as error:
            return error

    with ThreadPoolExecutor(len(acts)) as pool:
        return list(pool.map(lambda act: apart(partial(do, act)), acts))


def apart(act: Callable[[], Any]) -> Any:
    """What it returns; the connection of this thread is closed behind it."""
    try:
        return act()
    finally:
        connection.close()


def until_somebody_waits() -> None:
    """Return when a session waits for a lock that another one holds."""
    with connection.cursor() as cursor:
        for _ in range(400):
            cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
            if cursor.fetchone()[0]:
                return
            cursor.execute("SELECT pg_sleep(0.02)")
    raise AssertionError("nobody waits")
