"""The environment's form: read from what a browser sends, and shown again with what is wrong."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from django.http import QueryDict

from apps.core.errors import AosError, Invalid
from apps.sandboxes.models import Environment
from apps.sandboxes.services.offers import Offer
from apps.sandboxes.types import LIMITS, EgressMode, Recipe

# Where it belongs: these words, or the current project's.
ALL: Final = "all"
HERE: Final = "here"
_LABELS: Final = {
    "memory_mb": ("Memory", "MB"),
    "cpu": ("Processors", ""),
    "pids": ("Processes", ""),
    "workspace_mb": ("Workspace", "MB, a part of the memory"),
}
_MODES: Final = (
    (EgressMode.NONE, "None", "It reaches nothing."),
    (EgressMode.ALLOWLIST, "Listed hosts", "It reaches the hosts below and nothing else."),
    (EgressMode.OPEN, "The public Internet", "It reaches any public host; private ones never."),
)
_SPARE_ROWS: Final = 2
# Nothing that Python would take besides: no infinity, no other script's digits.
_NUMBER: Final = re.compile(r"-?[0-9]{1,9}(?:\.[0-9]{1,9})?")
_BYTES: Final = {"out_mb": "Out at most, MB", "in_mb": "In at most, MB"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One number: what was asked for, what one gets otherwise, and the most."""

    name: str
    label: str
    unit: str
    value: Any
    usual: float | None
    most: float
    least: float
    step: str
    error: str

    @property
    def measure(self) -> str:
        return self.unit.partition(",")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    name: str
    place: str
    description: str
    profile: str
    limits: list[Limit]
    mode: str
    modes: list[dict[str, Any]]
    hosts: str
    amounts: list[dict[str, Any]]
    variables: list[tuple[str, str]]
    offers: list[Offer]
    errors: dict[str, str] = field(default_factory=dict)
    problem: str = ""


def read(sent: QueryDict) -> Recipe:
    """What was filled in. Raises ``Invalid`` for what is no number; the rest the service judges."""
    wrong: list[dict[str, str]] = []
    limits = {name: _number(sent, f"limits.{name}", wrong) for name in LIMITS}
    amounts = {name: _number(sent, f"egress.{name}", wrong) for name in _BYTES}
    if wrong:
        raise Invalid(wrong)
    mode = sent.get("mode", EgressMode.NONE)
    egress: dict[str, Any] = {"mode": mode}
    if mode == EgressMode.ALLOWLIST:
        egress["allow"] = _hosts(sent.get("hosts", ""))
    if mode != EgressMode.NONE:
        egress |= {name: value for name, value in amounts.items() if value is not None}
    return Recipe(
        profile=sent.get("profile", "base"),
        limits={name: value for name, value in limits.items() if value is not None},
        egress=egress,
        variables={name: value for name, value in _pairs(sent) if name},
    )


def of(environment: Environment | None, *, offered: Mapping[str, Offer], place: str) -> Form:
    """The form as it begins: empty, or as the environment is."""
    recipe = environment.recipe if environment else Recipe()
    return _form(
        offered,
        name=environment.name if environment else "",
        place=place,
        description=environment.description if environment else "",
        profile=recipe.profile,
        limits=recipe.limits,
        mode=str(recipe.egress["mode"]),
        hosts="\n".join(recipe.egress.get("allow", [])),
        amounts=recipe.egress,
        variables=sorted(recipe.variables.items()),
    )


def again(
    sent: QueryDict, *, offered: Mapping[str, Offer], problem: AosError | None = None
) -> Form:
    """The form as it was sent, so that nobody types twice."""
    found = problem.errors if isinstance(problem, Invalid) else []
    errors: dict[str, str] = {}
    for each in found:
        errors.setdefault(_control(each["field"]), _told(each))
    return _form(
        offered,
        name=sent.get("name", ""),
        place=sent.get("place", HERE),
        description=sent.get("description", ""),
        profile=sent.get("profile", "base"),
        limits={name: sent.get(f"limits.{name}", "") for name in LIMITS},
        mode=sent.get("mode", EgressMode.NONE),
        hosts=sent.get("hosts", ""),
        amounts={name: sent.get(f"egress.{name}", "") for name in _BYTES},
        variables=[pair for pair in _pairs(sent) if any(pair)],
        errors=errors,
        problem=str(problem) if problem and not found else "",
    )


def _form(
    offered: Mapping[str, Offer],
    *,
    profile: str,
    limits: Mapping[str, Any],
    mode: str,
    amounts: Mapping[str, Any],
    variables: list[tuple[str, str]],
    errors: dict[str, str] | None = None,
    **rest: Any,
) -> Form:
    offer = offered.get(profile)
    errors = errors or {}
    allowed = offer.egress if offer else EgressMode.OPEN
    return Form(
        profile=profile,
        limits=[_limit(name, limits, offer, errors) for name in LIMITS],
        mode=mode,
        modes=[
            {"value": value, "label": label, "help": text, "off": not allowed.covers(value)}
            for value, label, text in _MODES
        ],
        amounts=[
            {"name": name, "label": label, "value": amounts.get(name, "")}
            for name, label in _BYTES.items()
        ],
        variables=[*variables, *[("", "")] * _SPARE_ROWS],
        offers=list(offered.values()),
        errors=errors,
        **rest,
    )


def _limit(
    name: str, limits: Mapping[str, Any], offer: Offer | None, errors: Mapping[str, str]
) -> Limit:
    label, unit = _LABELS[name]
    rule = LIMITS[name]
    # With other memory than the profile's, the workspace is half of that.
    follows = name == "workspace_mb" and limits.get("memory_mb")
    return Limit(
        name=name,
        label=label,
        unit=unit,
        value=limits.get(name, ""),
        usual=offer.gets[name] if offer and not follows else None,
        most=offer.most[name] if offer else rule["maximum"],
        least=rule["minimum"],
        step="1" if rule["type"] == "integer" else "0.1",
        error=errors.get(f"limits.{name}", ""),
    )


def _number(sent: QueryDict, name: str, wrong: list[dict[str, str]]) -> float | None:
    text = sent.get(name, "").strip()
    if not text:
        return None
    if not _NUMBER.fullmatch(text):
        wrong.append({"field": name, "rule": "must be a number"})
        return None
    return float(text) if "." in text else int(text)


def _hosts(text: str) -> list[str]:
    return [word.lower() for word in text.replace(",", " ").split()]


def _pairs(sent: QueryDict) -> list[tuple[str, str]]:
    """Variables by row. A browser sends line breaks as two characters; a script expects one."""
    values = [value.replace("\r\n", "\n") for value in sent.getlist("variable-value")]
    return [
        (name.strip(), value)
        for name, value in zip(sent.getlist("variable-name"), values, strict=False)
    ]


def _control(path: str) -> str:
    """Which control an error's field belongs to."""
    first, _, rest = path.partition(".")
    if first == "egress":
        return "hosts" if rest.startswith("allow") else "egress"
    return "variables" if first == "variables" else path


def _told(error: Mapping[str, str]) -> str:
    """Where one control stands for many, say which of them is meant."""
    first, _, name = error["field"].partition(".")
    return f"{name} {error['rule']}" if first == "variables" and name else error["rule"]
