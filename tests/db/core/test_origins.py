"""Pages of other sites, and hosts that are not ours: on every wire, in every spelling we know."""

from __future__ import annotations

import pytest
from channels.testing import WebsocketCommunicator
from django.test import Client

from aos_project.asgi import application
from apps.core import origins
from apps.identity.types import Role
from tests.faces import session
from tests.factories import make_project, make_user

HOST = "aos.example"
OURS = ["https://aos.example", "https://aos.example:443", "https://trusted.example:8443"]
HOSTILE = [
    # somebody else
    "https://evil.example", "http://evil.example", "https://evil.example:443", "https://127.0.0.1",
    "https://localhost", "https://[::1]", "https://0.0.0.0", "https://192.0.2.1", "https://com",
    # nearly us
    "https://aos.example.evil.example", "https://evil-aos.example", "https://aos.example-evil.example",
    "https://aosXexample", "https://sub.aos.example", "https://www.aos.example", "https://example",
    "https://aos.exampl", "https://aos.example1", "https://aos.exampl\u0435", "https://\u0430os.example",
    "https://xn--os-7kc.example", "https://aos\u3002example", "https://aos.example.", "https://.aos.example",
    # our name, another door
    "https://aos.example:8443", "https://aos.example:80", "https://aos.example:0",
    "https://aos.example:99999", "https://aos.example:x", "https://aos.example:", "http://aos.example",
    "http://aos.example:443", "http://aos.example:80", "ws://aos.example", "wss://aos.example",
    "ftp://aos.example", "file://aos.example", "file://", "chrome-extension://aos.example",
    "moz-extension://aos.example", "data:", "blob:https://aos.example", "javascript://aos.example",
    "about:blank", "https:aos.example", "https:/aos.example", "https:///aos.example", "//aos.example",
    "aos.example", "aos.example:443",
    # our name inside something else
    "https://user@aos.example", "https://aos.example@evil.example", "https://aos.example:pw@evil.example",
    "https://evil.example#aos.example", "https://evil.example/aos.example",
    "https://evil.example?aos.example", "https://evil.example\\.aos.example", "https://aos.example\\@evil",
    "https://evil.example%00.aos.example", "https://aos.example%2eevil.example",
    "https://aos.example/", "https://aos.example/path", "https://aos.example?x", "https://aos.example#",
    # no origin at all
    "null", "NULL", "undefined", "*", "", " ", "https://", "https", "://", "https://aos.example null",
    "https://aos.example https://evil.example", "https://evil.example https://aos.example",
    "https://aos.example, https://evil.example", "https://aos.example;https://evil.example",
    "https://trusted.example", "http://trusted.example:8443", "https://trusted.example:8443/",
    "https://trusted.example:8444",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _site(settings):
    settings.ALLOWED_HOSTS = [HOST]
    settings.CSRF_TRUSTED_ORIGINS = ["https://trusted.example:8443"]


def sent(origin):
    """As a header carries it: one byte for a character, others as UTF-8."""
    return origin.encode().decode("latin-1")


def test_the_corpus_is_large_and_says_nothing_twice():
    assert len(HOSTILE) == len(set(HOSTILE)) >= 60


@pytest.mark.parametrize("origin", OURS)
def test_our_own_pages_are_ours(origin):
    assert origins.is_ours(origin, host=HOST, secure=True)


def test_a_host_with_a_port_is_its_own_origin():
    assert origins.is_ours("http://localhost:8000", host="localhost:8000", secure=False)
    assert origins.is_ours("http://[::1]:8000", host="[::1]:8000", secure=False)
    assert not origins.is_ours("http://localhost:9000", host="localhost:8000", secure=False)
    assert not origins.is_ours("http://127.0.0.1:8000", host="localhost:8000", secure=False)
    assert not origins.is_ours("http://localhost", host="localhost:8000", secure=False)


@pytest.fixture
def browser(db):
    """Somebody's browser, signed in, with a project to look at."""
    project = make_project()
    client = session(make_user(role=Role.OPERATOR, project=project))
    client.defaults["HTTP_HOST"] = HOST
    return client, project


@pytest.mark.parametrize("origin", HOSTILE)
def test_a_stream_of_another_sites_page_is_refused(browser, origin):
    client, project = browser

    answer = client.get(
        f"/api/events/stream?project={project.slug}", secure=True, HTTP_ORIGIN=sent(origin)
    )

    assert answer.status_code == 403
    assert answer.json()["code"] == "origin_not_allowed"


@pytest.mark.parametrize("origin", HOSTILE)
def test_a_form_of_another_sites_page_is_refused(browser, origin):
    client, _ = browser

    words = {"secure": True, "HTTP_ORIGIN": sent(origin)}
    page = client.post("/account/tokens", **words)
    api = client.post("/api/run", {}, content_type="application/json", **words)

    assert (page.status_code, api.status_code) == (403, 403)
    assert "another site asked" in page.content.decode()


async def opens(host=HOST, *more, **headers):
    given = [(b"host", host.encode()), *more]
    given += [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    connection = WebsocketCommunicator(application, "/ws/events?project=x", headers=given)
    connection.scope["scheme"] = "wss"
    accepted, _ = await connection.connect(timeout=5)
    await connection.disconnect()
    return accepted


@pytest.mark.parametrize("origin", [*HOSTILE, None])
async def test_a_socket_of_another_sites_page_is_refused(origin):
    assert not await opens(**({} if origin is None else {"origin": origin}))


@pytest.mark.parametrize("origin", OURS)
async def test_our_own_pages_open_sockets(live, origin):
    assert await opens(origin=origin)


@pytest.mark.parametrize("origin", [*OURS, None])
def test_our_own_pages_are_answered(browser, origin):
    client, project = browser
    words = {"secure": True} | ({} if origin is None else {"HTTP_ORIGIN": origin})

    assert client.get(f"/api/events/stream?project={project.slug}", **words).status_code == 200
    assert client.post("/account/tokens", **words).status_code == 422


async def test_two_origins_or_two_hosts_open_no_socket():
    ours = (b"origin", OURS[0].encode())

    assert not await opens(HOST, ours, (b"origin", b"https://evil.example"))
    assert not await opens(HOST, ours, (b"host", b"evil.example"))
    assert not await opens(HOST, ours, ours)


FETCHES = [
    # site, mode, dest, method, allowed
    ("same-origin", "cors", "empty", "POST", True),
    ("none", "navigate", "document", "GET", True),
    ("cross-site", "navigate", "document", "GET", True),
    ("same-site", "navigate", "document", "GET", True),
    ("cross-site", "navigate", "document", "POST", False),
    ("same-site", "navigate", "document", "POST", False),
    ("cross-site", "navigate", "iframe", "GET", False),
    ("cross-site", "navigate", "frame", "GET", False),
    ("cross-site", "navigate", "object", "GET", False),
    ("cross-site", "navigate", "embed", "GET", False),
    ("cross-site", "navigate", "", "GET", False),
    ("cross-site", "no-cors", "image", "GET", False),
    ("cross-site", "no-cors", "script", "GET", False),
    ("cross-site", "no-cors", "style", "GET", False),
    ("cross-site", "no-cors", "video", "GET", False),
    ("cross-site", "no-cors", "document", "GET", False),
    ("cross-site", "cors", "empty", "GET", False),
    ("cross-site", "cors", "empty", "POST", False),
    ("cross-site", "cors", "empty", "OPTIONS", False),
    ("cross-site", "websocket", "empty", "GET", False),
    ("same-site", "cors", "empty", "GET", False),
    ("same-site", "no-cors", "image", "GET", False),
    ("Same-Origin", "cors", "empty", "GET", False),
    ("same-origin, cross-site", "cors", "empty", "GET", False),
    ("", "cors", "empty", "GET", False),
    ("nonsense", "cors", "empty", "GET", False),
]


@pytest.mark.parametrize(("site", "mode", "dest", "method", "allowed"), FETCHES)
def test_what_a_browser_says_of_a_request_is_believed(site, mode, dest, method, allowed):
    headers = {"sec-fetch-site": site, "sec-fetch-mode": mode, "sec-fetch-dest": dest}

    elsewhere = origins.comes_from_elsewhere(headers, method=method, host=HOST, secure=True)

    assert elsewhere is not allowed


async def test_a_cross_site_socket_is_refused_whatever_its_origin_says():
    assert not await opens(origin=OURS[0], sec_fetch_site="cross-site")


def test_a_program_with_a_token_is_nobodys_browser():
    headers = {"origin": "https://evil.example", "authorization": "Bearer x"}

    assert not origins.comes_from_elsewhere(headers, method="POST", host=HOST, secure=True)


HOSTS = [
    "evil.example", "aos.example.evil.example", "evil.aos.example", "127.0.0.1", "localhost", "[::1]",
    "aos.example:x", "aos.example:80:80", "aos.example@evil.example", "user@aos.example",
    "aos.example/evil", "aos.example?x", "aos.example#x", "aos.example evil.example",
    "aos.example,evil.example", "aos.example\\evil", "evil.example\taos.example", "*", ".", "",
    "aos.example..", "aos_example", "aos.example%00", "aos.example\x7f", "http://aos.example", "[aos.example]",
    "aos.example'", 'aos.example"', "<script>", "aos.exampl\u0435", "a" * 300, "xn--aos-.example",
]  # fmt: skip


@pytest.mark.parametrize("host", HOSTS)
async def test_a_host_that_is_not_ours_opens_no_socket(host):
    assert not await opens(host, origin=OURS[0])
    assert not await opens(host, origin=f"https://{host}")


@pytest.mark.django_db
@pytest.mark.parametrize("host", [host for host in HOSTS if host])
def test_a_host_that_is_not_ours_is_not_answered(host):
    answer = Client(HTTP_HOST=sent(host)).get("/api/me")

    assert answer.status_code == 400
    assert len(host) < 4 or host not in answer.content.decode()


@pytest.mark.django_db
@pytest.mark.parametrize(
    "header", ["HTTP_X_FORWARDED_HOST", "HTTP_X_HOST", "HTTP_FORWARDED", "HTTP_X_ORIGINAL_HOST"]
)
def test_no_other_header_changes_the_host(header):
    answer = Client(HTTP_HOST=HOST).get("/runs", **{header: "evil.example"})

    assert answer.status_code == 302
    assert "evil.example" not in answer["Location"]
