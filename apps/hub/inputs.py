"""The composer's form: fields from an agent's input schema, and the input from what was filled in.

Only what a browser form can say is read here. Whether the input is right is decided by the service
that accepts the run; its errors come back to the fields they name.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any, Final, cast

from django.conf import settings
from django.core.files.uploadedfile import UploadedFile
from django.http import QueryDict
from django.utils.datastructures import MultiValueDict

from apps.agents.models import Agent
from apps.core.errors import Invalid
from apps.hub.templatetags.aos import words

# In an input schema: this string is the name of a file of the project.
FILE_FORMAT: Final = "aos-file"
# Reads the text of a control by its rule in the schema.
Reader = Callable[[Mapping[str, Any], str], Any]
_PREFIX: Final = "input."
_LONG_TEXT: Final = 200
_LIST_HINT: Final = "Separate with commas."
_KINDS: Final = {
    "number": "number",
    "integer": "number",
    "boolean": "check",
    "object": "json",
    "array": "json",
}
_UNUSABLE: Final = re.compile(r"[^A-Za-z0-9 ._-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One control. ``kind``: file, select, number, check, text (several lines), line, list, json.

    ``choice``: one of several fields of which one must be filled in.
    """

    key: str
    kind: str
    label: str
    required: bool
    choice: bool = False
    help: str = ""
    value: Any = ""
    error: str = ""
    accept: str = ""
    choices: Sequence[Any] = ()
    minimum: float | None = None
    maximum: float | None = None
    step: str = "any"

    @property
    def name(self) -> str:
        return _PREFIX + self.key

    @property
    def id(self) -> str:
        return f"input-{self.key}"

    @property
    def wide(self) -> bool:
        return self.kind in {"file", "text", "json"}

    @property
    def described(self) -> str:
        return f"{self.id}-note" if self.error or self.help else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Composer:
    """The form for one agent. ``key`` makes a second click on Run the same submission."""

    agent: Agent
    fields: list[Field]
    errors: list[str] = field(default_factory=list)
    key: str = ""

    @property
    def file_limit(self) -> int:
        """Bytes; the page refuses larger files before it sends them."""
        return settings.AOS_FILE_LIMIT_BYTES

    @property
    def first(self) -> list[Field]:
        """What is asked at once: the required fields, or the first one when none is."""
        asked = [item for item in self.fields if item.required]
        choices = [item for item in self.fields if item.choice]
        return asked + choices[:1] or self.fields[:1]

    @property
    def more(self) -> list[Field]:
        return [item for item in self.fields if item not in self.first]

    @property
    def open(self) -> bool:
        """Whether the options must be seen: something in them is wrong."""
        return any(item.error for item in self.more)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """What a person filled in: plain values, and files still to be stored."""

    values: dict[str, Any]
    uploads: dict[str, UploadedFile[bytes]]


def compose(
    agent: Agent,
    *,
    stored: Sequence[str] = (),
    values: Mapping[str, Any] | None = None,
    problem: Invalid | None = None,
) -> Composer:
    """The form, empty or as it was sent with what is wrong. ``stored``: the project's files."""
    rules = _properties(agent)
    needed = set(_schema(agent).get("required", ()))
    choices = _choices(agent)
    wrong, general = _split(problem, rules)
    fields = [
        replace(
            _field(key, rule, stored=stored),
            required=key in needed,
            choice=key in choices,
            error=wrong.get(key, ""),
        )
        for key, rule in rules.items()
    ]
    # The database does not keep the schema's order: files come first, as what the work is about.
    fields.sort(key=lambda item: item.kind != "file")
    if values is not None:
        fields = [_keep(item, values) for item in fields]
    return Composer(agent=agent, fields=fields, errors=general, key=uuid.uuid4().hex)


def read(agent: Agent, data: QueryDict, files: MultiValueDict[str, UploadedFile[bytes]]) -> Filled:
    """Read the form. Empty optional fields are left out, so that the agent's defaults hold.

    Raises ``Invalid`` for what is no value of its type at all.
    """
    values: dict[str, Any] = {}
    uploads: dict[str, UploadedFile[bytes]] = {}
    wrong: list[dict[str, str]] = []
    for key, rule in _properties(agent).items():
        upload = files.get(_PREFIX + key)
        if upload is not None and _kind(rule) == "file":
            uploads[key] = upload
            continue
        text = data.get(_PREFIX + key, "")
        try:
            if (value := _value(rule, text)) is not None:
                values[key] = value
        except ValueError:
            wrong.append({"field": f"input.{key}", "rule": f"is not a {rule.get('type')}"})
    if wrong:
        raise Invalid(wrong)
    choices = _choices(agent)
    if choices and not any(key in values or key in uploads for key in choices):
        labels = [
            _field(key, rule).label for key, rule in _properties(agent).items() if key in choices
        ]
        raise Invalid([{"field": "input", "rule": f"Fill in one of these: {', '.join(labels)}."}])
    return Filled(values=values, uploads=uploads)


def file_name(upload: UploadedFile[bytes]) -> str:
    """The uploaded file's name, made fit for a project's file: no folders, plain characters."""
    name = _UNUSABLE.sub("_", PurePath(upload.name or "file").name).lstrip(" ._-")
    stem, dot, suffix = name.rpartition(".")
    if not stem:
        return (name or "file")[:120]
    return stem[: 119 - len(suffix)] + dot + suffix


def _schema(agent: Agent) -> dict[str, Any]:
    version = agent.current
    return (version.spec.get("input_schema") or {}) if version else {}


def _properties(agent: Agent) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = _schema(agent).get("properties", {})
    return found


def _choices(agent: Agent) -> set[str]:
    """Fields of which the schema wants one: ``oneOf`` or ``anyOf`` with one required field each."""
    schema = _schema(agent)
    ways = [way.get("required", []) for way in schema.get("oneOf") or schema.get("anyOf") or ()]
    return {way[0] for way in ways} if ways and all(len(way) == 1 for way in ways) else set()


def _kind(rule: Mapping[str, Any]) -> str:
    if rule.get("format") == FILE_FORMAT:
        return "file"
    if "enum" in rule:
        return "select"
    if rule.get("type") == "array" and rule.get("items", {}).get("type") == "string":
        return "list"
    text = "line" if rule.get("maxLength", _LONG_TEXT + 1) <= _LONG_TEXT else "text"
    return _KINDS.get(rule.get("type", "string"), text)


def _field(key: str, rule: Mapping[str, Any], *, stored: Sequence[str] = ()) -> Field:
    kind = _kind(rule)
    hints = [str(rule.get("description", "")), _LIST_HINT if kind == "list" else ""]
    return Field(
        key=key,
        kind=kind,
        label=str(rule.get("title") or words(key)),
        required=False,
        help=" ".join(filter(None, hints)),
        value=_shown(kind, rule.get("default", "")),
        accept=str(rule.get("contentMediaType", "")),
        choices=list(stored) if kind == "file" else rule.get("enum", ()),
        minimum=rule.get("minimum"),
        maximum=rule.get("maximum"),
        step="1" if rule.get("type") == "integer" else "any",
    )


def _keep(item: Field, values: Mapping[str, Any]) -> Field:
    """The field as it was sent, so that nobody types twice."""
    return replace(item, value=_shown(item.kind, values.get(item.key, "")))


def _shown(kind: str, value: Any) -> Any:
    """A value as its control shows it."""
    if kind == "list" and value:
        return ", ".join(value)
    return json.dumps(value) if kind == "json" and value else value


def _value(rule: Mapping[str, Any], text: str) -> Any:
    """The typed value of one control; ``None`` when it was left empty."""
    kind = _kind(rule)
    if kind == "check":
        return text == "on"
    if not text.strip():
        return None
    read_as: Reader = _READ.get(kind, _as_it_is)
    return read_as(rule, text)


def _number(rule: Mapping[str, Any], text: str) -> float:
    return int(text) if rule.get("type") == "integer" else float(text)


def _json(_rule: Mapping[str, Any], text: str) -> Any:
    return json.loads(text)


def _list(_rule: Mapping[str, Any], text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _choice(rule: Mapping[str, Any], text: str) -> Any:
    """The browser sends words; the schema may list numbers."""
    return next((choice for choice in rule["enum"] if str(choice) == text), text)


def _as_it_is(_rule: Mapping[str, Any], text: str) -> str:
    return text


_READ: Final[Mapping[str, Reader]] = {
    "number": _number,
    "json": _json,
    "select": _choice,
    "list": _list,
}


def _split(problem: Invalid | None, rules: Mapping[str, Any]) -> tuple[dict[str, str], list[str]]:
    """Errors by field, and those that belong to none."""
    wrong: dict[str, str] = {}
    general: list[str] = []
    told = cast("list[dict[str, str]]", problem.params["errors"]) if problem else []
    for error in told:
        key = error["field"].removeprefix(_PREFIX).split(".")[0]
        if key in rules:
            wrong.setdefault(key, error["rule"])
        else:
            general.append(_sentence(error))
    return wrong, general


def _sentence(error: Mapping[str, str]) -> str:
    """An error about the whole input needs no field before it."""
    return error["rule"] if error["field"] == "input" else f"{error['field']}: {error['rule']}"
