"""Profiles: what sandboxes of this host are made of, by name. The operator's word, not an agent's.

A version picks a profile and may ask for limits up to the profile's. Image, user, runtime, what is
mounted and how much network there may be at most are settled here; there is no way to ask for them.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from jsonschema import Draft202012Validator

from apps.sandboxes.types import PROFILE_NAME, EgressMode
from workers.sandbox.base import BOUNDS, RUNTIMES, USER, Mount, SandboxSpec
from workers.sandbox.errors import (
    EgressNotAllowed,
    ProfilesInvalid,
    ProfileUnknown,
    SandboxSpecInvalid,
)

DEFAULT: Final = "base"

#: Folders that give a container power over its host; neither they nor what holds them is mounted.
_POWERFUL: Final = (
    *("/boot", "/dev", "/etc", "/proc", "/root", "/run", "/sys", "/usr", "/var/run"),
    *("/var/lib/docker", "/var/lib/containerd", "/bin", "/sbin", "/lib", "/lib64"),
)
_TARGET: Final = re.compile(r"/data(?:/[A-Za-z0-9_][A-Za-z0-9._-]{0,63}){1,4}")
_USER: Final = r"^[1-9][0-9]{0,8}:[1-9][0-9]{0,8}$(?!\n)"
_LIMITS: Final = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        name: {"type": "number", "minimum": least, "maximum": most}
        for name, (least, most) in BOUNDS.items()
        if name != "lifetime_s"
    },
}
_COUNT: Final = {"type": "integer", "minimum": 0, "maximum": 32}
_SCHEMA: Final = Draft202012Validator(
    {
        "type": "object",
        "propertyNames": {"pattern": PROFILE_NAME},
        "additionalProperties": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "image": {"type": "string", "minLength": 1, "maxLength": 200},
                "user": {"type": "string", "pattern": _USER},
                "runtime": {"enum": list(RUNTIMES)},
                "egress": {"enum": EgressMode.values},
                "limits": _LIMITS,
                "most": _LIMITS,
                "warm": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {"min": _COUNT, "max": _COUNT},
                },
                "mounts": {
                    "type": "array",
                    "maxItems": 16,
                    "items": {
                        "type": "object",
                        "required": ["source", "target"],
                        "additionalProperties": False,
                        "properties": {"source": {"type": "string"}, "target": {"type": "string"}},
                    },
                },
            },
        },
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Warm:
    """How many sandboxes a worker keeps waiting: always the least, up to the most as they are used."""

    least: int = 0
    most: int = 0


COLD: Final = Warm()


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    name: str
    image: str
    user: str = USER
    runtime: str = RUNTIMES[0]
    #: The most of the network a version of this profile may ask for.
    egress: EgressMode = EgressMode.OPEN
    #: What a version gets that asks for nothing, and the most it may ask for.
    limits: Mapping[str, float] = field(default_factory=dict)
    most: Mapping[str, float] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    warm: Warm = COLD

    def spec(self, wanted: Mapping[str, object], *, most_egress: EgressMode) -> SandboxSpec:
        """A sandbox as a version asks for it. Raises when it asks for what it may not have."""
        spec = SandboxSpec.from_mapping({**self.limits, **wanted}, image=self.image)
        for name, most in self.most.items():
            if getattr(spec, name) > most:
                rule = f"the profile {self.name} allows at most {most:g}"
                raise SandboxSpecInvalid(field=name, rule=rule)
        ceiling = self.egress if most_egress.covers(self.egress) else most_egress
        if not ceiling.covers(spec.egress.mode):
            raise EgressNotAllowed(wanted=spec.egress.mode.value, most=ceiling.value)
        return replace(
            spec, profile=self.name, user=self.user, runtime=self.runtime, mounts=self.mounts
        )


#: What comes with AOS besides the base; their images are built by whoever wants them.
_OTHERS: Final = (
    Profile(name="data", image="aos/sandbox-data:latest", limits={"memory_mb": 2048}),
    Profile(name="node", image="aos/sandbox-node:latest"),
)


def named(profiles: Mapping[str, Profile], name: object) -> Profile:
    found = profiles.get(str(name))
    if found is None:
        raise ProfileUnknown(name=name, known=", ".join(sorted(profiles)))
    return found


def load(path: Path | None, *, base_image: str, base_warm: Warm = COLD) -> dict[str, Profile]:
    """The built-in profiles and those of a TOML file, which may replace them."""
    base = Profile(name=DEFAULT, image=base_image, warm=base_warm)
    found = {profile.name: profile for profile in (base, *_OTHERS)}
    if path is None:
        return found
    try:
        told = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ProfilesInvalid(path=str(path), detail=str(error)) from error
    for fault in _SCHEMA.iter_errors(told):
        where = ".".join(map(str, fault.absolute_path)) or "the file"
        raise ProfilesInvalid(path=str(path), detail=f"{where}: {fault.message[:300]}.")
    try:
        return found | {name: _read(name, fields, found) for name, fields in told.items()}
    except (ValueError, SandboxSpecInvalid) as error:
        raise ProfilesInvalid(path=str(path), detail=str(error)) from error


def _read(name: str, told: dict[str, Any], known: Mapping[str, Profile]) -> Profile:
    fields = {"image": known[DEFAULT].image} | told
    mounts = tuple(_mount(name, **mount) for mount in fields.pop("mounts", []))
    mode = EgressMode(fields.pop("egress", EgressMode.OPEN))
    warm = _warm(name, **fields.pop("warm", {}))
    profile = Profile(name=name, mounts=mounts, egress=mode, warm=warm, **fields)
    # What it gives without being asked must be within what it allows.
    profile.spec({}, most_egress=EgressMode.OPEN)
    return profile


def _warm(profile: str, *, min: int = 0, max: int | None = None) -> Warm:  # noqa: A002 - the file's words
    most = min if max is None else max
    if most < min:
        raise ValueError(f"{profile}: warm.max is below warm.min")
    return Warm(least=min, most=most)


def _mount(profile: str, *, source: str, target: str) -> Mount:
    plain = f"/{os.path.normpath(source).lstrip('/')}"
    related = any(_contains(plain, folder) or _contains(folder, plain) for folder in _POWERFUL)
    if plain != source or related:
        raise ValueError(f"{profile}: the folder {source!r} is not one to mount into a sandbox")
    if not _TARGET.fullmatch(target) or ".." in target:
        raise ValueError(f"{profile}: the target {target!r} must be a folder below /data")
    return Mount(source=source, target=target)


def _contains(outer: str, inner: str) -> bool:
    return outer in {"/", inner} or inner.startswith(f"{outer}/")
