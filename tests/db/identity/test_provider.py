"""Signing in at an OpenID provider: who gets in, who does not, and every lie a provider could tell."""

from __future__ import annotations

import hashlib
import hmac
import time
from datetime import timedelta
from functools import partial
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from django.contrib.auth.hashers import make_password
from django.test import Client

from apps.core import clock
from apps.events.models import AuditEntry
from apps.identity import denials, oidc, proof
from apps.identity.models import Binding, ProviderAccount, SignIn, User
from apps.identity.services import bindings
from apps.identity.types import Role
from tests.factories import make_actor, make_organization, make_project, make_user, unwatched
from tests.support.oidc_provider import (
    CLIENT_ID,
    CLIENT_SECRET,
    EC,
    OTHER,
    RSA,
    Key,
    Provider,
    sign,
    unsigned,
)
from tests.support.threads import at_once

pytestmark = pytest.mark.django_db

HOME = "http://testserver"
PASSWORD = "correct horse battery"  # noqa: S105


@pytest.fixture
def provider(settings):
    running = Provider().start()
    settings.AOS_PUBLIC_URL = HOME
    settings.AOS_OIDC_ISSUER = running.issuer
    settings.AOS_OIDC_NAME = "Keycloak"
    settings.AOS_OIDC_CLIENT_ID = CLIENT_ID
    settings.AOS_OIDC_CLIENT_SECRET = CLIENT_SECRET
    settings.AOS_OIDC_ORGANIZATION = "acme"
    settings.AOS_OIDC_CREATE_PEOPLE = True
    oidc.forget()
    denials.forget()
    yield running
    running.stop()


@pytest.fixture(autouse=True)
def acme():
    return make_organization(slug="acme", name="Acme")


def leave(browser, query=""):
    """Out to the provider; where it sends the browser back to."""
    out = browser.get(f"/login/provider{query}")
    assert out.status_code == 302, out.content
    # Plain HTTP on this machine; certificates would only be read for nothing.
    answer = httpx.get(out["Location"], follow_redirects=False, verify=False)  # noqa: S501
    assert answer.status_code == 302, answer.text
    return answer.headers["Location"].removeprefix(HOME)


def go(browser=None, query=""):
    """The whole way, out and back."""
    browser = browser or Client()
    return browser, browser.get(leave(browser, query))


def signed_in(browser):
    return browser.get("/account/security").status_code == 200


def what_there_is():
    models = (User, Binding, ProviderAccount, SignIn)
    return [list(model.objects.order_by("pk").values()) for model in models]


def actions():
    return list(AuditEntry.objects.order_by("id").values_list("action", flat=True))


# --- who gets in ---------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [RSA, EC], ids=["RS256", "ES256"])
def test_somebody_new_gets_an_account_a_session_and_its_records(provider, key):
    provider.keys, provider.signer = [RSA, EC], key
    provider.person |= {"name": "Nina Neu", "email": "n@acme.test", "email_verified": True}

    browser, answer = go(query="?next=/runs%3Fstate=failed")

    assert answer["Location"] == "/runs?state=failed"
    user = User.objects.get(username="nina")
    assert (user.get_full_name(), user.email) == ("Nina Neu", "n@acme.test")
    assert user.organization.slug == "acme"
    assert not user.has_usable_password()
    assert ProviderAccount.objects.get().subject == "sub-1"
    assert SignIn.objects.get().user == user
    assert actions() == ["user.add", "provider.connect", "session.begin"]
    assert AuditEntry.objects.get(action="session.begin").detail["how"] == "Keycloak"
    assert not Binding.objects.filter(user=user).exists()
    assert browser.get("/account/security").status_code == 200


def test_the_next_sign_in_finds_the_same_person_whatever_they_are_called_now(provider):
    go()
    provider.person |= {"preferred_username": "nina.married"}

    browser, _ = go()

    assert signed_in(browser)
    assert User.objects.get(provider_accounts__subject="sub-1").username == "nina"
    assert ProviderAccount.objects.count() == 1


def test_the_request_asks_for_a_code_with_pkce_state_and_nonce(provider):
    browser = Client()
    out = browser.get("/login/provider")["Location"]
    asked = {name: values[0] for name, values in parse_qs(urlsplit(out).query).items()}

    assert asked["response_type"] == "code"
    assert asked["code_challenge_method"] == "S256"
    assert asked["redirect_uri"] == f"{HOME}/login/provider/back"
    assert min(len(asked["state"]), len(asked["nonce"]), len(asked["code_challenge"])) >= 43
    assert CLIENT_SECRET not in out
    other = Client().get("/login/provider")["Location"]
    assert asked["state"] not in other
    assert asked["nonce"] not in other


@pytest.mark.parametrize("ways", [["client_secret_post"], ["client_secret_basic"]])
def test_the_client_proves_itself_as_the_provider_likes_it(provider, ways):
    provider.metadata["token_endpoint_auth_methods_supported"] = ways

    assert signed_in(go()[0])


def test_a_session_before_the_sign_in_is_worth_nothing_after_it(provider):
    browser = Client()
    back = leave(browser)
    before = browser.session.session_key

    browser.get(back)

    assert browser.session.session_key != before


def test_without_an_issuer_the_pages_do_not_exist(settings):
    settings.AOS_OIDC_ISSUER = ""
    for path in ("", "/back", "/end"):
        assert Client().get(f"/login/provider{path}").status_code == 404
    assert b"Sign in with" not in Client().get("/login").content


def test_keys_are_kept_and_a_new_one_is_fetched_when_it_is_first_used(provider):
    go()
    go()
    assert provider.asked.count("/keys") == 1
    renewed = Key("rsa-2", "RS256")
    provider.keys, provider.signer = [renewed], renewed

    browser, _ = go()

    assert signed_in(browser)
    assert provider.asked.count("/keys") == 2


def test_claims_that_the_token_leaves_out_are_asked_for(provider, settings):
    settings.AOS_OIDC_ROLES = {"ops": "operator"}
    provider.person.pop("preferred_username")
    provider.userinfo = {"preferred_username": "nina", "groups": ["ops"]}

    go()

    assert Binding.objects.get(user__username="nina").role == Role.OPERATOR


@pytest.mark.parametrize("verified", [False, None, "true", 1])
def test_an_address_that_is_not_verified_is_not_kept(provider, verified):
    provider.person |= {"email": "boss@acme.test", "email_verified": verified}

    go()

    assert User.objects.get(username="nina").email == ""


# --- who does not --------------------------------------------------------------------------------


def refused(browser, answer, *, status=403, before=None):
    assert answer.status_code == status, answer.content
    assert not signed_in(browser)
    if before is not None:
        assert what_there_is() == before
    return answer.content.decode()


@pytest.mark.parametrize(
    "mine",
    [{"username": "nina"}, {"username": "NINA"}, {"username": "x", "email": "N@acme.test"}],
)
def test_an_account_that_is_here_already_is_never_taken_over(provider, acme, mine):
    provider.person |= {"email": "n@acme.test", "email_verified": True}
    make_user(role=Role.OWNER, organization=acme, **mine)
    before = what_there_is()

    text = refused(*go(), before=before)

    assert "connect the two under Security" in text
    assert "access.denied" in actions()


def test_strangers_stay_out_when_nobody_is_to_be_created(provider, settings):
    settings.AOS_OIDC_CREATE_PEOPLE = False

    assert "Nobody knows you here yet" in refused(*go(), before=what_there_is())
    assert actions() == ["access.denied"]


def test_the_disabled_stay_out(provider):
    go()
    with unwatched():
        User.objects.update(is_active=False)

    assert "disabled" in refused(*go())
    assert actions()[-1] == "access.denied"


@pytest.mark.parametrize("name", ["", "two words", "<script>", "x" * 200, None, 7, ["nina"]])
def test_a_name_that_cannot_be_used_makes_nobody(provider, name):
    provider.person["preferred_username"] = name

    text = refused(*go(), before=what_there_is())
    assert "<script>" not in text


def test_an_organization_that_does_not_exist_lets_nobody_in(provider, settings):
    settings.AOS_OIDC_ORGANIZATION = "nowhere"

    assert "Tell your administrator" in refused(*go(), before=what_there_is())


def test_people_of_another_organization_stay_out(provider):
    go()
    other = make_organization()
    with unwatched():
        User.objects.update(organization=other)

    refused(*go())


# --- lies ----------------------------------------------------------------------------------------


def but(**claims):
    """The claims with these instead; those that are None are missing."""

    def twist(given):
        return {name: value for name, value in (given | claims).items() if value is not None}

    return twist


def hs256(claims, *, secret):
    """What a client takes that believes the header: our own public knowledge as the key."""
    header = {"alg": "HS256", "kid": RSA.kid, "typ": "JWT"}
    signed = unsigned(claims, header).rstrip(".")
    return (
        signed
        + "."
        + unsigned({}, {}, hmac.digest(secret, signed.encode(), hashlib.sha256)).split(".")[2]
    )


NOW = int(time.time())
LIES = {
    "another audience": but(aud="somebody-else"),
    "no audience": but(aud=None),
    "several audiences, not for us": but(aud=[CLIENT_ID, "other"], azp="other"),
    "several audiences, for nobody": but(aud=[CLIENT_ID, "other"]),
    "authorized for another": but(azp="other"),
    "another issuer": but(iss="https://evil.example.org"),
    "our issuer with a slash": lambda given: given | {"iss": given["iss"] + "/"},
    "expired": but(exp=NOW - 3600),
    "no end": but(exp=None),
    "an end that is no number": but(exp="never"),
    "from the future": but(iat=NOW + 36000),
    "not yet": but(nbf=NOW + 36000),
    "another nonce": but(nonce="wrong"),
    "no nonce": but(nonce=None),
    "a nonce that is no text": but(nonce=["x"]),
    "nobody": but(sub=None),
    "an empty name": but(sub=""),
    "a name that is too long": but(sub="x" * 256),
}
FORGERIES = {
    "unsigned": lambda claims: unsigned(claims, {"alg": "none"}),
    "unsigned, spelled otherwise": lambda claims: unsigned(claims, {"alg": "None", "kid": RSA.kid}),
    "no algorithm": lambda claims: unsigned(claims, {"typ": "JWT"}),
    "a list of algorithms": lambda claims: unsigned(claims, {"alg": ["RS256"]}),
    "HS256 with the public key": lambda claims: hs256(claims, secret=RSA.public_pem),
    "HS256 with our secret": lambda claims: hs256(claims, secret=CLIENT_SECRET.encode()),
    "HS256 with nothing": lambda claims: hs256(claims, secret=b""),
    "another key of the same name": lambda claims: sign(claims, OTHER),
    "a key nobody published": lambda claims: sign(claims, Key("rsa-9", "RS256")),
    "the right key, another kind": lambda claims: unsigned(
        claims, {"alg": "ES256", "kid": RSA.kid}, b"x" * 64
    ),
    "a key of its own in the header": lambda claims: __import__("jwt").encode(
        claims, OTHER.private, algorithm="RS256", headers={"kid": "own", "jwk": OTHER.public}
    ),
    "changed after signing": lambda claims: _changed(sign(claims, RSA)),
    "cut short": lambda claims: sign(claims, RSA)[:-20],
    "not a token": lambda _: "hello",
    "empty": lambda _: "",
    "five parts": lambda _: "a.b.c.d.e",
}


def _changed(token):
    head, _, signature = token.split(".")
    body = unsigned({"sub": "admin"}, {}).split(".")[1]
    return f"{head}.{body}.{signature}"


@pytest.mark.parametrize("twist", LIES.values(), ids=LIES)
def test_a_token_that_lies_is_refused_and_nothing_changes(provider, twist):
    provider.twist = twist

    text = refused(*go(), before=what_there_is())

    assert "could not be trusted" in text
    assert "Back to the sign-in" in text


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES)
def test_a_token_that_is_forged_is_refused_and_nothing_changes(provider, forge):
    provider.forge = forge

    assert "could not be trusted" in refused(*go(), before=what_there_is())


def test_the_honest_token_with_all_that_is_taken(provider):
    """The lies above are refused for what they change, not for how they are made."""
    provider.twist = but(aud=[CLIENT_ID, "other"], azp=CLIENT_ID, nbf=NOW - 10, extra="x")

    assert signed_in(go()[0])


def test_userinfo_of_somebody_else_is_refused(provider):
    provider.person.pop("preferred_username")
    provider.userinfo = {"sub": "sub-2", "preferred_username": "boss"}

    assert "somebody else" in refused(*go(), before=what_there_is())


def test_a_state_that_is_not_ours_is_refused(provider):
    browser, victim = Client(), Client()
    theirs = leave(browser)
    leave(victim)

    # The attacker's answer in the victim's browser would sign the victim in as the attacker.
    assert "another question" in refused(victim, victim.get(theirs), before=what_there_is())


def test_an_answer_nobody_asked_for_is_refused(provider):
    stranger = Client()

    answer = stranger.get(leave(Client()))

    assert "did not ask" in refused(stranger, answer, before=what_there_is())


@pytest.mark.parametrize("change", ["state=", "state=%C3%A4", "x=1"])
def test_an_answer_without_its_state_is_refused(provider, change):
    browser = Client()
    leave(browser)

    refused(browser, browser.get(f"/login/provider/back?code=x&{change}"), before=what_there_is())


def test_a_code_is_taken_once(provider):
    browser = Client()
    back = leave(browser)
    assert browser.get(back).status_code == 302
    browser.post("/logout")

    # Ours: the question is forgotten. The provider's: the code is used up.
    assert "did not ask" in refused(browser, browser.get(back))
    again = leave(browser)
    used = parse_qs(urlsplit(back).query)["code"][0]
    state = parse_qs(urlsplit(again).query)["state"][0]
    answer = browser.get(f"/login/provider/back?code={used}&state={state}")
    assert "did not accept" in refused(browser, answer)


def test_a_code_without_the_verifier_that_began_is_worth_nothing(provider):
    browser, thief = Client(), Client()
    stolen = parse_qs(urlsplit(leave(browser)).query)["code"][0]
    state = parse_qs(urlsplit(leave(thief)).query)["state"][0]

    answer = thief.get(f"/login/provider/back?code={stolen}&state={state}")

    assert "did not accept" in refused(thief, answer, before=what_there_is())


def test_an_answer_that_names_another_issuer_is_refused(provider):
    browser = Client()
    back = leave(browser).replace("iss=", "iss=https%3A%2F%2Fevil.example.org%2F")

    assert "another provider" in refused(browser, browser.get(back))


def test_who_comes_back_too_late_begins_again(provider, monkeypatch):
    browser = Client()
    back = leave(browser)
    later = clock.now() + timedelta(minutes=11)
    monkeypatch.setattr(clock, "now", lambda: later)

    assert "took too long" in refused(browser, browser.get(back))


@pytest.mark.parametrize(
    ("error", "said"),
    [("access_denied", "said no"), ("server_error", "(server_error)"), ("<script>x", "through.")],
)
def test_a_refusal_of_the_provider_is_told_and_nothing_of_it_is_trusted(provider, error, said):
    browser = Client()
    state = parse_qs(urlsplit(leave(browser)).query)["state"][0]

    answer = browser.get("/login/provider/back", {"error": error, "state": state})

    assert said in refused(browser, answer)
    assert "<script>x" not in answer.content.decode()


@pytest.mark.parametrize(
    "to", ["https://evil.example.org/", "//evil.example.org", "/\\evil.example.org", "javascript:x"]
)
def test_nobody_is_led_elsewhere_afterwards(provider, to):
    _, answer = go(query=f"?next={to}")

    assert answer["Location"] == "/"


# --- a provider that is not well -----------------------------------------------------------------


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://evil.example.org"},
        {"authorization_endpoint": None},
        {"authorization_endpoint": "http://plain.example.org/authorize"},
        {"token_endpoint": "ftp://x", "authorization_endpoint": "javascript:alert(1)"},
    ],
)
def test_a_provider_with_odd_addresses_is_not_used(provider, metadata):
    provider.metadata = metadata
    browser = Client()

    answer = browser.get("/login/provider")

    assert answer.status_code == 502
    assert not signed_in(browser)


@pytest.mark.parametrize("status", [500, 404, 302])
def test_a_provider_that_does_not_answer_is_said_to_and_asked_again_later(provider, status):
    provider.fails = status
    answer = Client().get("/login/provider")
    assert answer.status_code == 502
    assert "identity provider" in answer.content.decode()
    provider.fails = 0

    assert signed_in(go()[0])


def test_a_provider_that_is_gone_keeps_nobody_from_a_password(provider, acme):
    provider.stop()
    oidc.forget()
    user = make_user(organization=acme, password=make_password(PASSWORD))

    assert Client().get("/login/provider").status_code == 502
    browser = Client()
    browser.post("/login", {"username": user.username, "password": PASSWORD})

    assert signed_in(browser)
    provider.start()


def test_neither_codes_nor_secrets_are_logged(provider, caplog):
    caplog.set_level("DEBUG")
    browser = Client()
    back = leave(browser)
    browser.get(back)
    provider.forge = lambda _: "hello"
    go()

    code = parse_qs(urlsplit(back).query)["code"][0]
    for secret in (code, CLIENT_SECRET, "open"):
        assert f" {secret}" not in caplog.text.replace('"', " ")


# --- groups --------------------------------------------------------------------------------------


def roles(user="nina"):
    return {
        (held.role, held.scope, held.group) for held in Binding.objects.filter(user__username=user)
    }


def test_groups_give_roles_and_take_them_at_the_next_sign_in(provider, settings, acme):
    safety = make_project(organization=acme, slug="safety")
    settings.AOS_OIDC_ROLES = {
        "viewers": "viewer",
        "admins": "admin",
        "safety": "operator@safety",
        "lost": "viewer@no-such-project",
    }
    provider.person["groups"] = ["viewers", "admins", "safety", "lost", "unknown", 7, None]
    go()
    assert roles() == {("admin", "organization", "admins"), ("operator", "project", "safety")}
    assert Binding.objects.get(scope="project").scope_id == safety.pk

    provider.person["groups"] = ["viewers"]
    go()

    assert roles() == {("viewer", "organization", "viewers")}
    assert actions().count("binding.revoke") == 1
    revoked = AuditEntry.objects.get(action="binding.revoke")
    assert (revoked.actor_kind, revoked.detail["group"]) == ("platform", "safety")

    provider.person.pop("groups")
    browser, _ = go()
    assert roles() == set()
    assert signed_in(browser)


def test_what_people_granted_is_left_alone(provider, settings, acme):
    settings.AOS_OIDC_ROLES = {"admins": "admin"}
    go()
    by = make_actor(Role.OWNER, organization=acme)
    bindings.grant(by=by, subject=User.objects.get(username="nina"), role=Role.VIEWER)
    provider.person["groups"] = ["admins"]

    go()
    assert roles() == {("viewer", "organization", "")}
    provider.person["groups"] = []
    go()

    assert roles() == {("viewer", "organization", "")}


def test_a_role_from_a_group_that_somebody_changes_by_hand_is_theirs_from_then_on(
    provider, settings, acme
):
    settings.AOS_OIDC_ROLES = {"ops": "operator"}
    provider.person["groups"] = ["ops"]
    go()
    by = make_actor(Role.OWNER, organization=acme)
    bindings.grant(by=by, subject=User.objects.get(username="nina"), role=Role.ADMIN)
    provider.person["groups"] = []

    go()

    assert roles() == {("admin", "organization", "")}


def test_the_same_groups_change_and_record_nothing(provider, settings):
    settings.AOS_OIDC_ROLES = {"ops": "operator"}
    provider.person["groups"] = "ops"
    go()
    before = actions()

    go()

    assert actions()[len(before) :] == ["session.begin"]


# --- a fresh proof -------------------------------------------------------------------------------


def test_a_proof_is_as_old_as_the_provider_says(provider, settings):
    for age, stale in ((0, False), (3600, True), (-3600, False), (None, True)):
        provider.auth_time = lambda _, age=age: None if age is None else int(time.time()) - age
        browser, _ = go()
        assert proof.is_stale(browser.session) is stale, age


def test_stepping_up_goes_to_the_provider_and_asks_anew(provider):
    provider.auth_time = lambda asked: (
        int(time.time()) - (0 if asked.get("prompt") == "login" else 3600)
    )
    browser, _ = go()
    assert proof.is_stale(browser.session)
    page = browser.get("/account/verify?next=/account/security").content.decode()
    assert "Continue with Keycloak" in page
    assert 'type="password"' not in page

    _, answer = go(browser, "?to=verify&next=/account/security")

    assert answer["Location"] == "/account/security"
    assert not proof.is_stale(browser.session)


@pytest.mark.parametrize("age", [3600, None])
def test_a_provider_that_does_not_ask_anew_proves_nothing(provider, age):
    provider.auth_time = lambda _: None if age is None else int(time.time()) - age
    browser, _ = go()

    _, answer = go(browser, "?to=verify")

    assert answer.status_code == 403
    assert "did not ask you anew" in answer.content.decode()
    assert proof.is_stale(browser.session)


def test_somebody_elses_proof_is_none(provider):
    provider.auth_time = lambda _: int(time.time()) - 3600
    browser, _ = go()
    provider.person = {"sub": "sub-2", "preferred_username": "mallory"}
    provider.auth_time = lambda _: int(time.time())

    _, answer = go(browser, "?to=verify")

    assert "not who you are" in answer.content.decode()
    assert proof.is_stale(browser.session)


# --- joining an account --------------------------------------------------------------------------


def with_password(acme, role=Role.VIEWER, **fields):
    user = make_user(
        role=role,
        organization=acme,
        **({"username": "nina", "password": make_password(PASSWORD)} | fields),
    )
    browser = Client()
    browser.post("/login?emergency", {"username": user.username, "password": PASSWORD})
    return user, browser


def test_an_account_is_connected_by_who_is_signed_in_to_it_and_used_from_then_on(provider, acme):
    user, browser = with_password(acme)

    _, answer = go(browser, "?to=connect")
    assert answer["Location"] == "/account/security"
    assert "Disconnect it" in browser.get("/account/security").content.decode()
    other, _ = go()

    assert SignIn.objects.filter(user=user).count() == 2
    assert User.objects.filter(provider_accounts__isnull=False).get() == user
    assert "provider.connect" in actions()
    assert signed_in(other)


def test_connecting_needs_a_fresh_proof(provider, acme, monkeypatch):
    _, browser = with_password(acme)
    later = clock.now() + timedelta(hours=1)
    monkeypatch.setattr(clock, "now", lambda: later)

    answer = browser.get("/login/provider?to=connect")

    assert answer["Location"].startswith("/account/verify?next=")
    assert not ProviderAccount.objects.exists()


def test_an_account_there_belongs_to_one_person_here(provider, acme):
    go()
    _, browser = with_password(acme, username="mallory")

    _, answer = go(browser, "?to=connect")

    assert answer.status_code == 409
    assert ProviderAccount.objects.get().user.username == "nina"


def test_who_is_signed_in_may_not_change_on_the_way(provider, acme):
    _, browser = with_password(acme)
    back = leave(browser, "?to=connect")
    browser.post("/logout")
    mallory = make_user(organization=acme, username="mallory", password=make_password(PASSWORD))
    browser.post("/login", {"username": mallory.username, "password": PASSWORD})

    answer = browser.get(back)

    assert answer.status_code == 403
    assert not ProviderAccount.objects.exists()


def test_disconnecting_takes_the_roles_of_groups_and_needs_a_password(provider, acme, settings):
    settings.AOS_OIDC_ROLES = {"ops": "operator@safety"}
    make_project(organization=acme, slug="safety")
    provider.person["groups"] = ["ops"]
    _, browser = with_password(acme)
    go(browser, "?to=connect")
    go()
    assert ("operator", "project", "ops") in roles()

    browser.post("/account/provider/off")

    assert roles() == {("viewer", "organization", "")}
    assert not ProviderAccount.objects.exists()
    provider.person = {"sub": "sub-2", "preferred_username": "other"}
    without, _ = go()
    without.post("/account/provider/off")
    assert ProviderAccount.objects.exists()


# --- leaving, and passwords ----------------------------------------------------------------------


def test_signing_out_ends_our_session_and_shows_where_the_other_one_ends(provider):
    browser, _ = go()

    out = browser.post("/logout")

    assert out["Location"] == "/login?out"
    assert "sign out there too" in browser.get(out["Location"]).content.decode()
    assert browser.get("/login/provider/end")["Location"] == f"{provider.issuer}/end"
    assert not signed_in(browser)
    assert actions()[-1] == "session.end"


def test_without_passwords_only_owners_get_in_with_one_and_it_is_on_record(
    provider, acme, settings
):
    settings.AOS_PASSWORD_SIGN_IN = False
    page = Client().get("/login").content.decode()
    assert 'type="password"' not in page
    assert "Sign in with Keycloak" in page
    assert 'type="password"' in Client().get("/login?emergency").content.decode()

    _, admin = with_password(acme, Role.ADMIN, username="adam")
    _, owner = with_password(acme, Role.OWNER, username="olivia")

    assert not signed_in(admin)
    assert signed_in(owner)
    denied = AuditEntry.objects.get(action="access.denied")
    assert denied.detail["reason"] == "passwords are not taken"
    begun = AuditEntry.objects.get(action="session.begin")
    assert (begun.actor_name, begun.detail["how"]) == ("olivia", "password, in an emergency")


# --- at the same time ----------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_two_first_sign_ins_at_once_make_one_person(provider):
    browsers = [Client() for _ in range(4)]
    backs = [leave(browser) for browser in browsers]

    answers = at_once(
        [partial(browser.get, back) for browser, back in zip(browsers, backs, strict=True)]
    )

    assert [answer.status_code for answer in answers] == [302] * 4
    assert User.objects.filter(username="nina").count() == 1
    assert ProviderAccount.objects.count() == 1
    assert SignIn.objects.count() == 4


# --- sabotage ------------------------------------------------------------------------------------


def test_a_client_that_believes_the_tokens_header_would_let_forgers_in(provider, monkeypatch):
    """The tests above can fail: without the list of algorithms and the check, "none" gets in."""
    import jwt

    provider.forge = FORGERIES["unsigned"]
    monkeypatch.setattr(
        oidc, "_verified", lambda token: jwt.decode(token, options={"verify_signature": False})
    )

    assert signed_in(go()[0])


def test_a_client_that_joins_by_address_would_give_accounts_away(provider, acme, monkeypatch):
    from apps.identity.services import provider as service

    boss = make_user(role=Role.OWNER, organization=acme, email="boss@acme.test")
    provider.person |= {"email": "boss@acme.test", "email_verified": True}

    def by_address(identity, _organization):
        return User.objects.get(email=identity.email)

    monkeypatch.setattr(service, "_newcomer", by_address)
    browser, _ = go()

    assert SignIn.objects.get().user == boss
    assert signed_in(browser)
