from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from django.db import models


class SandboxState(models.TextChoices):
    CREATING = "creating"
    WARM = "warm"
    CLAIMED = "claimed"
    SERVING = "serving"
    PAUSED = "paused"
    SNAPSHOTTED = "snapshotted"
    DESTROYING = "destroying"
    GONE = "gone"
    FAILED = "failed"


# The one table of transitions; the database trigger is made from it (see migrations).
TRANSITIONS: Final = {
    SandboxState.CREATING: (
        SandboxState.WARM,
        SandboxState.CLAIMED,
        SandboxState.SERVING,
        SandboxState.DESTROYING,
        SandboxState.GONE,
        SandboxState.FAILED,
    ),
    SandboxState.WARM: (SandboxState.CLAIMED, SandboxState.DESTROYING, SandboxState.FAILED),
    SandboxState.CLAIMED: (
        SandboxState.PAUSED,
        SandboxState.DESTROYING,
        SandboxState.GONE,
        SandboxState.FAILED,
    ),
    SandboxState.SERVING: (
        SandboxState.PAUSED,
        SandboxState.DESTROYING,
        SandboxState.GONE,
        SandboxState.FAILED,
    ),
    # Back to what it was: an attempt's, or its process's.
    SandboxState.PAUSED: (
        SandboxState.CLAIMED,
        SandboxState.SERVING,
        SandboxState.SNAPSHOTTED,
        SandboxState.DESTROYING,
        SandboxState.GONE,
        SandboxState.FAILED,
    ),
    # There is no sandbox any more, only what was in it.
    SandboxState.SNAPSHOTTED: (SandboxState.GONE, SandboxState.FAILED),
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
#: What may be asked for of a sandbox's size, by name: a profile may allow less.
LIMITS: Final[Mapping[str, dict[str, Any]]] = {
    "memory_mb": {"type": "integer", "minimum": 64, "maximum": 8192},
    "cpu": {"type": "number", "minimum": 0.1, "maximum": 4},
    "pids": {"type": "integer", "minimum": 16, "maximum": 1024},
    "workspace_mb": {"type": "integer", "minimum": 8, "maximum": 4096},
}
LIMITS_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "additionalProperties": False,
    "properties": dict(LIMITS),
}
#: Names of variables. What AOS itself sets cannot be set: see ``RESERVED``.
VARIABLE: Final = r"^[A-Za-z_][A-Za-z0-9_]{0,127}$(?!\n)"
RESERVED: Final = r"(?i)^(?:AOS_.*|TRACEPARENT|HOME|.*_PROXY)$"
VARIABLES_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "maxProperties": 100,
    "additionalProperties": {"type": "string", "maxLength": 8192, "pattern": r"^[^\x00]*$"},
}
#: Characters of all names and values together.
ALL_VARIABLES: Final = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What an environment makes of a sandbox: the operator's profile, and what is asked of it."""

    profile: str = "base"
    limits: Mapping[str, float] = field(default_factory=dict)
    egress: Mapping[str, Any] = field(default_factory=lambda: {"mode": EgressMode.NONE.value})
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileReport:
    """A profile as a worker finds it on its host. ``gets`` is what a sandbox has that asks for nothing."""

    name: str
    image: str
    runtime: str
    egress: str
    gets: Mapping[str, float]
    most: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageReport:
    """An image as the engine of a host has it. Digest, size and date are empty where it is missing."""

    tag: str
    #: The folder below ``sandbox_images/`` that it is built from; empty for somebody else's.
    source: str
    digest: str = ""
    size: int = 0
    built_at: str | None = None
    base: str = ""
    #: Built from the files as they are now. None where there are no files of ours.
    is_current: bool | None = None
