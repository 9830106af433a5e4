"""Roles over the organization, a project, an agent or a run: what each reaches, and who may give it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from apps.core import clock
from apps.core.errors import Conflict, Invalid, NotAllowed, NotFound
from apps.events.models import AuditEntry
from apps.identity import places, policy
from apps.identity.actor import Actor
from apps.identity.errors import StepUpRequired
from apps.identity.matrix import MATRIX
from apps.identity.models import Binding
from apps.identity.services import bindings, departments, people
from apps.identity.types import Role, Scope
from apps.runs.models import Run
from apps.runs.services import control, submission
from apps.runs.types import TaskSpec
from tests.factories import (
    make_actor,
    make_agent,
    make_binding,
    make_department,
    make_project,
    make_run,
    make_service_account,
    make_user,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def owner():
    return make_actor(Role.OWNER)


@pytest.fixture
def house(owner):
    """Two agents, and two runs of each in two projects: ``house[project][agent]``."""
    organization = owner.user.organization
    agents = [make_agent(organization=organization) for _ in range(2)]
    projects = [make_project(organization=organization) for _ in range(2)]
    return [[make_run(project=p, agent=a, by=owner) for a in agents] for p in projects]


def seen_by(user):
    return set(Run.objects.visible_to(user))


def newcomer(owner, role=None, over=None):
    user = make_user(organization=owner.user.organization)
    if role:
        make_binding(user, role, over)
    return user


def test_a_role_reaches_what_lies_under_it_and_nothing_else(owner, house):
    (here, beside), (there, far) = house
    agent, project = here.agent_version.agent, here.project

    assert seen_by(newcomer(owner)) == set()
    assert seen_by(newcomer(owner, Role.VIEWER)) == {here, beside, there, far}
    assert seen_by(newcomer(owner, Role.VIEWER, project)) == {here, beside}
    assert seen_by(newcomer(owner, Role.VIEWER, agent)) == {here, there}
    assert seen_by(newcomer(owner, Role.VIEWER, here)) == {here}


def test_lists_and_single_questions_agree(owner, house):
    """The SQL that filters lists and the function that answers for one row are two roads."""
    runs = [run for row in house for run in row]
    overs = [
        None,
        *runs,
        *{run.project for run in runs},
        *{run.agent_version.agent for run in runs},
    ]
    for over in overs:
        user = newcomer(owner, Role.VIEWER, over)
        one_by_one = {
            run for run in runs if policy.allows(Actor(user=user), "run.read", **run.place)
        }

        assert seen_by(user) == one_by_one, over


def test_a_department_gives_its_members_what_it_holds(owner, house):
    here = house[0][0]
    member, outsider = newcomer(owner), newcomer(owner)
    make_binding(make_department(member), Role.OPERATOR, here.project)

    assert policy.allows(Actor(user=member), "run.cancel", **here.place)
    assert here in seen_by(member)
    assert not policy.allows(Actor(user=outsider), "run.cancel", **here.place)


def test_an_operator_of_one_run_may_cancel_it_and_make_no_other(owner, house):
    here, beside = house[0]
    by = Actor(user=newcomer(owner, Role.OPERATOR, here))

    with pytest.raises(NotAllowed):
        control.rerun(by=by, run=here)
    with pytest.raises(NotAllowed):
        control.cancel(by=by, run=beside)
    assert control.cancel(by=by, run=here).state == "cancelled"


def test_an_operator_of_an_agent_runs_it_in_projects_they_belong_to(owner, house):
    (here, beside), (there, _) = house
    user = newcomer(owner, Role.OPERATOR, here.agent_version.agent)
    make_binding(user, Role.VIEWER, here.project)
    by = Actor(user=user)

    def submit(run):
        return submission.submit(
            by=by, project=run.project, agent=run.agent_version.agent, task=TaskSpec(input={})
        )

    assert submit(here).run.state == "queued"
    for elsewhere in (beside, there):
        with pytest.raises(NotAllowed):
            submit(elsewhere)


def test_an_admin_of_an_agent_manages_that_agent_only(owner, house):
    here, beside = house[0]
    by = Actor(user=newcomer(owner, Role.ADMIN, here.agent_version.agent))

    assert policy.allows(by, "agent.manage", agent_id=here.agent_version.agent_id)
    assert not policy.allows(by, "agent.manage", agent_id=beside.agent_version.agent_id)
    assert not policy.allows(by, "agent.manage")


@pytest.mark.parametrize("action", MATRIX)
def test_a_place_that_the_matrix_does_not_name_grants_nothing(owner, house, action):
    here = house[0][0]
    overs = {
        Scope.PROJECT: here.project,
        Scope.AGENT: here.agent_version.agent,
        Scope.RUN: here,
    }
    for scope, over in overs.items():
        by = Actor(user=newcomer(owner, Role.OWNER, over))

        assert policy.allows(by, action, **here.place) == (scope in MATRIX[action].over), scope
        assert policy.may_enter(by, action) == (scope in MATRIX[action].over), scope


def test_an_ended_binding_grants_nothing(owner, house):
    user = newcomer(owner)
    project = house[0][0].project
    place = places.find(owner.user, "project", project.slug)
    soon = clock.now() + timedelta(hours=1)
    made = bindings.grant(
        by=owner, subject=user, role=Role.VIEWER, place=place, expires_at=soon, reason="a visit"
    )

    assert seen_by(user)
    Binding.objects.filter(pk=made.pk).update(expires_at=clock.now() - timedelta(seconds=1))
    assert not seen_by(user)
    assert (made.reason, made.granted_by) == ("a visit", owner.user)


def test_an_end_that_has_passed_is_refused(owner):
    with pytest.raises(Invalid):
        bindings.grant(by=owner, subject=newcomer(owner), role=Role.VIEWER, expires_at=clock.now())


def test_granting_again_replaces_the_role_and_tells_both(owner):
    user = newcomer(owner)
    bindings.grant(by=owner, subject=user, role=Role.VIEWER)
    bindings.grant(by=owner, subject=user, role=Role.ADMIN)

    assert Binding.objects.get(user=user).role == Role.ADMIN
    entry = AuditEntry.objects.filter(action="binding.grant").latest("id")
    assert entry.detail["changes"]["role"] == ["viewer", "admin"]


def test_a_revoked_role_is_gone_and_on_record(owner):
    user = newcomer(owner)
    made = bindings.grant(by=owner, subject=user, role=Role.ADMIN)

    bindings.revoke(by=owner, binding=made, reason="left the team")

    assert not policy.allows(Actor(user=user), "run.read")
    entry = AuditEntry.objects.get(action="binding.revoke")
    assert entry.detail["why"] == "left the team"
    assert entry.detail["changes"]["role"] == ["admin", None]


def test_changing_roles_needs_a_fresh_proof(owner):
    stale = Actor(user=owner.user, is_stale=True)

    with pytest.raises(StepUpRequired):
        bindings.grant(by=stale, subject=newcomer(owner), role=Role.VIEWER)


# --- nobody reaches above themselves --------------------------------------------------------------


@pytest.fixture
def admin(owner):
    return make_actor(Role.ADMIN, organization=owner.user.organization)


def test_an_owner_of_one_project_is_no_owner_of_all(owner, admin, house):
    """A high role somewhere must not become one everywhere."""
    make_binding(admin.user, Role.OWNER, house[0][0].project)

    for subject in (newcomer(owner), make_department(organization=owner.user.organization)):
        with pytest.raises(NotAllowed):
            bindings.grant(by=admin, subject=subject, role=Role.OWNER)


def test_nobody_joins_or_changes_a_department_above_them(owner, admin):
    council = make_department(owner.user)
    make_binding(council, Role.OWNER)

    for act in (
        lambda: departments.add_member(by=admin, department=council, user=admin.user),
        lambda: departments.remove_member(by=admin, department=council, user=owner.user),
        lambda: departments.remove(by=admin, department=council),
        lambda: bindings.grant(by=admin, subject=council, role=Role.VIEWER),
        lambda: bindings.revoke(by=admin, binding=council.bindings.get()),
    ):
        with pytest.raises(NotAllowed):
            act()
    assert list(council.members.all()) == [owner.user]


def test_nobody_touches_somebody_above_them(owner, admin):
    make_actor(Role.OWNER, organization=owner.user.organization)
    held = Binding.objects.get(user=owner.user)

    for act in (
        lambda: people.deactivate(by=admin, user=owner.user),
        lambda: people.edit(by=admin, user=owner.user, email="new@x.test"),
        lambda: bindings.grant(by=admin, subject=owner.user, role=Role.VIEWER),
        lambda: bindings.revoke(by=admin, binding=held),
    ):
        with pytest.raises(NotAllowed):
            act()
    owner.user.refresh_from_db()
    assert owner.user.is_active


@pytest.mark.parametrize("end", ["revoke", "lower", "limit", "deactivate"])
def test_an_organization_keeps_an_owner_without_an_end(owner, end):
    other = newcomer(owner, Role.OWNER)
    by = Actor(user=other)
    Binding.objects.filter(user=other).update(expires_at=clock.now() + timedelta(days=1))
    held = Binding.objects.get(user=owner.user)

    acts = {
        "revoke": lambda: bindings.revoke(by=by, binding=held),
        "lower": lambda: bindings.grant(by=by, subject=owner.user, role=Role.ADMIN),
        "limit": lambda: bindings.grant(
            by=by,
            subject=owner.user,
            role=Role.OWNER,
            expires_at=clock.now() + timedelta(days=1),
        ),
        "deactivate": lambda: people.deactivate(by=by, user=owner.user),
    }
    with pytest.raises(Conflict, match="last owner"):
        acts[end]()

    Binding.objects.filter(user=other).update(expires_at=None)
    acts[end]()


def test_a_service_account_is_no_owner_that_counts(owner):
    make_service_account(role=Role.OWNER, organization=owner.user.organization)

    with pytest.raises(Conflict, match="last owner"):
        bindings.revoke(by=owner, binding=Binding.objects.get(user=owner.user))


def test_strangers_and_their_things_cannot_be_bound(owner, house):
    stranger = make_actor(Role.OWNER)

    with pytest.raises(NotAllowed):
        bindings.grant(by=owner, subject=stranger.user, role=Role.VIEWER)
    with pytest.raises(NotAllowed):
        bindings.revoke(by=owner, binding=Binding.objects.get(user=stranger.user))
    for scope, ref in [
        ("project", str(house[0][0].project.pk)),
        ("agent", str(house[0][0].agent_version.agent_id)),
        ("run", str(house[0][0].public_id)),
        ("organization", str(owner.user.organization_id)),
    ]:
        assert places.find(owner.user, scope, ref).scope == scope
        with pytest.raises(NotFound):
            places.find(stranger.user, scope, ref)
    with pytest.raises(Invalid):
        places.find(owner.user, "tool", "x")


# --- why ------------------------------------------------------------------------------------------


def test_the_explanation_says_what_require_would(owner, house):
    here = house[0][0]
    place = places.find(owner.user, "run", str(here.public_id))
    member = newcomer(owner)
    department = make_department(member)
    make_binding(department, Role.OPERATOR, here.project)
    viewer = newcomer(owner, Role.VIEWER, here)

    allowed = policy.explain(Actor(user=member), "run.cancel", place)
    denied = policy.explain(Actor(user=viewer), "run.cancel", place)
    nothing = policy.explain(Actor(user=newcomer(owner)), "run.cancel", place)

    assert allowed.is_allowed
    assert department.name in allowed.why
    assert denied.code == nothing.code == "not_allowed"
    assert "needs the role operator over the organization, the project" in denied.why
    assert "You hold: the role viewer over the run" in denied.why
    assert "no role reaches" in nothing.why
    stale = policy.explain(
        Actor(user=owner.user, is_stale=True), "people.manage", places.organization(owner.user)
    )
    assert stale.code == "step_up_required"
