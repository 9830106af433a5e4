"""What a page shows of a file: made from its beginning, escaped, and never run."""

from __future__ import annotations

import pytest

from apps.core import blobs
from apps.hub import files, previews
from apps.identity.types import Role
from tests.factories import make_artifact, make_project, make_run, make_user, unwatched

pytestmark = pytest.mark.django_db
PDF = b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\n"


@pytest.fixture
def run():
    return make_run(project=make_project())


@pytest.fixture
def page(client, run):
    client.force_login(make_user(role=Role.VIEWER, organization=run.project.organization))
    return client


def make(run, name, content, media_type):
    artifact = make_artifact(run, name=name, content=content)
    with unwatched():
        type(artifact).objects.filter(pk=artifact.pk).update(media_type=media_type)
    artifact.media_type = media_type
    return artifact


def preview(run, name, content, media_type):
    return previews.of(files.of(run.public_id, make(run, name, content, media_type)))


def test_json_is_indented(run):
    shown = preview(run, "a.json", b'{"b":[1,{"c":"\xc3\xbc"}]}', "application/json")

    assert shown.kind == "text"
    assert '  "b": [\n    1,' in shown.text
    assert '"ü"' in shown.text


@pytest.mark.parametrize("content", [b'{"cut": ', b"[" * 60_000, b"NaN of the above", b"\xff\xfe"])
def test_what_is_no_json_is_shown_as_it_is_and_said_to_be_so(run, content):
    shown = preview(run, "a.json", content, "application/json")

    assert shown.kind == "text"
    assert "not readable JSON" in shown.note
    assert shown.text


def test_half_a_surrogate_pair_is_shown_as_it_was_written(run, page):
    shown = preview(run, "odd.json", b'{"a": "\\ud800 \\u00fc"}', "application/json")

    assert shown.text == '{\n  "a": "\\ud800 ü"\n}'
    assert page.get(f"/runs/{run.public_id}/files/odd.json").status_code == 200


def test_json_too_long_to_read_whole_is_shown_as_text(run):
    shown = preview(run, "a.json", b'["' + b"x" * 100_000 + b'"]', "application/json")

    assert shown.note == "Only the first 64 KiB are shown."


def test_a_preview_says_when_the_content_is_gone(run):
    artifact = make(run, "a.md", b"# Title", "text/markdown")
    blobs.configured().remove(artifact.sha256)

    shown = previews.of(files.of(run.public_id, artifact))

    assert (shown.kind, "no longer in storage" in shown.note) == ("none", True)


def test_a_preview_says_when_the_store_does_not_answer(run, settings):
    artifact = make(run, "a.md", b"# Title", "text/markdown")
    settings.AOS_ARTIFACT_STORE = "s3://bucket?endpoint=http://127.0.0.1:9"
    settings.AOS_ARTIFACT_S3_ACCESS_KEY = settings.AOS_ARTIFACT_S3_SECRET_KEY = "key"  # noqa: S105

    shown = previews.of(files.of(run.public_id, artifact))

    assert (shown.kind, "does not answer" in shown.note) == ("none", True)


def test_a_pdf_opens_as_a_page_in_a_sandbox_of_its_own(run, page):
    make(run, "out/report.pdf", PDF, "application/pdf")

    shown = page.get(f"/runs/{run.public_id}/files/out/report.pdf")
    assert f"/runs/{run.public_id}/pdf/out/report.pdf" in shown.content.decode()
    answer = page.get(f"/runs/{run.public_id}/pdf/out/report.pdf")

    assert b"".join(answer.streaming_content) == PDF
    assert answer["Content-Type"] == "application/pdf"
    assert answer["Content-Disposition"].startswith("inline")
    assert answer["Content-Security-Policy"] == "default-src 'none'; sandbox"
    assert answer["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("content", [b"<script>alert(1)</script>", b"", b"\x89PNG\r\n\x1a\n"])
def test_what_only_calls_itself_a_pdf_is_not_shown_as_one(run, page, content):
    make(run, "report.pdf", content, "application/pdf")

    answer = page.get(f"/runs/{run.public_id}/pdf/report.pdf")

    assert answer.status_code == 302
    assert answer["Location"] == f"/runs/{run.public_id}/files/report.pdf"


@pytest.mark.parametrize("name", ["missing.pdf", "a%00b"])
def test_a_pdf_that_is_not_there_is_a_404(run, page, name):
    assert page.get(f"/runs/{run.public_id}/pdf/{name}").status_code == 404


def test_a_pdf_of_another_organization_is_a_404(run, client):
    make(run, "report.pdf", PDF, "application/pdf")
    client.force_login(make_user(role=Role.OWNER))

    assert client.get(f"/runs/{run.public_id}/pdf/report.pdf").status_code == 404
