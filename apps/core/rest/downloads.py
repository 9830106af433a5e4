"""Sending stored files to browsers that must never run them on our origin."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import IO

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import (
    HttpRequest,
    HttpResponseBase,
    HttpResponseNotModified,
    StreamingHttpResponse,
)
from django.utils.cache import patch_cache_control
from django.utils.http import content_disposition_header, parse_etags

from apps.core import blobs, mediatypes
from apps.core.errors import NotFound

_CHUNK = 64 * 1024


def send(
    request: HttpRequest, *, sha256: str, name: str, size: int, media_type: str
) -> HttpResponseBase:
    """A stored file as an attachment, under an empty policy in a sandboxed, unsniffed answer."""
    return _answer(
        request, sha256=sha256, name=name, size=size, media_type=media_type, attached=True
    )


def show_pdf(request: HttpRequest, *, sha256: str, name: str, size: int) -> HttpResponseBase:
    """A stored PDF for the browser's own viewer, as a page under the same empty policy in a sandbox.

    The viewer runs apart from our origin. What is no PDF by its content is not found.
    """
    with blobs.open_blob(sha256) as file:
        if mediatypes.sniff(name, file.read(mediatypes.HEAD)) != mediatypes.PDF:
            raise NotFound(what="PDF", ref=name)
    return _answer(
        request, sha256=sha256, name=name, size=size, media_type=mediatypes.PDF, attached=False
    )


def _answer(
    request: HttpRequest, *, sha256: str, name: str, size: int, media_type: str, attached: bool
) -> HttpResponseBase:
    etag = f'"{sha256}"'
    if etag in parse_etags(request.headers.get("If-None-Match", "")):
        return HttpResponseNotModified(headers={"ETag": etag})
    file = blobs.open_blob(sha256)
    # Each server reads in its own manner; the wrong one would load the whole file first.
    chunks = _AsyncChunks(file) if isinstance(request, ASGIRequest) else _Chunks(file)
    response = StreamingHttpResponse(
        chunks,
        content_type=media_type,
        headers={
            "Content-Length": str(size),
            "Content-Disposition": content_disposition_header(
                as_attachment=attached, filename=name.rsplit("/", 1)[-1]
            )
            or "",
            "Content-Security-Policy": "default-src 'none'; sandbox",
            "X-Content-Type-Options": "nosniff",
            "ETag": etag,
        },
    )
    # What may be seen can be taken back; the browser asks again, and mostly hears 304.
    patch_cache_control(response, private=True, no_cache=True)
    return response


class _Chunks:
    """A file read piece by piece. Django closes it also when nobody came to read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def close(self) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self._file.read(_CHUNK):
            yield chunk


class _AsyncChunks(_Chunks):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        read = sync_to_async(self._file.read, thread_sensitive=False)
        while chunk := await read(_CHUNK):
            yield chunk

    # With both, Django would take it for a synchronous one.
    __iter__ = None  # type: ignore[assignment]
