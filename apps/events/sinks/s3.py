"""Checkpoints as objects in a bucket of any S3-compatible store, one each.

``s3://bucket/prefix?endpoint=https://store.example&region=eu-1&lock_days=365``. An object is created
only where none is, by asking first and by ``If-None-Match`` where the store knows it. With ``lock_days``, the
store's object lock keeps each object from being deleted or replaced by anybody for that long.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Self
from urllib.parse import parse_qsl, urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from apps.core import clock
from apps.events.errors import SinkAway, SinkConflict
from apps.events.sinks.base import Checkpoint

_CONFIG: Final = Config(
    connect_timeout=5,
    read_timeout=10,
    # The courier tries again; a store must not hold it up meanwhile.
    retries={"total_max_attempts": 1},
    # Stores other than Amazon's do not all know the newer checksums.
    request_checksum_calculation="when_required",
    response_checksum_validation="when_required",
)
_OPTIONS: Final = frozenset({"endpoint", "region", "lock_days"})
_EXISTS: Final = frozenset({"PreconditionFailed", "412", "ConditionalRequestConflict"})
_UNKNOWN: Final = frozenset({"NotImplemented", "501", "InvalidArgument", "InvalidRequest"})
_MISSING: Final = frozenset({"NoSuchKey", "404"})
_AT_ONCE: Final = 16


@dataclass(frozen=True, slots=True)
class S3Sink:
    bucket: str
    prefix: str
    lock: timedelta | None
    client: Any
    readable = True
    near = False

    @classmethod
    def at(cls, url: str) -> Self:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query))
        lock_days = options.get("lock_days", "0")
        if not parts.hostname or "@" in parts.netloc or options.keys() - _OPTIONS:
            raise ImproperlyConfigured(
                "AOS_AUDIT_SINKS: an S3 address must be s3://bucket/prefix with no more than "
                "endpoint, region and lock_days behind the question mark."
            )
        if not lock_days.isdecimal():
            raise ImproperlyConfigured("AOS_AUDIT_SINKS: lock_days must be a number of days.")
        client = boto3.client(
            "s3",
            endpoint_url=options.get("endpoint"),
            region_name=options.get("region", "us-east-1"),
            # Without them, what the machine has: a role, a profile.
            aws_access_key_id=settings.AOS_AUDIT_S3_ACCESS_KEY or None,
            aws_secret_access_key=settings.AOS_AUDIT_S3_SECRET_KEY or None,
            config=_CONFIG,
        )
        lock = timedelta(days=int(lock_days)) or None
        return cls(parts.netloc, parts.path.strip("/"), lock, client)

    @property
    def name(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"

    def put(self, checkpoint: Checkpoint) -> None:
        key = self._key(checkpoint.number)
        try:
            # Looks first: some stores take If-None-Match, say nothing, and replace.
            held = self._get(key)
            if held is None and not self._create(key, checkpoint.line):
                held = self._get(key)
            if held is not None and held != checkpoint.line:
                newest = max(checkpoint.number, *map(_number, self._keys()))
                raise SinkConflict(sink=self.name, number=checkpoint.number, held=newest)
        except (BotoCoreError, ClientError) as error:
            raise SinkAway(sink=self.name, reason=_why(error)) from error

    def read(self) -> Iterator[str]:
        try:
            with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="s3") as pool:
                for line in pool.map(self._get, self._keys()):
                    yield line or ""
        except (BotoCoreError, ClientError) as error:
            raise SinkAway(sink=self.name, reason=_why(error)) from error

    def _key(self, number: int) -> str:
        """Padded, so that the store lists them in order."""
        return f"{self.prefix}/{number:012d}.json".lstrip("/")

    def _create(self, key: str, line: str) -> bool:
        """Whether the object is kept; ``False`` when somebody was faster."""
        try:
            self._put(key, line, IfNoneMatch="*")
        except ClientError as error:
            if _code(error) in _EXISTS:
                return False
            if _code(error) not in _UNKNOWN:
                raise
            self._put(key, line)
        return True

    def _put(self, key: str, line: str, **condition: str) -> None:
        words: dict[str, Any] = {"ContentType": "application/json", **condition}
        if self.lock:
            words |= {
                "ObjectLockMode": "COMPLIANCE",
                "ObjectLockRetainUntilDate": clock.now() + self.lock,
                # Stores want one with a lock.
                "ChecksumAlgorithm": "SHA256",
            }
        self.client.put_object(Bucket=self.bucket, Key=key, Body=line.encode(), **words)

    def _get(self, key: str) -> str | None:
        try:
            answer = self.client.get_object(Bucket=self.bucket, Key=key)
        except ClientError as error:
            if _code(error) in _MISSING:
                return None
            raise
        return str(answer["Body"].read().decode("utf-8", "replace"))

    def _keys(self) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=self._key(0).removesuffix("000000000000.json")
        )
        return [item["Key"] for page in pages for item in page.get("Contents", [])]


def _number(key: str) -> int:
    name = key.rpartition("/")[2].removesuffix(".json")
    return int(name) if name.isdecimal() else 0


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _why(error: BotoCoreError | ClientError) -> str:
    if isinstance(error, ClientError):
        return f"answers {_code(error)}"
    return f"does not answer: {type(error).__name__}"
