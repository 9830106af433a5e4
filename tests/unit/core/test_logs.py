"""What a process prints: one line for a record, and no secret in any of them."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from django.conf import settings
from django.test import RequestFactory
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from apps.core import redaction
from apps.core.logs import LineFormatter
from apps.core.telemetry import Redacting
from tests.support.servers import PROJECT

SECRET = "kept-inside-93a7"  # noqa: S105


def line(message, *args, error=None, **fields):
    record = logging.makeLogRecord({"name": "apps.x", "msg": message, "args": args, **fields})
    record.exc_info = (type(error), error, None) if error else None
    return LineFormatter().format(record)


@pytest.fixture
def platform_keys(monkeypatch):
    """Settings with secrets in every place where settings have them."""
    held = {
        "DATABASES": {"default": {"PASSWORD": "database/pass+1"}},
        "SECRET_KEY": 'key"with-quote',
        "SECRET_KEY_FALLBACKS": ["older-key-1", "older-key-2"],
        "AOS_TOKEN_PEPPER": "some-pepper",
        "AOS_REDIS_URL": "redis://:valkey%2Fpass@redis:6379/0",
        "AOS_FLOWER_BASIC_AUTH": "aos:flower-pass",
        "OTLP_HEADERS": "authorization=Bearer%20otlp-pass,x-other=plain-enough",
    }
    pattern = redaction.pattern_of(redaction.held_by(SimpleNamespace(**held)))
    monkeypatch.setattr(redaction, "_known", lambda: pattern)


@pytest.mark.parametrize(
    "told",
    [
        "database/pass+1",
        "database%2Fpass%2B1",
        'key"with-quote',
        'key\\"with-quote',
        "older-key-2",
        "some-pepper",
        "valkey/pass",
        "valkey%2Fpass",
        "flower-pass",
        "YW9zOmZsb3dlci1wYXNz",
        "Bearer otlp-pass",
    ],
)
@pytest.mark.usefixtures("platform_keys")
def test_a_key_of_the_platform_is_hidden_wherever_it_turns_up(told):
    assert line("before <%s> after", told).endswith("before <[hidden]> after")


def test_short_values_and_names_of_cookies_are_no_keys():
    held = redaction.held_by(
        SimpleNamespace(
            DATABASES={"default": {"PASSWORD": ""}}, SECRET_KEY="test", SESSION_COOKIE_NAME="a" * 9
        )
    )

    assert held == set()


@pytest.mark.parametrize(
    "told",
    [
        f"GET /api/me?token={SECRET}&x=1",
        f"/x?password={SECRET}",
        f"token%3D{SECRET}",
        f"Authorization: Token {SECRET}",
        f"'authorization': b'Digest {SECRET}'",
        f"(b'cookie', b'sessionid={SECRET}; csrftoken={SECRET}')",
        f"Cookie: a={SECRET}; b=c; d={SECRET}",
        f"Set-Cookie: __Host-sessionid={SECRET}; Path=/; Secure",
        f"X-CSRFToken: {SECRET}",
        f'{{"password": "{SECRET}", "name": "olivia"}}',
        f'{{\\"client_secret\\": \\"{SECRET}\\"}}',
        f"host=db user=aos password={SECRET} dbname=aos",
        f"redis://:{SECRET}@redis:6379/0",
        f"amqp://aos:a/{SECRET}@rabbit//",
        f"new_password='{SECRET}'",
        f"csrfmiddlewaretoken={SECRET}",
        f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIx.{SECRET}",
        f"DETAIL:  Failing row contains (1, olivia, {SECRET}).",
        f"DETAIL:  Key (username)=({SECRET}) already exists.",
    ],
)
def test_a_secret_is_hidden_in_message_field_and_exception(told):
    lines = line("%s", told), line("said", error=ValueError(told)), line("said", said=told)

    assert [SECRET in shown for shown in lines] == [False] * 3
    assert all("[hidden]" in shown for shown in lines)


@pytest.mark.parametrize(
    "told",
    [
        "lease lost token=41 worker=w1",
        "Error 111 connecting to 127.0.0.1:6379. Connection refused.",
        "Not Found: /runs/0193",
        "http://127.0.0.1:8000/api/run",
        "tokens_used is 5, keyboard: ok",
        "password=None",
    ],
)
def test_what_is_no_secret_is_left_as_it_is(told):
    assert line("%s", told).endswith(told)


def test_a_request_is_logged_without_its_query():
    request = RequestFactory().get("/api/me", {"q": SECRET})

    assert line("Unauthorized", request=request).endswith('request="GET /api/me"')


@pytest.mark.parametrize(
    "body",
    [
        "raise ValueError(told)",
        "import threading; t = threading.Thread(target=lambda: 1 / 0 if not told else int(told)); t.start(); t.join()",
        "type('Leaver', (), {'__del__': lambda self: int(told)})()",
    ],
    ids=["main", "thread", "finalizer"],
)
def test_what_ends_a_process_is_printed_without_secrets(body):
    program = f"import django; django.setup(); told = 'password={SECRET}'; {body}"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=PROJECT,
        env={"DJANGO_SETTINGS_MODULE": "aos_project.settings.test", "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert "password=[hidden]" in done.stderr
    assert SECRET not in done.stderr


def test_uvicorn_prints_through_our_formatter():
    loggers = settings.LOGGING["loggers"]

    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        assert (loggers[name]["handlers"], loggers[name]["propagate"]) == ([], True)


def test_spans_leave_without_secrets():
    collected = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(Redacting(collected)))
    told = f"password={SECRET}"

    span = provider.get_tracer("t").start_span(f"GET /{told}")
    span.set_attribute("said", told)
    span.set_attribute("count", 3)
    span.record_exception(ValueError(told))
    span.set_status(trace.StatusCode.ERROR, told)
    span.end()

    (sent,) = collected.get_finished_spans()
    assert sent.context == span.get_span_context()
    assert sent.attributes == {"said": "password=[hidden]", "count": 3}
    assert sent.status.status_code is trace.StatusCode.ERROR
    assert SECRET not in sent.to_json()


@pytest.mark.parametrize(
    "text",
    ["a." * 250_000, "://a:" * 100_000, "token: " * 80_000, "cookie=" * 80_000, "(" * 500_000],
    ids=["words", "addresses", "names", "headers", "brackets"],
)
def test_no_text_takes_much_longer_than_its_length(text):
    began = time.perf_counter()
    redaction.text(text)

    assert time.perf_counter() - began < 5
