"""Request bodies that say exactly what they mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.http import QueryDict
from rest_framework import serializers
from rest_framework.request import Request

from apps.core.errors import Invalid

_PAGING = frozenset({"limit", "cursor"})


class StrictSerializer(serializers.Serializer[Any]):
    """Refuses fields it does not know: a misspelt one must not be a silently ignored wish."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping):
            unknown = sorted(str(name) for name in data if name not in self.fields)
            if unknown:
                rule = f"is not a field of this request; known are {', '.join(self.fields)}"
                raise serializers.ValidationError({name: [rule] for name in unknown})
        return super().to_internal_value(data)

    def read(self, request: Request) -> dict[str, Any]:
        """The validated body of a request; raises what the exception handler answers with 422."""
        form = type(self)(data=request.data, context=self.context)
        form.is_valid(raise_exception=True)
        values: dict[str, Any] = form.validated_data
        return values


def query(form: type[serializers.Serializer[Any]], params: QueryDict) -> dict[str, Any]:
    """The validated query of a list. An unknown filter is refused: it would list everything."""
    filters = form(data=params.dict())
    unknown = sorted(set(params) - _PAGING - set(filters.fields))
    if unknown:
        rule = f"is not a filter of this list; known are {', '.join(filters.fields)}"
        raise Invalid([{"field": name, "rule": rule} for name in unknown])
    filters.is_valid(raise_exception=True)
    values: dict[str, Any] = filters.validated_data
    return values
