"""The button of the identity provider in a real browser, against a provider that speaks real HTTP."""

from __future__ import annotations

import time

import pytest
from django.contrib.auth.hashers import Argon2PasswordHasher
from playwright.sync_api import expect

from apps.identity.models import Binding, User
from apps.identity.types import Role
from tests.browser.conftest import PASSWORD, Visitor
from tests.factories import make_organization, make_project, make_user
from tests.support.looking import faults
from tests.support.oidc_provider import CLIENT_ID, CLIENT_SECRET, Provider
from tests.support.platform import Platform


@pytest.fixture
def provider():
    running = Provider(with_page=True).start()
    running.person |= {"name": "Nina Neu", "groups": ["ops"]}
    yield running
    running.stop()


@pytest.fixture
def acme(_orm_beside_playwright, transactional_db):
    made = make_organization(slug="acme", name="Acme Air")
    make_project(organization=made, name="Flight safety")
    return made


def serve(processes, tmp_path, provider, **settings):
    overrides = {
        "AOS_OIDC_ISSUER": provider.issuer,
        "AOS_OIDC_NAME": "Keycloak",
        "AOS_OIDC_CLIENT_ID": CLIENT_ID,
        "AOS_OIDC_CLIENT_SECRET": CLIENT_SECRET,
        "AOS_OIDC_ORGANIZATION": "acme",
        "AOS_OIDC_CREATE_PEOPLE": "1",
        "AOS_OIDC_ROLES": '{"ops": "operator"}',
    }
    return Platform(tmp_path, overrides=processes.overrides | overrides | settings)


@pytest.fixture
def visiting(processes, tmp_path, provider, acme, chromium):
    running = serve(processes, tmp_path, provider)
    visitor = Visitor(running.web(), chromium)
    yield visitor
    for context in visitor.contexts:
        context.close()
    running.stop()
    assert visitor.complaints == []


def test_a_person_signs_in_at_the_provider_proves_anew_and_signs_out(visiting, provider):
    page = visiting.page()
    page.goto("/runs?state=failed")
    page.get_by_role("link", name="Sign in with Keycloak").click()
    expect(page.get_by_role("heading", name="Provider")).to_be_visible()
    page.get_by_role("link", name="Continue").click()

    expect(page).to_have_url(f"{visiting.url}/runs?state=failed")
    expect(page.get_by_role("button", name="Switch project")).to_contain_text("Flight safety")
    assert Binding.objects.get().role == Role.OPERATOR

    page.goto("/account/verify?next=/account/security")
    page.get_by_role("link", name="Continue with Keycloak").click()
    page.get_by_role("link", name="Continue").click()
    expect(page).to_have_title("Security · AOS")
    expect(page.get_by_text("You have no password here")).to_be_visible()

    page.get_by_role("button", name="Nina Neu").click()
    page.locator("#menu-user").get_by_role("button", name="Sign out").click()
    page.get_by_role("link", name="sign out there too").click()
    expect(page.get_by_role("heading", name="Signed out at the provider")).to_be_visible()
    page.goto("/runs")
    expect(page).to_have_title("Sign in · AOS")


def test_a_lie_of_the_provider_is_a_clear_page_and_no_sign_in(visiting, provider):
    provider.twist = lambda claims: claims | {"exp": int(time.time()) - 3600}
    page = visiting.page()
    page.goto("/login/provider")
    page.get_by_role("link", name="Continue").click()

    expect(page.get_by_role("alert")).to_contain_text("it has expired")
    visiting.forgive("403")
    page.get_by_role("link", name="Back to the sign-in").click()
    expect(page).to_have_title("Sign in · AOS")
    assert not User.objects.exists()


def test_an_account_is_connected_on_the_security_page(visiting, acme):
    hasher = Argon2PasswordHasher()
    make_user(
        role=Role.VIEWER,
        organization=acme,
        username="oscar",
        password=hasher.encode(PASSWORD, hasher.salt()),
    )
    # axe is injected; the policy forbids that, and is tested without it elsewhere.
    page = visiting.page(bypass_csp=True)
    page.goto("/login")
    assert faults(page, "login-with-provider") == []
    page.goto("/login?out")
    assert faults(page, "login-out") == []
    page.get_by_label("Username").fill("oscar")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in", exact=True).click()
    page.goto("/account/security")
    assert faults(page, "security-not-connected") == []
    page.get_by_role("link", name="Connect it").click()
    page.get_by_role("link", name="Continue").click()

    expect(page.get_by_role("button", name="Disconnect it")).to_be_visible()
    page.goto("/account/verify")
    assert faults(page, "verify-with-provider") == []
    page.goto("/login/provider/back")
    expect(page.get_by_role("alert")).to_contain_text("did not ask")
    assert faults(page, "refused") == []
    visiting.forgive("403")


def test_without_passwords_there_is_a_door_for_emergencies(
    processes, tmp_path, provider, acme, chromium
):
    hasher = Argon2PasswordHasher()
    for role in (Role.OWNER, Role.ADMIN):
        make_user(
            role=role,
            organization=acme,
            username=role,
            password=hasher.encode(PASSWORD, hasher.salt()),
        )
    running = serve(processes, tmp_path, provider, AOS_PASSWORD_SIGN_IN="0")
    visitor = Visitor(running.web(), chromium)
    page = visitor.page(bypass_csp=True)
    page.goto("/login")
    expect(page.get_by_label("Password")).to_have_count(0)
    assert faults(page, "login-without-passwords") == []
    page.get_by_role("link", name="An owner, and Keycloak is away?").click()
    page.get_by_label("Username").fill("admin")
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_be_visible()
    assert faults(page, "login-emergency") == []
    page.get_by_label("Username").fill("owner")
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")

    expect(page.get_by_role("button", name="Switch project")).to_be_visible()
    for context in visitor.contexts:
        context.close()
    running.stop()
    assert visitor.complaints == []
