"""What a script prints, read as lines of the run's log and as commands to the platform.

A line that starts with ``::aos `` and carries valid JSON is a command; everything else is log. The
script is untrusted: lines are bounded, undecodable bytes are replaced, and a malformed command is
kept as a warning in the log, never an error.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from jsonschema import Draft202012Validator

from apps.runs.types import Entry, EventKind

MARK: Final = "::aos "
LINE_LIMIT: Final = 16 * 1024

_FACTS: Final = {
    "type": "object",
    "maxProperties": 30,
    "additionalProperties": {
        "type": ["string", "number", "boolean", "null"],
        "maxLength": 500,
    },
}
_COMMANDS: Final = Draft202012Validator(
    {
        "oneOf": [
            {
                "required": ["type", "title"],
                "additionalProperties": False,
                "properties": {
                    "type": {"const": "milestone"},
                    "title": {"type": "string", "minLength": 1, "maxLength": 200},
                    "progress": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
                    "facts": _FACTS,
                },
            },
            {
                "required": ["type", "items"],
                "additionalProperties": False,
                "properties": {
                    "type": {"const": "todo"},
                    "items": {
                        "type": "array",
                        "maxItems": 50,
                        "items": {
                            "type": "object",
                            "required": ["title", "state"],
                            "additionalProperties": False,
                            "properties": {
                                "title": {"type": "string", "maxLength": 200},
                                "state": {"enum": ["pending", "doing", "done"]},
                            },
                        },
                    },
                },
            },
            {
                "required": ["type", "summary"],
                "additionalProperties": False,
                "properties": {
                    "type": {"const": "result"},
                    "summary": {"type": "string", "maxLength": 2000},
                    "facts": _FACTS,
                },
            },
        ]
    }
)


@dataclass(slots=True)
class Transcript:
    """Cuts a script's two streams into lines and remembers what the receipt will need."""

    result: dict[str, Any] = field(default_factory=dict)
    #: The last lines of standard error, for the error message of a script that fails.
    complaints: list[str] = field(default_factory=list)
    _partial: dict[str, bytearray] = field(
        default_factory=lambda: {"stdout": bytearray(), "stderr": bytearray()}
    )

    def feed(self, stream: str, data: bytes) -> Iterator[Entry]:
        """Entries for every line that ``data`` completes."""
        partial = self._partial[stream]
        partial += data
        while (end := partial.find(b"\n")) >= 0 or len(partial) > LINE_LIMIT:
            cut = end if 0 <= end <= LINE_LIMIT else LINE_LIMIT
            line = bytes(partial[:cut])
            del partial[: cut + (cut == end)]
            yield self._entry(stream, line)

    def close(self) -> Iterator[Entry]:
        """Entries for what was printed without a final line break."""
        for stream, partial in self._partial.items():
            if partial:
                yield self._entry(stream, bytes(partial))
                partial.clear()

    def _entry(self, stream: str, line: bytes) -> Entry:
        # PostgreSQL cannot store NUL; a visible mark is better than a lost line.
        text = (
            line.decode("utf-8", "replace")
            .rstrip("\r")
            .replace("\x00", "\N{REPLACEMENT CHARACTER}")
        )
        if stream == "stdout" and text.startswith(MARK):
            return self._command(text)
        if stream == "stderr":
            self.complaints = [*self.complaints[-9:], text]
        level = "WARN" if stream == "stderr" else "INFO"
        return _log(level, stream, text)

    def _command(self, text: str) -> Entry:
        command: Any = None
        try:
            command = json.loads(text.removeprefix(MARK))
            valid = _COMMANDS.is_valid(command) and _storable(command)
        except (ValueError, RecursionError):
            valid = False
        if not valid:
            return _log("WARN", "stdout", text)
        kind = command.pop("type")
        if kind == "result":
            self.result = command
            return _log("INFO", "result", command["summary"])
        return Entry(
            kind=EventKind.MESSAGE if kind == "milestone" else EventKind.TODO, payload=command
        )


def _storable(command: Any) -> bool:
    """Whether PostgreSQL can keep it: no NUL, no half of a surrogate pair, no infinite number."""
    # Both failures are ValueErrors, which the caller takes for "not valid".
    encoded = json.dumps(command, ensure_ascii=False, allow_nan=False).encode("utf-8")
    return b"\\u0000" not in encoded


def _log(level: str, source: str, text: str) -> Entry:
    return Entry(kind=EventKind.LOG, payload={"level": level, "source": source, "text": text})
