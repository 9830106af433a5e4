"""What a web request has asked once and need not ask again.

Kept while the request is being answered, and only until it changes something: with the first act that
goes on record it is forgotten, and nothing is kept from there on, because what was true before the act
may not be so after it, or after its transaction was rolled back. Sockets, streams' bodies, the engine,
workers and commands have no such memory: they ask each time, or several things at once (``at_once``).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

Answer = TypeVar("Answer")


class _Memory:
    def __init__(self) -> None:
        self.answers: dict[Hashable, Any] = {}
        self.is_open = True

    def close(self) -> None:
        # A task that the request started has a copy of its context, with this very object.
        self.is_open = False
        self.answers.clear()


_memory: ContextVar[_Memory | None] = ContextVar("aos_memory", default=None)


@contextmanager
def kept() -> Iterator[None]:
    """Remember answers inside."""
    memory = _Memory()
    before = _memory.set(memory)
    try:
        yield
    finally:
        _memory.reset(before)
        memory.close()


@contextmanager
def at_once() -> Iterator[None]:
    """Answer the questions inside from one reading: for several about the same thing, with no change between."""
    if is_kept():
        yield
        return
    with kept():
        yield


def is_kept() -> bool:
    memory = _memory.get()
    return memory is not None and memory.is_open


def recall(key: Hashable, ask: Callable[[], Answer]) -> Answer:
    """The answer that was given under this key, or a new one, which is kept if anything is."""
    memory = _memory.get()
    if memory is None or not memory.is_open:
        return ask()
    if key not in memory.answers:
        memory.answers[key] = ask()
    answer: Answer = memory.answers[key]
    return answer


def forget() -> None:
    """Ask anew from here to the end of the request."""
    memory = _memory.get()
    if memory is not None:
        memory.close()
