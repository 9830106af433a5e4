"""What a file is, by what it holds. A name is a claim, and content decides whether it can be true.

Nothing here is trusted for safety: downloads are attachments that no browser runs. It decides which
icon, which preview and which program a file gets.
"""

from __future__ import annotations

import codecs
import mimetypes
from typing import Final

#: How much of a file's beginning is looked at.
HEAD: Final = 4096

OCTETS: Final = "application/octet-stream"
TEXT: Final = "text/plain"
PDF: Final = "application/pdf"

#: Where and how a file of a kind begins.
_SIGNS: Final[tuple[tuple[int, bytes, str], ...]] = (
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF87a", "image/gif"),
    (0, b"GIF89a", "image/gif"),
    (8, b"WEBP", "image/webp"),
    (0, b"BM", "image/bmp"),
    (0, b"II*\0", "image/tiff"),
    (0, b"MM\0*", "image/tiff"),
    (0, b"%PDF-", PDF),
    (0, b"PK\x03\x04", "application/zip"),
    (0, b"PK\x05\x06", "application/zip"),
    (0, b"\x1f\x8b", "application/gzip"),
    (0, b"BZh", "application/x-bzip2"),
    (0, b"\xfd7zXZ\0", "application/x-xz"),
    (0, b"\x28\xb5\x2f\xfd", "application/zstd"),
    (257, b"ustar", "application/x-tar"),
    (0, b"PAR1", "application/vnd.apache.parquet"),
    (0, b"SQLite format 3\0", "application/vnd.sqlite3"),
    (0, b"\x7fELF", "application/x-executable"),
    (0, b"OggS", "audio/ogg"),
    (8, b"WAVE", "audio/x-wav"),
    (4, b"ftyp", "video/mp4"),
)
#: Files that are archives inside: only their names tell which kind.
_PACKED: Final = {
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": ".docx",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": ".xlsx",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": ".pptx",
    "application/vnd.oasis.opendocument.text": ".odt",
    "application/vnd.oasis.opendocument.spreadsheet": ".ods",
    "application/epub+zip": ".epub",
    "application/java-archive": ".jar",
}
#: What text may call itself, by the end of its name.
_TEXTS: Final = {
    ".csv": "text/csv",
    ".tsv": "text/tab-separated-values",
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".json": "application/json",
    ".jsonl": "application/x-ndjson",
    ".ndjson": "application/x-ndjson",
    ".geojson": "application/json",
    ".ipynb": "application/json",
    ".html": "text/html",
    ".htm": "text/html",
    ".xml": "text/xml",
    ".svg": "image/svg+xml",
    ".yaml": "text/yaml",
    ".yml": "text/yaml",
    ".toml": "text/toml",
    ".css": "text/css",
    ".js": "text/javascript",
    ".py": "text/x-python",
    ".sh": "text/x-shellscript",
    ".sql": "text/x-sql",
    ".tex": "text/x-tex",
    ".ini": TEXT,
    ".log": TEXT,
    ".txt": TEXT,
}
#: Bytes that no text has.
_NO_TEXT: Final = bytes(set(range(32)) - set(b"\t\n\f\r\x1b")) + b"\x7f"


def sniff(name: str, head: bytes) -> str:
    """The media type of a file of that name that begins with these bytes."""
    if not head:
        return _TEXTS.get(_ending(name), TEXT)
    for offset, sign, found in _SIGNS:
        if head.startswith(sign, offset) and not (len(sign) <= 2 and _is_text(head)):
            return _packed(name) if found == "application/zip" else found
    if not _is_text(head):
        return _claimed(name)
    told = _TEXTS.get(_ending(name), TEXT)
    return TEXT if told == "image/svg+xml" and b"<svg" not in head.lower() else told


def _ending(name: str) -> str:
    word = name.rpartition("/")[2]
    return f".{word.rpartition('.')[2].lower()}" if "." in word else ""


def _packed(name: str) -> str:
    ending = _ending(name)
    return next((kind for kind, each in _PACKED.items() if each == ending), "application/zip")


def _claimed(name: str) -> str:
    """Octets of no kind we know. The name's word counts unless the content just proved it wrong."""
    claim = mimetypes.guess_type(name)[0] or OCTETS
    known = {found for _, _, found in _SIGNS} | set(_TEXTS.values()) | set(_PACKED)
    return OCTETS if claim in known or claim.startswith(("text/", "image/")) else claim


def _is_text(head: bytes) -> bool:
    if any(byte in _NO_TEXT for byte in head):
        return False
    try:
        # The last character may be cut in two.
        codecs.getincrementaldecoder("utf-8")().decode(head, final=len(head) < HEAD)
    except UnicodeDecodeError:
        return False
    return True
