"""The first start: an activation code that is shown to whoever installs, and the door it opens once.

The code is a secret of a hundred bits and is stored as a keyed hash. Who has it may found the first
organization (``apps.agents.services.opening``); with that, the door is shut for good.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Final

from django.conf import settings
from django.db import transaction

from apps.core import sql, tenancy
from apps.identity.errors import ActivationCodeInvalid, FirstStartOver
from apps.identity.models import Installation

# Without the letters and digits that people mix up.
_ALPHABET: Final = "ABCDEFGHJKMNPQRSTUVWXYZ23456789"
_GROUPS: Final = 5
_GROUP: Final = 4


def is_open() -> bool:
    """Whether nobody owns this installation yet."""
    with tenancy.platform():
        return not Installation.objects.filter(closed_at__isnull=False).exists()


@transaction.atomic
def new_code() -> str:
    """Make the activation code, which replaces the one before. Raises ``FirstStartOver``."""
    Installation.objects.bulk_create([Installation()], ignore_conflicts=True)
    found = _locked()
    letters = "".join(secrets.choice(_ALPHABET) for _ in range(_GROUPS * _GROUP))
    Installation.objects.filter(pk=found.pk).update(
        code_hash=_hash(letters), code_number=found.code_number + 1
    )
    return "-".join(letters[at : at + _GROUP] for at in range(0, len(letters), _GROUP))


def check(code: str) -> int:
    """The number of the present code, when this is it; raise ``ActivationCodeInvalid`` otherwise."""
    typed = "".join(sign for sign in code.upper() if sign not in "- ")
    with tenancy.platform():
        found = Installation.objects.filter(closed_at=None, code_hash__isnull=False).first()
    if found is None or not hmac.compare_digest(bytes(found.code_hash or b""), _hash(typed)):
        raise ActivationCodeInvalid
    return found.code_number


def is_present(code_number: int) -> bool:
    """Whether the code with this number is still the one that opens."""
    with tenancy.platform():
        return Installation.objects.filter(closed_at=None, code_number=code_number).exists()


def claim(code_number: int) -> None:
    """Keep everybody else out until the transaction ends, which is to found the organization.

    Of two who finish at the same moment the second waits here, and is refused when the first has
    committed. Raises ``FirstStartOver``, or ``ActivationCodeInvalid`` when a newer code was made.
    """
    sql.require_transaction("installation.claim")
    if _locked().code_number != code_number:
        raise ActivationCodeInvalid


def _locked() -> Installation:
    found = Installation.objects.select_for_update().filter(closed_at=None).first()
    if found is None:
        raise FirstStartOver
    return found


def _hash(letters: str) -> bytes:
    return hmac.digest(
        settings.AOS_TOKEN_PEPPER.encode(), b"activation" + letters.encode(), hashlib.sha256
    )
