"""Named SQL: hand-written statements live in ``.sql`` files, each under a ``-- name:`` heading."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib import resources
from types import MappingProxyType
from typing import Any

from django.db import IntegrityError, connection

from apps.core.errors import AosError

# Django leaves jsonb as text on raw cursors, so that its fields can decode it themselves.
_JSONB = 3802
_HEADING = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


class OutsideTransaction(AosError):
    code = "outside_transaction"
    template = "{operation} must run inside the transaction of the change it records."


def load(package: str, filename: str) -> Mapping[str, str]:
    text = resources.files(package).joinpath(filename).read_text(encoding="utf-8")
    _, *parts = _HEADING.split(text)
    statements = dict(zip(parts[::2], (body.strip() for body in parts[1::2]), strict=True))
    if len(statements) != len(parts) // 2:
        raise ValueError(f"{package}/{filename} names a statement twice.")
    return MappingProxyType(statements)


def require_transaction(operation: str) -> None:
    if not connection.in_atomic_block:
        raise OutsideTransaction(operation=operation)


def fetch(statement: str, params: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Run one named statement; each row comes back as a dict by column name."""
    with connection.cursor() as cursor:
        cursor.execute(statement, params)
        if cursor.description is None:
            return []
        columns = [(column.name, column.type_code == _JSONB) for column in cursor.description]
        return [
            {
                name: json.loads(value) if is_json and value is not None else value
                for (name, is_json), value in zip(columns, row, strict=True)
            }
            for row in cursor.fetchall()
        ]


def execute(statement: str, params: Mapping[str, Any]) -> int:
    """Run one named statement; return how many rows it touched."""
    with connection.cursor() as cursor:
        cursor.execute(statement, params)
        return int(cursor.rowcount)


def violated_constraint(error: IntegrityError) -> str | None:
    """The name of the constraint PostgreSQL refused, so that a service can say what it means."""
    diagnostics = getattr(error.__cause__, "diag", None)
    return getattr(diagnostics, "constraint_name", None)
