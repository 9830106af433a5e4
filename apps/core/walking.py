"""Reading more rows than fit into memory, a page at a time.

Between pages no connection is held and none has to remember anything: a slow reader keeps nobody waiting, and
a transaction pooler may give each page another connection. A cursor would be lost there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, TypeVar

from django.db.models import QuerySet

Row = TypeVar("Row")

PAGE: Final = 2000


def walk(rows: QuerySet[Any, Row], key: str) -> Iterator[Row]:
    """All rows, models or dictionaries, in the order of a unique column that they carry."""
    ordered, rest = rows.order_by(key), rows.order_by(key)
    while page := list(rest[:PAGE]):
        yield from page
        if len(page) < PAGE:
            return
        last: Any = page[-1]
        rest = ordered.filter(
            **{f"{key}__gt": last[key] if isinstance(last, dict) else getattr(last, key)}
        )
