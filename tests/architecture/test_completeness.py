"""Nothing is reachable that is not an action of the matrix or on the list of what is public: addresses,
sockets, streams, and each act of the admin."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import path
from rest_framework.response import Response
from rest_framework.views import APIView

from aos_project import asgi
from apps.hub import consumers, watching
from apps.hub.visiting import signed_in
from apps.identity import policy
from apps.identity.actor import Actor
from apps.identity.adminsite import Window, site
from apps.identity.matrix import MATRIX
from apps.identity.models import User
from tests.architecture.test_urls import (
    BY_ITSELF,
    METHODS,
    PAGES,
    PUBLIC,
    ROUTES,
    SIGNED_IN,
    is_guarded_page,
    leaves,
    view_class,
)

ACTS = ("actions", "actions_list", "actions_row", "actions_detail", "actions_submit_line")
# Sockets and what each asks; the one for all other addresses refuses.
SOCKETS = {consumers.project_events: watching.ACTION, consumers.nowhere: None}


def unmapped(routes: Iterable[tuple[str, Any]]) -> list[str]:
    """Addresses that name neither an action for each method nor are on a list."""
    return [
        route
        for route, view in routes
        if route not in PUBLIC | SIGNED_IN | BY_ITSELF and not _is_mapped(route, view)
    ]


def _is_mapped(route: str, view: Any) -> bool:
    cls = view_class(view)
    if cls is not None and issubclass(cls, APIView):
        actions = getattr(cls, "actions", {})
        offered = {method for method in METHODS if hasattr(cls, method)}
        return set(actions) == offered and set(actions.values()) <= set(MATRIX)
    return is_guarded_page(view) and (route in PAGES or getattr(view, "asks_for", None) in MATRIX)


def test_every_address_is_mapped():
    assert len(ROUTES) > 80
    assert unmapped(ROUTES) == []


def test_an_address_without_a_guard_is_found():
    class Naked(APIView):
        def get(self, request: Any) -> Response:
            return Response({})

    class Half(APIView):
        actions = {"get": "run.read"}

        def get(self, request: Any) -> Response:
            return Response({})

        def delete(self, request: Any) -> Response:
            return Response({})

    class Invented(Half):
        actions = {"get": "run.read", "delete": "run.annihilate"}

    def plain(request: HttpRequest) -> HttpResponse:
        return HttpResponse()

    @signed_in
    def page(request: HttpRequest) -> HttpResponse:
        return HttpResponse()

    page.__module__ = "apps.hub.views"
    added = [
        path("naked", Naked.as_view()),
        path("half", Half.as_view()),
        path("invented", Invented.as_view()),
        path("plain", plain),
        path("page", page),
    ]

    assert unmapped(leaves(added)) == ["naked", "half", "invented", "plain", "page"]


def test_every_socket_is_mapped():
    served = [route.callback for route in asgi.ROUTES.routes]

    assert set(served) == set(SOCKETS)
    assert set(SOCKETS.values()) - {None} <= set(MATRIX)


# --- the admin ------------------------------------------------------------------------------------


@contextmanager
def noting_questions() -> Iterator[set[str]]:
    """Say yes to every question to the matrix, and note which action it was about."""
    actions: set[str] = set()

    def yes(_by: Actor, action: str, **_place: Any) -> bool:
        actions.add(action)
        return True

    with patch.object(policy, "allows", yes):
        yield actions


def acts(window: Any) -> Iterator[Any]:
    for kind in ACTS:
        for named in getattr(window, kind, None) or ():
            yield getattr(window, named) if isinstance(named, str) else named


def asked_by(window: Any, act: Any) -> set[str]:
    """The actions of the matrix that guard an act of the admin."""
    request = HttpRequest()
    request.user = User()
    with noting_questions() as asked:
        for permission in getattr(act, "allowed_permissions", None) or ():
            getattr(window, f"has_{permission}_permission")(request)
    return asked


def test_every_act_of_the_admin_is_mapped():
    found = {
        f"{window.__class__.__name__}.{act.__name__}": asked_by(window, act)
        for window in site._registry.values()
        for act in acts(window)
    }

    assert len(found) >= 6
    assert {name: asked for name, asked in found.items() if not asked or asked - set(MATRIX)} == {}


def test_an_act_of_the_admin_without_a_guard_is_found():
    class Open(Window):
        actions = ["erase"]

        @admin.action(description="Erase everything")
        def erase(self, request: HttpRequest, queryset: Any) -> None:
            return None

    window = Open(User, site)

    assert [asked_by(window, act) for act in acts(window)] == [set()]


@pytest.mark.parametrize("window", site._registry.values(), ids=str)
def test_every_window_asks_the_matrix_for_each_kind_of_change(window):
    for kind in ("add", "change", "delete"):
        action = getattr(window, f"{kind}_action")
        request = HttpRequest()
        request.user = User()

        with noting_questions() as asked:
            allowed = getattr(window, f"has_{kind}_permission")(request)

        assert action is None or action in MATRIX
        assert allowed == (action is not None)
        assert asked == ({action} if action else set())
