"""People are led to HTTPS, programs are refused without it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from django.test import Client

from apps.core import transport
from tests.support.asgi import ask

ROOT = Path(__file__).parents[3]
PROXY = ("HTTP_X_FORWARDED_PROTO", "https")
SAID = {"x-forwarded-proto": "https"}


@pytest.fixture(autouse=True)
def _as_in_production(settings):
    settings.SECURE_SSL_REDIRECT = True
    settings.SECURE_PROXY_SSL_HEADER = PROXY
    settings.SECURE_REDIRECT_EXEMPT = exempt()


def exempt():
    """As production's settings say it, which cannot be imported here."""
    text = (ROOT / "aos_project" / "settings" / "production.py").read_text("utf-8")
    return re.findall(r'r"(\^[^"]+)"', text)


async def answer(path, *, kind="http", scheme="http", **headers):
    return await ask(path, kind=kind, scheme=scheme, headers=headers)


@pytest.mark.parametrize("path", ["/api/schema", "/api/runs", "/api", "/api/nowhere"])
async def test_a_program_over_plain_http_is_refused_and_told_what_to_do(path):
    start, body = await answer(path, authorization="Bearer aos_pat_x")

    told = json.loads(body["body"])
    assert start["status"] == 403
    assert (told["code"], "revoke it" in told["detail"]) == ("https_required", True)
    assert not any(name.lower() == b"location" for name, _ in start["headers"])


@pytest.mark.django_db
def test_a_page_over_plain_http_leads_to_https_and_the_api_never_does():
    browser = Client()

    page = browser.get("/login")
    assert (page.status_code, page["Location"]) == (301, "https://testserver/login")
    for path in ("/api/schema", "/api", "/api/nowhere", "/healthz", "/metrics"):
        assert browser.get(path).status_code != 301, path


async def test_a_program_over_https_is_answered(async_db):
    assert (await answer("/api/schema", **SAID))[0]["status"] == 200


async def test_health_is_told_over_plain_http(async_db):
    assert (await answer("/healthz"))[0]["status"] == 200


async def test_a_socket_over_plain_http_does_not_open():
    assert await answer("/ws/events", kind="websocket", scheme="ws") == [
        {"type": "websocket.close"}
    ]
    assert not transport.is_in_clear(
        {"type": "websocket", "path": "/ws/events", "headers": [(b"x-forwarded-proto", b"https")]}
    )


@pytest.mark.parametrize(
    "said",
    [
        [(b"x-forwarded-proto", b"http")],
        [(b"x-forwarded-proto", b"http, https")],
        [(b"x-forwarded-proto", b"https"), (b"x-forwarded-proto", b"http")],
        [(b"x-forwarded-ssl", b"on")],
        [(b"forwarded", b"proto=https")],
        [],
    ],
)
def test_what_does_not_say_https_clearly_is_plain(said):
    scope = {"type": "http", "path": "/api/runs", "headers": said, "scheme": "http"}

    assert transport.is_in_clear(scope)


def test_where_no_proxy_is_believed_the_connection_decides(settings):
    settings.SECURE_PROXY_SSL_HEADER = None
    scope = {"type": "http", "path": "/api/runs", "headers": [(b"x-forwarded-proto", b"https")]}

    assert transport.is_in_clear(scope | {"scheme": "http"})
    assert not transport.is_in_clear(scope | {"scheme": "https"})


def test_without_the_setting_plain_http_is_answered(settings):
    settings.SECURE_SSL_REDIRECT = False

    assert not transport.is_in_clear({"type": "http", "path": "/api/runs", "headers": []})
