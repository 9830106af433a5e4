"""A run's files in a real browser: read in the page, or opened as a page without an origin."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import expect

from tests.factories import make_run
from tests.support.stand_in import StandIn, artifact


def a_pdf(words: str) -> bytes:
    text = f"BT /F1 24 Tf 20 100 Td ({words}) Tj ET".encode()
    parts = [
        b"<</Type/Catalog/Pages 2 0 R/OpenAction<</S/JavaScript/JS(app.alert\\(1\\))>>>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 200]/Contents 4 0 R"
        b"/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(text), text),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    whole, places = b"%PDF-1.4\n", []
    for number, part in enumerate(parts, 1):
        places.append(len(whole))
        whole += b"%d 0 obj" % number + part + b"endobj\n"
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    end = b"trailer<</Size 6/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % len(whole)
    return whole + b"xref\n0 6\n0000000000 65535 f \n" + table + end


@pytest.fixture
def run(project):
    run = make_run(project=project)
    StandIn(run).succeed(
        "Done.",
        artifacts=[
            artifact("report.pdf", a_pdf("Quarterly report"), "application/pdf"),
            artifact("fake.pdf", b"<script>document.title='through'</script>", "application/pdf"),
            artifact(
                "facts.json",
                json.dumps({"rows": [1, {"a": "<b>x</b>"}]}).encode(),
                "application/json",
            ),
        ],
    )
    return run


def test_a_pdf_is_offered_in_a_tab_of_its_own(page, run):
    page.goto(f"/runs/{run.public_id}/files/report.pdf")
    link = page.get_by_role("link", name="Open the PDF")

    expect(link).to_have_attribute("target", "_blank")
    answer = page.request.get(link.get_attribute("href"))

    assert answer.headers["content-type"] == "application/pdf"
    assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"


def test_what_only_calls_itself_a_pdf_comes_back_to_its_preview(page, run):
    page.goto(f"/runs/{run.public_id}/pdf/fake.pdf")

    expect(page.get_by_role("heading", name="fake.pdf")).to_be_visible()
    assert "through" not in page.title()


def test_json_is_read_indented_and_nothing_in_it_is_markup(page, run):
    page.goto(f"/runs/{run.public_id}/files/facts.json")

    text = page.locator(".aos-preview-text")
    expect(text).to_contain_text('"a": "<b>x</b>"')
    assert "\n" in text.inner_text()
    expect(text.locator("b")).to_have_count(0)
