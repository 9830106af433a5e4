"""A store that cannot be opened stops the start, not the first upload."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Error
from django.core.exceptions import ImproperlyConfigured

from apps.core import blobs


def check_store(**_: Any) -> list[CheckMessage]:
    try:
        blobs.configured()
    except ImproperlyConfigured as error:
        return [Error(str(error), id="core.E001")]
    return []
