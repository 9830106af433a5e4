from __future__ import annotations

import hashlib
from uuid import uuid4

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from apps.core import blobs
from apps.events.models import AuditEntry
from apps.projects.models import Project, WorkspaceFile
from tests.faces import api, problem
from tests.factories import make_actor, make_cast, make_file, make_project

pytestmark = pytest.mark.django_db


@pytest.fixture
def cast():
    return make_cast()


@pytest.fixture
def project(cast):
    return make_project(organization=cast.organization, slug="demo")


def upload(client, content=b"a,b\n1,2\n", *, name="data.csv"):
    return client.post(
        "/api/projects/demo/files",
        {"file": SimpleUploadedFile(name, content)},
        format="multipart",
    )


def test_an_admin_creates_a_project(cast):
    response = api(cast.adam).post("/api/projects", {"slug": "reports", "name": "Reports"})

    assert response.status_code == 201
    project = Project.objects.get()
    assert response["Location"] == f"/api/projects/{project.pk}"
    assert project.organization == cast.organization
    assert AuditEntry.objects.get(action="project.create").actor_id == cast.adam.pk


def test_a_slug_is_taken_once_in_an_organization(cast, project):
    response = api(cast.adam).post("/api/projects", {"slug": "demo", "name": "Again"})

    assert response.status_code == 409
    assert problem(response)["code"] == "conflict"


def test_another_organization_may_have_the_same_slug(cast, project):
    response = api(cast.sam).post("/api/projects", {"slug": "demo", "name": "Theirs"})

    assert response.status_code == 201


@pytest.mark.parametrize(
    ("broken", "field"),
    [
        ({"slug": "no slug"}, "slug"),
        ({"slug": "x" * 65}, "slug"),
        ({"name": ""}, "name"),
        ({"name": "a\x00b"}, "name"),
        ({"owner": "me"}, "owner"),
    ],
)
def test_a_malformed_project_names_the_field(cast, broken, field):
    response = api(cast.adam).post("/api/projects", {"slug": "x", "name": "X"} | broken)

    assert response.status_code == 422
    assert problem(response)["params"]["errors"][0]["field"] == field


def test_a_project_is_found_by_id_and_by_slug(cast, project):
    client = api(cast.vera)

    by_slug = client.get("/api/projects/demo").json()
    by_id = client.get(f"/api/projects/{project.pk}").json()

    assert by_slug == by_id
    assert by_slug["links"]["files"] == f"/api/projects/{project.pk}/files"


def test_the_list_holds_the_projects_one_has_a_role_in(cast, project):
    make_project(organization=cast.organization, slug="closed")
    make_project(slug="theirs")
    oscar = make_actor("operator", project=project).user

    listed = api(oscar).get("/api/projects").json()["results"]

    assert [item["slug"] for item in listed] == ["demo"]


@pytest.mark.parametrize("suffix", ["", "/files"])
def test_a_strangers_project_does_not_exist(cast, suffix):
    theirs = make_project(slug="theirs")
    client = api(cast.olivia)

    for ref in (theirs.pk, "theirs", uuid4(), "..", "%00"):
        response = client.get(f"/api/projects/{ref}{suffix}")
        assert response.status_code == 404, ref
        problem(response)


def test_an_uploaded_file_is_stored_under_its_sha256(cast, project):
    response = upload(api(cast.oscar))

    assert response.status_code == 201
    body = response.json()
    assert body["sha256"] == hashlib.sha256(b"a,b\n1,2\n").hexdigest()
    assert (body["name"], body["size"], body["media_type"]) == ("data.csv", 8, "text/csv")
    assert blobs.read(body["sha256"]) == b"a,b\n1,2\n"
    assert AuditEntry.objects.get(action="file.write").actor_id == cast.oscar.pk


def test_a_file_of_the_same_name_is_replaced(cast, project):
    client = api(cast.oscar)
    upload(client)

    response = upload(client, b"new")

    assert response.status_code == 201
    assert WorkspaceFile.objects.get().size == 3


def test_an_upload_may_be_given_another_name(cast, project):
    response = upload_as(api(cast.oscar), "better.csv")

    assert response.json()["name"] == "better.csv"


def upload_as(client, name):
    return client.post(
        "/api/projects/demo/files",
        {"file": SimpleUploadedFile("data.csv", b"x"), "name": name},
        format="multipart",
    )


def test_a_file_over_the_limit_is_refused_and_leaves_nothing(cast, project, settings):
    settings.AOS_FILE_LIMIT_BYTES = 1000

    exact = upload(api(cast.oscar), b"x" * 1000, name="exact.bin")
    over = upload(api(cast.oscar), b"x" * 1001, name="over.bin")

    assert exact.status_code == 201
    assert over.status_code == 413
    assert problem(over)["code"] == "too_large"
    assert WorkspaceFile.objects.get().name == "exact.bin"
    assert not list((settings.AOS_DATA_DIR / "artifacts").glob(".incoming-*"))


@pytest.mark.parametrize("name", ["../../x", ".hidden", "a/b.csv", "a\nb", "x" * 121, "-rf", "ünï"])
def test_a_file_name_is_a_plain_name(cast, project, name):
    response = upload_as(api(cast.oscar), name)

    assert response.status_code == 422
    assert not WorkspaceFile.objects.exists()


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"{}", "application/json", 415),
        (b"a,b", "text/csv", 415),
        (b"--x", "multipart/form-data", 400),
        (b"nothing", "multipart/form-data; boundary=x", 422),
    ],
)
def test_a_broken_upload_is_refused(cast, project, body, content_type, status):
    response = api(cast.oscar).generic(
        "POST", "/api/projects/demo/files", body, content_type=content_type
    )

    assert response.status_code == status, response.content
    problem(response)


def test_an_upload_takes_one_file_and_its_name(cast, project):
    response = api(cast.oscar).post(
        "/api/projects/demo/files",
        {"file": SimpleUploadedFile("a.csv", b"x"), "folder": "/etc"},
        format="multipart",
    )

    assert response.status_code == 422
    assert problem(response)["params"]["errors"][0]["field"] == "folder"


def test_files_are_listed_by_project(cast, project):
    other = make_project(organization=cast.organization)
    make_file(project, name="mine.csv")
    make_file(other, name="others.csv")

    listed = api(cast.vera).get("/api/projects/demo/files").json()["results"]

    assert [item["name"] for item in listed] == ["mine.csv"]
