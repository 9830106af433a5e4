"""What drf-spectacular cannot know of our serializers. Imported when the app is ready."""

from __future__ import annotations

from typing import Any

from drf_spectacular.extensions import OpenApiSerializerExtension


class StrictScheme(OpenApiSerializerExtension):  # type: ignore[no-untyped-call]
    """A body with unknown fields is refused, and the document says so."""

    target_class = "apps.core.rest.strict.StrictSerializer"
    match_subclasses = True

    def map_serializer(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
        schema: dict[str, Any] = auto_schema._map_serializer(  # noqa: SLF001  # as its documentation says
            self.target, direction, bypass_extensions=True
        )
        return {**schema, "additionalProperties": False}
