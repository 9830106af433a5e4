"""The pages of the audit log: read, looked into, verified, exported."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.core.exceptions import BadRequest
from django.http import HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from apps.events.models import AuditEntry
from apps.events.services import proof
from apps.hub import frame
from apps.hub.audit import asked as asking
from apps.hub.audit import book, export, words
from apps.hub.audit.asked import Asked
from apps.hub.visiting import HubRequest, may, person, signed_in
from apps.identity.models import User
from apps.identity.rest import page_actor

_FORMS = ("csv", "jsonl")
# Enough to choose from while typing; a name that is not among them can be typed in full.
_SUGGESTED = 200


@signed_in
@may("audit.read")
@never_cache
@require_GET
def audit(request: HubRequest) -> HttpResponse:
    """The log, newest first. Its address says what is shown, so it can be sent to somebody."""
    asked = asking.read(request.GET)
    if not request.htmx or request.htmx.history_restore_request:
        return render(request, "hub/audit.html", _page(request, asked))
    context = _sheet(person(request), asked, before=request.GET.get("before", ""))
    if "before" in request.GET:
        return render(request, "hub/audit/rows.html", context)
    response = render(request, "hub/audit/sheet.html", context)
    response.headers["HX-Push-Url"] = _address(asked.query())
    return response


def _page(request: HubRequest, asked: Asked) -> dict[str, Any]:
    user = person(request)
    around = frame.of(request)
    people = User.objects.visible_to(user).order_by("username")
    ready = request.GET.get("export", "")
    return {
        "page": "audit",
        "frame": around,
        "actions": words.actions(chosen=asked.action),
        "refused": words.REFUSED,
        "resources": words.resources(chosen=asked.resource),
        "people": people.values_list("username", flat=True)[:_SUGGESTED],
        "chain": book.chain_state(user.organization_id),
        "ready": ready if ready in _FORMS else "",
    } | _sheet(user, asked, before=request.GET.get("before", ""))


def _sheet(user: User, asked: Asked, *, before: str) -> dict[str, Any]:
    entries = asked.entries(user.organization_id)
    if before:
        entries = entries.filter(pk__lt=_number(before))
    # One more than a page shows whether there is another.
    found = list(entries[: book.SIZE + 1])
    shown = found[: book.SIZE]
    more = asked.query(before=shown[-1].pk) if len(found) > book.SIZE else ""
    return {
        "asked": asked,
        "lines": book.tell(shown, to=user),
        "more": _address(more) if more else "",
        "query": asked.query(),
    }


def _number(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 18:
        raise BadRequest("before is not the number of an entry")
    return int(text)


def _address(query: str) -> str:
    return f"{reverse('audit')}?{query}" if query else reverse("audit")


@signed_in
@may("audit.read")
@never_cache
@require_GET
def entry(request: HubRequest, entry_id: int) -> HttpResponse:
    """One entry with what it changed and where it stands in the chain: a page, or a drawer."""
    user = person(request)
    entries = AuditEntry.objects.visible_to(user.organization_id)
    found = get_object_or_404(entries, pk=entry_id)
    (line,) = book.tell([found], to=user)
    context: dict[str, Any] = {
        "page": "audit",
        "line": line,
        "changes": book.changes(found),
        "facts": book.facts(found),
        "chain": book.chain_state(user.organization_id),
        "related": _related(found),
    }
    if request.htmx and not request.htmx.history_restore_request:
        return render(request, "hub/audit/drawer.html", context)
    return render(request, "hub/audit/entry.html", context | {"frame": frame.of(request)})


def _related(found: AuditEntry) -> list[tuple[str, str]]:
    filters = [
        (f"By {found.actor_name}", Asked(actor=found.actor_name)),
        ("This action", Asked(action=found.action)),
        ("This resource", Asked(resource=found.resource_type, id=found.resource_id)),
        ("This trace", Asked(id=found.trace_id)),
    ]
    return [(label, _address(asked.query())) for label, asked in filters if not asked.is_everything]


@signed_in
@may("audit.read")
@never_cache
@require_GET
def verify(request: HubRequest) -> HttpResponse:
    """Compute every hash anew and say what was found."""
    report = proof.verify(person(request).organization_id, far=False)
    (verdict,) = report.verdicts
    entries = AuditEntry.objects.visible_to(person(request).organization_id)
    context: dict[str, Any] = {
        "report": report,
        "verdict": verdict,
        # What was removed can be named, and not looked at.
        "is_there": entries.filter(pk=verdict.entry_id or 0).exists(),
    }
    if request.htmx and not request.htmx.history_restore_request:
        context["chain"] = book.chain_state(person(request).organization_id)
        return render(request, "hub/audit/chain.html", context)
    return render(request, "hub/audit.html", context | _page(request, asking.read(request.GET)))


@signed_in
@may("audit.read")
@never_cache
@require_GET
def download(request: HubRequest) -> HttpResponseBase:
    """What the page shows, as a file. Needs a fresh proof; the page waits ready behind it."""
    form = request.GET.get("form", "")
    if form not in _FORMS:
        raise BadRequest("form is csv or jsonl")
    by = page_actor(request)
    asked = asking.read(request.GET)
    if by.is_stale:
        # A download leaves the page where it is, which would be the one that asks for the proof.
        back = _address(asked.query(export=form))
        return redirect(f"{reverse('verify')}?{urlencode({'next': back})}")
    return export.respond(
        asked.entries(by.user.organization_id), by=by, form=form, asked=asked.words()
    )
