"""Reading what a sandbox says. Every byte is untrusted input, and becomes a value or an error.

The words of session protocol 2 are in ``sandbox_images/base/README.md``. Fields that are not known
here are ignored, so that a newer supervisor can say more; a field that is known must be right.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from workers.sandbox.errors import SandboxProtocolError

VERSION: Final = 2
LINE_LIMIT: Final = 1 << 20
#: The bytes that may follow one line.
BODY_LIMIT: Final = 256 * 1024

_BIG: Final = 1 << 53


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    v: int
    pid: int
    uid: int
    python: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Out:
    """Output of a command; its bytes follow."""

    id: str
    fd: int
    seq: int
    length: int
    skipped: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A command's end, as told from inside; ``base.Exit`` is what the worker makes of it."""

    id: str
    code: int | None
    signal: int | None
    timed_out: bool
    oom: bool
    wall_ms: int
    truncated: bool
    dropped: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """A piece of a file or of an archive; its bytes follow."""

    id: str
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """All bytes of a file or an archive have passed: how many, and their CRC-32."""

    id: str
    size: int
    crc32: int
    rejected: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    id: str
    code: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    name: str
    kind: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    id: str
    entries: tuple[Entry, ...]
    truncated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Info:
    id: str
    entry: Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Pong:
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """The supervisor did not understand us."""

    detail: str


Frame = Hello | Out | Ended | Data | Done | Failed | Listing | Info | Pong | Heartbeat | Fault


def _wrong(detail: str) -> NoReturn:
    raise SandboxProtocolError(detail=detail)


class _Fields:
    """One JSON object, read field by field with a type and a bound."""

    def __init__(self, raw: object) -> None:
        if not isinstance(raw, dict):
            _wrong("a line is not a JSON object")
        self._raw: dict[str, Any] = raw

    def number(self, name: str, *, most: int = _BIG, default: int | None = None) -> int:
        value = self._raw.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
            _wrong(f"{name} is not a number from 0 to {most}")
        return value

    def maybe_number(self, name: str, *, most: int) -> int | None:
        return None if self._raw.get(name) is None else self.number(name, most=most)

    def flag(self, name: str) -> bool:
        value = self._raw.get(name)
        if not isinstance(value, bool):
            _wrong(f"{name} is not true or false")
        return value

    def text(self, name: str, *, most: int = 64) -> str:
        value = self._raw.get(name)
        if not isinstance(value, str) or len(value) > most:
            _wrong(f"{name} is not a text of at most {most} characters")
        # Neither NUL nor half a surrogate pair can be stored anywhere later.
        return value.encode("utf-8", "replace").decode().replace("\0", "?")

    def length(self) -> int:
        value = self.number("length", most=BODY_LIMIT)
        if not value:
            _wrong("length is 0")
        return value

    def objects(self, name: str, *, most: int) -> list[_Fields]:
        value = self._raw.get(name, [])
        if not isinstance(value, list) or len(value) > most:
            _wrong(f"{name} is not a list of at most {most}")
        return [_Fields(item) for item in value]

    def one(self, name: str) -> _Fields:
        return _Fields(self._raw.get(name))


def _out(told: _Fields) -> Out:
    fd = told.number("fd", most=2)
    if not fd:
        _wrong("fd is neither 1 nor 2")
    return Out(
        id=told.text("id"),
        fd=fd,
        seq=told.number("seq"),
        length=told.length(),
        skipped=told.number("skipped", default=0),
    )


def _ended(told: _Fields) -> Ended:
    code, by_signal = told.maybe_number("code", most=255), told.maybe_number("signal", most=64)
    if (code is None) == (by_signal is None):
        _wrong("a command ends with a code or a signal, not both or neither")
    return Ended(
        id=told.text("id"),
        code=code,
        signal=by_signal,
        timed_out=told.flag("timed_out"),
        oom=told.flag("oom"),
        wall_ms=told.number("wall_ms"),
        truncated=told.flag("truncated"),
        dropped=told.number("dropped"),
    )


def _entry(told: _Fields) -> Entry:
    return Entry(
        name=told.text("name", most=8192),
        kind=told.text("kind"),
        size=told.number("size"),
    )


_READERS: Final[dict[str, Callable[[_Fields], Frame]]] = {
    "hello": lambda told: Hello(
        v=told.number("v"),
        pid=told.number("pid"),
        uid=told.number("uid"),
        python=told.text("python"),
    ),
    "out": _out,
    "exit": _ended,
    "data": lambda told: Data(id=told.text("id"), length=told.length()),
    "done": lambda told: Done(
        id=told.text("id"),
        size=told.number("size"),
        crc32=told.number("crc32", most=0xFFFFFFFF),
        rejected=tuple(
            (item.text("name", most=1000), item.text("reason"))
            for item in told.objects("rejected", most=200)
        ),
    ),
    "failed": lambda told: Failed(
        id=told.text("id"), code=told.text("code"), detail=told.text("detail", most=1000)
    ),
    "listing": lambda told: Listing(
        id=told.text("id"),
        entries=tuple(_entry(item) for item in told.objects("entries", most=20_000)),
        truncated=told.flag("truncated"),
    ),
    "info": lambda told: Info(id=told.text("id"), entry=_entry(told.one("entry"))),
    "pong": lambda told: Pong(id=told.text("id")),
    "heartbeat": lambda _: Heartbeat(),
    "error": lambda told: Fault(detail=told.text("detail", most=1000)),
}


def parse(line: bytes) -> Frame:
    """One line as a frame. Raises ``SandboxProtocolError`` and nothing else."""
    try:
        raw = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise SandboxProtocolError(detail="a line is not JSON") from error
    told = _Fields(raw)
    reader = _READERS.get(told.text("type"))
    if reader is None:
        _wrong("a line is of no known type")
    return reader(told)


class Inbox:
    """What has arrived and is not read yet, to be taken as lines or by number of bytes."""

    def __init__(self) -> None:
        self._data = b""
        self._at = 0
        self._partial = bytearray()

    def feed(self, data: bytes) -> None:
        """Add what arrived. Only when the last question was answered with ``None``."""
        self._data, self._at = data, 0

    def line(self) -> bytes | None:
        """The next line without its end, or ``None`` while it is not whole."""
        end = self._data.find(b"\n", self._at)
        self._keep(len(self._data) if end < 0 else end)
        if len(self._partial) > LINE_LIMIT:
            _wrong("a line is longer than 1 MiB")
        if end < 0:
            return None
        self._at = end + 1
        return self._taken()

    def exactly(self, size: int) -> bytes | None:
        """The next bytes, or ``None`` while fewer have arrived."""
        self._keep(min(len(self._data), self._at + size - len(self._partial)))
        return self._taken() if len(self._partial) == size else None

    def _keep(self, end: int) -> None:
        self._partial += memoryview(self._data)[self._at : end]
        self._at = end

    def _taken(self) -> bytes:
        taken = bytes(self._partial)
        self._partial.clear()
        return taken
