"""Calls of many threads joined into few.

The way databases write their logs: who comes while a call is under way waits for it to end, and then one
of those who wait calls for all of them. Nobody waits for company, so a call alone is as quick as ever; the
busier the worker, the more runs share a statement and its commit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, Generic, TypeVar

from django.db import Error as DatabaseError

_MOST: Final = 50

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class _Place(Generic[Item, Answer]):
    """Somebody who waits: what for, and what came of it."""

    def __init__(self, item: Item) -> None:
        self.item = item
        self.answers: Sequence[Answer] = ()
        self.leads = False
        self.called = threading.Event()


class Together(Generic[Item, Answer]):
    """One act for many callers: ``act`` takes their items and answers each, in their order."""

    def __init__(self, act: Callable[[Sequence[Item]], Sequence[Answer]]) -> None:
        self._act = act
        self._lock = threading.Lock()
        self._waiting: list[_Place[Item, Answer]] = []
        self._is_busy = False

    def __call__(self, item: Item) -> Answer:
        """The act's answer for this item; raises what the act raises for it."""
        place: _Place[Item, Answer] = _Place(item)
        with self._lock:
            self._waiting.append(place)
            place.leads, self._is_busy = not self._is_busy, True
        if not place.leads:
            place.called.wait()
        if place.leads:
            self._lead()
        if not place.answers:
            # Together it failed, maybe because of one of them: each finds out for itself.
            place.answers = self._act([place.item])
        return place.answers[0]

    def _lead(self) -> None:
        """Act for all who wait, ourselves the first of them; then hand over to who came meanwhile."""
        try:
            with self._lock:
                together, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
            if len(together) == 1:
                together[0].answers = self._act([together[0].item])
            else:
                self._answer(together)
        finally:
            with self._lock:
                following = self._waiting[0] if self._waiting else None
                self._is_busy = following is not None
            if following:
                following.leads = True
                following.called.set()

    def _answer(self, together: Sequence[_Place[Item, Answer]]) -> None:
        try:
            with suppress(DatabaseError):
                answers = self._act([place.item for place in together])
                for place, answer in zip(together, answers, strict=True):
                    place.answers = [answer]
        finally:
            for place in together:
                place.called.set()
