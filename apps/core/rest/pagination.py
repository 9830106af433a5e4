"""Keyset pagination: stable under inserts, and as cheap on page one thousand as on page one."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, ClassVar

from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from rest_framework.exceptions import ParseError
from rest_framework.pagination import BasePagination
from rest_framework.request import Request
from rest_framework.response import Response


class KeysetPagination(BasePagination):
    """``?limit=&cursor=`` -> ``{"results": [...], "next": cursor or null}``.

    A view orders by one unique column, descending, named in ``keyset`` (default ``pk``).
    """

    default_limit: ClassVar[int] = 50
    max_limit: ClassVar[int] = 200

    def paginate_queryset(self, queryset: Any, request: Request, view: Any = None) -> list[Any]:
        self._column = getattr(view, "keyset", "pk")
        limit = self._limit(request)
        rows = queryset.order_by(f"-{self._column}")
        if cursor := request.query_params.get("cursor"):
            rows = rows.filter(**{f"{self._column}__lt": self._decode(queryset, cursor)})
        page = list(self.first(rows, limit + 1))
        self._next = self._encode(page[limit - 1]) if len(page) > limit else None
        return page[:limit]

    def first(self, rows: Any, count: int) -> Any:
        """The first so many of the rows, which are in their order."""
        return rows[:count]

    def get_paginated_response(self, data: Any) -> Response:
        return Response({"results": data, "next": self._next})

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        return {
            "type": "object",
            "required": ["results", "next"],
            "properties": {
                "results": schema,
                "next": {
                    "type": ["string", "null"],
                    "description": "Pass as ?cursor= for the next page; null on the last.",
                },
            },
        }

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        return [
            {
                "name": "limit",
                "in": "query",
                "schema": {"type": "integer", "minimum": 1, "maximum": self.max_limit},
            },
            {"name": "cursor", "in": "query", "schema": {"type": "string"}},
        ]

    def _limit(self, request: Request) -> int:
        raw = request.query_params.get("limit", str(self.default_limit))
        if not raw.isascii() or not raw.isdigit() or not 1 <= int(raw[:9]) <= self.max_limit:
            raise ParseError(f"limit must be a whole number from 1 to {self.max_limit}.")
        return int(raw)

    def _encode(self, row: Any) -> str:
        value = json.dumps(str(getattr(row, self._column)))
        return base64.urlsafe_b64encode(value.encode()).decode().rstrip("=")

    def _decode(self, queryset: QuerySet[Any], cursor: str) -> Any:
        model = queryset.model._meta
        field = model.pk if self._column == "pk" else model.get_field(self._column)
        try:
            raw = base64.urlsafe_b64decode(cursor.encode() + b"=" * (-len(cursor) % 4))
            return field.to_python(json.loads(raw))
        except (ValueError, binascii.Error, TypeError, ValidationError) as error:
            raise ParseError("This cursor is not one of ours; start again without it.") from error
