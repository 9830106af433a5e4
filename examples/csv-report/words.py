"""Numbers and foreign text, put into sentences."""

from __future__ import annotations


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def short(text: str, length: int) -> str:
    """Someone else's text on one line, printable, and no longer than ``length``."""
    flat = "".join(c if c.isprintable() else " " for c in text)
    return flat if len(flat) <= length else flat[: length - 1] + "…"
