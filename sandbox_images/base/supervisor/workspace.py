"""The files of the workspace, reached without ever following a symbolic link."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import zlib
from collections import deque
from collections.abc import Iterator

from supervisor.wire import Frame, Refused, shown

ENTRIES_LIMIT = 100_000
DEPTH_LIMIT = 16
LISTING_LIMIT = 512 << 10
KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}


def parts_of(path: str) -> list[bytes]:
    if "\0" in path or path.startswith("/"):
        raise Refused("refused", "a path must be relative to the workspace")
    parts = [part for part in os.fsencode(path).split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise Refused("refused", "a path must stay in the workspace")
    return parts


def told(error: OSError) -> Refused:
    codes = {
        errno.ENOENT: "not_found",
        errno.ENOSPC: "no_space",
        errno.EDQUOT: "no_space",
        errno.EFBIG: "too_large",
    }
    return Refused(codes.get(error.errno or 0, "io"), error.strerror or str(error))


class Files:
    """The workspace, reached step by step so that no symbolic link is ever followed."""

    def __init__(self, root: str) -> None:
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def folder(self, parts: list[bytes], *, make: bool = False) -> int:
        """An open descriptor of a folder; the caller closes it."""
        here = os.dup(self._root)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            for part in parts:
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(part, 0o755, dir_fd=here)
                above, here = here, os.open(part, flags, dir_fd=here)
                os.close(above)
        except OSError as error:
            os.close(here)
            raise told(error) from error
        return here

    def open(self, path: str, flags: int, mode: int = 0o600, *, make: bool = False) -> int:
        *above, name = parts_of(path) or [b"."]
        folder = self.folder(above, make=make)
        try:
            safe = flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            fd = os.open(name, safe, mode, dir_fd=folder)
        except OSError as error:
            raise told(error) from error
        finally:
            os.close(folder)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise Refused("refused", "not a regular file")
        return fd

    def describe(self, path: str) -> Frame:
        *above, name = parts_of(path) or [b"."]
        folder = self.folder(above)
        try:
            return entry(name, os.stat(name, dir_fd=folder, follow_symlinks=False))
        except OSError as error:
            raise told(error) from error
        finally:
            os.close(folder)

    def listing(self, frame: Frame) -> Frame:
        start, depth = parts_of(frame.get("path", "")), int(frame.get("depth", 1))
        entries: list[Frame] = []
        room = LISTING_LIMIT
        for names, status in self.walk(start, depth=depth):
            if status is None:
                continue
            item = entry(b"/".join(names), status)
            room -= len(json.dumps(item))
            if room < 0:
                return {"entries": entries, "truncated": True}
            entries.append(item)
        return {"entries": entries, "truncated": False}

    def walk(
        self, start: list[bytes], *, depth: int = DEPTH_LIMIT
    ) -> Iterator[tuple[list[bytes], os.stat_result | None]]:
        """All that lies below a folder, as names relative to it. Links are told, not followed.

        A folder inside that cannot be opened comes a second time, without a status.
        """
        queue: deque[list[bytes]] = deque([[]])
        left = ENTRIES_LIMIT
        while queue:
            here = queue.popleft()
            try:
                folder = self.folder(start + here)
            except Refused:
                if not here:
                    raise
                yield here, None
                continue
            try:
                for name in sorted(os.listdir(folder)):
                    left -= 1
                    if left < 0:
                        raise Refused("too_many", f"more than {ENTRIES_LIMIT} entries")
                    try:
                        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                    except FileNotFoundError:
                        continue  # removed since the listing
                    names = [*here, os.fsencode(name)]
                    yield names, status
                    if stat.S_ISDIR(status.st_mode) and len(names) < depth:
                        queue.append(names)
            finally:
                os.close(folder)


def entry(name: bytes, status: os.stat_result) -> Frame:
    kind = KINDS.get(stat.S_IFMT(status.st_mode), "special")
    return {
        "name": shown(name),
        "kind": kind,
        "size": status.st_size,
        "mode": stat.S_IMODE(status.st_mode),
        "mtime": int(status.st_mtime),
    }


class Arrival:
    """A file on its way in. What goes wrong is told at its end: nobody listens before."""

    def __init__(self, files: Files, frame: Frame) -> None:
        self._fd = -1
        self._size = self._sum = 0
        self._failure: Refused | None = None
        try:
            mode = int(frame.get("mode", 0o644)) & 0o777
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            self._fd = files.open(frame["path"], flags, mode, make=True)
        except Refused as refused:
            self._failure = refused

    def take(self, data: bytes) -> None:
        if self._failure:
            return
        self._size += len(data)
        self._sum = zlib.crc32(data, self._sum)
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(self._fd, left) :]
        except OSError as error:
            self._failure = told(error)

    def end(self) -> Frame:
        """What was written, so that the worker can see that it is what it sent."""
        if self._fd >= 0:
            os.close(self._fd)
        if self._failure:
            raise self._failure
        return {"size": self._size, "crc32": self._sum}
