"""The pages about acts on many runs."""

from __future__ import annotations

import pytest

from apps.identity.actor import Actor
from apps.identity.types import Role
from tests.faces import session
from tests.factories import make_bulk_act, make_project, make_run, make_user

pytestmark = pytest.mark.django_db


def test_an_act_over_all_projects_is_in_the_list_of_each_and_of_who_may_see_them_all():
    project = make_project()
    make_run(project=project)
    oscar = make_user(role=Role.OPERATOR, organization=project.organization)
    vera = make_user(role=Role.VIEWER, project=project)
    act = make_bulk_act(by=Actor(user=oscar))

    assert str(act.pk) in session(oscar).get("/runs/bulk").content.decode()
    assert str(act.pk) not in session(vera).get("/runs/bulk").content.decode()


def test_an_act_of_one_project_is_not_in_the_list_of_another():
    project = make_project(name="A")
    make_run(project=project)
    other = make_project(name="B", organization=project.organization)
    oscar = make_user(role=Role.OPERATOR, organization=project.organization)
    act = make_bulk_act(by=Actor(user=oscar), project=project)

    browser = session(oscar)
    browser.get("/", {"project": other.slug})

    assert str(act.pk) not in browser.get("/runs/bulk").content.decode()
