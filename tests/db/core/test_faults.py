"""What is answered outside any view."""

from __future__ import annotations

import pytest
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.test import Client, override_settings
from django.urls import include, path

from aos_project import urls
from tests.faces import problem


def crash(request):
    raise RuntimeError("a bug")


def suspect(request):
    raise SuspiciousOperation("what is this")


def refuse(request):
    raise PermissionDenied


urlpatterns = [
    path("api/crash", crash),
    path("api/suspect", suspect),
    path("api/refuse", refuse),
    path("crash", crash),
    path("", include(urls)),
]
handler400 = urls.handler400
handler403 = urls.handler403
handler404 = urls.handler404
handler500 = urls.handler500

pytestmark = pytest.mark.urls(__name__)


@pytest.mark.parametrize(
    ("where", "status", "code"),
    [("crash", 500, "error"), ("suspect", 400, "bad_request"), ("refuse", 403, "not_allowed")],
)
def test_programs_get_a_problem_whatever_happens(where, status, code):
    response = Client(raise_request_exception=False).get(f"/api/{where}")

    assert response.status_code == status
    assert problem(response)["code"] == code
    assert "bug" not in response.content.decode()


def test_people_get_a_page():
    response = Client(raise_request_exception=False).get("/crash")

    assert response.status_code == 500
    assert response["Content-Type"].startswith("text/html")


def test_a_host_we_do_not_serve_is_refused_as_a_problem():
    with override_settings(ALLOWED_HOSTS=["aos.example"]):
        response = Client().get("/api/crash", headers={"Host": "evil.example"})

    assert response.status_code == 400
    assert problem(response)["code"] == "bad_request"
