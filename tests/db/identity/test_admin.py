from __future__ import annotations

import re

import pytest
from django.test import Client
from django.urls import reverse

from apps.core import clock
from apps.events.models import AuditEntry
from apps.identity.models import ApiToken, Binding, Department, SecondFactor, User
from tests.faces import api, session
from tests.factories import make_cast, make_project, make_token, make_user

pytestmark = pytest.mark.django_db

PERSON = {
    "username": "nina",
    "email": "nina@example.com",
    "first_name": "Nina",
    "last_name": "New",
    "password": "correct horse battery",
}


@pytest.fixture
def cast():
    return make_cast()


def url(model, page, *args):
    return reverse(f"admin:identity_{model}_{page}", args=args)


def inlines(*prefixes):
    """The management forms that Django's page sends along."""
    return {f"{prefix}-{name}_FORMS": "0" for prefix in prefixes for name in ("TOTAL", "INITIAL")}


def edit(client, user, **fields):
    values = {
        "username": user.username,
        "email": user.email,
        "first_name": user.first_name,
        "last_name": user.last_name,
        "is_active": "on",
    } | fields
    return client.post(
        url("user", "change", user.pk),
        {name: value for name, value in values.items() if value is not None}
        | inlines("bindings", "api_tokens"),
    )


def test_an_admin_adds_a_person_who_can_sign_in_and_do_nothing(cast):
    response = session(cast.adam).post(url("user", "add"), PERSON)

    nina = User.objects.get(username="nina")
    assert response.status_code == 302
    assert nina.organization == cast.organization
    assert nina.check_password(PERSON["password"])
    assert not nina.bindings.exists()
    assert AuditEntry.objects.get(action="user.add").actor_id == cast.adam.pk


@pytest.mark.parametrize("password", ["  spaces at both ends  ", "Ünïcode and CASE", "x1" * 64])
def test_a_password_is_taken_as_it_was_typed_and_may_be_long(cast, password):
    session(cast.adam).post(url("user", "add"), PERSON | {"password": password})
    browser, trimmed = Client(), Client()

    browser.post("/login", {"username": "nina", "password": password})
    trimmed.post("/login", {"username": "nina", "password": password.strip().lower()[:72]})

    assert "aos_own" in browser.session
    assert "aos_own" not in trimmed.session


@pytest.mark.parametrize("password", ["short", "password1234"])
def test_a_weak_password_is_refused_on_the_form(cast, password):
    response = session(cast.adam).post(url("user", "add"), PERSON | {"password": password})

    assert response.status_code == 200
    assert not User.objects.filter(username="nina").exists()


def test_a_taken_name_is_refused_on_the_form(cast):
    taken = PERSON | {"username": cast.vera.username}

    response = session(cast.adam).post(url("user", "add"), taken)

    assert response.status_code == 200
    assert "already exists" in response.content.decode()


def test_a_changed_person_is_on_record_with_the_fields(cast):
    response = edit(session(cast.adam), cast.vera, first_name="Vera", is_active=None)

    cast.vera.refresh_from_db()
    assert response.status_code == 302
    assert (cast.vera.first_name, cast.vera.is_active) == ("Vera", False)
    entry = AuditEntry.objects.get(action="user.change")
    assert (entry.actor_id, entry.resource_id) == (cast.adam.pk, str(cast.vera.pk))
    assert set(entry.detail["changes"]) == {"first_name"}
    assert AuditEntry.objects.get(action="user.deactivate").resource_id == str(cast.vera.pk)


def test_an_admin_cannot_touch_an_owner(cast):
    response = edit(session(cast.adam), cast.olivia, is_active=None)

    cast.olivia.refresh_from_db()
    assert response.status_code == 403
    assert cast.olivia.is_active


def test_nobody_disables_themselves(cast):
    response = edit(session(cast.olivia), cast.olivia, is_active=None)

    cast.olivia.refresh_from_db()
    assert response.status_code == 200
    assert "You cannot disable yourself." in response.content.decode()
    assert cast.olivia.is_active


def test_flags_that_mean_nothing_cannot_be_set(cast):
    edit(session(cast.olivia), cast.vera, is_superuser="on", is_staff="on")

    cast.vera.refresh_from_db()
    assert not cast.vera.is_superuser
    assert not cast.vera.is_staff


def test_a_person_joins_departments_of_their_own_organization_only(cast):
    ours = Department.objects.create(organization=cast.organization, name="Crew")
    theirs = Department.objects.create(organization=cast.sam.organization, name="Pirates")
    client = session(cast.adam)

    joined = edit(client, cast.vera, departments=[ours.pk])
    refused = edit(client, cast.vera, departments=[theirs.pk])

    assert joined.status_code == 302
    assert refused.status_code == 200
    assert list(cast.vera.departments.all()) == [ours]
    assert "Pirates" not in client.get(url("user", "change", cast.vera.pk)).content.decode()


def test_nobody_joins_a_department_that_stands_above_them(cast):
    crew = Department.objects.create(organization=cast.organization, name="Crew")
    bind(session(cast.olivia), department=crew.pk, role="owner")

    response = edit(session(cast.adam), cast.adam, departments=[crew.pk])

    assert response.status_code == 200
    assert "holds a role above yours" in response.content.decode()
    assert not cast.adam.departments.exists()


def test_a_second_factor_is_reset_after_a_page_that_asks(cast):
    SecondFactor.objects.create(user=cast.vera, sealed_secret=b"x", confirmed_at=clock.now())
    client = session(cast.adam)
    page = reverse("admin:identity_user_reset_second_factor", args=[cast.vera.pk])

    asked = client.get(page)
    assert "Reset the second factor" in asked.content.decode()
    assert SecondFactor.objects.exists()

    client.post(page)
    assert not SecondFactor.objects.exists()
    entry = AuditEntry.objects.get(action="second_factor.reset")
    assert (entry.actor_id, entry.resource_id) == (cast.adam.pk, str(cast.vera.pk))


def bind(client, **fields):
    blank = {"user": "", "department": "", "project": "", "reason": ""}
    when = {"expires_at_0": "", "expires_at_1": ""}
    return client.post(url("binding", "add"), blank | when | fields)


def test_an_admin_binds_a_role_to_a_person_over_a_project(cast):
    project = make_project(organization=cast.organization)
    nina = make_user(organization=cast.organization)

    response = bind(session(cast.adam), user=nina.pk, role="operator", project=project.pk)

    binding = Binding.objects.get(user=nina)
    assert response.status_code == 302
    assert (binding.role, binding.scope, binding.scope_id) == ("operator", "project", project.pk)
    assert AuditEntry.objects.get(action="binding.grant").actor_id == cast.adam.pk


def test_a_department_is_bound_too(cast):
    crew = Department.objects.create(organization=cast.organization, name="Crew")

    response = bind(session(cast.adam), department=crew.pk, role="viewer")

    binding = Binding.objects.get(department=crew)
    assert response.status_code == 302
    assert binding.scope_id == cast.organization.pk
    assert AuditEntry.objects.get(action="binding.grant").actor_id == cast.adam.pk


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"role": "owner"}, "You cannot grant a role above your own."),
        ({"role": "king"}, "Select a valid choice"),
        ({"user": ""}, "Choose either a person or a department."),
    ],
)
def test_a_binding_that_makes_no_sense_is_refused(cast, fields, told):
    nina = make_user(organization=cast.organization)

    response = bind(session(cast.adam), **({"user": nina.pk, "role": "viewer"} | fields))

    assert response.status_code == 200
    assert told in response.content.decode()
    assert not Binding.objects.filter(user=nina).exists()


def test_nobody_binds_strangers_or_their_projects(cast):
    theirs = make_project(organization=cast.sam.organization)
    client = session(cast.olivia)

    person = bind(client, user=cast.sam.pk, role="viewer")
    project = bind(client, user=cast.vera.pk, role="viewer", project=theirs.pk)

    assert person.status_code == project.status_code == 200
    assert not Binding.objects.filter(scope_id=theirs.pk).exists()
    assert Binding.objects.get(user=cast.sam).role == "owner"


def test_an_admin_cannot_lower_an_owner(cast):
    response = bind(session(cast.adam), user=cast.olivia.pk, role="viewer")

    assert response.status_code == 200
    assert "holds a role above yours" in response.content.decode()
    assert Binding.objects.get(user=cast.olivia).role == "owner"


def test_an_admin_cannot_remove_an_owners_role(cast):
    binding = Binding.objects.get(user=cast.olivia)

    response = session(cast.adam).post(url("binding", "delete", binding.pk), {"post": "yes"})

    assert response.status_code == 403
    assert Binding.objects.filter(pk=binding.pk).exists()


def test_an_organization_keeps_an_owner(cast):
    client = session(cast.olivia)
    binding = Binding.objects.get(user=cast.olivia)

    removed = client.post(url("binding", "delete", binding.pk), {"post": "yes"}, follow=True)
    lowered = bind(client, user=cast.olivia.pk, role="viewer")

    assert "would lose its last owner" in removed.content.decode()
    assert lowered.status_code == 200
    assert Binding.objects.get(user=cast.olivia).role == "owner"


def test_a_removed_role_is_on_record_and_holds_no_longer(cast):
    binding = Binding.objects.get(user=cast.oscar)
    client = api(cast.oscar)

    session(cast.adam).post(url("binding", "delete", binding.pk), {"post": "yes"})

    assert client.get("/api/runs").status_code == 403
    assert AuditEntry.objects.get(action="binding.revoke").actor_id == cast.adam.pk


def test_a_token_is_issued_for_oneself_and_shown_once(cast):
    client = session(cast.adam)

    response = client.post(
        url("apitoken", "add"), {"name": "ci", "scopes": ["run:read"], "lifetime_days": 30}
    )

    page = response.content.decode()
    value = re.search(r"aos_pat_[A-Za-z0-9]+_[A-Za-z0-9]+_[a-z0-9]+", page).group()
    assert "no-store" in response["Cache-Control"]
    assert ApiToken.objects.get().user == cast.adam
    holder = api()
    holder.credentials(HTTP_AUTHORIZATION=f"Bearer {value}")
    assert holder.get("/api/runs").status_code == 200
    token_page = client.get(url("apitoken", "change", ApiToken.objects.get().pk))
    assert value not in token_page.content.decode()
    assert value not in str(client.session.items())


def test_chosen_tokens_are_revoked_but_none_of_somebody_above(cast):
    make_token(cast.oscar)
    make_token(cast.olivia)
    oscars, olivias = ApiToken.objects.get(user=cast.oscar), ApiToken.objects.get(user=cast.olivia)
    client = session(cast.adam)

    for token in (oscars, olivias):
        client.post(
            url("apitoken", "changelist"), {"action": "revoke", "_selected_action": [token.pk]}
        )

    oscars.refresh_from_db()
    olivias.refresh_from_db()
    assert oscars.revoked_at is not None
    assert olivias.revoked_at is None
    assert AuditEntry.objects.get(action="token.revoke").actor_id == cast.adam.pk


def test_the_organization_is_renamed_and_never_removed(cast):
    client = session(cast.adam)
    organization = cast.organization

    renamed = client.post(url("organization", "change", organization.pk), {"name": "New name"})
    removed = client.post(url("organization", "delete", organization.pk), {"post": "yes"})

    organization.refresh_from_db()
    assert renamed.status_code == 302
    assert organization.name == "New name"
    assert removed.status_code == 403
    changed = AuditEntry.objects.get(action="organization.change").detail["changes"]
    assert {name: new for name, (_, new) in changed.items()} == {"name": "New name"}


def test_a_department_is_made_in_ones_own_organization(cast):
    session(cast.adam).post(url("department", "add"), {"name": "Crew"})

    department = Department.objects.get()
    assert department.organization == cast.organization
    assert AuditEntry.objects.get(action="department.create").actor_id == cast.adam.pk


def test_a_department_of_the_same_name_is_refused_kindly(cast):
    client = session(cast.adam)

    for _ in range(2):
        response = client.post(url("department", "add"), {"name": "Crew"})

    assert response.status_code == 200
    assert Department.objects.count() == 1
