"""Coroutines that run side by side and end together."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

_AGAIN_S = 0.2


async def first_of(*parts: Coroutine[Any, Any, None]) -> None:
    """Run the parts until the first one ends, stop the others, and raise what any of them raised."""
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await end(*tasks)
    for task in tasks:
        if not task.cancelled() and (error := task.exception()):
            raise error


async def end(*tasks: asyncio.Task[None]) -> None:
    """Cancel the tasks and wait until they have ended.

    More than once if need be: until Python 3.12 ``asyncio.wait_for``, which redis-py is full of,
    swallows a cancellation that arrives together with its answer.
    """
    running = set(tasks)
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=_AGAIN_S)
