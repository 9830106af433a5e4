"""What answers tell the browser, and that no page holds code of its own."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from apps.identity.types import Role
from tests.architecture.test_urls import ROUTES
from tests.faces import api, session
from tests.factories import make_agent, make_artifact, make_project, make_run, make_user

pytestmark = pytest.mark.django_db
STRICT = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
# Answers that say themselves how long they may be kept.
KEPT = {"/static/hub/img/favicon.svg"}


@pytest.fixture
def world():
    """An owner, signed in, and a finished look at everything there is."""
    project = make_project()
    olivia = make_user(role=Role.OWNER, organization=project.organization)
    run = make_run(project=project, agent=make_agent(organization=project.organization))
    make_artifact(run)
    values = {"public_id": run.public_id, "project_id": project.pk, "run_id": run.public_id}
    return session(olivia), values | {"name": "report.md", "project": project.slug}, olivia


def pages(values):
    """Every route without parameters, and those whose parameters the scene can fill."""
    for route, _ in ROUTES:
        path = re.sub(r"<(?:\w+:)?(\w+)>", lambda found: str(values.get(found[1], "?")), route)
        # Streams and downloads have tests of their own, and would be left open here.
        if "?" in path or path.startswith(("^", "flower")):
            continue
        if not path.startswith("api/events/stream") and "/artifacts/" not in path:
            yield f"/{path}"


class Code(HTMLParser):
    """Collects what a page would run, or style, by itself."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if (tag == "script" and not given.get("src")) or tag in {
            "style",
            "iframe",
            "object",
            "embed",
            "base",
        }:
            self.found.append(tag)
        self.found += [name for name in given if name.startswith("on") or name == "style"]
        self.found += [name for name in ("href", "src", "action", "formaction")
                       if re.match(r"\s*(javascript|vbscript|data:text)", given.get(name) or "", re.IGNORECASE)]  # fmt: skip


def test_every_answer_is_strict_and_nobody_keeps_it(world):
    client, values, _ = world
    asked = [*pages(values), "/admin/", "/nowhere", "/api/nowhere", *KEPT]
    weak = {}
    for path in asked:
        answer = client.get(path)
        missing = {name for name, told in STRICT.items() if answer.get(name) != told}
        policy = answer.get("Content-Security-Policy", "")
        if "frame-ancestors 'none'" not in policy and "sandbox" not in policy and path not in KEPT:
            missing.add("Content-Security-Policy")
        if "camera=()" not in answer.get("Permissions-Policy", ""):
            missing.add("Permissions-Policy")
        if path not in KEPT and not re.search("no-store|private", answer.get("Cache-Control", "")):
            missing.add("Cache-Control")
        if missing:
            weak[path] = missing

    assert len(asked) > 40
    assert weak == {}


def test_no_page_of_ours_holds_code_style_or_a_frame(world):
    client, values, _ = world
    found = {}
    for path in pages(values):
        answer = client.get(path)
        if not answer.get("Content-Type", "").startswith("text/html") or path == "/api/docs":
            continue
        code = Code()
        code.feed(answer.content.decode())
        policy = answer["Content-Security-Policy"]
        if code.found or "unsafe" in policy or "script-src 'self'" not in policy:
            found[path] = code.found or policy

    assert found == {}


@pytest.mark.parametrize(
    "markup",
    [
        "<script>x()</script>",
        '<a onclick="x()">',
        "<p style='color:red'>",
        "<style>p{}</style>",
        '<a href=" JavaScript:x()">',
        "<iframe src=/x></iframe>",
    ],
)
def test_the_search_finds_what_it_looks_for(markup):
    code = Code()
    code.feed(markup)

    assert code.found


def test_what_a_token_reads_is_not_kept_either(world):
    _, _, olivia = world

    assert api(olivia).get("/api/me")["Cache-Control"] == "no-store, private"


def test_signing_out_clears_what_the_browser_kept(world):
    client, _, _ = world
    answer = client.post("/logout")

    assert answer["Clear-Site-Data"] == '"cache"'
    assert answer.cookies["sessionid"].value == ""
