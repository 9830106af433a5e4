"""Keeping secrets out of records and logs.

Two nets: fields are known by their names, values by how they look. Neither finds a secret that was
given an innocent name and looks like a word; nothing may rely on them alone.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final

HIDDEN: Final = "[hidden]"
# Longer values are shortened and named by their digest, so that a change still shows.
LONGEST: Final = 500

_SECRET_NAME: Final = re.compile(
    r"passw|secret|passphrase|credential|pepper|private|authorization|cookie|session_?key"
    r"|(^|_)(token|hash|key|salt|pin|otp|totp|seed)($|_(hash|value|data)$)",
    re.IGNORECASE,
)
_SECRET_VALUE: Final = re.compile(
    r"\baos_pat_[A-Za-z0-9]{4,}(?:_[A-Za-z0-9]+)*"  # our own tokens
    r"|\b(?:Bearer|Basic)\s+[A-Za-z0-9._~+/=-]{8,}"
    r"|\b(?:gh[pousr]_|xox[abprs]-|sk-|glpat-|AKIA)[A-Za-z0-9_-]{8,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    r"|(?<=://)[^\s/:@]*:[^\s/@]+(?=@)"  # user:password in an address
)


def text(value: str) -> str:
    """The text with everything hidden that looks like a secret."""
    return _SECRET_VALUE.sub(HIDDEN, value)


def is_secret_name(name: str) -> bool:
    return _SECRET_NAME.search(name) is not None


def value(name: str, given: Any) -> Any:
    """A field's value as a record may keep it: JSON, no secret, of bounded length."""
    if given is not None and is_secret_name(name):
        return HIDDEN
    if isinstance(given, Mapping):
        return {str(key): value(str(key), inner) for key, inner in given.items()}
    if isinstance(given, list | tuple | set | frozenset):
        return [value("", inner) for inner in given]
    if given is None or isinstance(given, bool | int | float):
        return given
    return _short(text(given.isoformat() if hasattr(given, "isoformat") else str(given)))


def _short(shown: str) -> str:
    if len(shown) <= LONGEST:
        return shown
    digest = hashlib.sha256(shown.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{shown[:LONGEST]}... ({len(shown)} characters, sha256 {digest[:16]})"
