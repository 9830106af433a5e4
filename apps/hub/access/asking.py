"""Asking before an act: what a dialog says and wants to know. Opened without htmx it is a page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.http import HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.urls import reverse
from django_htmx.http import HttpResponseClientRedirect

from apps.core.errors import AosError, Invalid
from apps.hub import frame
from apps.hub.visiting import HubRequest
from apps.identity import policy
from apps.identity.errors import StepUpRequired
from apps.identity.rest import page_actor


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    name: str
    label: str
    kind: str = "text"
    help: str = ""
    is_required: bool = True
    longest: int = 150
    value: str = ""
    autocomplete: str = "off"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What is about to happen. ``back`` is the page it was asked from."""

    title: str
    text: str
    button: str
    back: str
    fields: tuple[Field, ...] = ()
    is_danger: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What was done, and the page that shows it."""

    said: str
    href: str


REASON = Field(
    name="reason",
    label="Why",
    help="Is kept in the audit log.",
    is_required=False,
    longest=200,
)


def ask(
    request: HubRequest, what: Ask, act: Callable[[QueryDict], Done | HttpResponse]
) -> HttpResponse:
    """Ask on GET, act on POST; a refusal is told where it was asked, with what was typed. An act whose
    result is shown only once answers by itself."""
    if request.method != "POST":
        return show(request, "hub/access/ask.html", _context(what, {}, None))
    try:
        done = act(request.POST)
    except StepUpRequired:
        raise
    except AosError as error:
        context = _context(what, request.POST, error)
        return show(request, "hub/access/ask.html", context, error=error)
    return arrive(request, done) if isinstance(done, Done) else done


def _context(what: Ask, typed: Any, error: AosError | None) -> dict[str, Any]:
    rules = (
        {found["field"]: found["rule"] for found in error.errors}
        if isinstance(error, Invalid)
        else {}
    )
    named = {field.name for field in what.fields}
    return {
        "ask": what,
        "fields": [
            {
                "field": field,
                "value": "" if field.kind == "password" else typed.get(field.name, field.value),
                "error": rules.get(field.name, ""),
            }
            for field in what.fields
        ],
        # What belongs to no field is said above them.
        "problem": str(error) if error and not named & set(rules) else "",
    }


def show(
    request: HubRequest, template: str, context: dict[str, Any], *, error: AosError | None = None
) -> HttpResponse:
    """A question as the content of a dialog, or as a page around the same content."""
    context |= {"is_stale": page_actor(request).is_stale, "inside": template}
    if request.htmx and not request.htmx.history_restore_request:
        # 422 is the one refusal that htmx shows in place.
        return render(request, template, context, status=422 if error else 200)
    context |= {"page": "access", "frame": frame.of(request)}
    return render(
        request, "hub/access/question.html", context, status=error.status if error else 200
    )


def arrive(request: HubRequest, done: Done) -> HttpResponse:
    messages.success(request, done.said)
    # Who has just taken their own role away would be refused on any page of access.
    is_in = policy.allows(page_actor(request), "people.read")
    href = done.href if is_in else reverse("chat")
    return HttpResponseClientRedirect(href) if request.htmx else redirect(href)
