from __future__ import annotations

import re

from django.contrib.staticfiles import finders
from django.test import Client


def test_the_docs_need_nothing_from_elsewhere():
    response = Client().get("/api/docs")

    page = response.content.decode()
    sources = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert response.status_code == 200
    assert len(sources) >= 4
    assert all(source.startswith("/") and not source.startswith("//") for source in sources)
    for source in sources:
        if source.startswith("/static/"):
            assert finders.find(source.removeprefix("/static/")), source


def test_the_docs_have_a_policy_of_their_own_without_eval():
    policy = Client().get("/api/docs")["Content-Security-Policy"]

    assert "script-src 'self';" in policy
    assert "eval" not in policy


def test_the_docs_script_reads_our_document():
    response = Client().get("/api/docs?script=")

    assert response["Content-Type"].startswith("application/javascript")
    assert "schema" in response.content.decode().partition("url:")[2][:60]


def test_anybody_may_read_the_document():
    response = Client().get("/api/schema")

    assert response.status_code == 200
    assert response["Content-Type"].startswith("application/vnd.oai.openapi")
    assert b"openapi: 3.1.0" in response.content
