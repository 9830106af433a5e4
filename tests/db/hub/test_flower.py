from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from threading import Thread

import pytest
from asgiref.sync import sync_to_async
from django.test import AsyncClient
from tornado.template import Template

from apps.hub.flower import AUTOREFRESH_SCRIPT
from tests.factories import make_cast


@dataclass
class Upstream:
    """Something at Flower's address that notes what it was asked."""

    url: str
    asked: list = field(default_factory=list)
    status: int = 200
    headers: dict = field(default_factory=dict)


@pytest.fixture
def upstream(settings):
    class Handler(BaseHTTPRequestHandler):
        def answer(self):
            known.asked.append((self.command, self.path, dict(self.headers)))
            self.send_response(known.status)
            self.send_header("Content-Type", "text/html")
            for name, value in known.headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(b"petals")

        def __getattr__(self, name):
            return self.answer if name.startswith("do_") else super().__getattribute__(name)

        def log_message(self, *args):
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    known = Upstream(f"http://127.0.0.1:{server.server_port}")
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    settings.AOS_FLOWER_URL = known.url
    settings.AOS_FLOWER_BASIC_AUTH = "aos:petal"
    yield known
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
async def cast(async_db):
    return await sync_to_async(make_cast)()


async def browser(user=None):
    client = AsyncClient()
    if user is not None:
        await sync_to_async(client.force_login)(user)
    return client


async def body(response):
    return b"".join([chunk async for chunk in response.streaming_content])


async def test_an_operator_sees_flower_through_us(cast, upstream):
    upstream.headers = {"ETag": '"7"', "Set-Cookie": "_xsrf=1", "Server": "Tornado"}
    client = await browser(cast.oscar)

    response = await client.get("/flower/tasks?state=FAILURE&limit=5")

    assert response.status_code == 200
    assert await body(response) == b"petals"
    assert response["ETag"] == '"7"'
    assert not {"Set-Cookie", "Server"} & set(response.headers)
    assert "_xsrf" not in response.cookies
    assert "default-src 'none'" in response["Content-Security-Policy"]
    method, path, headers = upstream.asked[0]
    assert (method, path) == ("GET", "/flower/tasks?state=FAILURE&limit=5")
    assert headers["Authorization"] == f"Basic {base64.b64encode(b'aos:petal').decode()}"
    assert "Cookie" not in headers


async def test_what_the_browser_brings_for_us_does_not_reach_flower(cast, upstream):
    client = await browser(cast.oscar)

    response = await client.get("/flower/", headers={"Authorization": "Basic c3R1ZmY="})
    await body(response)

    assert upstream.asked[0][1] == "/flower/"
    assert "c3R1ZmY=" not in str(upstream.asked)


async def test_the_task_table_is_asked_by_post_and_read_by_get(cast, upstream):
    client = await browser(cast.oscar)
    client.handler.enforce_csrf_checks = True

    response = await client.post("/flower/tasks/datatable", {"draw": "1", "search[value]": "a b"})
    await body(response)

    method, path, _ = upstream.asked[0]
    assert method == "GET"
    assert path == "/flower/tasks/datatable?draw=1&search%5Bvalue%5D=a+b"


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
@pytest.mark.parametrize(
    "path", ["api/worker/shutdown/w1", "api/task/revoke/1", "tasks/datatable/x"]
)
async def test_nothing_but_reading_passes(cast, upstream, method, path):
    client = await browser(cast.olivia)

    response = await getattr(client, method)(f"/flower/{path}")

    assert response.status_code == 405
    assert not upstream.asked


async def test_a_look_at_the_headers_is_a_look(cast, upstream):
    client = await browser(cast.oscar)

    response = await client.head("/flower/")

    assert response.status_code == 200
    assert upstream.asked[0][0] == "HEAD"


async def test_viewers_are_refused(cast, upstream):
    client = await browser(cast.vera)

    response = await client.get("/flower/")

    assert response.status_code == 403
    assert not upstream.asked


async def test_strangers_are_led_to_the_sign_in(cast, upstream):
    client = await browser()

    response = await client.get("/flower/tasks?state=FAILURE")

    assert response.status_code == 302
    assert response["Location"] == "/login?next=/flower/tasks%3Fstate%3DFAILURE"
    assert not upstream.asked


@pytest.mark.parametrize("path", ["../metrics", "a/../../x", "%2e%2e/x", ".."])
async def test_no_path_leads_out_of_flower(cast, upstream, path):
    client = await browser(cast.oscar)

    response = await client.get(f"/flower/{path}")

    assert response.status_code in {403, 404}
    assert not upstream.asked


@pytest.mark.parametrize(
    ("location", "kept"),
    [("/flower/workers", "/flower/workers"), ("https://evil.example/", None)],
)
async def test_a_redirect_stays_with_us(cast, upstream, location, kept):
    upstream.status, upstream.headers = 302, {"Location": location}
    client = await browser(cast.oscar)

    response = await client.get("/flower/")
    await body(response)

    assert response.headers.get("Location") == kept


async def test_when_flower_is_down_a_page_says_so(cast, upstream, settings):
    settings.AOS_FLOWER_URL = "http://127.0.0.1:9"
    client = await browser(cast.oscar)

    response = await client.get("/flower/")

    assert response.status_code == 503
    page = response.content.decode()
    assert "Flower is not reachable" in page
    assert "make logs" in page


async def test_a_wrong_password_is_our_problem_not_the_visitors(cast, upstream):
    upstream.status, upstream.headers = 401, {"WWW-Authenticate": "Basic"}
    client = await browser(cast.oscar)

    response = await client.get("/flower/")

    assert response.status_code == 503
    assert "AOS_FLOWER_BASIC_AUTH" in response.content.decode()
    assert "WWW-Authenticate" not in response.headers


def test_the_one_inline_script_we_allow_is_flowers():
    templates = resources.files("flower") / "templates"
    source = (templates / "workers.html").read_text(encoding="utf-8")
    block = re.search(r"<script[^>]*>.*?</script>", source, re.DOTALL).group()

    shown = Template(block, name="workers.html").generate(autorefresh=1).decode()

    script = re.search(r"<script[^>]*>(.*?)</script>", shown, re.DOTALL).group(1)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"sha256-{digest}" == AUTOREFRESH_SCRIPT
