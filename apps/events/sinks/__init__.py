"""Places outside the database where signed audit checkpoints are kept, named by URL.

A sink is one file in this folder and one line in ``_KINDS``; every one passes
``tests/contracts/checkpoint_sink.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Final
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from apps.events.sinks.base import CheckpointSink
from apps.events.sinks.file import FileSink
from apps.events.sinks.webhook import WebhookSink


def _s3(url: str) -> CheckpointSink:
    # Only for those who use it: the client takes long to import and much memory.
    from apps.events.sinks.s3 import S3Sink

    return S3Sink.at(url)


_KINDS: Final[dict[str, Callable[[str], CheckpointSink]]] = {
    "file": FileSink.at,
    "https": WebhookSink.at,
    "http": WebhookSink.at,
    "s3": _s3,
}


def configured() -> tuple[CheckpointSink, ...]:
    """The sinks of ``AOS_AUDIT_SINKS``. Raises ``ImproperlyConfigured`` naming what is wrong."""
    return _opened(
        tuple(settings.AOS_AUDIT_SINKS),
        str(settings.AOS_AUDIT_FOLDER),
        settings.AOS_AUDIT_WEBHOOK_SECRET,
    )


@cache
def _opened(urls: tuple[str, ...], *_what_they_depend_on: str) -> tuple[CheckpointSink, ...]:
    if not urls:
        raise ImproperlyConfigured(
            "AOS_AUDIT_SINKS names no place for audit checkpoints; use file: for the audit folder."
        )
    sinks = tuple(_open(url) for url in urls)
    names = [sink.name for sink in sinks]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ImproperlyConfigured(f"AOS_AUDIT_SINKS names {', '.join(sorted(twice))} twice.")
    return sinks


def _open(url: str) -> CheckpointSink:
    kind = urlsplit(url).scheme
    if kind not in _KINDS:
        # Not the URL itself: it may hold a password.
        raise ImproperlyConfigured(
            f"AOS_AUDIT_SINKS: {kind or 'an address without a scheme'} is unknown; "
            f"use one of {', '.join(f'{name}:' for name in _KINDS)}."
        )
    return _KINDS[kind](url)
