"""Signing in and out, and what a person keeps safe: browsers, password, second factor, tokens."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode
from uuid import UUID

import segno
from django.conf import settings
from django.contrib import auth, messages
from django.contrib.auth import signals
from django.contrib.auth import views as auth_views
from django.contrib.auth.forms import AuthenticationForm
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from apps.core import client, clock, tenancy
from apps.core.errors import AosError, Invalid
from apps.hub import devices, frame
from apps.hub.visiting import HubRequest, person, signed_in
from apps.identity import lifetime, oidc, proof
from apps.identity.actor import Actor
from apps.identity.matrix import SCOPE_WORDS, STEP_UP_SCOPES
from apps.identity.models import ApiToken, SignIn, User
from apps.identity.rest import page_actor
from apps.identity.services import passwords, provider, second_factor, sessions, tokens

_BACKEND: Final = "apps.identity.authentication.PasswordBackend"
# Whose password was right, while the code is still awaited: user id, when, wrong codes so far.
_HALF: Final = "aos_half"
_HALF_LASTS: Final = timedelta(minutes=5)
_CODE_TRIES: Final = 5
# Whose first password was right, while one of their own is awaited: user id, when, how they came.
_OWN: Final = "aos_own"
_OWN_LASTS: Final = timedelta(minutes=15)
# In the session of somebody who came from the identity provider.
LEFT_BY_PROVIDER: Final = "aos_from_provider"
_LIFETIMES: Final = (7, 30, 90, 365)


# --- the door ------------------------------------------------------------------------------------


class Login(auth_views.LoginView):
    template_name = "hub/login.html"
    redirect_authenticated_user = True

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        told = {
            "version": settings.VERSION,
            "environment": settings.AOS_ENVIRONMENT,
            "provider": settings.AOS_OIDC_NAME if oidc.is_on() else "",
            "signed_out": "out" in self.request.GET,
            # Without passwords the form is a door for emergencies, and does not stand open.
            "with_form": settings.AOS_PASSWORD_SIGN_IN or "emergency" in self.request.GET,
            "passwords": settings.AOS_PASSWORD_SIGN_IN,
        }
        return super().get_context_data(**kwargs) | told

    def form_valid(self, form: AuthenticationForm) -> HttpResponse:
        user = form.get_user()
        assert isinstance(user, User)  # noqa: S101  # tells the type checker what our backend returns
        passwords.refresh(user, form.cleaned_data["password"])
        if second_factor.is_on(user):
            half = {"user": str(user.pk), "at": clock.now().isoformat(), "wrong": 0}
            self.request.session[_HALF] = half
            return redirect(f"{reverse('login_code')}?next={self.get_redirect_url()}")
        return _enter(self.request, user, how=_by("password"), wanted=self.get_success_url())


@sensitive_post_parameters()
@never_cache
@require_http_methods(["GET", "POST"])
def login_code(request: HubRequest) -> HttpResponse:
    """The second step, for those who have set up an app."""
    half = request.session.get(_HALF)
    user = _half_in(half)
    if half is None or user is None:
        request.session.pop(_HALF, None)
        messages.error(request, "That took too long. Sign in again.")
        return redirect("login")
    context: dict[str, Any] = {"next": next_page(request), "wrong": False}
    if request.method == "POST":
        if second_factor.check(user, request.POST.get("code", "")):
            del request.session[_HALF]
            return _enter(request, user, how=_by("password and code"), wanted=context["next"])
        _note_wrong(request, user)
        context["wrong"] = True
    return render(request, "hub/login_code.html", context, status=422 if context["wrong"] else 200)


def _enter(request: HttpRequest, user: User, *, how: str, wanted: str) -> HttpResponse:
    """Let the person in, once their password is their own."""
    if user.first_password_until is not None:
        step = "login_password"
    elif settings.AOS_REQUIRE_SECOND_FACTOR and not second_factor.is_on(user):
        step = "login_factor"
    else:
        let_in(request, user, how=how)
        return redirect(wanted)
    request.session[_OWN] = {"user": str(user.pk), "at": clock.now().isoformat(), "how": how}
    return redirect(f"{reverse(step)}?{urlencode({'next': wanted})}")


@sensitive_post_parameters()
@never_cache
@require_http_methods(["GET", "POST"])
def login_password(request: HubRequest) -> HttpResponse:
    """The last step, for those whose password somebody else knows."""
    own = request.session.get(_OWN)
    user = _found(own, lasts=_OWN_LASTS) if own else None
    if own is None or user is None or user.first_password_until is None:
        request.session.pop(_OWN, None)
        messages.error(request, "That took too long. Sign in again.")
        return redirect("login")
    context: dict[str, Any] = {"next": next_page(request), "username": user.username}
    if request.method == "POST":
        try:
            passwords.choose(by=Actor(user=user), new=request.POST.get("new", ""))
        except Invalid as error:
            context["error"] = error.errors[0]["rule"]
        else:
            del request.session[_OWN]
            user = User.objects.get(pk=user.pk)
            return _enter(request, user, how=own["how"], wanted=context["next"])
    status = 422 if "error" in context else 200
    return render(request, "hub/login_password.html", context, status=status)


@never_cache
@require_http_methods(["GET", "POST"])
def login_factor(request: HubRequest) -> HttpResponse:
    """Set up an app before coming in, where a password alone lets nobody in."""
    own = request.session.get(_OWN)
    user = _found(own, lasts=_OWN_LASTS) if own else None
    if own is None or user is None or user.first_password_until or second_factor.is_on(user):
        request.session.pop(_OWN, None)
        messages.error(request, "That took too long. Sign in again.")
        return redirect("login")
    by = Actor(user=user)
    setup = second_factor.pending(user) or second_factor.begin(by=by)
    context: dict[str, Any] = {"next": next_page(request), "setup": setup}
    context["picture"] = segno.make(setup.uri, error="m").svg_data_uri(scale=5, border=2)
    if request.method == "POST":
        try:
            context["codes"] = second_factor.confirm(
                by=by, code=request.POST.get("code", "").strip()
            )
        except Invalid as error:
            context["error"] = error.errors[0]["rule"]
        else:
            del request.session[_OWN]
            let_in(request, user, how=f"{own['how']} and code")
    status = 422 if "error" in context else 200
    return render(request, "hub/login_factor.html", context, status=status)


def _by(proof_given: str) -> str:
    """How somebody signed in here; remarkable where people sign in elsewhere."""
    return proof_given if settings.AOS_PASSWORD_SIGN_IN else f"{proof_given}, in an emergency"


def _half_in(half: dict[str, Any] | None) -> User | None:
    if half is None or half["wrong"] >= _CODE_TRIES:
        return None
    return _found(half, lasts=_HALF_LASTS)


def _found(waiting: dict[str, Any], *, lasts: timedelta) -> User | None:
    """Who is waiting at the door, unless for too long."""
    if clock.now() - datetime.fromisoformat(waiting["at"]) > lasts:
        return None
    with tenancy.platform():
        user = User.objects.filter(pk=waiting["user"], is_active=True).first()
    if user is not None:
        tenancy.enter(user.organization_id)
    return user


def _note_wrong(request: HttpRequest, user: User) -> None:
    """A wrong code counts like a wrong password: too many, and the door stays shut for a while."""
    request.session[_HALF] = request.session[_HALF] | {"wrong": request.session[_HALF]["wrong"] + 1}
    signals.user_login_failed.send(
        sender=__name__, credentials={"username": user.username}, request=request
    )


@transaction.atomic
def let_in(request: HttpRequest, user: User, *, how: str, is_fresh: bool = True) -> None:
    """Sign the person in here, on record. ``how`` names what proved them, ``is_fresh`` says that they
    were proved just now; acts that need a fresh proof ask for one otherwise."""
    auth.login(request, user, backend=_BACKEND)
    lifetime.begin(request.session)
    if is_fresh:
        proof.note(request.session)
    sessions.begin(
        by=Actor(user=user),
        session_key=str(request.session.session_key),
        address=client.address(request),
        agent=request.headers.get("User-Agent", ""),
        how=how,
    )


@require_POST
def logout(request: HubRequest) -> HttpResponse:
    if isinstance(request.user, User):
        key = str(request.session.session_key)
        sessions.end(by=Actor(user=request.user), session_key=key)
    came_from_provider = LEFT_BY_PROVIDER in request.session
    auth.logout(request)
    # Our session is over; the one at the provider is the person's to end.
    response = redirect(f"{reverse('login')}{'?out' if came_from_provider else ''}")
    # Pages are not stored, but pictures and files may be. Not "cookies": that would end the sessions
    # of other applications under the same domain; not "storage": it holds the theme and nothing else.
    response.headers["Clear-Site-Data"] = '"cache"'
    return response


def locked_out(request: HttpRequest, *_: Any) -> HttpResponse:
    """What django-axes answers to somebody who guessed too often."""
    minutes = int(settings.AXES_COOLOFF_TIME.total_seconds() // 60)
    response = render(request, "hub/locked_out.html", {"minutes": minutes}, status=429)
    response["Retry-After"] = str(minutes * 60)
    return response


# --- a fresh proof -------------------------------------------------------------------------------


@sensitive_post_parameters()
@never_cache
@signed_in
@require_http_methods(["GET", "POST"])
def verify(request: HubRequest) -> HttpResponse:
    """Prove again who you are, before what the matrix flags."""
    user = person(request)
    with_code = second_factor.is_on(user)
    context: dict[str, Any] = {
        "next": next_page(request),
        "with_code": with_code,
        "with_password": user.has_usable_password(),
        "provider": _provider_of(user),
        "wrong": False,
    }
    if request.method == "POST":
        if _proves(request, user, with_code=with_code):
            proof.note(request.session)
            return redirect(context["next"])
        context["wrong"] = True
    return render(request, "hub/verify.html", context, status=422 if context["wrong"] else 200)


def _proves(request: HubRequest, user: User, *, with_code: bool) -> bool:
    if with_code:
        if second_factor.check(user, request.POST.get("code", "")):
            return True
        signals.user_login_failed.send(
            sender=__name__, credentials={"username": user.username}, request=request
        )
        return False
    # Through the backends, so that guesses are counted and refused like those at the door.
    typed = request.POST.get("password", "")
    return auth.authenticate(request, username=user.username, password=typed) == user


def _provider_of(user: User) -> str:
    """What the provider is called at which this person may prove who they are; empty without one."""
    return settings.AOS_OIDC_NAME if oidc.is_on() and provider.is_connected(user) else ""


def next_page(request: HttpRequest) -> str:
    """Where to go afterwards: a page of ours, whatever the address says."""
    wanted = request.POST.get("next") or request.GET.get("next") or "/"
    is_ours = url_has_allowed_host_and_scheme(wanted, {request.get_host()}, request.is_secure())
    return wanted if is_ours and wanted.startswith("/") else "/"


# --- the security page ---------------------------------------------------------------------------


@never_cache
@signed_in
@require_GET
def security(request: HubRequest) -> HttpResponse:
    return _security(request)


def _security(request: HubRequest, *, status: int = 200, **told: Any) -> HttpResponse:
    user = person(request)
    key = request.session.session_key
    context = {
        "page": "account",
        "frame": frame.of(request),
        "browsers": [
            {"row": row, "name": devices.name(row.agent), "here": row.session_key == key}
            for row in SignIn.objects.visible_to(user).lasting()
        ],
        "second_factor": second_factor.is_on(user),
        "with_password": user.has_usable_password(),
        "provider": settings.AOS_OIDC_NAME if oidc.is_on() else "",
        "connected": provider.is_connected(user),
        "codes_left": second_factor.codes_left(user),
        "tokens": ApiToken.objects.visible_to(user).order_by("-created_at"),
        "now": clock.now(),
        "scopes": SCOPE_WORDS,
        "fresh_scopes": STEP_UP_SCOPES,
        "lifetimes": _LIFETIMES,
    }
    return render(request, "hub/security.html", context | told, status=status)


@signed_in
@require_POST
def session_revoke(request: HubRequest, sign_in_id: UUID) -> HttpResponse:
    mine = SignIn.objects.visible_to(person(request))
    found = get_object_or_404(mine, pk=sign_in_id)
    sessions.revoke(by=page_actor(request), sign_ins=[found])
    messages.success(request, "That browser is signed out.")
    return redirect("security")


@signed_in
@require_POST
def sessions_revoke_others(request: HubRequest) -> HttpResponse:
    mine = SignIn.objects.visible_to(person(request))
    others = mine.exclude(session_key=request.session.session_key)
    ended = sessions.revoke(by=page_actor(request), sign_ins=others)
    messages.success(request, f"{ended} other browsers are signed out.")
    return redirect("security")


@sensitive_post_parameters()
@signed_in
@require_POST
def password(request: HubRequest) -> HttpResponse:
    try:
        passwords.change(
            by=page_actor(request),
            old=request.POST.get("old", ""),
            new=request.POST.get("new", ""),
            keep_session=request.session.session_key,
        )
    except AosError as error:
        return _security(request, status=error.status, password_error=str(error))
    user = User.objects.get(pk=person(request).pk)
    before = str(request.session.session_key)
    # The session carries a hash of the password; this browser stays signed in, under a new key.
    auth.update_session_auth_hash(request, user)
    sessions.moved(user, before=before, after=str(request.session.session_key))
    messages.success(request, "The password is changed, and your other browsers are signed out.")
    return redirect("security")


@never_cache
@signed_in
@require_http_methods(["GET", "POST"])
def second_factor_setup(request: HubRequest) -> HttpResponse:
    """Scan, type a code, keep the recovery codes."""
    by = page_actor(request)
    if second_factor.is_on(by.user):
        return redirect("security")
    setup = second_factor.pending(by.user) or second_factor.begin(by=by)
    context: dict[str, Any] = {"page": "account", "frame": frame.of(request), "setup": setup}
    context["picture"] = segno.make(setup.uri, error="m").svg_data_uri(scale=5, border=2)
    if request.method == "GET":
        return render(request, "hub/second_factor.html", context)
    try:
        context["codes"] = second_factor.confirm(by=by, code=request.POST.get("code", "").strip())
    except AosError as error:
        context["error"] = str(error)
        return render(request, "hub/second_factor.html", context, status=error.status)
    return render(request, "hub/second_factor.html", context)


@signed_in
@require_POST
def second_factor_remove(request: HubRequest) -> HttpResponse:
    second_factor.remove(by=page_actor(request))
    messages.success(request, "The authenticator app is removed. A password is enough again.")
    return redirect("security")


@never_cache
@signed_in
@require_POST
def token_issue(request: HubRequest) -> HttpResponse:
    days = request.POST.get("days", "")
    try:
        made, value = tokens.issue(
            by=page_actor(request),
            name=request.POST.get("name", "").strip(),
            scopes=request.POST.getlist("scopes"),
            lifetime=timedelta(days=int(days) if days.isdigit() and len(days) < 6 else 0),
        )
    except AosError as error:
        if error.code == "step_up_required":
            raise
        typed = {
            "typed_name": request.POST.get("name", ""),
            "chosen": request.POST.getlist("scopes"),
        }
        return _security(request, status=error.status, token_error=str(error), **typed)
    return _security(request, issued=made, value=value)


@signed_in
@require_POST
def token_revoke(request: HubRequest, token_id: UUID) -> HttpResponse:
    mine = ApiToken.objects.visible_to(person(request))
    tokens.revoke(by=page_actor(request), token=get_object_or_404(mine, pk=token_id))
    messages.success(request, "The token is revoked: its next request is refused.")
    return redirect("security")
