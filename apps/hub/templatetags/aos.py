"""What templates say in one word: icons, states, sizes, durations, times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

from django import template
from django.templatetags.static import static
from django.utils.html import format_html
from django.utils.safestring import SafeString

from apps.runs.types import DISPATCHED, RunState

register = template.Library()

SPRITE: Final = "vendor/tabler-icons/3.51.0/sprite.svg"


@dataclass(frozen=True, slots=True, kw_only=True)
class Face:
    """How a state looks: never by colour alone, always icon and word too."""

    icon: str
    word: str
    tone: str = ""
    turns: bool = False


STATES: Final[Mapping[str, Face]] = {
    RunState.QUEUED: Face(icon="clock", word="Queued"),
    DISPATCHED: Face(icon="send", word="Dispatched", tone="info"),
    RunState.RUNNING: Face(icon="loader-2", word="Running", tone="info", turns=True),
    RunState.CANCELLING: Face(icon="loader-2", word="Cancelling", tone="warn", turns=True),
    RunState.SUCCEEDED: Face(icon="circle-check", word="Succeeded", tone="ok"),
    RunState.FAILED: Face(icon="circle-x", word="Failed", tone="bad"),
    RunState.CANCELLED: Face(icon="ban", word="Cancelled"),
    RunState.EXPIRED: Face(icon="hourglass-off", word="Expired", tone="warn"),
    RunState.DEAD: Face(icon="skull", word="Dead", tone="bad"),
}


def face(state: str) -> Face:
    return STATES.get(state) or Face(icon="help", word=state.capitalize() or "Unknown")


@cache
def _sprite() -> str:
    return static(SPRITE)


@register.simple_tag
def icon(name: str, size: int = 16, extra: str = "") -> SafeString:
    """An icon of the sprite. It is decoration: the word beside it or an aria-label speaks."""
    classes = " ".join(filter(None, ("aos-ico", f"aos-ico-{size}" if size != 16 else "", extra)))
    return format_html(
        '<svg class="{}" aria-hidden="true"><use href="{}#{}"/></svg>', classes, _sprite(), name
    )


@register.simple_tag
def state_icon(state: str, size: int = 14) -> SafeString:
    return _mark(face(state), size)


def _mark(shown: Face, size: int = 14) -> SafeString:
    tone = f" aos-ink-{shown.tone}" if shown.tone else ""
    return icon(shown.icon, size, f"aos-state-ico{tone}{' aos-spin' if shown.turns else ''}")


@register.filter
def state_word(state: str) -> str:
    return face(state).word


@register.filter
def state_tone(state: str) -> str:
    return face(state).tone


@register.simple_tag
def state_chip(state: str) -> SafeString:
    return _chip(face(state), state)


@register.simple_tag
def face_chip(shown: Face) -> SafeString:
    """The same for the states of other things than runs."""
    return _chip(shown, shown.word.lower())


def _chip(shown: Face, state: str) -> SafeString:
    tone = f" aos-tone-{shown.tone}" if shown.tone else ""
    return format_html(
        '<span class="aos-chip{}" data-state="{}">{}{}</span>',
        tone,
        state,
        _mark(shown),
        shown.word,
    )


@register.simple_tag
def when(moment: datetime | None, form: str = "", *, age: bool = False) -> SafeString | str:
    """The moment in UTC; the page turns it into the reader's zone and adds its age.

    ``form``: "" date and time, "clock" time of day, "log" the same with milliseconds.
    """
    if moment is None:
        return ""
    moment = moment.astimezone(UTC)
    time = format_html(
        '<time datetime="{}" data-form="{}">{}</time>',
        moment.isoformat(timespec="milliseconds"),
        form,
        moment.strftime("%H:%M:%S UTC" if form else "%Y-%m-%d %H:%M UTC"),
    )
    if not age:
        return time
    return format_html(
        '{} <span class="aos-ago" data-age="{}"></span>', time, moment.isoformat(timespec="seconds")
    )


@register.filter
def size(count: int | None) -> str:
    """Bytes for people, in decimal units: 38.4 kB."""
    if count is None:
        return ""
    if count < 1000:
        return f"{count} B"
    amount, unit = count / 1000, "kB"
    for larger in ("MB", "GB", "TB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.1f} {unit}"


@register.filter
def duration(seconds: float | None) -> str:
    """Seconds for people: 0.42 s, 12.4 s, 2 min 11 s, 3 h 5 min."""
    if seconds is None:
        return ""
    if seconds < 1:
        return f"{max(seconds, 0):.2f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


@register.filter
def short_id(value: object) -> str:
    """The end of a UUIDv7 or trace id: its beginning is the time and looks alike for neighbours."""
    return str(value)[-8:]


@register.filter
def percent(share: float | None) -> str:
    return "" if share is None else f"{min(max(share, 0), 1) * 100:.0f}%"


@register.filter
def words(name: object) -> str:
    """A field's name as people write it: ``rows_dropped`` becomes ``Rows dropped``."""
    text = str(name).replace("_", " ").replace("-", " ").strip()
    return text[:1].upper() + text[1:]


@register.filter
def plain(value: Any) -> str:
    """A fact's value: numbers with thousands, truth as a word, the rest as it is."""
    if isinstance(value, list | tuple):
        return ", ".join(plain(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{words(key)}: {plain(item)}" for key, item in value.items())
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return f"{value:,}" if isinstance(value, int | float) else str(value)


@register.filter
def file_icon(media_type: str) -> str:
    if media_type.startswith("image/"):
        return "photo"
    if media_type in {"text/csv", "application/vnd.ms-excel", "text/tab-separated-values"}:
        return "file-spreadsheet"
    if media_type in {"application/json", "application/x-ndjson"}:
        return "braces"
    return "file-text"


@register.filter
def file_mark(media_type: str) -> str:
    """The colour group of a file's icon."""
    return {"photo": "image", "file-spreadsheet": "table"}.get(file_icon(media_type), "text")
