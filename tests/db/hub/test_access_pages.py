from __future__ import annotations

from datetime import timedelta
from http import HTTPStatus

import pytest
from django.contrib.sessions.models import Session
from django.urls import reverse

from apps.core import clock
from apps.events.models import AuditEntry
from apps.identity.actor import Actor
from apps.identity.matrix import MATRIX
from apps.identity.models import ApiToken, Binding, SecondFactor, SignIn, User
from apps.identity.services import bindings, departments, people, proposals, tokens
from apps.identity.types import Place, Role, Scope
from tests.faces import session
from tests.factories import (
    make_agent,
    make_cast,
    make_organization,
    make_project,
    make_run,
    make_user,
    unwatched,
)

pytestmark = pytest.mark.django_db
HTMX = {"HTTP_HX_REQUEST": "true"}
PASSWORD = "a-battery-of-correct-horses"  # noqa: S105


@pytest.fixture
def cast():
    return make_cast()


@pytest.fixture
def by(cast):
    return Actor(user=cast.olivia)


@pytest.fixture
def page(cast):
    return session(cast.olivia)


@pytest.fixture
def research(by, cast):
    made = departments.create(by=by, name="Research")
    departments.add_member(by=by, department=made, user=cast.vera)
    return made


@pytest.fixture
def account(by):
    return people.add_service_account(by=by, username="reports-robot", name="Reports")


def _text(page, path, **headers):
    response = page.get(path, **headers)
    assert response.status_code == HTTPStatus.OK, path
    return response.content.decode()


def _every_page(cast, research, account):
    binding = Binding.objects.get(user=cast.oscar)
    token, _ = tokens.issue(
        by=Actor(user=cast.olivia), account=account, name="ci", scopes=["run:read"]
    )
    with_id = {
        "access_person": cast.oscar,
        "access_check": cast.oscar,
        "access_deactivate": cast.oscar,
        "access_reactivate": cast.oscar,
        "access_sign_out": cast.oscar,
        "access_factor_reset": cast.oscar,
        "access_department": research,
        "access_department_rename": research,
        "access_department_remove": research,
        "access_token_issue": account,
        "access_token_revoke": token,
        "access_revoke": binding,
    }
    without = (
        "access",
        "access_people",
        "access_person_add",
        "access_departments",
        "access_department_create",
        "access_accounts",
        "access_account_create",
        "access_roles",
        "access_grant",
    )
    return [reverse(name) for name in without] + [
        reverse(name, args=[row.pk]) for name, row in with_id.items()
    ]


# Who may see what


def test_every_page_is_open_to_those_who_may_and_refused_to_others(cast, research, account):
    for path in _every_page(cast, research, account):
        for name, status in (("olivia", 200), ("adam", 200), ("oscar", 403), ("vera", 403)):
            assert session(getattr(cast, name)).get(path).status_code == status, (path, name)
        assert session().get(path).status_code == HTTPStatus.FOUND, path


def test_other_organizations_answer_like_what_does_not_exist(cast, research, account):
    sam = session(cast.sam)
    with_ids = [
        path for path in _every_page(cast, research, account) if any(map(str.isdigit, path))
    ]

    assert len(with_ids) == 12
    for path in with_ids:
        assert sam.get(path).status_code == HTTPStatus.NOT_FOUND, path
        assert sam.post(path).status_code in {404, 405}, path
    assert cast.oscar.username not in _text(sam, "/access/people")
    assert "reports-robot" not in _text(sam, "/access/service-accounts")
    assert "Research" not in _text(sam, "/access/departments")
    grant = _text(sam, f"/access/grant?who=user:{cast.oscar.pk}")
    assert cast.oscar.username not in grant
    assert cast.oscar.pk.hex not in grant


def test_acts_are_refused_to_those_who_only_know_the_address(cast, research, account):
    oscar = session(cast.oscar)
    before = AuditEntry.objects.exclude(action="access.denied").count()

    for path in _every_page(cast, research, account):
        assert oscar.post(path).status_code in {403, 405}, path

    # The token that the list of pages made is the one entry between.
    assert AuditEntry.objects.exclude(action="access.denied").count() == before + 1


# People


def test_people_are_listed_with_roles_second_factor_and_when_they_were_seen(
    cast, page, by, research
):
    project = make_project(organization=cast.organization, name="Flight safety")
    bindings.grant(by=by, subject=research, role=Role.OPERATOR, place=_over(project))
    with unwatched():
        SecondFactor.objects.create(
            user=cast.vera, sealed_secret=b"x", confirmed_at=clock.now(), last_step=0
        )
        tomorrow = clock.now() + timedelta(days=1)
        Session.objects.create(session_key="k", session_data="", expire_date=tomorrow)
        SignIn.objects.create(user=cast.vera, session_key="k", address="192.0.2.1")

    rows = {row["user"].pk: row for row in page.get("/access/people").context["rows"]}

    vera = rows[cast.vera.pk]
    assert [(each.binding.role, each.place.name) for each in vera["held"]] == [
        ("operator", "Flight safety"),
        ("viewer", "the whole organization"),
    ]
    assert vera["user"].has_second_factor
    assert vera["user"].last_seen is not None
    assert not rows[cast.oscar.pk]["user"].has_second_factor


def test_a_role_that_has_ended_is_no_badge_and_still_on_the_persons_page(cast, page):
    with unwatched():
        Binding.objects.filter(user=cast.oscar).update(
            expires_at=clock.now() - timedelta(minutes=1)
        )

    rows = {row["user"].pk: row for row in page.get("/access/people").context["rows"]}

    assert rows[cast.oscar.pk]["held"] == []
    assert "Ended" in _text(page, f"/access/people/{cast.oscar.pk}")


def test_people_are_found_by_any_name_and_paged(page, cast):
    for number in range(60):
        make_user(organization=cast.organization, username=f"zz-{number:02}", last_name="Zimmer")

    first = page.get("/access/people?q=zimmer", **HTMX)
    rest = page.get(first.context["more"], **HTMX)

    names = [row["user"].username for row in first.context["rows"] + rest.context["rows"]]
    assert names == [f"zz-{number:02}" for number in range(60)]
    assert rest.context["more"] == ""
    assert b"<html" not in first.content
    assert "Nobody matches" in _text(page, "/access/people?q=nobody-of-that-name")


def test_the_list_costs_the_same_with_many_people(cast, page, django_assert_max_num_queries):
    for _ in range(40):
        make_user(role=Role.VIEWER, organization=cast.organization)

    with django_assert_max_num_queries(24):
        page.get("/access/people")


def test_a_person_is_added_and_a_weak_password_is_told_at_its_field(page):
    typed = {"username": "vera", "email": "", "password": "short"}

    refused = page.post("/access/people/new", typed, **HTMX)
    made = page.post("/access/people/new", typed | {"password": PASSWORD}, **HTMX)

    assert refused.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    assert b"ask-password-note" in refused.content
    assert b'value="vera"' in refused.content
    assert b"short" not in refused.content.replace(b"too short", b"")
    vera = User.objects.get(username="vera")
    assert made.headers["HX-Redirect"] == f"/access/people/{vera.pk}"


def test_somebody_is_disabled_with_a_reason_and_enabled_again(cast, page):
    where = f"/access/people/{cast.oscar.pk}"

    page.post(f"{where}/disable", {"reason": "left"})
    disabled = User.objects.get(pk=cast.oscar.pk)
    page.post(f"{where}/enable")

    assert not disabled.is_active
    assert User.objects.get(pk=cast.oscar.pk).is_active
    assert AuditEntry.objects.get(action="user.deactivate").detail["why"] == "left"


def test_nobody_disables_themselves(cast, page):
    answer = page.post(f"/access/people/{cast.olivia.pk}/disable")

    assert answer.status_code == HTTPStatus.CONFLICT
    assert b"You cannot disable yourself." in answer.content
    assert User.objects.get(pk=cast.olivia.pk).is_active


def test_an_admin_sees_an_owner_and_changes_nothing(cast):
    adam, where = session(cast.adam), f"/access/people/{cast.olivia.pk}"

    shown = _text(adam, where)
    answer = adam.post(f"{where}/disable", **HTMX)

    assert "They hold a role above yours" in shown
    assert "Take back" not in shown
    assert answer.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    assert User.objects.get(pk=cast.olivia.pk).is_active


def test_somebody_is_signed_out_everywhere_and_loses_a_second_factor(cast, page):
    where = f"/access/people/{cast.vera.pk}"
    with unwatched():
        tomorrow = clock.now() + timedelta(days=1)
        Session.objects.create(session_key="k", session_data="", expire_date=tomorrow)
        SignIn.objects.create(user=cast.vera, session_key="k", address="192.0.2.1")
        SecondFactor.objects.create(
            user=cast.vera, sealed_secret=b"x", confirmed_at=clock.now(), last_step=0
        )
    assert "192.0.2.1" in _text(page, where)

    page.post(f"{where}/sign-out")
    page.post(f"{where}/second-factor", {"reason": "lost the phone"})

    assert not SignIn.objects.filter(user=cast.vera).exists()
    assert not SecondFactor.objects.filter(user=cast.vera).exists()


# Roles


def _over(row, scope=Scope.PROJECT):
    return Place(scope=scope, id=row.pk, name=str(row), project_id=row.pk)


def test_a_role_is_given_over_each_kind_of_place(cast, page):
    project = make_project(organization=cast.organization)
    agent = make_agent(organization=cast.organization)
    run = make_run(project=project, agent=agent)
    places = {
        "organization": ("", cast.organization.pk),
        "project": (project.pk, project.pk),
        "agent": (agent.pk, agent.pk),
        "run": (run.public_id, run.public_id),
    }

    for scope, (ref, scope_id) in places.items():
        typed = {"who": f"user:{cast.vera.pk}", "role": "operator", "scope": scope, scope: ref}
        answer = page.post("/access/grant", typed)
        assert answer.headers["Location"] == f"/access/people/{cast.vera.pk}", scope
        made = Binding.objects.get(user=cast.vera, scope=scope, scope_id=scope_id)
        assert (made.role, made.expires_at) == ("operator", None)


def test_a_role_ends_after_its_length_or_at_a_moment(cast, page):
    typed = {"who": f"user:{cast.vera.pk}", "role": "operator", "scope": "organization"}

    page.post("/access/grant", typed | {"lasts": "7d", "reason": "stands in"})
    in_a_week = Binding.objects.get(user=cast.vera)
    page.post("/access/grant", typed | {"lasts": "until", "until": "2999-01-02T03:04:00.000Z"})
    far = Binding.objects.get(user=cast.vera)

    assert timedelta(days=6) < in_a_week.expires_at - clock.now() <= timedelta(days=7)
    assert in_a_week.reason == "stands in"
    assert far.expires_at.isoformat() == "2999-01-02T03:04:00+00:00"


@pytest.mark.parametrize(
    "wrong",
    [
        {"who": ""},
        {"who": "user:no-id"},
        {"role": "emperor"},
        {"scope": "moon"},
        {"scope": "project", "project": ""},
        {"scope": "run", "run": "not-a-run"},
        {"lasts": "until", "until": "soon"},
        {"lasts": "until", "until": "2020-01-01T00:00:00Z"},
    ],
    ids=str,
)
def test_what_is_wrong_with_a_grant_is_told_and_changes_nothing(cast, page, wrong):
    typed = {"who": f"user:{cast.vera.pk}", "role": "admin", "scope": "organization"} | wrong

    answer = page.post("/access/grant", typed, **HTMX)

    assert answer.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    assert b'role="alert"' in answer.content
    assert Binding.objects.get(user=cast.vera).role == Role.VIEWER


def test_a_role_of_another_organizations_project_cannot_be_given(cast, page):
    theirs = make_project(organization=make_organization())
    typed = {
        "who": f"user:{cast.vera.pk}",
        "role": "admin",
        "scope": "project",
        "project": theirs.pk,
    }

    answer = page.post("/access/grant", typed)

    assert answer.status_code == HTTPStatus.NOT_FOUND
    assert Binding.objects.filter(user=cast.vera).count() == 1


def test_an_admin_gives_no_role_above_their_own(cast):
    typed = {"who": f"user:{cast.vera.pk}", "role": "owner", "scope": "organization"}

    answer = session(cast.adam).post("/access/grant", typed)

    assert answer.status_code == HTTPStatus.FORBIDDEN
    assert b"granting the role owner" in answer.content
    assert Binding.objects.get(user=cast.vera).role == Role.VIEWER


def test_a_role_is_taken_back_with_a_reason(cast, page):
    held = Binding.objects.get(user=cast.oscar)

    page.post(f"/access/bindings/{held.pk}", {"reason": "moved"})

    assert not Binding.objects.filter(user=cast.oscar).exists()
    assert AuditEntry.objects.get(action="binding.revoke").detail["why"] == "moved"


def test_the_last_owner_stays(cast, page):
    held = Binding.objects.get(user=cast.olivia)

    answer = page.post(f"/access/bindings/{held.pk}")

    assert answer.status_code == HTTPStatus.CONFLICT
    assert b"last owner" in answer.content


def test_the_matrix_is_shown_as_it_is(page):
    groups = page.get("/access/roles").context["groups"]

    shown = {row["action"]: row["may"] for rows in groups.values() for row in rows}
    assert set(shown) == set(MATRIX)
    assert shown["run.submit"] == [False, True, True, True]
    assert shown["people.manage"] == [False, False, True, True]


# Why


@pytest.mark.parametrize(
    ("query", "is_allowed", "says"),
    [
        ("action=run.submit&scope=organization", True, "the role operator over the organization"),
        ("action=people.manage&scope=organization", False, "A browser needs a fresh proof for it."),
        ("action=token.manage&scope=organization", True, "the role viewer anywhere"),
    ],
)
def test_what_somebody_may_do_is_told_with_the_roles_behind_it(cast, page, query, is_allowed, says):
    answer = page.get(f"/access/people/{cast.oscar.pk}/check?{query}").context["answer"]

    assert answer.is_allowed is is_allowed
    assert says in answer.says
    assert [held.binding.role for held in answer.held] == ["operator"]


def test_a_role_through_a_department_over_one_project_is_told(cast, page, by, research):
    project = make_project(organization=cast.organization, name="Flight safety")
    bindings.grant(by=by, subject=research, role=Role.OPERATOR, place=_over(project))
    where = f"/access/people/{cast.vera.pk}/check?action=run.submit&scope="

    here = page.get(f"{where}project&project={project.pk}")
    elsewhere = page.get(f"{where}organization")

    assert here.context["answer"].is_allowed
    assert "Operator over the project Flight safety, through the department Research" in " ".join(
        here.content.decode().split()
    )
    assert not elsewhere.context["answer"].is_allowed


def test_somebody_disabled_may_do_nothing(cast, page, by):
    people.deactivate(by=by, user=cast.oscar)
    query = "action=run.read&scope=organization"

    answer = page.get(f"/access/people/{cast.oscar.pk}/check?{query}").context["answer"]

    assert (answer.is_allowed, answer.says) == (False, "The account is disabled.")


def test_a_question_about_a_place_that_one_cannot_see_is_no_answer(cast, page):
    theirs = make_project(organization=make_organization())
    query = f"action=run.read&scope=project&project={theirs.pk}"

    answer = page.get(f"/access/people/{cast.oscar.pk}/check?{query}")

    assert answer.status_code == HTTPStatus.NOT_FOUND
    assert "answer" not in answer.context
    assert theirs.name not in answer.content.decode()


# A fresh proof


def test_a_stale_session_sees_everything_and_changes_nothing_before_its_proof(client, cast):
    client.force_login(cast.olivia)
    held = Binding.objects.get(user=cast.oscar)
    where = f"/access/bindings/{held.pk}"

    shown = client.get(where, **HTMX).content.decode()
    answer = client.post(where)

    assert "Prove that it is you" in shown
    assert f"/account/verify?next=%2Faccess%2Fpeople%2F{cast.oscar.pk}" in shown
    assert 'type="submit"' not in shown
    assert answer.headers["Location"].startswith("/account/verify")
    assert Binding.objects.filter(pk=held.pk).exists()


# Departments


def test_a_department_is_made_renamed_filled_emptied_and_removed(cast, page, research):
    where = f"/access/departments/{research.pk}"
    made = page.post("/access/departments/new", {"name": "Operations"})
    again = page.post("/access/departments/new", {"name": "Operations"})
    page.post(f"{where}/name", {"name": "Discovery"})
    page.post(f"{where}/members", {"username": cast.oscar.username})
    joined = _text(page, where)
    page.post(f"{where}/members/{cast.oscar.pk}")
    left = list(research.members.all())
    page.post(f"{where}/remove")

    assert made.status_code == HTTPStatus.FOUND
    assert again.status_code == HTTPStatus.CONFLICT
    assert "Discovery" in joined
    assert cast.oscar.username in joined
    assert left == [cast.vera]
    assert page.get(where).status_code == HTTPStatus.NOT_FOUND


def test_a_stranger_joins_no_department(cast, page, research):
    where = f"/access/departments/{research.pk}"

    answer = page.post(f"{where}/members", {"username": cast.sam.username}, follow=True)

    assert b"nobody of that user name" in answer.content
    assert list(research.members.all()) == [cast.vera]


# Service accounts


def test_a_service_account_gets_a_token_whose_value_is_in_one_answer_only(page, account):
    where = f"/access/people/{account.pk}/tokens"
    typed = {
        "name": "ci",
        "scopes": ["run:read"],
        "days": "30",
        "networks": "10.0.0.0/8, 192.0.2.7",
    }

    answer = page.post(where, typed, **HTMX)

    token = ApiToken.objects.get(user=account)
    value = answer.context["value"]
    assert value.encode() in answer.content
    assert "no-store" in answer.headers["Cache-Control"]
    assert token.allowed_networks == ["10.0.0.0/8", "192.0.2.7/32"]
    assert value not in _text(page, f"/access/people/{account.pk}")
    page.post(f"/access/tokens/{token.pk}")
    token.refresh_from_db()
    assert token.revoked_at is not None


@pytest.mark.parametrize(
    "wrong",
    [{"scopes": []}, {"scopes": ["everything"]}, {"days": "9999"}, {"networks": "here"}],
    ids=str,
)
def test_what_is_wrong_with_a_token_is_told(page, account, wrong):
    typed = {"name": "ci", "scopes": ["run:read"], "days": "30"} | wrong

    answer = page.post(f"/access/people/{account.pk}/tokens", typed, **HTMX)

    assert answer.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    assert b'role="alert"' in answer.content
    assert b'value="ci"' in answer.content
    assert not ApiToken.objects.filter(user=account).exists()


def test_a_person_gets_no_token_from_somebody_else(cast, page):
    assert page.post(f"/access/people/{cast.oscar.pk}/tokens").status_code == HTTPStatus.NOT_FOUND


def test_service_accounts_are_not_among_people_and_the_other_way_round(cast, page, account):
    listed = [row["user"] for row in page.get("/access/service-accounts").context["rows"]]

    assert listed == [account]
    assert "reports-robot" not in _text(page, "/access/people")


def test_a_proposal_that_waits_is_announced_on_every_page_of_access(cast, settings):
    settings.AOS_TWO_PERSON = False
    assert "Proposals" not in session(cast.olivia).get("/access/people").content.decode()

    proposals.propose(by=Actor(user=cast.olivia), user=cast.adam, reason="He runs it")

    page = session(cast.olivia).get("/access/people").content.decode()
    assert "Proposals" in page
    assert '1<span class="aos-hidden"> waiting' in page
