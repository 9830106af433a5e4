"""One request to a proxy, read so strictly that nobody behind it can read it differently."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from workers.sandbox.egress.policy import WEB_PORTS, Reason, Refused, Target, target_of

HEAD_LIMIT: Final = 64 * 1024

_LINE: Final = re.compile(rb"([A-Z]{1,20}) ([\x21-\x7e]+) HTTP/(1\.[01])")
_HEADER: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*)")
_URL: Final = re.compile(r"(?i:http)://([^/?#\\]+)([^#\\]*)")
_LENGTH: Final = re.compile(r"[0-9]{1,18}")
#: Between us and one of the two sides, so never passed on.
_OURS: Final = frozenset(
    {
        *("connection", "keep-alive", "te", "upgrade", "host", "proxy-connection"),
        *("proxy-authorization", "proxy-authenticate", "http2-settings"),
    }
)

Headers = list[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a client asked for. ``path`` is empty for a tunnel."""

    method: str
    target: Target
    path: str = ""
    version: str = "1.1"
    headers: tuple[tuple[str, str], ...] = ()
    #: Bytes of body to pass on; None means in chunks.
    length: int | None = 0

    def head(self, headers: Headers) -> bytes:
        """The request as the server gets it: one only, and for the host that was checked."""
        lines = [f"{self.method} {self.path} HTTP/{self.version}", f"Host: {self.target.authority}"]
        lines += [f"{name}: {value}" for name, value in headers]
        return "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1")


def parse(head: bytes) -> Request | None:
    """Read a head; None for the forwarder's greeting. Raises ``Refused``."""
    first, *rest = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    line = _LINE.fullmatch(first)
    if not line:
        raise Refused(Reason.BAD_REQUEST)
    method, where, version = (part.decode("ascii") for part in line.groups())
    if (method, where) == ("OPTIONS", "*"):
        return None
    if method == "CONNECT":
        return Request(method=method, target=target_of(where, port=None))
    url = _URL.fullmatch(where)
    if not url:
        raise Refused(Reason.BAD_REQUEST, host=where)
    target = target_of(url[1], port=WEB_PORTS[0])
    headers = _headers(rest, target)
    return Request(
        method=method,
        target=target,
        path=url[2] if url[2].startswith("/") else f"/{url[2]}",
        version=version,
        headers=tuple(_passed_on(headers)),
        length=_length(headers, target),
    )


def _headers(lines: Sequence[bytes], target: Target) -> Headers:
    found = [_HEADER.fullmatch(line) for line in lines]
    if not all(found):
        raise _bad(target)
    return [
        (header[1].decode("latin-1"), header[2].decode("latin-1").strip(" \t"))
        for header in found
        if header
    ]


def _passed_on(headers: Headers) -> Headers:
    named = {
        word.strip().lower()
        for name, value in headers
        if name.lower() == "connection"
        for word in value.split(",")
    }
    # What frames the body is never dropped: the server must read it as we do.
    hidden = (named - {"content-length", "transfer-encoding"}) | _OURS
    return [(name, value) for name, value in headers if name.lower() not in hidden]


def _length(headers: Headers, target: Target) -> int | None:
    lengths = [value for name, value in headers if name.lower() == "content-length"]
    codings = [value.lower() for name, value in headers if name.lower() == "transfer-encoding"]
    if codings == ["chunked"] and not lengths:
        return None
    if codings or len(lengths) > 1 or not all(map(_LENGTH.fullmatch, lengths)):
        raise _bad(target)
    return int(lengths[0]) if lengths else 0


def _bad(target: Target) -> Refused:
    return Refused(Reason.BAD_REQUEST, host=target.host, port=target.port)
