"""The list of sandboxes: whose one sees, which are in it, and what it tells of them."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from apps.core import clock, tenancy
from apps.identity.types import Role
from apps.sandboxes.models import Sandbox
from apps.sandboxes.services import tracking
from tests.faces import api, session
from tests.factories import make_project, make_run, make_sandbox, make_user

pytestmark = pytest.mark.django_db
LIST = "/api/sandboxes/instances"
PAGE = "/integrations/sandboxes/instances"


@pytest.fixture
def run():
    return make_run()


@pytest.fixture
def vera(run):
    return make_user(role=Role.VIEWER, project=run.project)


def listed(user, **query) -> list[str]:
    answer = api(user).get(LIST, query)
    assert answer.status_code == 200, answer.content
    return [row["id"] for row in answer.json()["results"]]


def test_one_sees_the_sandboxes_of_ones_projects_and_no_others(run, vera):
    mine = make_sandbox(run)
    beside = make_run(project=make_project(organization=run.project.organization))
    make_sandbox(beside)
    make_sandbox(make_run())

    assert listed(vera) == [str(mine.pk)]
    owner = make_user(role=Role.OWNER, organization=run.project.organization)
    assert len(listed(owner)) == 2


def test_one_that_waits_warm_is_in_nobodys_list(run, vera):
    make_sandbox()

    assert listed(vera) == []
    assert tracking.nobodys()[0].count == 1


def test_what_is_over_goes_from_the_list_and_what_failed_after_a_day(run, vera):
    over, failed = make_sandbox(run), make_sandbox(run)
    tracking.gone(over.pk)
    tracking.failed(failed.pk)
    assert listed(vera) == [str(failed.pk)]
    assert listed(vera, state="gone") == [str(over.pk)]

    Sandbox.objects.filter(pk=failed.pk).update(gone_at=clock.now() - timedelta(hours=25))

    assert listed(vera) == []


def test_it_is_said_since_when_it_is_what_it_is_and_what_is_kept(run, vera):
    made = make_sandbox(run, kept=18_400_000)

    (row,) = api(vera).get(LIST).json()["results"]

    assert row["state"] == "snapshotted"
    assert datetime.fromisoformat(row["since"]) == made.paused_at
    assert row["kept"] == {"size": 18_400_000, "files": 3, "left_out": 1}
    assert row["links"] == {"run": f"/api/runs/{run.public_id}"}


def test_a_sandbox_that_stands_still_keeps_nothing_yet(run, vera):
    make_sandbox(run, is_paused=True)

    (row,) = api(vera).get(LIST).json()["results"]

    assert (row["state"], row["kept"]) == ("paused", None)


def test_the_list_is_narrowed_by_project_run_and_state(run, vera):
    other = make_run(project=run.project)
    first, second = make_sandbox(run), make_sandbox(other, is_paused=True)

    assert listed(vera, run=str(run.public_id)) == [str(first.pk)]
    assert listed(vera, state="paused") == [str(second.pk)]
    assert listed(vera, project=run.project.slug) == [str(second.pk), str(first.pk)]
    assert api(vera).get(LIST, {"state": "asleep"}).status_code == 422


def test_the_page_tells_operators_alone_of_what_workers_hold_without_a_run(run, vera):
    make_sandbox(host="rack-3")

    assert "rack-3" not in session(vera).get(PAGE).content.decode()
    oscar = make_user(role=Role.OPERATOR, organization=run.project.organization)
    assert "rack-3" in session(oscar).get(PAGE).content.decode()


def test_a_web_request_does_not_see_the_rows_that_are_nobodys(run):
    make_sandbox()

    with tenancy.organization(run.organization_id):
        assert not Sandbox.objects.exists()
        assert [group.state for group in tracking.nobodys()] == ["warm"]
