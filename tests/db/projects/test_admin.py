from __future__ import annotations

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse

from apps.events.models import AuditEntry
from apps.projects.models import Project, WorkspaceFile
from tests.faces import session
from tests.factories import make_cast, make_project

pytestmark = pytest.mark.django_db


@pytest.fixture
def cast():
    return make_cast()


def test_a_project_is_made_by_the_service(cast):
    response = session(cast.adam).post(
        reverse("admin:projects_project_add"),
        {"name": "Reports", "slug": "reports", "description": ""},
    )

    assert response.status_code == 302
    assert Project.objects.get().organization == cast.organization
    assert AuditEntry.objects.get(action="project.create").actor_id == cast.adam.pk


def test_a_taken_slug_is_told_on_the_form(cast):
    make_project(organization=cast.organization, slug="reports")

    response = session(cast.adam).post(
        reverse("admin:projects_project_add"),
        {"name": "Typed with care", "slug": "reports", "description": ""},
    )

    page = response.content.decode()
    assert response.status_code == 200
    assert "There is already a project" in page
    assert "Typed with care" in page
    assert Project.objects.count() == 1


def test_a_project_is_renamed_but_keeps_its_slug(cast):
    project = make_project(organization=cast.organization, slug="reports")

    response = session(cast.adam).post(
        reverse("admin:projects_project_change", args=[project.pk]),
        {
            "name": "New",
            "slug": "stolen",
            "description": "",
            "files-TOTAL_FORMS": 0,
            "files-INITIAL_FORMS": 0,
        },
    )

    project.refresh_from_db()
    assert response.status_code == 302
    assert (project.name, project.slug) == ("New", "reports")
    changed = AuditEntry.objects.get(action="project.change").detail["changes"]
    assert {name: new for name, (_, new) in changed.items()} == {"name": "New"}


def upload(cast, project, content, name="data.csv"):
    return session(cast.adam).post(
        reverse("admin:projects_workspacefile_add"),
        {"project": project.pk, "upload": SimpleUploadedFile(name, content)},
    )


def test_a_file_is_uploaded_through_the_service(cast):
    project = make_project(organization=cast.organization)

    response = upload(cast, project, b"a,b\n")

    assert response.status_code == 302
    assert WorkspaceFile.objects.get().size == 4
    assert AuditEntry.objects.get(action="file.write").actor_id == cast.adam.pk


def test_an_oversize_file_is_told_on_the_form(cast, settings):
    settings.AOS_FILE_LIMIT_BYTES = 10
    project = make_project(organization=cast.organization)

    response = upload(cast, project, b"x" * 11)

    assert response.status_code == 200
    assert "the limit is 10" in response.content.decode()
    assert not WorkspaceFile.objects.exists()


def test_a_file_goes_into_ones_own_project_only(cast):
    theirs = make_project()

    response = upload(cast, theirs, b"x")

    assert response.status_code == 200
    assert not WorkspaceFile.objects.exists()
