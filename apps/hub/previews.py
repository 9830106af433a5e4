"""What of a file can be read in the page: the first rows of a table, a chart, a report, plain text.

All but images and PDFs are made here, escaped, from the file's beginning. Those two are shown by the
browser, which runs nothing of them: an image is not a document, and a PDF has a viewer of its own.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from apps.core import blobs, mediatypes
from apps.core.errors import ContentGone, StoreUnavailable
from apps.hub import markdown
from apps.hub.files import File

_READ_BYTES: Final = 64 * 1024
_ROWS: Final = 20
_COLUMNS: Final = 14
_IMAGES: Final = frozenset({"image/svg+xml", "image/png", "image/jpeg", "image/webp", "image/gif"})
_READABLE: Final = frozenset({"application/json", "application/x-ndjson"})
_TABLES: Final = frozenset({"text/csv", "text/tab-separated-values"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """``kind`` names the template; only the fields of that kind are filled."""

    kind: str
    name: str
    note: str = ""
    src: str = ""
    text: str = ""
    header: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    blocks: list[markdown.Block] = field(default_factory=list)

    @property
    def template(self) -> str:
        return f"hub/preview/{self.kind}.html"


def of(file: File, *, siblings: Sequence[File] = ()) -> Preview:
    """The preview of one file; ``siblings`` are the run's files, which a report may show."""
    if shown := _by_browser(file):
        return shown
    if not file.media_type.startswith("text/") and file.media_type not in _READABLE:
        return _none(
            file, f"There is no preview for {file.media_type}. Download the file to open it."
        )
    try:
        text, whole = _read(file)
    except ContentGone:
        return _none(file, "The content of this file is no longer in storage.")
    except StoreUnavailable:
        return _none(file, "The storage does not answer. Try again in a moment.")
    return _made(file, text, whole=whole, siblings=siblings)


def _by_browser(file: File) -> Preview | None:
    if file.media_type in _IMAGES:
        return Preview(kind="image", name=file.name, src=file.download)
    if file.media_type == mediatypes.PDF:
        return Preview(kind="pdf", name=file.name, src=file.pdf)
    return None


def _none(file: File, note: str) -> Preview:
    return Preview(kind="none", name=file.name, note=note)


def _made(file: File, text: str, *, whole: bool, siblings: Sequence[File]) -> Preview:
    if file.media_type in _TABLES:
        return _table(file, text, whole=whole)
    if file.media_type == "application/json" and whole:
        return _json(file, text)
    note = "" if whole else f"Only the first {_READ_BYTES // 1024} KiB are shown."
    return _text(file, text, note=note, siblings=siblings)


def _json(file: File, text: str) -> Preview:
    """Indented, so that it can be read. What is no JSON after all is shown as it is, and said to be so."""
    try:
        told = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError) as error:
        note = f"This is not readable JSON: {error}."
        return Preview(kind="text", name=file.name, text=text, note=note)
    # Half a surrogate pair is JSON and no text: it stays written as it was.
    shown = told.encode("utf-8", "backslashreplace").decode("utf-8")
    return Preview(kind="text", name=file.name, text=shown)


def _text(file: File, text: str, *, note: str, siblings: Sequence[File]) -> Preview:
    if file.media_type != "text/markdown":
        return Preview(kind="text", name=file.name, text=text, note=note)
    charts = {item.name: item.download for item in siblings if item.media_type in _IMAGES}
    blocks = markdown.parse(text, image=lambda name: charts.get(name.removeprefix("./")))
    return Preview(kind="prose", name=file.name, blocks=blocks, note=note)


def choose(files: Sequence[File]) -> File | None:
    """The file to show first: a chart, else a report, else a table, else any."""
    order = ("image/", "text/markdown", "text/csv")
    for wanted in order:
        for file in files:
            if file.media_type.startswith(wanted):
                return file
    return files[0] if files else None


def _read(file: File) -> tuple[str, bool]:
    """The beginning of the file as text, and whether that is all of it."""
    with blobs.open_blob(file.sha256) as stream:
        data = stream.read(_READ_BYTES + 1)
    whole = len(data) <= _READ_BYTES
    return data[:_READ_BYTES].decode("utf-8-sig", errors="replace").replace("\0", ""), whole


def _table(file: File, text: str, *, whole: bool) -> Preview:
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        rows = [row[:_COLUMNS] for row, _ in zip(reader, range(_ROWS + 2), strict=False) if row]
    except csv.Error as error:
        note = f"This is not a readable table: {error}."
        return Preview(kind="text", name=file.name, text=text, note=note)
    more = not whole or len(rows) > _ROWS + 1
    header, rows = (rows[0], rows[1 : _ROWS + 1]) if rows else ([], [])
    note = f"The first {len(rows)} rows." if more else f"{len(rows)} rows."
    return Preview(kind="table", name=file.name, header=header, rows=rows, note=note)
