"""Request bodies that say exactly what they mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from django.http import QueryDict
from rest_framework import serializers
from rest_framework.request import Request

from apps.core.errors import Invalid
from apps.core.rest.exceptions import field_errors

_PAGING = frozenset({"limit", "cursor"})
# Which JSON types each kind of field takes.
_TYPES: Final[tuple[tuple[tuple[type, ...], tuple[type, ...], str], ...]] = (
    (
        (
            serializers.CharField,
            serializers.ChoiceField,
            serializers.DateTimeField,
            serializers.UUIDField,
        ),
        (str,),
        "must be a string",
    ),
    ((serializers.IntegerField, serializers.FloatField), (int, float), "must be a number"),
    ((serializers.BooleanField,), (bool,), "must be true or false"),
)


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
        wrong = []
        # The parts of a form are text and nothing else; JSON says what it means.
        if not isinstance(request.data, QueryDict):
            wrong = list(_of_other_types(self, request.data))
        if not form.is_valid() or wrong:
            named = {error["field"] for error in wrong}
            broken = field_errors(form.errors)
            raise Invalid([*wrong, *(error for error in broken if error["field"] not in named)])
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


def _of_other_types(
    field: serializers.Field[Any, Any, Any, Any], value: Any, name: str = ""
) -> Iterator[dict[str, str]]:
    """What DRF would quietly convert: a number for a text, a text for a number or a flag."""
    if value is None:
        return
    for kinds, types, rule in _TYPES:
        if isinstance(field, kinds) and not (isinstance(value, types) and _agree(value, types)):
            yield {"field": name or "body", "rule": rule}
    prefix = f"{name}." if name else ""
    if isinstance(field, serializers.Serializer) and isinstance(value, Mapping):
        for part, inner in field.fields.items():
            yield from _of_other_types(inner, value.get(part), prefix + part)
    elif isinstance(field, serializers.ListField) and isinstance(value, list):
        for index, item in enumerate(value):
            yield from _of_other_types(field.child, item, f"{prefix}{index}")
    elif isinstance(field, serializers.DictField) and isinstance(value, Mapping):
        for key, item in value.items():
            yield from _of_other_types(field.child, item, f"{prefix}{key}")


def _agree(value: Any, types: tuple[type, ...]) -> bool:
    # Python's True is a number, JSON's is not.
    return isinstance(value, bool) == (types == (bool,))
