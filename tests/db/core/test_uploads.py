"""Multipart bodies made to hurt: refused as what they are, quickly, and nothing is stored."""

from __future__ import annotations

import time

import pytest

from apps.identity.types import Role
from apps.projects.models import WorkspaceFile
from tests.faces import api
from tests.factories import make_project, make_user

pytestmark = pytest.mark.django_db
LINE = b"\r\n"


def part(name, content=b"x", *, file=None, extra=b""):
    told = f'Content-Disposition: form-data; name="{name}"'.encode()
    if file is not None:
        told += f'; filename="{file}"'.encode()
    return b"--b" + LINE + told + LINE + extra + LINE + content + LINE


def body(*parts, end=b"--b--\r\n"):
    return b"".join(parts) + end


BOMBS = {
    "many fields": body(*[part(f"f{n}") for n in range(5_000)], part("file", file="a.csv")),
    "many files": body(*[part("file", file=f"{n}.csv") for n in range(500)]),
    "many files of one name": body(*[part("file", file="a.csv")] * 21),
    "a header without end": body(part("file", file="a.csv", extra=b"X-Long: " + b"a" * 200_000)),
    "ten thousand headers": body(part("file", file="a.csv", extra=b"X-A: b\r\n" * 10_000)),
    "a name without end": body(part("n" * 500_000, file="a.csv")),
    "a file name without end": body(part("file", file="n" * 500_000)),
    "a huge field": body(part("name", b"x" * 3_000_000), part("file", file="a.csv")),
    "a part that never ends": body(part("file", b"x" * 1_000, file="a.csv"), end=b""),
    "only boundaries": b"--b\r\n" * 100_000,
    "only the end": b"--b--\r\n",
    "nothing": b"",
    "no parts": b"\x00" * 100_000,
    "bad base64": body(part("file", b"!", file="a.csv", extra=b"Content-Transfer-Encoding: base64\r\n")),
    "an unknown encoding": body(
        part("name", b"\xff\xfe", extra=b"Content-Type: text/plain; charset=nonsense\r\n"),
        part("file", file="a.csv"),
    ),
    "nested multipart": body(
        part("file", body(part("x", file="y")), extra=b"Content-Type: multipart/mixed; boundary=b\r\n")
    ),
}  # fmt: skip


@pytest.fixture
def upload():
    project = make_project()
    client = api(make_user(role=Role.OPERATOR, project=project))

    def send(content, kind="multipart/form-data; boundary=b"):
        return client.generic("POST", f"/api/projects/{project.slug}/files", content, kind)

    return send


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_quickly_and_stores_nothing(upload, name):
    began = time.monotonic()
    answer = upload(BOMBS[name])

    assert 400 <= answer.status_code < 500, answer.content
    assert answer["Content-Type"] == "application/problem+json"
    assert time.monotonic() - began < 5
    assert not WorkspaceFile.objects.exists()


@pytest.mark.parametrize(
    "kind",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=" + "b" * 5_000,
        "multipart/form-data; boundary=b\xff",
        'multipart/form-data; boundary="b',
        "multipart/form-data; boundary=b; charset=nonsense",
        "multipart/mixed; boundary=b",
        "application/zip",
        "text/xml",
        "",
    ],
)
def test_a_strange_kind_of_body_is_refused(upload, kind):
    answer = upload(body(part("name", b"x")), kind)

    assert 400 <= answer.status_code < 500, answer.content
    assert not WorkspaceFile.objects.exists()


def test_a_plain_file_is_taken(upload):
    assert upload(body(part("file", b"a,b\n", file="data.csv"))).status_code == 201
    assert WorkspaceFile.objects.get().name == "data.csv"
