"""The first start: a code, a form, and AOS has an owner. Then the welcome, with a first run to watch."""

from __future__ import annotations

import logging
from typing import Any, Final

from axes.handlers.proxy import AxesProxyHandler
from django import forms
from django.conf import settings
from django.contrib import messages
from django.contrib.auth import signals
from django.contrib.auth.validators import UnicodeUsernameValidator
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from apps.agents.models import Agent
from apps.agents.services import examples, opening
from apps.core import client, sealing, tenancy
from apps.core.errors import AosError, Invalid
from apps.events.models import Event
from apps.hub import account, advice, condition, frame, timeline
from apps.hub.visiting import HubRequest, person, signed_in
from apps.identity import policy
from apps.identity.actor import Actor
from apps.identity.errors import ActivationCodeInvalid, FirstStartOver
from apps.identity.models import User
from apps.identity.rest import page_actor
from apps.identity.services import installation
from apps.projects.models import Project
from apps.runs.models import Run
from apps.runs.services import submission
from apps.runs.types import TaskSpec

logger = logging.getLogger(__name__)

# The number of the code that this browser has typed.
_CODE: Final = "aos_activation"
# The first token's value, sealed, from its making until the next page has shown it.
_SHOWN_ONCE: Final = "aos_first_token"
# Guesses are counted under this name; no account can have it.
_GUESSER: Final = {"username": "(first start)"}


class Opening(forms.Form):
    """Who owns this installation, and what it begins with."""

    username = forms.CharField(max_length=150, validators=[UnicodeUsernameValidator()])
    display_name = forms.CharField(max_length=150)
    password = forms.CharField(max_length=256, strip=False)
    again = forms.CharField(max_length=256, strip=False)
    organization = forms.CharField(max_length=120)
    project = forms.CharField(max_length=120)
    example = forms.BooleanField(required=False)

    def clean(self) -> dict[str, Any]:
        given: dict[str, Any] = super().clean() or self.cleaned_data
        if given.get("again") and given.get("password") != given["again"]:
            self.add_error("again", "This is not the same password.")
        return given


# --- before there is an owner --------------------------------------------------------------------


@sensitive_post_parameters()
@never_cache
@require_http_methods(["GET", "POST"])
def start(request: HubRequest) -> HttpResponse:
    """The code first, then the form. When there is an owner, this page does not exist."""
    if not installation.is_open():
        raise Http404
    if request.method == "POST" and "code" in request.POST:
        return _take_code(request)
    if not _is_unlocked(request):
        return render(request, "hub/start_code.html")
    if request.method == "GET":
        return _form(request, Opening(initial={"project": "First project", "example": True}))
    return _finish(request)


@require_GET
def start_condition(request: HubRequest) -> HttpResponse:
    if not installation.is_open() or not _is_unlocked(request):
        raise Http404
    return _condition(request, "start_condition")


def _is_unlocked(request: HttpRequest) -> bool:
    number = request.session.get(_CODE)
    return isinstance(number, int) and installation.is_present(number)


def _take_code(request: HubRequest) -> HttpResponse:
    """Take the code, unless too many were wrong: then django-axes shuts the door for a while."""
    if not AxesProxyHandler.is_allowed(request, _GUESSER):
        return account.locked_out(request)
    try:
        number = installation.check(request.POST["code"])
    except ActivationCodeInvalid as error:
        logger.warning("wrong activation code", extra={"address": client.address(request)})
        signals.user_login_failed.send(sender=__name__, credentials=_GUESSER, request=request)
        context = {"error": str(error)}
        return render(request, "hub/start_code.html", context, status=error.status)
    # Whoever knew this browser's session before knows nothing now.
    request.session.cycle_key()
    request.session[_CODE] = number
    return redirect("start")


def _form(request: HubRequest, form: Opening, *, status: int = 200) -> HttpResponse:
    context = {
        "form": form,
        "parts": condition.examine(),
        "again": "start_condition",
        "focus": next((name for name in form.fields if name in form.errors), "username"),
    }
    return render(request, "hub/start.html", context, status=status)


def _finish(request: HubRequest) -> HttpResponse:
    form = Opening(request.POST)
    if not form.is_valid():
        return _form(request, form, status=422)
    given = form.cleaned_data
    wanted = {name: given[name] for name in given if name not in {"again", "example"}}
    try:
        # Before there is an organization there is none to act for.
        with tenancy.platform():
            opened = opening.open_up(code_number=request.session[_CODE], **wanted)
    except FirstStartOver as error:
        raise Http404 from error
    except ActivationCodeInvalid:
        return redirect("start")
    except Invalid as error:
        for found in error.errors:
            form.add_error(found["field"] if found["field"] in form.fields else None, found["rule"])
        return _form(request, form, status=422)
    return _welcome_in(request, opened, with_example=given["example"])


def _welcome_in(request: HubRequest, opened: opening.Opened, *, with_example: bool) -> HttpResponse:
    tenancy.enter(opened.owner.organization_id)
    account.let_in(request, opened.owner, how="first start")
    request.session.pop(_CODE, None)
    request.session[_SHOWN_ONCE] = sealing.seal(opened.token).decode("ascii")
    if with_example:
        _run_example(request, Actor(user=opened.owner), opened.project)
    return redirect("welcome")


# --- the welcome -----------------------------------------------------------------------------------


@never_cache
@signed_in
@require_GET
def welcome(request: HubRequest) -> HttpResponse:
    """What was made, whether all parts work, and the first run on its way to its receipt."""
    user = _administrator(request)
    around = frame.of(request)
    sealed = request.session.pop(_SHOWN_ONCE, None)
    context = {
        "page": "welcome",
        "frame": around,
        "token": sealing.unseal(sealed.encode("ascii")) if sealed else "",
        "public_url": settings.AOS_PUBLIC_URL,
        "parts": condition.examine(),
        "again": "welcome_condition",
    }
    return render(request, "hub/welcome.html", context | _first_run(user))


@signed_in
@require_GET
def welcome_condition(request: HubRequest) -> HttpResponse:
    _administrator(request)
    return _condition(request, "welcome_condition")


@signed_in
@require_GET
def welcome_run(request: HubRequest) -> HttpResponse:
    user = _administrator(request)
    if not request.htmx:
        return redirect("welcome")
    return render(request, "hub/welcome/run.html", _first_run(user))


@signed_in
@require_POST
def welcome_example(request: HubRequest) -> HttpResponse:
    _administrator(request)
    project = frame.of(request).project
    if project is None:
        messages.warning(request, "There is no project yet. Make one, then try again.")
    else:
        _run_example(request, page_actor(request), project)
    return redirect("welcome")


def _administrator(request: HubRequest) -> User:
    """The welcome is for those who run the place; for others it does not exist."""
    user = person(request)
    if not policy.allows(Actor(user=user), "admin.view"):
        raise Http404
    return user


def _condition(request: HubRequest, again: str) -> HttpResponse:
    context = {"parts": condition.examine(), "again": again}
    return render(request, "hub/welcome/condition.html", context)


def _run_example(request: HubRequest, by: Actor, project: Project) -> None:
    """Submit the main example. It is a courtesy: when it cannot be, that is said, and no more."""
    try:
        with transaction.atomic():
            task = TaskSpec(input=examples.main_input())
            examples.install(by, project)
            agent = Agent.objects.visible_to(by.user).get(slug=examples.MAIN)
            submission.submit(by=by, project=project, agent=agent, task=task)
    except (AosError, OSError) as error:
        logger.warning("the example could not be submitted", extra={"error": str(error)})
        messages.warning(request, f"The example could not be submitted: {error}")


def _first_run(user: User) -> dict[str, Any]:
    """The person's newest run of the main example, as the welcome tells it."""
    mine = Run.objects.visible_to(user).filter(
        submitted_by=user, agent_version__agent__slug=examples.MAIN
    )
    run = mine.select_related("agent_version__agent", "lease").order_by("-id").first()
    if run is None:
        return {"run": None}
    attempts = list(run.attempt_set.order_by("number"))
    events = list(Event.objects.filter(run_id=run.public_id).order_by("seq"))
    return {
        "run": run,
        "timeline": timeline.tell(run, attempts=attempts, events=events),
        "progress": timeline.progress(run, attempts=attempts, events=events),
        "failure": advice.explain(run.error),
    }
