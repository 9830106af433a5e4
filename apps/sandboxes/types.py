from __future__ import annotations

from typing import Any, Final

from django.db import models


class SandboxState(models.TextChoices):
    CREATING = "creating"
    WARM = "warm"
    CLAIMED = "claimed"
    DESTROYING = "destroying"
    GONE = "gone"
    FAILED = "failed"


# The one table of transitions; the database trigger is made from it (see migrations).
TRANSITIONS: Final = {
    SandboxState.CREATING: (
        SandboxState.WARM,
        SandboxState.CLAIMED,
        SandboxState.DESTROYING,
        SandboxState.GONE,
        SandboxState.FAILED,
    ),
    SandboxState.WARM: (SandboxState.CLAIMED, SandboxState.DESTROYING, SandboxState.FAILED),
    SandboxState.CLAIMED: (SandboxState.DESTROYING, SandboxState.GONE, SandboxState.FAILED),
    SandboxState.DESTROYING: (SandboxState.GONE, SandboxState.FAILED),
}


class EgressMode(models.TextChoices):
    """How much of the network a sandbox may reach through the proxy. In order: each has the one before."""

    NONE = "none"
    ALLOWLIST = "allowlist"
    OPEN = "open"

    def covers(self, wanted: EgressMode) -> bool:
        order = list(EgressMode)
        return order.index(wanted) <= order.index(self)


#: How the operator calls what sandboxes are made of.
PROFILE_NAME: Final = r"^[a-z0-9][a-z0-9-]{0,39}$(?!\n)"
#: A host an agent version may name: ``name`` or ``*.name``, with a port or the two of the web.
#: Never an address. The look-ahead refuses the line break that ``$`` alone would let through.
HOST_RULE: Final = (
    r"^(?:\*\.)?(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?"
    r"(?::[1-9][0-9]{0,4})?$(?!\n)"
)
_MEGABYTES: Final = {"type": "integer", "minimum": 1, "maximum": 10240}
# What an agent version may say about the network. Hosts are named exactly where they are asked for.
EGRESS_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["mode"],
    "additionalProperties": False,
    "properties": {
        "mode": {"enum": EgressMode.values},
        "allow": {
            "type": "array",
            "minItems": 1,
            "maxItems": 100,
            "items": {"type": "string", "maxLength": 260, "pattern": HOST_RULE},
        },
        "out_mb": _MEGABYTES,
        "in_mb": _MEGABYTES,
    },
    "if": {"properties": {"mode": {"const": "allowlist"}}},
    "then": {"required": ["allow"]},
    "else": {"properties": {"allow": False}},
}
