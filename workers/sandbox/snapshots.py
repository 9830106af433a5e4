"""A workspace as an archive that outlives its sandbox, without trusting anything about it.

What a script left there is read from outside while the sandbox is paused, so nothing changes meanwhile.
The rules are those of artifacts: folders and plain files with one name that can be shown are taken, with
their contents, modes and times. Links, devices, pipes, sockets and odd names are left out, and told. So
are processes, memory and everything outside the workspace, such as ``/tmp``.

Equal workspaces make equal archives: owners and what else the host adds are not in them.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import IO, Final, Protocol, cast

from workers.sandbox.artifacts import Reason, Rejection, name_fault, shown
from workers.sandbox.errors import SandboxProtocolError, SnapshotTooLarge

PIECE: Final = 256 * 1024
_TOLD: Final = 20
#: What a name may cost beside its content: a header, a long name, padding.
_HEADERS: Final = 8 * tarfile.BLOCKSIZE
_LATEST: Final = 1 << 33
#: What a file in a tar archive can be, beside plain, and why it is left out.
_KINDS: Final = {
    tarfile.SYMTYPE: Reason.SYMLINK,
    tarfile.LNKTYPE: Reason.HARD_LINK,
    tarfile.CHRTYPE: Reason.SPECIAL_FILE,
    tarfile.BLKTYPE: Reason.SPECIAL_FILE,
    tarfile.FIFOTYPE: Reason.SPECIAL_FILE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotLimits:
    total_bytes: int = 512 * 1024 * 1024
    count: int = 50_000
    name_length: int = 1024


#: What was taken under some limit was taken: the workspace it goes into has a size of its own.
RESTORED: Final = SnapshotLimits(total_bytes=1 << 40)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What an archive holds: plain files and folders, and bytes of the files."""

    count: int = 0
    size: int = 0
    left_out: int = 0
    #: The first of those left out, by printable names.
    examples: tuple[Rejection, ...] = ()

    def __str__(self) -> str:
        told = f"{self.count:,} files and folders, {self.size:,} bytes"
        if not self.left_out:
            return told
        names = ", ".join(f"{each.name} ({each.reason})" for each in self.examples[:5])
        return f"{told}; left out {self.left_out:,}: {names}"


class Sink(Protocol):
    def write(self, data: bytes, /) -> object: ...


def copy(
    pieces: Iterator[bytes],
    sink: Sink,
    *,
    limits: SnapshotLimits,
    owner: tuple[int, int] = (0, 0),
) -> Contents:
    """Copy what may be kept from one tar stream to another. Raises ``SnapshotTooLarge``."""
    source = _Source(pieces, ceiling=limits.total_bytes + (limits.count + 16) * _HEADERS)
    try:
        with (
            tarfile.open(fileobj=cast("IO[bytes]", source), mode="r|") as taken,
            tarfile.open(
                fileobj=cast("IO[bytes]", sink), mode="w|", format=tarfile.PAX_FORMAT
            ) as kept,
        ):
            copying = _Copying(taken=taken, kept=kept, limits=limits, owner=owner)
            for member in taken:
                # They remember every header otherwise, and there may be many.
                taken.members.clear()  # type: ignore[attr-defined]  # not in the stubs
                kept.members.clear()  # type: ignore[attr-defined]
                copying.add(member)
    except (tarfile.TarError, ValueError) as error:
        raise SandboxProtocolError(detail="its workspace cannot be read as an archive") from error
    return copying.contents


class _Source:
    """Pieces of any size as a file to read, with a ceiling on their sum."""

    def __init__(self, pieces: Iterator[bytes], *, ceiling: int) -> None:
        self._pieces = pieces
        self._ceiling = ceiling
        self._buffer = bytearray()

    def read(self, size: int) -> bytes:
        while len(self._buffer) < size:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._ceiling -= len(piece)
            if self._ceiling < 0:
                raise SnapshotTooLarge(what="size")
            self._buffer += piece
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data


@dataclass(slots=True, kw_only=True)
class _Copying:
    taken: tarfile.TarFile
    kept: tarfile.TarFile
    limits: SnapshotLimits
    owner: tuple[int, int]
    folders: set[str] = field(default_factory=lambda: {""})
    files: set[str] = field(default_factory=set)
    contents: Contents = field(default_factory=Contents)

    def add(self, member: tarfile.TarInfo) -> None:
        name = member.name.removeprefix("./").rstrip("/")
        if name in {"", "."}:
            return  # the workspace itself
        if reason := self._refusal(name, member):
            self._leave_out(name, reason)
            return
        self._require_room(member)
        if member.isdir():
            self.folders.add(name)
            self.kept.addfile(self._header(name, member))
        else:
            self.files.add(name)
            self.kept.addfile(self._header(name, member), self.taken.extractfile(member))

    def _refusal(self, name: str, member: tarfile.TarInfo) -> Reason | None:
        if reason := _KINDS.get(member.type):
            return reason
        if not member.isdir() and not member.isreg():
            return Reason.SPECIAL_FILE
        if reason := name_fault(name, length=self.limits.name_length):
            return reason
        if name in self.folders or name in self.files:
            return Reason.DUPLICATE_NAME
        # Below what was left out, or below what is no folder: there is no such place.
        return None if name.rpartition("/")[0] in self.folders else Reason.UNSAFE_NAME

    def _leave_out(self, name: str, reason: Reason) -> None:
        told = self.contents
        examples = told.examples
        if len(examples) < _TOLD:
            examples = (*examples, Rejection(name=shown(name), reason=reason))
        self.contents = replace(told, left_out=told.left_out + 1, examples=examples)
        if self.contents.count + self.contents.left_out > self.limits.count:
            raise SnapshotTooLarge(what="number of files")

    def _require_room(self, member: tarfile.TarInfo) -> None:
        told = self.contents
        size = told.size + (member.size if member.isreg() else 0)
        if size > self.limits.total_bytes:
            raise SnapshotTooLarge(what="size")
        if told.count + told.left_out >= self.limits.count:
            raise SnapshotTooLarge(what="number of files")
        self.contents = replace(told, count=told.count + 1, size=size)

    def _header(self, name: str, member: tarfile.TarInfo) -> tarfile.TarInfo:
        header = tarfile.TarInfo(name)
        header.type = tarfile.DIRTYPE if member.isdir() else tarfile.REGTYPE
        header.size = 0 if member.isdir() else member.size
        header.mode = member.mode & 0o777
        header.mtime = min(max(0, int(member.mtime)), _LATEST)
        header.uid, header.gid = self.owner
        return header
