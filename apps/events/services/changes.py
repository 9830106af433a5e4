"""What an act changed, field by field, as an audit entry keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db.models import Model

from apps.core import redaction


def of(row: Model, *fields: str) -> dict[str, Any]:
    """The row's fields by name, to be held against the same call before or after the act."""
    columns = {column.name: column.attname for column in row._meta.concrete_fields}
    return {field: getattr(row, columns[field]) for field in fields}


def between(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> dict[str, Any]:
    """``{field: [old, new]}`` of what differs; secrets hidden, long values shortened.

    A row that was made has no old values, one that was deleted no new ones. A secret that changed is
    shown as changed, and hidden on both sides.
    """
    old, new = before or {}, after or {}
    return {
        name: [redaction.value(name, old.get(name)), redaction.value(name, new.get(name))]
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    }
