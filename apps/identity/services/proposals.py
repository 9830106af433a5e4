"""Acts that take two people: one proposes, another agrees, and then it is done.

Built for the one act that can undo all other limits: making somebody an owner. What is agreed to is
exactly what was proposed; both have to be owners and people, at the time of the consent. Service
accounts do neither, because whoever holds their token would be two at once.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from django.db import transaction

from apps.core import clock
from apps.core.errors import Conflict, NotAllowed
from apps.events.services import changes, outbox
from apps.events.types import ActorRef, platform
from apps.identity import places, policy
from apps.identity.actor import Actor
from apps.identity.models import Binding, Proposal, User
from apps.identity.services import bindings
from apps.identity.types import ProposalState, Role

ACTION: Final = "owner.grant"
LIFETIME: Final = timedelta(hours=24)
_FIELDS: Final = ("role", "expires_at", "reason")


@transaction.atomic
def propose(*, by: Actor, user: User, reason: str = "") -> Proposal:
    """Ask that somebody becomes an owner of the organization. Nothing changes yet.

    Raises ``Conflict`` when that is proposed already, or the person is disabled.
    """
    _require(by)
    if user.organization_id != by.user.organization_id:
        raise NotAllowed(action="proposing people of another organization")
    if not user.is_active:
        raise Conflict(reason=f"{user} is disabled.")
    if Proposal.objects.waiting().filter(user=user).exists():
        raise Conflict(reason=f"{user} is proposed already and waits for a decision.")
    proposal = Proposal.objects.create(
        organization_id=user.organization_id,
        user=user,
        reason=reason,
        requested_by=by.user,
        expires_at=clock.now() + LIFETIME,
    )
    _audit(by.ref, "proposal.make", proposal, reason=reason)
    return proposal


@transaction.atomic
def accept(*, by: Actor, proposal: Proposal) -> Proposal:
    """Agree, as somebody other than who proposed it: the person is an owner from now on."""
    _require(by)
    stored = _locked(by, proposal)
    if stored.requested_by_id == by.user.pk:
        raise Conflict(reason="You proposed it yourself. Another owner has to agree.")
    _decide(stored, ProposalState.ACCEPTED, by=by.user)
    _audit(by.ref, "proposal.accept", stored)
    _make_owner(by.ref, stored)
    return stored


@transaction.atomic
def decline(*, by: Actor, proposal: Proposal, why: str = "") -> Proposal:
    """Say no, or take back what one proposed."""
    _require(by)
    stored = _locked(by, proposal)
    _decide(stored, ProposalState.DECLINED, by=by.user, why=why)
    _audit(by.ref, "proposal.decline", stored, why=why)
    return stored


@transaction.atomic
def accept_from_shell(*, proposal: Proposal, why: str) -> Proposal:
    """Agree as the operator of the machine: the second person where there is no other owner."""
    stored = Proposal.objects.select_for_update(no_key=True).get(pk=proposal.pk)
    by = platform("shell", organization_id=stored.organization_id)
    _decide(stored, ProposalState.ACCEPTED, by=None, why=why)
    _audit(by, "proposal.accept", stored, why=why)
    _make_owner(by, stored)
    return stored


def _require(by: Actor) -> None:
    policy.require(by, ACTION)
    if by.user.is_service_account:
        raise NotAllowed(action="being one of two people as a service account")


def _locked(by: Actor, proposal: Proposal) -> Proposal:
    found = Proposal.objects.select_for_update(no_key=True).visible_to(by.user)
    return found.get(pk=proposal.pk)


def _decide(stored: Proposal, state: ProposalState, *, by: User | None, why: str = "") -> None:
    if not stored.is_waiting:
        raise Conflict(reason="This proposal is decided or has ended. Make a new one.")
    stored.state, stored.decided_by, stored.decided_at = state, by, clock.now()
    stored.why = why
    stored.save(update_fields=["state", "decided_by", "decided_at", "why", "updated_at"])


def _make_owner(by: ActorRef, proposal: Proposal) -> None:
    proposer = proposal.requested_by
    if not policy.allows(Actor(user=proposer), ACTION):
        raise Conflict(reason=f"{proposer}, who proposed it, is no owner any more.")
    user, place = proposal.user, places.organization(proposer)
    if not user.is_active:
        raise Conflict(reason=f"{user} is disabled.")
    held = Binding.objects.filter(user=user, scope=place.scope, scope_id=place.id).first()
    before = changes.of(held, *_FIELDS) if held else None
    binding = bindings.bind(user, role=Role.OWNER, place=place, reason=proposal.reason, by=proposer)
    outbox.audit(
        by,
        "binding.grant",
        resource_type="binding",
        resource_id=binding.pk,
        detail={
            "user": str(user),
            "role": binding.role,
            "scope": binding.scope,
            "place": place.name,
            "proposed_by": str(proposer),
        },
        before=before,
        after=changes.of(binding, *_FIELDS),
    )


def _audit(by: ActorRef, action: str, proposal: Proposal, **detail: str) -> None:
    outbox.audit(
        by,
        action,
        resource_type="proposal",
        resource_id=proposal.pk,
        detail={"user": str(proposal.user), "proposed_by": str(proposal.requested_by)}
        | {name: told for name, told in detail.items() if told},
    )
