"""Every address is somebody's decision: an action of the matrix, a sign-in, or public and listed."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from django.urls import URLPattern, get_resolver
from rest_framework.permissions import AllowAny, IsAuthenticated
from rest_framework.views import APIView

from apps.identity.adminsite import site
from apps.identity.matrix import MATRIX
from apps.identity.permissions import MatrixPermission

# Nobody is asked who they are.
PUBLIC = {
    "healthz",
    "readyz",
    "api/schema",
    "api/docs",
    "^api(/|$)",
    "start",
    "start/condition",
    "login",
    "login/code",
    "login/password",
    "login/factor",
    "login/provider",
    "login/provider/back",
    "login/provider/end",
    "logout",
}
# A sign-in is enough to ask; what one finds depends on ``visible_to``.
SIGNED_IN = {"api/me", "api/rbac/me", "api/rbac/roles", "api/rbac/check"}
# Asks the matrix itself; its own tests show it.
BY_ITSELF = {"flower/", "flower/<path:path>"}
# What pages of the hub ask of the matrix, where the decorator ``may`` does not say it; ``None`` where a
# sign-in is enough, because the page is about one's own things or lists what ``visible_to`` shows.
# tests/db/core/test_matrix.py tries each with every role.
PAGES: dict[str, str | None] = {
    "": None,
    "palette": None,
    "account/verify": None,
    "account/security": None,
    "account/password": None,
    "account/sessions/others": None,
    "account/sessions/<uuid:sign_in_id>": None,
    "account/second-factor": None,
    "account/second-factor/off": None,
    "account/provider/off": None,
    "account/tokens": "token.manage",
    "account/tokens/<uuid:token_id>": None,
    "welcome": "admin.view",
    "welcome/condition": "admin.view",
    "welcome/run": "admin.view",
    "welcome/example": "admin.view",
    "audit/export": "audit.export",
    "runs": None,
    "dead-letters": None,
    "runs/<uuid:public_id>/requeue": "run.requeue",
    "runs/<uuid:public_id>/dismiss": "run.requeue",
    "runs/bulk": None,
    "runs/bulk/new": "run.bulk",
    "runs/bulk/begin": "run.bulk",
    "runs/bulk/<uuid:act_id>": "run.read",
    "runs/bulk/<uuid:act_id>/proceed": "run.bulk",
    "runs/bulk/<uuid:act_id>/stop": "run.bulk",
    "runs/<uuid:public_id>": "run.read",
    "runs/<uuid:public_id>/row": "run.read",
    "runs/<uuid:public_id>/workspace": "run.read",
    "runs/<uuid:public_id>/log": "run.read",
    "runs/<uuid:public_id>/files/<path:name>": "run.read",
    "runs/<uuid:public_id>/pdf/<path:name>": "run.read",
    "runs/<uuid:public_id>/cancel": "run.cancel",
    "runs/<uuid:public_id>/rerun": "run.rerun",
    "schedules": None,
    "schedules/new": None,
    "schedules/preview": None,
    "schedules/<uuid:schedule_id>": "schedule.read",
    "schedules/<uuid:schedule_id>/edit": "schedule.read",
    "schedules/<uuid:schedule_id>/pause": "schedule.manage",
    "schedules/<uuid:schedule_id>/resume": "schedule.manage",
    "schedules/<uuid:schedule_id>/run": "run.submit",
    "schedules/<uuid:schedule_id>/remove": "schedule.manage",
    "integrations/sandboxes": None,
    "integrations/sandboxes/scripts": None,
    "integrations/sandboxes/scripts/new": None,
    "integrations/sandboxes/scripts/<uuid:agent_id>": "agent.read",
    "integrations/sandboxes/scripts/<uuid:agent_id>/release": "agent.manage",
    "integrations/sandboxes/scripts/<uuid:agent_id>/remove": "agent.manage",
    "runs/<uuid:public_id>/outcome": "run.read",
    "integrations/sandboxes/images": None,
    "integrations/sandboxes/instances": None,
    "integrations/sandboxes/environments": None,
    "integrations/sandboxes/environments/new": None,
    "integrations/sandboxes/environments/<uuid:environment_id>": "environment.read",
    "integrations/sandboxes/environments/<uuid:environment_id>/edit": "environment.read",
    "integrations/sandboxes/environments/<uuid:environment_id>/clone": "environment.manage",
    "integrations/sandboxes/environments/<uuid:environment_id>/default": "environment.manage",
    "integrations/sandboxes/environments/<uuid:environment_id>/remove": "environment.manage",
    "projects/<uuid:project_id>/cards": "event.read",
    "projects/<uuid:project_id>/composer": "project.read",
    "projects/<uuid:project_id>/recent": "run.read",
    "projects/<uuid:project_id>/workspace": "run.read",
    "projects/<uuid:project_id>/tabs": "run.read",
    "projects/<uuid:project_id>/submit": "run.submit",
}
METHODS = {"get", "post", "put", "patch", "delete"}


def leaves(patterns: list[Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for pattern in patterns:
        route = prefix + str(pattern.pattern)
        if isinstance(pattern, URLPattern):
            yield route, pattern.callback
        elif pattern.namespace != "admin":
            yield from leaves(pattern.url_patterns, route)


ROUTES = list(leaves(get_resolver().url_patterns))


def view_class(callback: Any) -> Any:
    return getattr(callback, "cls", None) or getattr(callback, "view_class", None)


def apis() -> Iterator[tuple[str, type[APIView]]]:
    for route, callback in ROUTES:
        cls = view_class(callback)
        if inspect.isclass(cls) and issubclass(cls, APIView):
            yield route, cls


def test_every_method_of_the_api_is_an_action_of_the_matrix():
    undecided = []
    for route, cls in apis():
        if route in PUBLIC | SIGNED_IN:
            continue
        offered = {method for method in METHODS if hasattr(cls, method)}
        actions = getattr(cls, "actions", {})
        if set(actions) != offered or not set(actions.values()) <= set(MATRIX):
            undecided.append(route)

    assert undecided == []


def test_nothing_replaces_the_permission_but_the_listed():
    for route, cls in apis():
        asked = set(cls.permission_classes)
        if route in SIGNED_IN:
            assert asked == {IsAuthenticated}, route
        elif route in PUBLIC:
            assert asked == {AllowAny}, route
        else:
            assert asked == {MatrixPermission}, route


def is_guarded_page(callback: Any) -> bool:
    """Pages say so where they are defined: with the hub's ``signed_in``."""
    return callback.__module__.startswith("apps.hub.") and hasattr(callback, "asks_for_sign_in")


def test_every_other_address_is_listed_or_asks_for_a_sign_in():
    known = PUBLIC | SIGNED_IN | BY_ITSELF | {route for route, _ in apis()}

    left = [route for route, view in ROUTES if route not in known and not is_guarded_page(view)]

    assert left == []


def pages() -> Iterator[tuple[str, str | None, bool]]:
    """Each page with its action, and whether that is asked before anything is looked for."""
    for route, view in ROUTES:
        if is_guarded_page(view):
            first = getattr(view, "asks_for", None)
            yield route, PAGES.get(route, first), first is not None


def test_every_page_says_what_it_asks_of_the_matrix():
    told = {route for route, view in ROUTES if hasattr(view, "asks_for")} | set(PAGES)

    assert {route for route, _, _ in pages()} == told
    assert {action for _, action, _ in pages() if action} <= set(MATRIX)


def test_every_public_address_exists():
    assert {route for route, _ in ROUTES} >= PUBLIC | SIGNED_IN | BY_ITSELF


def test_no_address_of_ours_ends_with_a_slash():
    slashed = {route for route, _ in ROUTES if route.endswith("/")}

    assert slashed == {"flower/"}


def test_every_action_of_the_matrix_is_asked_for_somewhere():
    asked = {action for _, cls in apis() for action in getattr(cls, "actions", {}).values()}
    windows = {
        getattr(window, name)
        for window in site._registry.values()
        for name in ("add_action", "change_action", "delete_action")
    }

    assert set(MATRIX) - asked - windows == {"admin.view"}
