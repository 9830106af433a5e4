"""Keeping secrets out of records and logs.

Three nets: fields are known by their names, values by how they look, and the platform's own keys by
what they are. None finds a stranger's secret that was given an innocent name and looks like a word;
nothing may rely on them alone.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

from django.conf import settings

HIDDEN: Final = "[hidden]"
# Longer values are shortened and named by their digest, so that a change still shows.
LONGEST: Final = 500
# Shorter keys are words of the language too; production refuses them anyway.
_SHORTEST: Final = 8

_SECRET_NAME: Final = re.compile(
    r"passw|secret|passphrase|credential|pepper|private|authorization|cookie|session_?key"
    r"|(^|_)(token|hash|key|salt|pin|otp|totp|seed)($|_(hash|value|data)$)",
    re.IGNORECASE,
)
# Lengths are bounded everywhere, so that no text takes longer than its length.
_SECRET_VALUE: Final = re.compile(
    r"\baos_pat_[A-Za-z0-9]{4,}(?:_[A-Za-z0-9]+)*"  # our own tokens
    r"|\b(?:Bearer|Basic)\s+[A-Za-z0-9._~+/=-]{8,}"
    r"|\b(?:gh[pousr]_|xox[abprs]-|sk-|glpat-|AKIA)[A-Za-z0-9_-]{8,}"
    r"|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"  # JSON web tokens
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    r"|(?<=://)[^\s/:@]{0,200}:[^\s@\"'<>]{1,500}(?=@)"  # user:password in an address
    # What PostgreSQL quotes of a row that it refuses.
    r"|(?<=Failing row contains )\(.*|(?<=\)=)\([^\r\n]*\)(?= (?:already exists|is not present))"
)
_HEADER: Final = re.compile(
    r"(\b(?:proxy-)?authorization|\b(?:set-)?cookie|\bx-csrftoken|\bx-api-key)"
    r"(\\{0,4}[\"']?\s{0,3}[:=,]\s{0,3}b?\\{0,4}[\"']?)([^\"'\r\n\\]+)",
    re.IGNORECASE,
)
# A name and its value: in a query, a form, JSON, a libpq string, or the words of a call.
_ASSIGNED: Final = re.compile(
    r"(passwo?r?d|passphrase|secret|pepper|credential|api_?key|access_?key|private_?key|token|otp"
    r"|sessionid|session_?key)([\w-]{0,40}\\{0,4}[\"']?(?::\s{0,3}|=|%3[Dd])b?\\{0,4}[\"']?)"
    r"([^\s\"'&,;)\]}\\]{3,})",
    re.IGNORECASE,
)
_SECRET_SETTING: Final = re.compile(
    r"(?:^|_)(?:SECRET|PASSWORD|PEPPER|TOKEN|KEY|KEY_FALLBACKS|HEADERS|BASIC_AUTH)$"
)


def text(value: str) -> str:
    """The text with everything hidden that is or looks like a secret."""
    if (known := _known()) is not None:
        value = known.sub(HIDDEN, value)
    value = _SECRET_VALUE.sub(HIDDEN, value)
    value = _HEADER.sub(rf"\1\2{HIDDEN}", value)
    return _ASSIGNED.sub(_without_value, value)


def _without_value(found: re.Match[str]) -> str:
    name, between, told = found.groups()
    # A lease's token is a number, and no secret.
    if told in {HIDDEN, "[hidden", "None", "null"} or (name == "token" and told.isdigit()):
        return found[0]
    return f"{name}{between}{HIDDEN}"


@cache
def _known() -> re.Pattern[str] | None:
    """Settings do not change while a process runs."""
    return pattern_of(held_by(settings))


def pattern_of(held: set[str]) -> re.Pattern[str] | None:
    """Finds each of these, as it is and as addresses, JSON and headers spell it."""
    forms = {form for secret in held for form in _forms(secret)}
    if not forms:
        return None
    return re.compile("|".join(map(re.escape, sorted(forms, key=len, reverse=True))))


def held_by(source: Any) -> set[str]:
    """The secrets among these settings: by their names, and out of addresses and headers."""
    found = {source.DATABASES["default"]["PASSWORD"]}
    for name in dir(source):
        if not name.isupper():
            continue
        given = getattr(source, name)
        for told in given if isinstance(given, list | tuple) else [given]:
            if isinstance(told, str) and _SECRET_SETTING.search(name):
                found |= {told, *_parts(told)}
            elif isinstance(told, str) and "://" in told and "@" in told:
                found.add(unquote(urlsplit(told).password or ""))
    return {secret for secret in found if len(secret) >= _SHORTEST}


def _parts(told: str) -> Iterator[str]:
    """Of ``user:password``, and of the exporter's ``name=value,name=value``."""
    yield told.partition(":")[2]
    for pair in told.split(","):
        yield unquote(pair.partition("=")[2]).strip()


def _forms(secret: str) -> Iterator[str]:
    yield secret
    yield quote(secret, safe="")
    yield json.dumps(secret)[1:-1]
    yield base64.b64encode(secret.encode()).decode()


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
