"""Markdown that an agent wrote, as data for a template: headings, lists, tables, paragraphs, code.

It is a small part of Markdown on purpose. Nothing is ever marked as safe HTML: the template escapes
every piece of text, so that a report can show ``<script>`` and never run it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

_SPAN: Final = re.compile(
    r"(?P<code>`[^`\n]+`)"
    r"|!\[(?P<alt>[^\]\n]*)\]\((?P<src>[^)\s]+)\)"
    r"|\[(?P<label>[^\]\n]+)\]\((?P<href>[^)\s]+)\)"
    r"|\*\*(?P<strong>[^*\n]+)\*\*"
    r"|(?<![*\w])\*(?P<em>[^*\n]+)\*(?![*\w])"
)
_BULLET: Final = re.compile(r"\s{0,3}[-*+]\s+(.*)")
_NUMBER: Final = re.compile(r"\s{0,3}\d{1,9}[.)]\s+(.*)")
_HEADING: Final = re.compile(r"(#{1,6})\s+(.*?)\s*#*\s*$")
_RULE: Final = re.compile(r"\s*([-*_])(\s*\1){2,}\s*")
_TABLE_RULE: Final = re.compile(r"\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$")
_CELL_EDGE: Final = re.compile(r"(?<!\\)\|")
_SAFE_LINK: Final = ("https://", "http://", "mailto:")


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    kind: str
    text: str
    href: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """``kind``: title, heading, paragraph, bullets, numbers, table, code, rule."""

    kind: str
    spans: tuple[Span, ...] = ()
    items: tuple[tuple[Span, ...], ...] = ()
    header: tuple[tuple[Span, ...], ...] = ()
    rows: tuple[tuple[tuple[Span, ...], ...], ...] = ()
    text: str = ""


# Turns the address of an image into one that the page may load, or None.
Locate = Callable[[str], str | None]


def parse(text: str, *, image: Locate) -> list[Block]:
    lines = text.replace("\r\n", "\n").split("\n")
    blocks: list[Block] = []
    at = 0
    while at < len(lines):
        if not lines[at].strip():
            at += 1
            continue
        block, used = _block(lines[at:], image)
        blocks.append(block)
        at += used
    return blocks


def _block(lines: list[str], image: Locate) -> tuple[Block, int]:
    """The block that starts here, and how many lines it takes."""
    first = lines[0]
    if first.lstrip().startswith("```"):
        return _code(lines)
    if "|" in first and len(lines) > 1 and _TABLE_RULE.match(lines[1]):
        return _table(lines, image)
    for kind, mark in (("bullets", _BULLET), ("numbers", _NUMBER)):
        if mark.match(first) and not _RULE.fullmatch(first):
            return _list(kind, mark, lines, image)
    return _line(first, image) or _paragraph(lines, image)


def _line(text: str, image: Locate) -> tuple[Block, int] | None:
    """A block that is always one line: a heading or a rule."""
    if match := _HEADING.match(text):
        kind = "title" if len(match[1]) == 1 else "heading"
        return Block(kind=kind, spans=spans(match[2], image=image)), 1
    return (Block(kind="rule"), 1) if _RULE.fullmatch(text) else None


def _paragraph(lines: list[str], image: Locate) -> tuple[Block, int]:
    taken = list(_while_paragraph(lines))
    joined = " ".join(line.strip() for line in taken)
    return Block(kind="paragraph", spans=spans(joined, image=image)), len(taken)


def _code(lines: list[str]) -> tuple[Block, int]:
    end = next(
        (at for at, line in enumerate(lines[1:], 1) if line.lstrip().startswith("```")), len(lines)
    )
    return Block(kind="code", text="\n".join(lines[1:end])), end + 1


def _table(lines: list[str], image: Locate) -> tuple[Block, int]:
    rows = [lines[0]]
    for line in lines[2:]:
        if "|" not in line:
            break
        rows.append(line)
    cells = [tuple(spans(cell, image=image) for cell in _cells(row)) for row in rows]
    return Block(kind="table", header=cells[0], rows=tuple(cells[1:])), len(rows) + 1


def _cells(line: str) -> list[str]:
    inner = line.strip().removeprefix("|")
    inner = inner[:-1] if inner.endswith("|") and not inner.endswith("\\|") else inner
    return [cell.strip().replace("\\|", "|") for cell in _CELL_EDGE.split(inner)]


def _list(kind: str, mark: re.Pattern[str], lines: list[str], image: Locate) -> tuple[Block, int]:
    items: list[str] = []
    used = 0
    for line in lines:
        if match := mark.match(line):
            items.append(match[1])
        elif line.startswith((" ", "\t")) and line.strip():
            items[-1] += " " + line.strip()
        else:
            break
        used += 1
    return Block(kind=kind, items=tuple(spans(item, image=image) for item in items)), used


def _while_paragraph(lines: list[str]) -> Iterator[str]:
    for at, line in enumerate(lines):
        starts_other = _HEADING.match(line) or _BULLET.match(line) or _NUMBER.match(line)
        if not line.strip() or (at and (starts_other or line.lstrip().startswith("```"))):
            return
        yield line


def spans(text: str, *, image: Locate) -> tuple[Span, ...]:
    """Cut a line into plain text and marked pieces. What is not understood stays plain text."""
    found: list[Span] = []
    end = 0
    for match in _SPAN.finditer(text):
        if match.start() > end:
            found.append(Span(kind="plain", text=text[end : match.start()]))
        found.append(_span(match, image))
        end = match.end()
    if end < len(text):
        found.append(Span(kind="plain", text=text[end:]))
    return tuple(found)


def _span(match: re.Match[str], image: Locate) -> Span:
    if match["code"]:
        return Span(kind="code", text=match["code"].strip("`"))
    if match["src"]:
        source = image(match["src"])
        alt = match["alt"] or match["src"]
        return Span(kind="image" if source else "plain", text=alt, href=source or "")
    if match["href"]:
        safe = match["href"].lower().startswith(_SAFE_LINK)
        return Span(kind="link" if safe else "plain", text=match["label"], href=match["href"])
    if match["strong"]:
        return Span(kind="strong", text=match["strong"])
    return Span(kind="em", text=match["em"])
