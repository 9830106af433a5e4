"""Taking files out of a sandbox without trusting anything about them.

An agent version declares patterns of names below ``out/``. The supervisor sends the files that
match as a tar stream, and tells which it would not send and why. It lives among untrusted code, so
nothing it sends is believed: this module reads the stream header by header and lets only plain
files with harmless, declared, new names through, counts every byte, and writes nothing by name.

A refused file is a ``Rejection``, never an exception: the others are still collected. The caller
decides what a rejection means; the executor fails the run with ``artifact_rejected``, because a
result that is silently incomplete is worse than none. A stream that cannot be read at all is a
``SandboxProtocolError``.

Hard links are refused even inside ``out/``: a second name may lie anywhere, and a copy is cheap.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Collection, Generator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

from workers.sandbox.errors import ArtifactRejected, SandboxProtocolError

_BLOCK: Final = tarfile.BLOCKSIZE
_PIECE: Final = 256 * 1024
_LONG_NAME_LIMIT: Final = 8192
_PLAIN: Final = (tarfile.REGTYPE, tarfile.AREGTYPE)
_PATTERN_LIMIT: Final = 100
_REJECTIONS_BEYOND_COUNT: Final = 200


class Reason(StrEnum):
    """Why a file is no artifact. API: stored with the run and shown to people."""

    SYMLINK = "symlink"
    HARD_LINK = "hard_link"
    SPECIAL_FILE = "special_file"
    FOLDER = "folder"
    UNSAFE_NAME = "unsafe_name"
    NAME_TOO_LONG = "name_too_long"
    NAME_NOT_TEXT = "name_not_text"
    NOT_DECLARED = "not_declared"
    DUPLICATE_NAME = "duplicate_name"
    FILE_TOO_LARGE = "file_too_large"
    TOTAL_TOO_LARGE = "total_too_large"
    TOO_MANY_FILES = "too_many_files"
    TOO_DEEP = "too_deep"
    UNREADABLE = "unreadable"
    CHANGED_WHILE_READ = "changed_while_read"


#: Members without content, and why each is no artifact.
_BARE: Final = {
    tarfile.SYMTYPE: Reason.SYMLINK,
    tarfile.LNKTYPE: Reason.HARD_LINK,
    tarfile.CHRTYPE: Reason.SPECIAL_FILE,
    tarfile.BLKTYPE: Reason.SPECIAL_FILE,
    tarfile.FIFOTYPE: Reason.SPECIAL_FILE,
    tarfile.DIRTYPE: Reason.FOLDER,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactLimits:
    file_bytes: int = 100 * 1024 * 1024
    total_bytes: int = 500 * 1024 * 1024
    count: int = 1000
    name_length: int = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A file that was taken: its name relative to ``out/``, its size, its content's SHA-256."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """A file that was not. The name is made printable, so it may not be the exact one."""

    name: str
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    artifacts: tuple[Artifact, ...] = ()
    rejections: tuple[Rejection, ...] = ()
    #: Declared patterns that no file matched.
    unmatched: tuple[str, ...] = ()

    def error(self) -> ArtifactRejected | None:
        """The rejections as one error, naming the first."""
        if not self.rejections:
            return None
        first = self.rejections[0]
        return ArtifactRejected(
            name=first.name, reason=first.reason.value, count=len(self.rejections)
        )


class ArtifactWriter(Protocol):
    """Where one file's bytes go. Exactly one of ``keep`` and ``discard`` ends it.

    What is kept is an artifact only when ``collect`` returns it: a file may turn out to have changed
    while it was read. Content stored by its SHA-256 can simply stay.
    """

    def write(self, data: bytes, /) -> object: ...

    def keep(self, *, sha256: str) -> object: ...

    def discard(self) -> None: ...


class ArtifactSink(Protocol):
    """Made by the caller. It gets names that are safe to store, and never has to trust one."""

    def open(self, name: str, *, size: int) -> ArtifactWriter: ...


#: The pieces of a tar stream; at its end, the names the supervisor refused, with its reasons.
Pieces = Generator[bytes, None, list[tuple[str, str]]]


def as_regex(pattern: str) -> str:
    """A declared pattern as a regular expression for the whole name.

    ``*`` and ``?`` stay within one folder, ``**`` crosses folders, a trailing ``/`` means all below.
    Raises ``ValueError`` for what cannot be a name below ``out/``.
    """
    if pattern.endswith("/"):
        pattern += "**"
    if fault := name_fault(pattern, length=255):
        raise ValueError(f"the artifact pattern {pattern!r} is refused: {fault.value}")
    if pattern.count("**") > 2 or pattern.count("*") > 8:
        raise ValueError(f"the artifact pattern {pattern!r} has too many stars")
    words = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    return "".join(words.get(part, re.escape(part)) for part in parts)


def as_regexes(patterns: Collection[str]) -> dict[str, str]:
    if len(patterns) > _PATTERN_LIMIT:
        raise ValueError(f"at most {_PATTERN_LIMIT} artifact patterns can be declared")
    return {pattern: as_regex(pattern) for pattern in patterns}


def name_fault(name: str, *, length: int) -> Reason | None:
    """What makes a name unfit to be stored, shown in a page, or offered for download."""
    if len(name) > length:
        return Reason.NAME_TOO_LONG
    if not name.isprintable():  # control characters, bytes that are no UTF-8, reversed text
        return Reason.NAME_NOT_TEXT
    parts = name.split("/")
    if not name or "\\" in name or any(part in {"", ".", ".."} for part in parts):
        return Reason.UNSAFE_NAME
    return None


def shown(name: str) -> str:
    readable = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in readable)[:300]


class _Reader:
    """Exact reads from pieces of any size, with a ceiling on their sum."""

    def __init__(self, pieces: Pieces, *, ceiling: int) -> None:
        self._pieces = pieces
        self._ceiling = ceiling
        self._piece = b""
        self._at = 0
        self.refused: list[tuple[str, str]] = []

    def _more(self) -> bool:
        try:
            self._piece, self._at = next(self._pieces), 0
        except StopIteration as end:
            self.refused = end.value
            return False
        self._ceiling -= len(self._piece)
        if self._ceiling < 0:
            raise SandboxProtocolError(detail="it sent more artifact data than was agreed")
        return True

    def some(self, size: int) -> bytes:
        """At least one byte and at most ``size``."""
        while self._at == len(self._piece):
            if not self._more():
                raise SandboxProtocolError(detail="its artifact stream ended too early")
        data = self._piece[self._at : self._at + size]
        self._at += len(data)
        return data

    def exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            data += self.some(size - len(data))
        return bytes(data)

    def rest(self) -> None:
        while self._more():
            pass


@dataclass(slots=True, kw_only=True)
class _Collector:
    reader: _Reader
    regexes: dict[str, re.Pattern[str]]
    limits: ArtifactLimits
    sink: ArtifactSink
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    rejections: list[Rejection] = field(default_factory=list)
    total: int = 0

    def read(self) -> None:
        long_name: bytes | None = None
        while header := self._header():
            if header.type == tarfile.GNUTYPE_LONGNAME:
                long_name = self._long_name(header)
                continue
            name = header.name if long_name is None else _decoded(long_name)
            long_name = None
            self._member(name, header)
        self.reader.rest()

    def _header(self) -> tarfile.TarInfo | None:
        block = self.reader.exactly(_BLOCK)
        if block == bytes(_BLOCK):
            return None
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise SandboxProtocolError(detail="its artifact stream is not a tar stream") from error
        if header.size < 0:
            raise SandboxProtocolError(detail="its artifact stream has a negative size")
        return header

    def _long_name(self, header: tarfile.TarInfo) -> bytes:
        if header.size > _LONG_NAME_LIMIT:
            raise SandboxProtocolError(detail="its artifact stream has an endless name")
        return self.reader.exactly(_padded(header.size))[: header.size].removesuffix(b"\0")

    def _member(self, name: str, header: tarfile.TarInfo) -> None:
        reason: Reason | None
        if header.type in _PLAIN:
            reason = self._refusal(name, header.size)
            self._content(name, header.size, reason)
        elif header.type in _BARE:
            reason = _BARE[header.type]
        else:
            # What follows such a header depends on its kind: there is no safe way to go on.
            raise SandboxProtocolError(detail="its artifact stream has a member of unknown kind")
        if reason:
            self._reject(name, reason)

    def _reject(self, name: str, reason: Reason) -> None:
        self.rejections.append(Rejection(name=shown(name), reason=reason))
        if len(self.rejections) > self.limits.count + _REJECTIONS_BEYOND_COUNT:
            raise SandboxProtocolError(detail="it refuses artifacts without end")

    def _refusal(self, name: str, size: int) -> Reason | None:
        return (
            name_fault(name, length=self.limits.name_length)
            or self._unexpected(name)
            or self._over_limit(size)
        )

    def _unexpected(self, name: str) -> Reason | None:
        if not any(regex.fullmatch(name) for regex in self.regexes.values()):
            return Reason.NOT_DECLARED
        return Reason.DUPLICATE_NAME if name in self.artifacts else None

    def _over_limit(self, size: int) -> Reason | None:
        if size > self.limits.file_bytes:
            return Reason.FILE_TOO_LARGE
        if self.total + size > self.limits.total_bytes:
            return Reason.TOTAL_TOO_LARGE
        return Reason.TOO_MANY_FILES if len(self.artifacts) >= self.limits.count else None

    def _content(self, name: str, size: int, reason: Reason | None) -> None:
        if reason:
            self._copy(size, None)
        else:
            writer = self.sink.open(name, size=size)
            try:
                sha256 = self._copy(size, writer)
            except BaseException:
                writer.discard()
                raise
            writer.keep(sha256=sha256)
            self.artifacts[name] = Artifact(name=name, size=size, sha256=sha256)
            self.total += size
        self.reader.exactly(_padded(size) - size)

    def _copy(self, size: int, writer: ArtifactWriter | None) -> str:
        digest = hashlib.sha256()
        while size:
            data = self.reader.some(min(size, _PIECE))
            size -= len(data)
            if writer:
                digest.update(data)
                writer.write(data)
        return digest.hexdigest()

    def told(self) -> None:
        """Add what the supervisor refused by itself. A reason we do not know is a lie."""
        for name, word in self.reader.refused:
            try:
                reason = Reason(word)
            except ValueError as error:
                raise SandboxProtocolError(detail="it refused a file without a reason") from error
            self._reject(name, reason)
            self.artifacts.pop(name, None)


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _decoded(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def collect(
    pieces: Pieces, *, regexes: dict[str, str], limits: ArtifactLimits, sink: ArtifactSink
) -> Collected:
    """Read a supervisor's tar stream into the sink; see the module's docstring."""
    # Each member costs a header, a long name and padding; each refused one at most a header.
    ceiling = limits.total_bytes + (limits.count + 16) * (_LONG_NAME_LIMIT + 4 * _BLOCK)
    compiled = {pattern: re.compile(regex, re.DOTALL) for pattern, regex in regexes.items()}
    collector = _Collector(
        reader=_Reader(pieces, ceiling=ceiling), regexes=compiled, limits=limits, sink=sink
    )
    collector.read()
    collector.told()
    seen = {*collector.artifacts, *(rejection.name for rejection in collector.rejections)}
    return Collected(
        artifacts=tuple(collector.artifacts.values()),
        rejections=tuple(collector.rejections),
        unmatched=tuple(
            pattern
            for pattern, regex in compiled.items()
            if not any(regex.fullmatch(name) for name in seen)
        ),
    )
