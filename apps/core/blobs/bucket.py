"""Contents as objects in a bucket of any S3-compatible store, through django-storages.

``s3://bucket/prefix?endpoint=https://store.example&region=eu-1``. Readers get the store's own stream, so a
preview of a large file fetches its beginning only.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import IO, Any, Final, Self
from urllib.parse import parse_qsl, urlsplit

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.files import File
from storages.backends.s3 import S3Storage

from apps.core.blobs.base import Stored
from apps.core.errors import StoreUnavailable

_CONFIG: Final = Config(
    connect_timeout=5,
    read_timeout=30,
    retries={"total_max_attempts": 3, "mode": "standard"},
    # Stores other than Amazon's do not all know the newer checksums.
    request_checksum_calculation="when_required",
    response_checksum_validation="when_required",
)
_OPTIONS: Final = frozenset({"endpoint", "region"})
_MISSING: Final = frozenset({"NoSuchKey", "404"})
_SHA256_LENGTH: Final = 64


@dataclass(frozen=True, slots=True)
class BucketStore:
    bucket: str
    prefix: str
    storage: S3Storage

    @classmethod
    def at(cls, url: str) -> Self:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query))
        if not parts.hostname or "@" in parts.netloc or options.keys() - _OPTIONS:
            raise ImproperlyConfigured(
                "AOS_ARTIFACT_STORE: an S3 address must be s3://bucket/prefix with no more than "
                "endpoint and region behind the question mark."
            )
        prefix = parts.path.strip("/")
        storage = S3Storage(
            bucket_name=parts.netloc,
            location=prefix,
            endpoint_url=options.get("endpoint"),
            region_name=options.get("region", "us-east-1"),
            # Without them, what the machine has: a role, a profile.
            access_key=settings.AOS_ARTIFACT_S3_ACCESS_KEY or None,
            secret_key=settings.AOS_ARTIFACT_S3_SECRET_KEY or None,
            client_config=_CONFIG,
            default_acl=None,
            file_overwrite=True,
        )
        return cls(parts.netloc, prefix, storage)

    @property
    def name(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"

    def receive(self) -> IO[bytes]:
        # Without a name: nothing is left of it whatever happens to this process.
        return tempfile.TemporaryFile()

    def save(self, file: IO[bytes], sha256: str) -> None:
        with self._said_plainly():
            self.storage.save(_key(sha256), File(file))

    def drop(self, file: IO[bytes]) -> None:
        file.close()

    def find(self, sha256: str) -> Stored | None:
        with self._said_plainly():
            try:
                found = self._object(sha256)
                return Stored(sha256=sha256, size=found.content_length, at=found.last_modified)
            except ClientError as error:
                if _code(error) in _MISSING:
                    return None
                raise

    def refresh(self, sha256: str) -> bool:
        """The store copies the object onto itself, which it dates anew."""
        with self._said_plainly():
            found = self._object(sha256)
            source = {"Bucket": self.bucket, "Key": found.key}
            try:
                found.copy_from(CopySource=source, MetadataDirective="REPLACE")
            except ClientError as error:
                if _code(error) in _MISSING:
                    return False
                raise
        return True

    def open(self, sha256: str) -> IO[bytes]:
        with self._said_plainly():
            try:
                answer = self._object(sha256).get()
            except ClientError as error:
                if _code(error) in _MISSING:
                    raise FileNotFoundError(sha256) from error
                raise
        return io.BufferedReader(_Stream(answer["Body"], self))

    def remove(self, sha256: str) -> None:
        with self._said_plainly():
            self.storage.delete(_key(sha256))

    def contents(self) -> Iterator[Stored]:
        with self._said_plainly():
            prefix = f"{self.prefix}/" if self.prefix else ""
            for item in self.storage.bucket.objects.filter(Prefix=prefix):
                sha256 = item.key.rpartition("/")[2]
                if len(sha256) == _SHA256_LENGTH and item.key == f"{prefix}{_key(sha256)}":
                    yield Stored(sha256=sha256, size=item.size, at=item.last_modified)

    def tidy(self, before: datetime) -> int:
        """What is received here has no name, and ends with its process."""
        return 0

    def _object(self, sha256: str) -> Any:
        return self.storage.bucket.Object(f"{self.prefix}/{_key(sha256)}".lstrip("/"))

    @contextmanager
    def _said_plainly(self) -> Iterator[None]:
        try:
            yield
        except (BotoCoreError, ClientError) as error:
            raise StoreUnavailable(store=self.name, reason=_why(error)) from error


class _Stream(io.RawIOBase):
    """An object's bytes as they arrive, with the store's troubles in our words."""

    def __init__(self, body: Any, store: BucketStore) -> None:
        self._body = body
        self._store = store

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        try:
            data = self._body.read(len(buffer))
        except (BotoCoreError, HTTPClientError, OSError) as error:
            raise StoreUnavailable(store=self._store.name, reason=_why(error)) from error
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._body.close()
        super().close()


def _key(sha256: str) -> str:
    return f"{sha256[:2]}/{sha256[2:4]}/{sha256}"


def _code(error: ClientError) -> str:
    told = error.response.get("Error", {}).get("Code", "")
    missing = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return "404" if missing == HTTPStatus.NOT_FOUND and told != "NoSuchBucket" else str(told)


def _why(error: Exception) -> str:
    if isinstance(error, ClientError):
        return f"it answers {_code(error)}"
    return f"it does not answer ({type(error).__name__})"
