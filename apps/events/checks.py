"""A sink that cannot be opened stops the start, not the first checkpoint."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Error
from django.core.exceptions import ImproperlyConfigured

from apps.events import sinks


def check_sinks(**_: Any) -> list[CheckMessage]:
    try:
        sinks.configured()
    except ImproperlyConfigured as error:
        return [Error(str(error), id="events.E001")]
    return []
