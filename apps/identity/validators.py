"""What a password must not be: known to those who guess, or made of the words of this place.

Nothing is asked of its letters; a long sentence is always good. ``docs/explanation/security.md`` lists
the words.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import BinaryIO, Final

from django.conf import settings
from django.contrib.auth.password_validation import CommonPasswordValidator
from django.core.exceptions import ValidationError

from apps.identity.models import Department, User
from apps.identity.types import Role

# What people write for letters, where a guesser writes it too.
_LEET: Final = str.maketrans("01345789@$!+|", "oleastbgasitl")
_WORD: Final = re.compile(r"[^\W\d_]+")
# The product, what it is made of, and what stands on every door.
_OURS: Final = frozenset(
    {"aos", "agent", "agents", "operating", "system", "platform", "sandbox", "engine", "worker"}
    | {"password", "passphrase", "secret", "login", "welcome", "letmein", "changeme", "qwerty"}
    | {"administrator", "root", "user", "test", "demo", "default", "company", "spring", "summer"}
    | {"autumn", "winter"}
)
# Shorter words are in too many good ones.
_SHORTEST: Final = 3
# What has to be left of a password once the words are taken out of it.
_ENOUGH: Final = 8


class KnownPasswordValidator(CommonPasswordValidator):
    """Not one of the 20,000 that were found most often in breaches, however it is dressed up: with other
    capitals, digits for letters, digits and signs around it, or several times over."""

    def validate(self, password: str, user: User | None = None) -> None:
        super().validate(password, user)
        if any(form in self.passwords for form in _undressed(password)):
            raise ValidationError(
                "This is a password that guessers know, with something around it.",
                code="password_too_common",
            )

    def get_help_text(self) -> str:
        return "Not one that is known from breaches, with or without additions."


def _undressed(password: str) -> set[str]:
    lowered = password.lower().strip()
    bare = lowered.strip("0123456789 .,;:!?-_+*#$%&/()=@'\"<>[]{}^~|")
    forms = {lowered, bare, bare.translate(_LEET), _once(lowered), _once(bare)}
    return {form for form in forms if len(form) >= _SHORTEST}


def _once(text: str) -> str:
    """What a text repeats, or the text."""
    found = (text + text).find(text, 1)
    return text[:found] if text else text


class PlaceWordValidator:
    """Not made of words of this place: the product, the organization, its departments, roles and hosts,
    and what ``AOS_PASSWORD_WORDS`` names."""

    def validate(self, password: str, user: User | None = None) -> None:
        plain = password.lower().translate(_LEET)
        rest, found = plain, list[str]()
        for word in sorted(_words(user), key=len, reverse=True):
            if word in rest:
                rest = rest.replace(word, " ")
                found.append(word)
        if found and len("".join(_WORD.findall(rest))) < _ENOUGH:
            raise ValidationError(
                "The password is little more than words that are known here: %(words)s.",
                code="password_of_known_words",
                params={"words": ", ".join(sorted(found))},
            )

    def get_help_text(self) -> str:
        return "Not made of the names of this place."


def _words(user: User | None) -> set[str]:
    texts = [*settings.AOS_PASSWORD_WORDS, settings.AOS_INSTANCE, *settings.ALLOWED_HOSTS, *Role]
    if user is not None:
        texts += [user.organization.name, user.organization.slug]
        here = Department.objects.filter(organization=user.organization_id)
        texts += here.values_list("name", flat=True)
    found = {word for text in texts for word in _WORD.findall(text.lower().translate(_LEET))}
    return {word for word in found | _OURS if len(word) >= _SHORTEST}


class BreachedPasswordValidator:
    """Not in the file ``AOS_BREACHED_PASSWORDS``: lines of a SHA-1 in hex and a count, in order, as the
    service Pwned Passwords gives them out. Nothing is asked on the Internet."""

    def validate(self, password: str, user: User | None = None) -> None:
        path = settings.AOS_BREACHED_PASSWORDS
        if path and _is_listed(path, password):
            raise ValidationError(
                "This password was found in a breach. Choose another one, and change it wherever"
                " else you use it.",
                code="password_breached",
            )

    def get_help_text(self) -> str:
        return "Not one that was found in a breach."


def _is_listed(path: str, password: str) -> bool:
    # The list's own form; nothing is protected with it.
    wanted = hashlib.sha1(password.encode(), usedforsecurity=False).hexdigest().upper().encode()
    with Path(path).open("rb") as lines:
        low, high = 0, lines.seek(0, os.SEEK_END)
        # The line that begins at or after ``low`` and before ``high``, if it is there at all.
        while low < high:
            middle = (low + high) // 2
            begins, line = _line_from(lines, middle)
            if line[:40].upper() < wanted and line:
                low = begins + len(line)
            else:
                high = middle
        return _line_from(lines, low)[1][:40].upper() == wanted


def _line_from(lines: BinaryIO, at: int) -> tuple[int, bytes]:
    """The first line that begins at a place or after it, and where."""
    lines.seek(max(at - 1, 0))
    if at:
        lines.readline()
    return lines.tell(), lines.readline()
