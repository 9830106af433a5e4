from __future__ import annotations

from typing import Any, Final

from django.db import models

_SECONDS: Final = {"type": "number", "minimum": 0, "maximum": 86400}
_CODES: Final = {"type": "array", "maxItems": 50, "items": {"type": "string", "maxLength": 64}}
# What an agent version, or a task, may say about trying again. Times in seconds.
RETRY_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "max_attempts": {"type": "integer", "minimum": 1, "maximum": 100},
        "backoff": {"enum": ["exponential", "fixed"]},
        "base_s": _SECONDS,
        "factor": {"type": "number", "minimum": 1, "maximum": 10},
        "max_s": _SECONDS,
        "jitter": {"type": "number", "minimum": 0, "maximum": 1},
        "retry_on": _CODES,
        "give_up_on": _CODES,
    },
}


class AgentKind(models.TextChoices):
    # Files of the version, executed in a sandbox.
    SCRIPT = "script"
    # A function that the operator installed, called in the worker's own process.
    FUNCTION = "function"


class VersionState(models.TextChoices):
    DRAFT = "draft"
    RELEASED = "released"
