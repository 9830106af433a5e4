"""The script's editor: a version's spec from what a browser sends, and shown again with what is wrong."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from django.http import QueryDict
from django.utils.text import slugify

from apps.agents.models import Agent
from apps.core.errors import AosError, Invalid
from apps.core.rest.parsers import loads, require_storable

STARTER: Final[dict[str, Any]] = {
    "entry": "main.py",
    "files": {
        "main.py": '''"""Say what this script does."""

import json
import os
from pathlib import Path

given = json.loads((Path(os.environ["AOS_IN"]) / "input.json").read_text())
out = Path(os.environ["AOS_OUT"])

print("Hello", given.get("name", "world"), flush=True)
(out / "greeting.txt").write_text("Hello\\n")

# A line like this becomes the run's result; milestones and plans work the same way.
print("::aos " + json.dumps({"type": "result", "summary": "Said hello."}))
'''
    },
    "artifacts": ["*"],
    "timeout_s": 300,
}
_PREFIX: Final = "spec."


@dataclass(frozen=True, slots=True, kw_only=True)
class Editor:
    """What the editor shows. ``seen`` is the number of the version it was opened with."""

    title: str
    slug: str
    description: str
    entry: str
    command: str
    environment: str
    timeout_s: Any
    artifacts: str
    schema: str
    keep_workspace: bool
    files: list[tuple[str, str]]
    seen: int
    errors: dict[str, str] = field(default_factory=dict)
    problem: str = ""


def of(agent: Agent | None, spec: Mapping[str, Any], *, seen: int, environment: str = "") -> Editor:
    schema = spec.get("input_schema")
    entry = spec["entry"]
    # The one that is started comes first.
    files = sorted(spec["files"].items(), key=lambda file: (file[0] != entry, file[0]))
    return Editor(
        title=agent.title if agent else "",
        slug=agent.slug if agent else "",
        description=agent.description if agent else "",
        entry=entry,
        command=shlex.join(spec.get("command", [])),
        environment=spec.get("sandbox", {}).get("environment", environment),
        timeout_s=spec.get("timeout_s", ""),
        artifacts="\n".join(spec.get("artifacts", ["*"])),
        schema=json.dumps(schema, indent=2, ensure_ascii=False) if schema else "",
        keep_workspace=spec.get("keep_workspace", False),
        files=files,
        seen=seen,
    )


def again(sent: QueryDict, *, seen: int, problem: AosError) -> Editor:
    """The editor as it was sent, so that nobody types twice."""
    found = problem.errors if isinstance(problem, Invalid) else []
    errors: dict[str, str] = {}
    for each in found:
        errors.setdefault(_control(each["field"]), _told(each))
    shown = {"title", "slug", *_SHOWN}
    left = [text for name, text in errors.items() if name not in shown]
    return Editor(
        title=sent.get("title", ""),
        slug=sent.get("slug", ""),
        description=sent.get("description", ""),
        entry=sent.get("entry", ""),
        command=sent.get("command", ""),
        environment=sent.get("environment", ""),
        timeout_s=sent.get("timeout_s", ""),
        artifacts=sent.get("artifacts", ""),
        schema=sent.get("schema", ""),
        keep_workspace="keep_workspace" in sent,
        files=_files(sent) or [("", "")],
        seen=seen,
        errors=errors,
        problem=" ".join(left) if found else str(problem),
    )


_SHOWN: Final = ("entry", "command", "environment", "timeout_s", "artifacts", "schema", "files")


def read(sent: QueryDict, before: Mapping[str, Any]) -> dict[str, Any]:
    """The spec as it was written. What the editor does not show stays as it was ``before``.

    Raises ``Invalid`` for what cannot be read; the rest the registry judges.
    """
    wrong: list[dict[str, str]] = []
    spec = dict(before) | {"entry": sent.get("entry", "").strip(), "files": _named(sent, wrong)}
    values = {
        "command": _words(sent, wrong),
        "timeout_s": _whole(sent, wrong),
        "input_schema": _schema(sent, wrong),
        "sandbox": _sandbox(sent, before),
        "keep_workspace": "keep_workspace" in sent,
    }
    if wrong:
        raise Invalid(wrong)
    artifacts = [line.strip() for line in sent.get("artifacts", "").split("\n") if line.strip()]
    # All files are kept by default.
    if artifacts != ["*"] or "artifacts" in before:
        spec["artifacts"] = artifacts
    for name, value in values.items():
        if value:
            spec[name] = value
        else:
            spec.pop(name, None)
    require_storable(spec, "spec")
    return spec


def slug_of(sent: QueryDict) -> str:
    """The short name: as typed, or made from the title."""
    return (sent.get("slug", "").strip() or slugify(sent.get("title", ""))[:64]).strip("-")


def headings(sent: QueryDict, *, is_new: bool) -> dict[str, str]:
    """Title, description and, for a new one, the short name. Raises ``Invalid``."""
    title, description = sent.get("title", "").strip(), sent.get("description", "").strip()
    wrong = []
    if not 1 <= len(title) <= 120:
        wrong.append({"field": "title", "rule": "must be 1 to 120 characters long"})
    if len(description) > 4000:
        wrong.append({"field": "description", "rule": "must be at most 4000 characters long"})
    slug = slug_of(sent)
    if is_new and (not slug or slugify(slug) != slug or len(slug) > 64):
        rule = "must be 1 to 64 lower-case letters, digits and dashes"
        wrong.append({"field": "slug", "rule": rule})
    if wrong:
        raise Invalid(wrong)
    require_storable({"title": title, "description": description})
    return {"title": title, "description": description} | ({"slug": slug} if is_new else {})


def _files(sent: QueryDict) -> list[tuple[str, str]]:
    """Name and text of each file. A browser sends line breaks as two characters."""
    texts = [text.replace("\r\n", "\n") for text in sent.getlist("file-text")]
    found = zip(sent.getlist("file-name"), texts, strict=False)
    return [(name.strip(), text) for name, text in found if name.strip() or text]


def _named(sent: QueryDict, wrong: list[dict[str, str]]) -> dict[str, str]:
    files = _files(sent)
    names = [name for name, _ in files]
    if not all(names):
        wrong.append({"field": "files", "rule": "a file with text needs a name"})
    if twice := sorted({name for name in names if name and names.count(name) > 1}):
        wrong.append({"field": "files", "rule": f"{twice[0]} is there twice"})
    return dict(files)


def _words(sent: QueryDict, wrong: list[dict[str, str]]) -> list[str]:
    try:
        return shlex.split(sent.get("command", ""))
    except ValueError as error:
        wrong.append({"field": "command", "rule": f"cannot be read: {error}"})
        return []


def _whole(sent: QueryDict, wrong: list[dict[str, str]]) -> int | None:
    text = sent.get("timeout_s", "").strip()
    if not text:
        return None
    if not text.isdecimal() or len(text) > 9:
        wrong.append({"field": "timeout_s", "rule": "must be a whole number of seconds"})
        return None
    return int(text)


def _schema(sent: QueryDict, wrong: list[dict[str, str]]) -> Any:
    text = sent.get("schema", "").strip()
    if not text:
        return None
    try:
        return loads(text)
    except (ValueError, RecursionError) as error:
        wrong.append({"field": "schema", "rule": f"is not JSON: {error}"})
        return None


def _sandbox(sent: QueryDict, before: Mapping[str, Any]) -> dict[str, Any]:
    """The environment that was chosen; with none, the limits the version says itself."""
    if name := sent.get("environment", "").strip():
        return {"environment": name}
    own = dict(before.get("sandbox", {}))
    own.pop("environment", None)
    return own


def _control(path: str) -> str:
    """Which control an error's field belongs to."""
    name = path.removeprefix(_PREFIX)
    first = name.partition(".")[0]
    return {"input_schema": "schema", "sandbox": "environment"}.get(first, first)


def _told(error: Mapping[str, str]) -> str:
    """Where one control stands for many files, say which is meant."""
    name = error["field"].removeprefix(f"{_PREFIX}files.")
    return error["rule"] if name == error["field"] else f"{name} {error['rule']}"
