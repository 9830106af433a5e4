"""Finding a row by what a person or a program calls it: its id, or its slug where it has one."""

from __future__ import annotations

from typing import Any, TypeVar
from uuid import UUID

from django.core.validators import slug_re
from django.db.models import Model, QuerySet

from apps.core.errors import NotFound

Row = TypeVar("Row", bound=Model)


def find(rows: QuerySet[Row], ref: object, *, what: str, id_field: str = "pk") -> Row:
    """The one row among ``rows`` (already narrowed to what the asker may see).

    Raises ``NotFound`` for anything else, so that a made-up id, a malformed one and somebody
    else's all answer alike.
    """
    row = rows.filter(**_condition(rows, str(ref), id_field)).first() if ref else None
    if row is None:
        raise NotFound(what=what, ref=str(ref))
    return row


def _condition(rows: QuerySet[Any], ref: str, id_field: str) -> dict[str, Any]:
    try:
        return {id_field: UUID(ref)}
    except ValueError:
        by_slug = any(field.name == "slug" for field in rows.model._meta.fields)
        return {"slug": ref} if by_slug and slug_re.match(ref) else {"pk__in": []}
