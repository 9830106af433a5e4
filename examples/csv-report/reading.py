"""From the run's input to a table of text: encodings, delimiters, ragged rows, and clear refusals."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from words import count, short

MAX_BYTES = 10 * 1024 * 1024
# JSON may write one byte of text as six (\u0041).
MAX_JSON_BYTES = 6 * MAX_BYTES + 65_536
LONGEST_FILE_NAME = 255
MAX_COLUMNS = 2_000
MAX_ROWS = 500_000
# A well-formed file within MAX_BYTES has no more: each cell takes a character and a delimiter.
MAX_CELLS = 5_500_000
# Text has none; random bytes have one in ten.
MAX_CONTROL_SHARE = 0.05

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "pipes"}
# Long enough for a few hundred rows of any file that people make.
SAMPLE_LENGTH = 256 * 1024
# No text that is let in holds a NUL, so no row of it can look like this one.
END = "\0end"

_SIGNATURES = {
    b"PK\x03\x04": "a zip archive or an Excel workbook",
    b"\xd0\xcf\x11\xe0": "an old Excel or Word document",
    b"%PDF": "a PDF document",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"\x1f\x8b": "a gzip archive",
}
_BYTE_ORDER_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
# What str.strip() takes away, and the zero-width characters that spreadsheets and browsers leave.
_INVISIBLE = (
    " \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007"
    "\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000\u200b\u2060\ufeff"
)
_LINE_BREAK = re.compile(r"\r\n?")
_CONTROL_CHARACTERS = re.compile(r"[\x01-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f]")
_LINE_END = re.compile(r"\r\n|\r|\n")
_QUOTED = re.compile(r'"[^"]*"')
_EXCEL_DIRECTIVE = re.compile(r"\ufeff?sep=([,;|\t])\r?\n")


class BadInput(Exception):
    """The input cannot be worked on; the message is one sentence for whoever sent it."""


@dataclass(frozen=True, slots=True)
class Request:
    text: str
    source: str
    encoding: str
    title: str | None
    date_columns: list[str] | None


@dataclass(slots=True)
class Table:
    header: list[str]
    rows: list[list[str]]
    delimiter: str
    notes: list[str] = field(default_factory=list)

    @property
    def width(self) -> int:
        return len(self.header)

    @property
    def delimiter_name(self) -> str:
        return DELIMITERS[self.delimiter] if self.width > 1 else "no delimiter"


def tidied(text: str) -> str:
    """The text without invisible characters around it and with one kind of line break."""
    return _LINE_BREAK.sub("\n", text.strip(_INVISIBLE))


def is_blank(record: list[str]) -> bool:
    return not any(map(tidied, record))


def load(inbox: Path) -> Request:
    """Read the run's input, or raise ``BadInput``."""
    wish = _wish(inbox / "input.json")
    if "csv" in wish:
        text, source, encoding = _checked(_text(wish, "csv")), "the text of the input", "UTF-8"
        if len(text.encode()) > MAX_BYTES:
            raise BadInput(f"The CSV text is larger than {MAX_BYTES:,} bytes.")
    else:
        source = _text(wish, "file")
        text, encoding = decode(_bytes(inbox / "files", source))
    if not tidied(text):
        raise BadInput("The CSV is empty: there is no header and no row.")
    return Request(
        text=text,
        source=source,
        encoding=encoding,
        title=_text(wish, "title") if "title" in wish else None,
        date_columns=_names(wish["date_columns"]) if "date_columns" in wish else None,
    )


def _wish(path: Path) -> dict[str, object]:
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise BadInput(f"input.json is larger than {MAX_JSON_BYTES:,} bytes.")
        wish = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise BadInput("There is no input.json.") from error
    except (ValueError, RecursionError) as error:
        raise BadInput("input.json is not valid JSON.") from error
    if not isinstance(wish, dict):
        raise BadInput('The input must be a JSON object such as {"csv": "a,b\\n1,2\\n"}.')
    if unknown := sorted(wish.keys() - {"csv", "file", "title", "date_columns"}):
        raise BadInput(f"The input has an unknown field: {_quoted(unknown[0])}.")
    if ("csv" in wish) == ("file" in wish):
        raise BadInput("The input must have exactly one of the fields 'csv' and 'file'.")
    return wish


def _text(wish: dict[str, object], name: str) -> str:
    value = wish[name]
    if not isinstance(value, str):
        raise BadInput(f"The field '{name}' must be text.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadInput(f"The field '{name}' holds half a character (a lone surrogate).") from error
    return value


def _names(value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise BadInput("The field 'date_columns' must be a list of column names.")
    return value


def _bytes(folder: Path, name: str) -> bytes:
    path = folder / name
    # Only a plain name: the platform laid the files side by side, and nothing else is ours to read.
    plain = "/" not in name and "\0" not in name and len(name.encode()) <= LONGEST_FILE_NAME
    if not plain or name in {"", ".", ".."} or path.is_symlink():
        raise BadInput(f"{_quoted(name)} is not the name of an input file.")
    if not path.is_file():
        raise BadInput(f"There is no input file called {_quoted(name)}.")
    if path.stat().st_size > MAX_BYTES:
        raise BadInput(f"{_quoted(name)} is larger than {MAX_BYTES:,} bytes.")
    return path.read_bytes()


def decode(raw: bytes) -> tuple[str, str]:
    """Turn a file into text and name its encoding, or raise ``BadInput`` for what is no text."""
    for signature, kind in _SIGNATURES.items():
        if raw.startswith(signature):
            raise BadInput(f"The file is {kind}, not CSV.")
    for mark, codec in _BYTE_ORDER_MARKS.items():
        if raw.startswith(mark):
            try:
                return _checked(raw.decode(codec)), codec.upper().replace("-SIG", " with a BOM")
            except UnicodeDecodeError as error:
                raise BadInput(f"The file begins like {codec} text, but is not.") from error
    for codec, name in (("utf-8", "UTF-8"), ("cp1252", "Windows-1252")):
        try:
            return _checked(raw.decode(codec)), name
        except UnicodeDecodeError:
            continue
    return _checked(raw.decode("latin-1")), "ISO 8859-1"


def _checked(text: str) -> str:
    if "\0" in text:
        raise BadInput("The CSV holds NUL bytes: it is binary data, or UTF-16 without its mark.")
    if len(_CONTROL_CHARACTERS.findall(text)) > MAX_CONTROL_SHARE * len(text):
        raise BadInput("The CSV is full of control characters: it is binary data, not text.")
    return text


def parse(text: str, *, advance: Callable[[int, int, int], None]) -> Table:
    """Split the text into a table whose rows all have the header's width.

    ``advance(rows, line, lines)`` is called after every row with how far the reading is.
    """
    directive = _EXCEL_DIRECTIVE.match(text)
    delimiter = directive[1] if directive else _delimiter(text)
    body = text[directive.end() :] if directive else text.removeprefix("\ufeff")
    lines = body.count("\n") + 1
    records = _records(body, delimiter)
    header = next((record for _, record in records if not is_blank(record)), None)
    if header is None:
        raise BadInput("The CSV is empty: there is no header and no row.")
    rows: list[list[str]] = []
    for line, record in records:
        rows.append(record)
        if len(rows) > MAX_ROWS:
            raise BadInput(f"The CSV has more than {MAX_ROWS:,} rows.")
        advance(len(rows), line, lines)
    if all(map(is_blank, rows)):
        raise BadInput("The CSV has a header but no rows.")
    table = Table(header=header, rows=rows, delimiter=delimiter)
    _square(table)
    _name_columns(table)
    return table


def _records(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each record with the line it ends on, or raise ``BadInput`` for an open quote.

    The csv module reads an unclosed quote to the end of the file without a word. The mark after
    the last line shows whether that happened: it must come back as a record of its own.
    """
    csv.field_size_limit(2 * MAX_BYTES)
    reader = csv.reader(chain(io.StringIO(text, newline=""), [END]), delimiter=delimiter)
    last = 0
    for record in reader:
        if record == [END]:
            return
        if record and record[-1].endswith(END):
            raise BadInput(f"A quote that opens on line {last + 1} or after is never closed.")
        last = reader.line_num
        yield last, record


def _delimiter(text: str) -> str:
    """Choose the delimiter that splits most lines into as many cells as the header.

    In a file of one column that is one which does not occur, so that its text stays whole.
    """
    sample = _QUOTED.sub("", text[:SAMPLE_LENGTH])
    lines = [line for line in _LINE_END.split(sample) if line.strip()]
    if not lines:
        return ","
    counts = {mark: Counter(line.count(mark) for line in lines) for mark in DELIMITERS}

    def fitness(mark: str) -> tuple[bool, int, int]:
        width = lines[0].count(mark)
        return (width > 0, counts[mark][width], width)

    return max(DELIMITERS, key=fitness)


def _square(table: Table) -> None:
    """Give every row the same width without losing a value: longer rows add columns."""
    width = table.width
    narrow = 0
    for row in table.rows:
        while len(row) > width and not tidied(row[-1]):
            row.pop()
        narrow += 0 < len(row) < width
    wide = [len(row) for row in table.rows if len(row) > width]
    full = max(wide, default=width)
    if full > MAX_COLUMNS:
        raise BadInput(f"The CSV has more than {MAX_COLUMNS:,} columns.")
    if full * len(table.rows) > MAX_CELLS:
        raise BadInput("The CSV is too ragged: filled up, it would have too many cells.")
    table.header += [""] * (full - width)
    for row in table.rows:
        row.extend([""] * (full - len(row)))
    if narrow:
        table.notes.append(
            f"{count(narrow, 'row')} shorter than the header: filled up with missing values."
        )
    if wide:
        table.notes.append(
            f"{count(len(wide), 'row')} longer than the header: columns added, nothing cut."
        )


def _name_columns(table: Table) -> None:
    """Trim the names and make each one present and unique."""
    names = [" ".join(tidied(name).split()) for name in table.header]
    taken = set(names)
    used: set[str] = set()
    for index, name in enumerate(names):
        wanted = name or f"column_{index + 1}"
        unique, number = wanted, 2
        while unique in used or (unique != name and unique in taken):
            unique, number = f"{wanted}_{number}", number + 1
        if unique != name:
            what = f"had the name {_quoted(name)} again" if name else "had no name"
            table.notes.append(f"Column {index + 1} {what} and is now {_quoted(unique)}.")
        used.add(unique)
        names[index] = unique
    table.header = names


def _quoted(text: str) -> str:
    return f"'{short(text, 60)}'"
