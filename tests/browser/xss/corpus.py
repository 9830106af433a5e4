"""The payloads, aimed: each one says which it is and which field it sat in when it fires."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_FILE: Final = Path(__file__).with_name("payloads.txt")
# How a page shows that it renders a field at all: every value ends with this mark.
MARK: Final = re.compile(r"zf(\d+)z")


# At most so many payloads share a value: a volley. The first of each stands where a value begins.
_TOGETHER: Final = 6
BEGINNERS: Final = frozenset({"url", "script and data", "encoding"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    number: int
    aim: str
    text: str

    def at(self, field: int, host: str) -> str:
        """A call of the canary tells payload and field."""
        shot = f"{self.number}.{field:03}"
        return self.text.replace("§c", f"zq({shot})").replace("§u", f"http://{host}/{shot}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Volley:
    payloads: tuple[Payload, ...]

    def at(self, field: int, *, host: str, line: str = " ") -> str:
        """The value for one field."""
        shots = line.join(payload.at(field, host) for payload in self.payloads)
        return f"{shots}zf{field}z"

    def __str__(self) -> str:
        return "\n".join(f"{payload.aim}: {payload.text!r}" for payload in self.payloads)


def load() -> list[Payload]:
    found: list[Payload] = []
    aim = ""
    for line in _FILE.read_text("utf-8").splitlines():
        if line.startswith("## "):
            aim = line[3:]
        elif line and aim:
            text = re.sub(r"⟦([0-9a-f]+)⟧", lambda match: chr(int(match[1], 16)), line)
            found.append(Payload(number=len(found) + 1, aim=aim, text=text))
    return found


def volleys() -> list[Volley]:
    """All payloads, each once; those that must stand at a value's beginning do."""
    payloads = sorted(load(), key=lambda payload: payload.aim not in BEGINNERS)
    beginners = sum(payload.aim in BEGINNERS for payload in payloads)
    count = max(beginners, -(-len(payloads) // _TOGETHER))
    return [Volley(payloads=tuple(payloads[start::count])) for start in range(count)]


# What pages look like when nobody tries anything.
# Two lines, because the admin shows a line's end as a line's end.
PLAIN: Final = Volley(payloads=(Payload(number=0, aim="none", text="plain words\nand more"),))
