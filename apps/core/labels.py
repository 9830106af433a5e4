"""What workers say of themselves, and what a run may require of the worker that takes it.

A label is a name and a word, such as ``gpu=true``. ``version`` is one that every worker has without being
told: the version of the code it runs. Loaded by the settings, so it knows nothing of Django.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID, uuid3

MOST: Final = 16
VERSION: Final = "version"
_NAME: Final = r"[a-z][a-z0-9_.-]{0,39}"
_WORD: Final = r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,79}"
# The version of the ids that ``home_of`` makes.
HOME: Final = 3

SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "maxProperties": MOST,
    "propertyNames": {"pattern": f"^{_NAME}$"},
    "additionalProperties": {"type": "string", "pattern": f"^{_WORD}$"},
}


def fault(labels: Mapping[str, str]) -> str:
    """What is wrong with these labels, as a rule; empty when nothing is."""
    if len(labels) > MOST:
        return f"must be at most {MOST}"
    for name, word in labels.items():
        if not re.fullmatch(_NAME, name):
            return (
                f"must be named with at most 40 lower-case letters, digits, dots, dashes and "
                f"underscores, and begin with a letter: {name[:40]!r} is not"
            )
        if not re.fullmatch(_WORD, word):
            return (
                f"must be words of at most 80 letters, digits, dots, dashes, pluses and underscores: "
                f"that of {name} is not"
            )
    return ""


def spelled(labels: Mapping[str, str]) -> str:
    """The one way of writing these labels: equal sets are equal texts."""
    return ",".join(f"{name}={word}" for name, word in sorted(labels.items()))


def pool_of(labels: Mapping[str, str], *, version: str) -> str:
    """The name of all workers with exactly these labels; short enough for the name of a queue."""
    text = spelled({**labels, VERSION: version})
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def home_of(organization_id: UUID, requires: Mapping[str, str]) -> UUID | None:
    """The gate at which runs with these requirements wait for a worker; none where nothing is required."""
    return uuid3(organization_id, spelled(requires)) if requires else None


def satisfies(labels: Mapping[str, str], requires: Mapping[str, str]) -> bool:
    return requires.items() <= labels.items()
