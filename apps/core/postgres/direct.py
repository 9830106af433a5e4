"""A thread's own connection for the few statements that an engine or a worker runs without end.

Django sends each statement as text, to be parsed and planned again, over a pooled connection that is
asked for its health first. Here a statement is prepared once and its plan kept, which takes two thirds
of the time off. The connection acts as the platform (see ``apps.core.tenancy``) and commits each
statement by itself, or several together (``atomic``). Inside a transaction of Django's, or where no line
was opened, statements go through Django as ever: services do not know the difference.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from django.db import connection, transaction
from psycopg.rows import dict_row

from apps.core import sql

_APPLICATION: Final = "aos-line"
# Every statement that goes this way finds its rows by key: one plan is good for all values and sizes.
# It is made once, maybe while the tables are empty, and must not read a whole table when it has grown.
_BY_KEY: Final = (
    "-c plan_cache_mode=force_generic_plan"
    " -c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off -c enable_material=off"
    " -c jit=off"
)
# What a stalled process can hold up: its statement must not wait for ever for a lock, and its open
# transaction must not keep a successor from its work.
_BOUNDED: Final = (
    "-c lock_timeout=10s -c idle_in_transaction_session_timeout=2s -c tcp_keepalives_idle=30"
)
_held = threading.local()

Row = dict[str, Any]


@contextmanager
def line() -> Iterator[None]:
    """Let this thread's statements use its own connection, which is kept for the next time."""
    _held.open = True
    try:
        yield
    finally:
        _held.open = False


def fetch(statement: str, params: Mapping[str, Any]) -> list[Row]:
    """Run a statement; each row comes back as a dict by column name."""
    own = _own()
    if own is None:
        return sql.fetch(statement, params)
    with connection.wrap_database_errors:
        # A literal from our own .sql files, as ``sql.load`` reads them.
        found = own.execute(statement, params, prepare=True)
        return found.fetchall() if found.description else []


def execute(statement: str, params: Mapping[str, Any]) -> int:
    """Run a statement; return how many rows it touched."""
    own = _own()
    if own is None:
        return sql.execute(statement, params)
    with connection.wrap_database_errors:
        return int(own.execute(statement, params, prepare=True).rowcount)


@contextmanager
def atomic() -> Iterator[None]:
    """Commit the statements of this block together, on the thread's own connection where it has one."""
    own = _own()
    if own is None:
        with transaction.atomic():
            yield
        return
    after: list[Callable[[], object]] = []
    _held.after = after
    try:
        with connection.wrap_database_errors, own.transaction():
            yield
    finally:
        _held.after = None
    for act in after:
        act()


def on_commit(act: Callable[[], object]) -> None:
    """Do this once what was written is committed: at once where each statement commits by itself."""
    if _own() is None:
        transaction.on_commit(act)
    elif (after := _after()) is not None:
        after.append(act)
    else:
        act()


def require_transaction(operation: str) -> None:
    if _after() is None:
        sql.require_transaction(operation)


def _after() -> list[Callable[[], object]] | None:
    """What waits for the commit of the open block; ``None`` outside of one."""
    return getattr(_held, "after", None)


def close() -> None:
    """Give this thread's connection up; the next statement opens another."""
    own: psycopg.Connection[Row] | None = getattr(_held, "connection", None)
    _held.connection = None
    if own is not None:
        own.close()


def _own() -> psycopg.Connection[Row] | None:
    if not getattr(_held, "open", False) or connection.in_atomic_block:
        return None
    own: psycopg.Connection[Row] | None = getattr(_held, "connection", None)
    if own is None or own.closed or own.broken:
        own = _held.connection = _connect()
    return own


def _connect() -> psycopg.Connection[Row]:
    params = connection.get_connection_params()
    for name in ("cursor_factory", "context", "pool", "prepare_threshold"):
        params.pop(name, None)
    options = f"{params.pop('options', '')} {_BY_KEY} {_BOUNDED}".strip()
    with connection.wrap_database_errors:
        return psycopg.connect(
            **params,
            options=options,
            application_name=_APPLICATION,
            autocommit=True,
            row_factory=dict_row,
        )
