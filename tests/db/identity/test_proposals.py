"""What takes two people: somebody becomes an owner when another owner agrees, and not before."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError, transaction

from apps.core import clock
from apps.core.errors import Conflict, NotAllowed
from apps.events.models import AuditEntry
from apps.identity import policy
from apps.identity.actor import Actor
from apps.identity.errors import SecondPersonNeeded
from apps.identity.models import Binding, Proposal
from apps.identity.services import bindings, departments, passwords, people, proposals
from apps.identity.types import Place, ProposalState, Role, Scope
from tests.faces import api, problem, session
from tests.factories import (
    make_actor,
    make_binding,
    make_department,
    make_project,
    make_service_account,
    make_user,
    unwatched,
)
from tests.support.threads import at_once

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _two_people(settings):
    settings.AOS_TWO_PERSON = True


@pytest.fixture
def home(first):
    return first.user.organization


@pytest.fixture
def first():
    return make_actor(Role.OWNER)


@pytest.fixture
def second(home):
    return make_actor(Role.OWNER, organization=home)


@pytest.fixture
def nina(home):
    return make_user(organization=home, role=Role.ADMIN, username="nina")


def is_owner(user):
    held = Binding.objects.of(user)
    return held.filter(role=Role.OWNER, scope=Scope.ORGANIZATION).exists()


def entries(action):
    return AuditEntry.objects.filter(action=action)


# --- nobody becomes an owner alone ----------------------------------------------------------------


def test_an_owner_alone_makes_no_owner(first, nina):
    with pytest.raises(SecondPersonNeeded):
        bindings.grant(by=first, subject=nina, role=Role.OWNER)

    assert not is_owner(nina)


def test_nor_by_way_of_a_department(first, home, nina):
    department = make_department(nina)
    with pytest.raises(SecondPersonNeeded):
        bindings.grant(by=first, subject=department, role=Role.OWNER)

    make_binding(department, Role.OWNER)
    other = make_user(organization=home)
    with pytest.raises(SecondPersonNeeded):
        departments.add_member(by=first, department=department, user=other)

    assert not is_owner(other)


@pytest.mark.parametrize("through", ["own", "department"])
def test_nor_by_letting_a_former_owner_in_again(first, home, through):
    with unwatched():
        former = make_user(organization=home, is_active=False)
        make_binding(make_department(former) if through == "department" else former, Role.OWNER)

    with pytest.raises(SecondPersonNeeded):
        people.reactivate(by=first, user=former)

    former.refresh_from_db()
    assert not former.is_active


def test_nor_by_a_password_for_another_owner(first, second, nina, settings):
    with unwatched():
        for user in (second.user, nina):
            user.set_password("correct horse battery")
            user.save(update_fields=["password"])

    with pytest.raises(SecondPersonNeeded):
        passwords.give(by=first, user=second.user)
    passwords.give(by=first, user=nina)

    second.user.refresh_from_db()
    assert second.user.check_password("correct horse battery")
    settings.AOS_TWO_PERSON = False
    passwords.give(by=first, user=second.user)


def test_other_roles_take_one_person(first, home, nina):
    bindings.grant(by=first, subject=nina, role=Role.VIEWER)
    project = make_project(organization=home)
    place = Place(scope=Scope.PROJECT, id=project.pk, name=project.name)
    bindings.grant(by=first, subject=nina, role=Role.OWNER, place=place)
    departments.add_member(
        by=first, department=make_department(nina), user=make_user(organization=home)
    )

    assert not is_owner(nina)


def test_where_it_is_off_one_owner_is_enough(first, nina, settings):
    settings.AOS_TWO_PERSON = False

    bindings.grant(by=first, subject=nina, role=Role.OWNER)

    assert is_owner(nina)


# --- proposing and agreeing -----------------------------------------------------------------------


def test_another_owner_agrees_and_it_is_done(first, second, nina):
    proposal = proposals.propose(by=first, user=nina, reason="takes over from Olivia")
    assert not is_owner(nina)

    proposals.accept(by=second, proposal=proposal)

    assert is_owner(nina)
    binding = Binding.objects.get(user=nina)
    assert (binding.role, binding.granted_by, binding.expires_at) == (Role.OWNER, first.user, None)
    proposal.refresh_from_db()
    assert (proposal.state, proposal.decided_by) == (ProposalState.ACCEPTED, second.user)
    assert entries("proposal.make").get().actor_id == first.user.pk
    assert entries("proposal.accept").get().actor_id == second.user.pk
    granted = entries("binding.grant").get()
    assert granted.detail["proposed_by"] == first.user.username
    assert granted.detail["changes"]["role"] == ["admin", "owner"]


def test_nobody_agrees_with_themselves(first, nina):
    proposal = proposals.propose(by=first, user=nina)

    with pytest.raises(Conflict, match="yourself"):
        proposals.accept(by=first, proposal=proposal)

    assert not is_owner(nina)
    with pytest.raises(IntegrityError, match="takes_two"), transaction.atomic():
        Proposal.objects.filter(pk=proposal.pk).update(
            state=ProposalState.ACCEPTED, decided_by=first.user, decided_at=clock.now()
        )


def test_only_owners_propose_and_agree(first, nina, home):
    admin = make_actor(Role.ADMIN, organization=home)
    proposal = proposals.propose(by=first, user=nina)

    for act in (
        lambda: proposals.propose(by=admin, user=admin.user),
        lambda: proposals.accept(by=admin, proposal=proposal),
        lambda: proposals.decline(by=admin, proposal=proposal),
    ):
        with pytest.raises(NotAllowed):
            act()

    assert Proposal.objects.get().is_waiting


def test_a_service_account_is_not_one_of_two(first, nina, home):
    account = make_service_account(organization=home)
    make_binding(account, Role.OWNER)
    proposal = proposals.propose(by=first, user=nina)

    with pytest.raises(NotAllowed):
        proposals.accept(by=Actor(user=account), proposal=proposal)
    with pytest.raises(NotAllowed):
        proposals.propose(by=Actor(user=account), user=account)

    assert not is_owner(nina)


def test_who_proposed_has_to_be_an_owner_still(first, second, nina):
    proposal = proposals.propose(by=first, user=nina)
    bindings.revoke(by=second, binding=Binding.objects.get(user=first.user))

    with pytest.raises(Conflict, match="no owner any more"):
        proposals.accept(by=second, proposal=proposal)

    assert not is_owner(nina)
    assert Proposal.objects.get().is_waiting


def test_a_disabled_person_does_not_become_one(first, second, nina):
    proposal = proposals.propose(by=first, user=nina)
    people.deactivate(by=first, user=nina)

    with pytest.raises(Conflict, match="disabled"):
        proposals.accept(by=second, proposal=proposal)
    with pytest.raises(Conflict, match="disabled"):
        proposals.propose(by=second, user=nina)


def test_a_proposal_ends_after_a_day(first, second, nina):
    proposal = proposals.propose(by=first, user=nina)
    with unwatched():
        Proposal.objects.update(expires_at=clock.now() - timedelta(seconds=1))

    with pytest.raises(Conflict, match="ended"):
        proposals.accept(by=second, proposal=proposal)
    proposals.propose(by=first, user=nina)

    assert not is_owner(nina)


def test_a_declined_one_is_decided(first, second, nina):
    proposal = proposals.propose(by=first, user=nina)
    with pytest.raises(Conflict, match="already"):
        proposals.propose(by=second, user=nina)

    proposals.decline(by=second, proposal=proposal, why="not yet")

    with pytest.raises(Conflict, match="decided"):
        proposals.accept(by=second, proposal=proposal)
    assert entries("proposal.decline").get().detail["why"] == "not yet"
    assert not is_owner(nina)


def test_nobody_of_another_organization_is_proposed(first):
    with pytest.raises(NotAllowed):
        proposals.propose(by=first, user=make_user())


@pytest.mark.django_db(transaction=True)
def test_of_many_who_agree_at_once_one_does(first, nina, home):
    owners = [make_actor(Role.OWNER, organization=home) for _ in range(6)]
    proposal = proposals.propose(by=first, user=nina)

    told = at_once(
        [partial(proposals.accept, by=by, proposal=proposal) for by in owners], errors=Conflict
    )

    assert sum(isinstance(each, Conflict) for each in told) == 5
    assert entries("proposal.accept").count() == 1


# --- the shell ------------------------------------------------------------------------------------


def test_the_operator_of_the_machine_is_the_second_where_there_is_no_other(first, nina):
    proposal = proposals.propose(by=first, user=nina, reason="Olivia leaves")
    said = StringIO()

    call_command("proposals", stdout=said)
    assert f"{proposal.pk}" in said.getvalue()
    assert "nina as owner" in said.getvalue()
    with pytest.raises(CommandError, match="--why"):
        call_command("proposals", accept=str(proposal.pk))
    with pytest.raises(CommandError, match="no proposal"):
        call_command("proposals", accept="nonsense", why="x")
    call_command("proposals", accept=str(proposal.pk), why="called her", stdout=said)

    assert is_owner(nina)
    entry = entries("proposal.accept").get()
    assert (entry.actor_kind, entry.detail["why"]) == ("platform", "called her")
    with pytest.raises(CommandError, match="decided"):
        call_command("proposals", accept=str(proposal.pk), why="again")


# --- the faces ------------------------------------------------------------------------------------


def test_the_api_refuses_one_and_takes_two(first, second, nina):
    one, other = api(first.user), api(second.user)
    refused = one.post("/api/rbac/bindings", {"user": str(nina.pk), "role": "owner"}, format="json")
    assert refused.status_code == 409
    assert problem(refused)["code"] == "second_person_needed"

    made = one.post("/api/rbac/proposals", {"user": str(nina.pk), "reason": "r"}, format="json")
    assert made.status_code == 201
    address = made["Location"]
    assert problem(one.post(f"{address}/accept"))["code"] == "conflict"
    accepted = other.post(f"{address}/accept")

    assert accepted.status_code == 200
    assert accepted.json()["state"] == "accepted"
    assert accepted.json()["decided_by"] == second.user.username
    assert one.get(address).json()["is_waiting"] is False
    assert is_owner(nina)


def test_the_page_proposes_and_another_owner_agrees(first, second, nina):
    one, other = session(first.user), session(second.user)
    done = one.post(
        "/access/grant", {"who": f"user:{nina.pk}", "role": "owner", "scope": "organization"}
    )
    assert done["Location"] == "/access/proposals"
    proposal = Proposal.objects.get()
    mine, theirs = (each.get("/access/proposals").content.decode() for each in (one, other))
    assert f"/access/proposals/{proposal.pk}/accept" not in mine
    assert f"/access/proposals/{proposal.pk}/accept" in theirs

    told = one.post(f"/access/proposals/{proposal.pk}/accept")
    assert told.status_code == 409
    assert "Another owner has to agree" in told.content.decode()
    done = other.post(f"/access/proposals/{proposal.pk}/accept")

    assert done["Location"] == "/access/proposals"
    assert is_owner(nina)
    assert "decided by" in one.get("/access/proposals").content.decode()


def test_the_page_takes_back_what_one_proposed(first, nina):
    proposal = proposals.propose(by=first, user=nina)
    page = session(first.user)

    assert (
        "Take back the proposal of nina?"
        in page.get(f"/access/proposals/{proposal.pk}/decline").content.decode()
    )
    page.post(f"/access/proposals/{proposal.pk}/decline", {"reason": "a mistake"})

    proposal.refresh_from_db()
    assert (proposal.state, proposal.why) == (ProposalState.DECLINED, "a mistake")


def test_an_admin_sees_proposals_and_decides_none(first, nina):
    proposals.propose(by=first, user=nina)

    html = session(nina).get("/access/proposals").content.decode()

    assert "nina as owner" in html
    assert "/accept" not in html


def test_a_stranger_finds_no_proposal(first, nina):
    proposal = proposals.propose(by=first, user=nina)
    stranger = make_user(role=Role.OWNER)

    assert api(stranger).get(f"/api/rbac/proposals/{proposal.pk}").status_code == 404
    assert session(stranger).get(f"/access/proposals/{proposal.pk}/accept").status_code == 404
    assert "nina" not in session(stranger).get("/access/proposals").content.decode()


def test_the_matrix_tells_which_acts_take_two(first):
    actions = api(first.user).get("/api/rbac/roles").json()["actions"]

    assert [each["action"] for each in actions if each["two_person"]] == ["owner.grant"]
    assert policy.allows(first, "owner.grant")
