"""Contents as files below one folder, which all processes share."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Final, Self
from urllib.parse import unquote, urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from apps.core.blobs.base import Stored
from apps.core.errors import StoreUnavailable

_INCOMING: Final = ".incoming-"
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class FolderStore:
    folder: Path

    @classmethod
    def at(cls, url: str) -> Self:
        """``file:`` is a folder in the data folder, ``file:///mnt/artifacts`` another one."""
        parts = urlsplit(url)
        if parts.netloc or parts.query or (parts.path and not parts.path.startswith("/")):
            raise ImproperlyConfigured(
                "AOS_ARTIFACT_STORE: a folder must be file: or file:///an/absolute/folder."
            )
        return cls(Path(unquote(parts.path) or Path(settings.AOS_DATA_DIR) / "artifacts"))

    @property
    def name(self) -> str:
        return f"file:{self.folder}"

    def receive(self) -> IO[bytes]:
        with self._said_plainly():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # In the same folder, so that it becomes visible by one rename.
            descriptor, name = tempfile.mkstemp(dir=self.folder, prefix=_INCOMING)
            os.close(descriptor)
            return Path(name).open("r+b")

    def save(self, file: IO[bytes], sha256: str) -> None:
        path = self._path(sha256)
        with self._said_plainly():
            file.flush()
            os.fsync(file.fileno())
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            Path(file.name).replace(path)
            _sync(path.parent)

    def drop(self, file: IO[bytes]) -> None:
        with self._said_plainly():
            file.close()
            Path(file.name).unlink(missing_ok=True)

    def find(self, sha256: str) -> Stored | None:
        with self._said_plainly():
            try:
                return _stored(self._path(sha256))
            except FileNotFoundError:
                return None

    def refresh(self, sha256: str) -> bool:
        with self._said_plainly():
            try:
                os.utime(self._path(sha256))
            except FileNotFoundError:
                return False
        return True

    def open(self, sha256: str) -> IO[bytes]:
        with self._said_plainly(but=FileNotFoundError):
            return self._path(sha256).open("rb")

    def remove(self, sha256: str) -> None:
        with self._said_plainly():
            self._path(sha256).unlink(missing_ok=True)

    def contents(self) -> Iterator[Stored]:
        with self._said_plainly():
            # A glob passes over a folder that cannot be read; nothing stored yet is another thing.
            with suppress(FileNotFoundError):
                self.folder.stat()
            for path in self.folder.glob("??/??/*"):
                # What is removed meanwhile, or is none of ours, is passed over.
                if _SHA256.fullmatch(path.name):
                    with suppress(FileNotFoundError):
                        yield _stored(path)

    def tidy(self, before: datetime) -> int:
        count = 0
        with self._said_plainly():
            for path in self.folder.glob(f"{_INCOMING}*"):
                with suppress(FileNotFoundError):
                    if path.stat().st_mtime < before.timestamp():
                        path.unlink()
                        count += 1
        return count

    def _path(self, sha256: str) -> Path:
        return self.folder / sha256[:2] / sha256[2:4] / sha256

    @contextmanager
    def _said_plainly(self, *, but: type[OSError] | tuple[()] = ()) -> Iterator[None]:
        try:
            yield
        except but:
            raise
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise StoreUnavailable(store=self.name, reason=reason) from error


def _stored(path: Path) -> Stored:
    found = path.stat()
    at = datetime.fromtimestamp(found.st_mtime, UTC)
    return Stored(sha256=path.name, size=found.st_size, at=at)


def _sync(folder: Path) -> None:
    """A rename survives a power cut only once its folder is on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
