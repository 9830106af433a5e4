"""What waits for a second person: who is to become an owner, and agreeing to it or not."""

from __future__ import annotations

from uuid import UUID

from django.http import HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods

from apps.hub.access.asking import REASON, Ask, Done, ask
from apps.hub.access.desk import context
from apps.hub.visiting import HubRequest, may, person, signed_in
from apps.identity import policy
from apps.identity.models import Proposal, ProposalQuerySet
from apps.identity.rest import page_actor
from apps.identity.services import proposals

_DECIDED = 50


@signed_in
@may("people.read")
@never_cache
@require_GET
def index(request: HubRequest) -> HttpResponse:
    by = page_actor(request)
    waiting = list(_visible(request).waiting().order_by("created_at"))
    others = _visible(request).exclude(pk__in=[each.pk for each in waiting])
    told = {
        "waiting": waiting,
        "others": others.order_by("-created_at")[:_DECIDED],
        "may_decide": policy.allows(by, proposals.ACTION),
        "me": by.user,
    }
    return render(request, "hub/access/proposals.html", context(request, tab="proposals") | told)


@signed_in
@may("people.read")
@never_cache
@require_http_methods(["GET", "POST"])
def accept(request: HubRequest, proposal_id: UUID) -> HttpResponse:
    proposal = get_object_or_404(_visible(request), pk=proposal_id)
    what = Ask(
        title=f"Make {proposal.user} an owner?",
        text=f"{proposal.requested_by} proposed it. An owner may do everything in this organization, "
        "from the next request on.",
        button="Agree",
        back=reverse("access_proposals"),
    )

    def act(_: QueryDict) -> Done:
        proposals.accept(by=page_actor(request), proposal=proposal)
        return Done(said=f"{proposal.user} is an owner now.", href=what.back)

    return ask(request, what, act)


@signed_in
@may("people.read")
@never_cache
@require_http_methods(["GET", "POST"])
def decline(request: HubRequest, proposal_id: UUID) -> HttpResponse:
    proposal = get_object_or_404(_visible(request), pk=proposal_id)
    is_mine = proposal.requested_by_id == person(request).pk
    what = Ask(
        title=f"{'Take back' if is_mine else 'Decline'} the proposal of {proposal.user}?",
        text="Nothing changes. Somebody can be proposed again.",
        button="Take it back" if is_mine else "Decline",
        back=reverse("access_proposals"),
        fields=(REASON,),
        is_danger=True,
    )

    def act(typed: QueryDict) -> Done:
        why = typed.get("reason", "").strip()[:200]
        proposals.decline(by=page_actor(request), proposal=proposal, why=why)
        return Done(said=f"{proposal.user} does not become an owner.", href=what.back)

    return ask(request, what, act)


def _visible(request: HubRequest) -> ProposalQuerySet:
    found = Proposal.objects.visible_to(person(request))
    return found.select_related("user", "requested_by", "decided_by")
