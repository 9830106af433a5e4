"""A task's input: checked against the agent's schema, its file names resolved to contents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final
from uuid import UUID

from jsonschema import Draft202012Validator

from apps.core.errors import Invalid
from apps.projects.models import Project, WorkspaceFile

# In an agent's input schema: this string names a file of the project.
FILE_FORMAT: Final = "aos-file"
_ANY_OBJECT: Final = {"type": "object"}
_MOST_ERRORS: Final = 10


def check(agent_spec: dict[str, Any], value: dict[str, Any]) -> None:
    """Raise ``Invalid`` naming each field of the input and the rule it breaks."""
    require_valid(_schema(agent_spec), value, field="input")


def _schema(agent_spec: dict[str, Any]) -> dict[str, Any]:
    return agent_spec.get("input_schema") or _ANY_OBJECT


def require_valid(schema: dict[str, Any], value: dict[str, Any], *, field: str) -> None:
    """Raise ``Invalid`` with the first few errors; their names begin with ``field``."""
    _require(Draft202012Validator(schema), value, field=field)


def _require(validator: Draft202012Validator, value: dict[str, Any], *, field: str) -> None:
    found = sorted(validator.iter_errors(value), key=lambda error: [*map(str, error.path)])
    if found:
        raise Invalid(
            [
                {
                    "field": ".".join([field, *map(str, error.absolute_path)]),
                    "rule": error.message[:300],
                }
                for error in found[:_MOST_ERRORS]
            ]
        )


class Files:
    """What many tasks often share: files of projects, each asked for once, and schemas, made ready once."""

    def __init__(self) -> None:
        self._known: dict[tuple[UUID, str], WorkspaceFile | None] = {}
        # By the identity of the schema; the validator keeps it from being anybody else's.
        self._validators: dict[int, Draft202012Validator] = {}

    def check(self, agent_spec: dict[str, Any], value: dict[str, Any]) -> None:
        """As the function of this name."""
        schema = _schema(agent_spec)
        validator = self._validators.get(id(schema))
        if validator is None:
            validator = self._validators[id(schema)] = Draft202012Validator(schema)
        _require(validator, value, field="input")

    def named(self, project: Project, names: Iterable[str]) -> dict[str, WorkspaceFile]:
        wanted = set(names)
        if unknown := {name for name in wanted if (project.pk, name) not in self._known}:
            self._known |= dict.fromkeys((project.pk, name) for name in unknown)
            for file in WorkspaceFile.objects.filter(project=project, name__in=unknown):
                self._known[project.pk, file.name] = file
        known = ((name, self._known[project.pk, name]) for name in wanted)
        return {name: file for name, file in known if file is not None}


def resolve(
    project: Project,
    agent_spec: dict[str, Any],
    value: dict[str, Any],
    *,
    files: Files | None = None,
) -> list[dict[str, Any]]:
    """Check the input and return the files it names, as ``{"name", "sha256", "size"}``.

    A run keeps the content it was given: replacing the project's file later changes nothing.
    """
    files = files or Files()
    files.check(agent_spec, value)
    wanted = dict(_file_names(agent_spec, value))
    found = files.named(project, wanted.values())
    missing = [
        {
            "field": f"input.{field}",
            "rule": f"names {name!r}, which is not a file of this project; upload it first",
        }
        for field, name in wanted.items()
        if name not in found
    ]
    if missing:
        raise Invalid(missing)
    return [
        {"name": file.name, "sha256": file.sha256, "size": file.size} for file in found.values()
    ]


def file_field(agent_spec: dict[str, Any]) -> str | None:
    """The first field of the agent's input that takes a file, if any does."""
    properties = (agent_spec.get("input_schema") or {}).get("properties", {})
    return next(
        (field for field, rule in properties.items() if rule.get("format") == FILE_FORMAT), None
    )


def _file_names(agent_spec: dict[str, Any], value: dict[str, Any]) -> Iterator[tuple[str, str]]:
    properties = (agent_spec.get("input_schema") or {}).get("properties", {})
    for field, rule in properties.items():
        if rule.get("format") == FILE_FORMAT and isinstance(value.get(field), str):
            yield field, value[field]
