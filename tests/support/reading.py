"""What a page offers to do: its links, its fragments, and its forms with each of their buttons."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser

Attributes = dict[str, str]
_LEADS = {"a": "href", "img": "src", "iframe": "src", "embed": "src", "object": "data"}
# What is typed where something is asked for and nothing prefilled, so that a form gets as far as it can.
_TYPED = {"email": "reader@example.org", "number": "3", "password": "quiet green harbour 77"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """A form as it is sent by one of its buttons."""

    method: str
    path: str
    label: str
    fields: tuple[tuple[str, str], ...] = ()
    by_htmx: bool = False


@dataclass(slots=True)
class _Form:
    attributes: Attributes
    fields: list[tuple[str, str]] = field(default_factory=list)
    buttons: list[tuple[Attributes, str]] = field(default_factory=list)


class Page(HTMLParser):
    """Reads a page or a fragment that was found at ``path``."""

    def __init__(self, path: str, text: str) -> None:
        super().__init__()
        self.path = path
        self.links: list[str] = []
        self.fragments: list[str] = []
        self._forms: list[_Form] = []
        # Forms that others point at by ``form="..."``.
        self._named: dict[str, _Form] = {}
        self._open: _Form | None = None
        self._disabled = 0
        self._in_button = False
        # What lies in a <template> is not on the page.
        self._inert = 0
        self._select: tuple[_Form, str, list[str]] | None = None
        self._text: tuple[_Form, str, list[str]] | None = None
        self.feed(text)

    # What the parser calls.

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self._inert += tag == "template"
        if self._inert:
            return
        if lead := given.get(_LEADS.get(tag, "")):
            self.links.append(lead)
        if "hx-get" in given and tag != "form":
            self.fragments.append(given["hx-get"])
        if "hx-post" in given and tag != "form":
            button = {"formaction": given["hx-post"]}
            self._forms.append(_Form({"hx-post": given["hx-post"]}, buttons=[(button, "")]))
        if tag == "form":
            self._open = _Form(given)
            self._forms.append(self._open)
            self._named[given.get("id", "")] = self._open
        elif tag == "fieldset":
            self._disabled += bool(self._disabled) or "disabled" in given
        elif tag in {"input", "select", "textarea", "button", "option"}:
            self._control(tag, given)

    def handle_endtag(self, tag: str) -> None:
        if tag == "template":
            self._inert -= 1
        elif tag == "form":
            self._open = None
        elif tag == "button":
            self._in_button = False
        elif tag == "fieldset" and self._disabled:
            self._disabled -= 1
        elif tag == "select" and self._select:
            form, name, options = self._select
            form.fields += [(name, options[-1])] if options else []
            self._select = None
        elif tag == "textarea" and self._text is not None:
            form, name, text = self._text
            form.fields.append((name, "".join(text).strip()))
            self._text = None

    def handle_data(self, data: str) -> None:
        if self._text is not None:
            self._text[2].append(data)
        elif self._in_button and self._open and self._open.buttons:
            given, label = self._open.buttons[-1]
            self._open.buttons[-1] = (given, f"{label} {data.strip()}".strip())

    # What is asked of it.

    def acts(self) -> Iterator[Act]:
        for form in self._forms:
            for button, label in form.buttons:
                yield self._act(form, button, label)

    def _control(self, tag: str, given: Attributes) -> None:
        form = self._named.get(given["form"]) if "form" in given else self._open
        if tag == "option":
            if self._select and (not any(self._select[2]) or "selected" in given):
                self._select[2].append(given.get("value", ""))
            return
        if form is None or self._disabled or "disabled" in given:
            return
        kind = given.get("type", "text" if tag == "input" else "submit")
        name = given.get("name", "")
        if tag == "select":
            self._select = (form, name, [])
        elif tag == "textarea":
            self._text = (form, name, [])
        elif kind == "submit":
            form.buttons.append((given, ""))
            self._in_button = tag == "button"
        elif tag == "input" and name and self._is_sent(form, kind, given):
            typed = _TYPED.get(kind, "reader") if "required" in given else ""
            form.fields.append((name, given.get("value") or typed))

    @staticmethod
    def _is_sent(form: _Form, kind: str, given: Attributes) -> bool:
        if kind not in {"checkbox", "radio"}:
            return kind not in {"file", "button"}
        chosen = any(name == given["name"] for name, _ in form.fields)
        return "checked" in given or (kind == "radio" and not chosen and "required" in given)

    def _act(self, form: _Form, button: Attributes, label: str) -> Act:
        given = form.attributes
        fields = list(form.fields)
        if button.get("name"):
            fields.append((button["name"], button.get("value", "")))
        by_htmx = "hx-post" in given
        action = button.get("formaction") or given.get("hx-post") or given.get("action")
        method = "post" if by_htmx else given.get("method", "get").lower()
        return Act(
            method=button.get("formmethod", method),
            path=action or self.path,
            label=label,
            fields=tuple(fields),
            by_htmx=by_htmx,
        )
