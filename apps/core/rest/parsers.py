"""Request bodies are hostile until parsed: bounded in size and depth, UTF-8, without NUL."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import IO, Any, NoReturn

from django.conf import settings
from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser

from apps.core.errors import Invalid, TooLarge

_DEEPEST = 64


class BoundedJSONParser(BaseParser):
    """JSON up to ``AOS_JSON_LIMIT_BYTES``; anything PostgreSQL could not store is refused here."""

    media_type = "application/json"

    def parse(
        self,
        stream: IO[bytes],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        body = self._read(stream)
        try:
            text = body.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ParseError(f"The body is not valid UTF-8 (byte {error.start}).") from error
        try:
            value = loads(text)
        except ValueError as error:
            raise ParseError(f"The body is not valid JSON: {error}.") from error
        except RecursionError as error:
            raise ParseError("The body is nested too deeply.") from error
        require_storable(value)
        return value

    def _read(self, stream: IO[bytes]) -> bytes:
        limit = settings.AOS_JSON_LIMIT_BYTES
        body = stream.read(limit + 1)
        if len(body) > limit:
            raise TooLarge(what="The JSON body", size=f"over {limit}", limit=limit)
        return body


def loads(text: str) -> Any:
    """JSON as the standard has it, without NaN and infinities. Raises ``ValueError``, ``RecursionError``."""
    return json.loads(text, parse_constant=_no_constants)


def _no_constants(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def require_storable(value: Any, field: str = "body", depth: int = 0) -> None:
    """Raise ``Invalid`` for what PostgreSQL could not store as text or JSON."""
    if depth > _DEEPEST:
        raise Invalid([{"field": "body", "rule": f"is nested more than {_DEEPEST} levels deep"}])
    if isinstance(value, str):
        _require_text(value, field)
    elif isinstance(value, dict):
        for key, item in value.items():
            _require_text(key, field)
            require_storable(item, key if field == "body" else f"{field}.{key}", depth + 1)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            require_storable(item, f"{field}.{index}", depth + 1)


def _require_text(text: str, field: str) -> None:
    if "\x00" in text:
        raise Invalid([{"field": field, "rule": "contains a NUL character"}])
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise Invalid([{"field": field, "rule": "contains half a surrogate pair"}])
