"""Encrypting small secrets that the database keeps and we must read again."""

from __future__ import annotations

import base64
from typing import Final

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings

from apps.core.errors import AosError

_INFO: Final = b"aos sealed values, 1"


class Unreadable(AosError):
    code = "sealed_value_unreadable"
    template = "A stored secret cannot be read: AOS_SECRET_KEY is not the one it was sealed with."


def seal(value: str) -> bytes:
    """Encrypt under a key derived from ``SECRET_KEY`` (HKDF, then Fernet)."""
    return _boxes().encrypt(value.encode())


def unseal(sealed: bytes | memoryview) -> str:
    """Raises ``Unreadable`` when neither ``SECRET_KEY`` nor a fallback of it sealed this."""
    try:
        return _boxes().decrypt(bytes(sealed)).decode()
    except InvalidToken as error:
        raise Unreadable from error


def is_stale(sealed: bytes | memoryview) -> bool:
    """Whether a fallback sealed this: it is to be sealed anew before that one is taken away."""
    try:
        Fernet(_derived(settings.SECRET_KEY)).decrypt(bytes(sealed))
    except InvalidToken:
        return True
    return False


def _boxes() -> MultiFernet:
    keys = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    return MultiFernet([Fernet(_derived(str(key))) for key in keys])


def _derived(key: str) -> bytes:
    made = HKDF(algorithm=SHA256(), length=32, salt=None, info=_INFO).derive(key.encode())
    return base64.urlsafe_b64encode(made)
