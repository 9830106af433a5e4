"""What each read of the API may cost. A query more is a decision, not an accident.

The first number is for one row, and it must be the same for many.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from apps.runs.models import Artifact
from tests.faces import api
from tests.factories import (
    make_agent,
    make_agent_version,
    make_artifact,
    make_cast,
    make_environment,
    make_file,
    make_project,
    make_run,
)

pytestmark = pytest.mark.django_db

PINNED = json.loads((Path(__file__).parent / "query_counts.json").read_text(encoding="utf-8"))


@pytest.fixture
def world():
    cast = make_cast()
    project = make_project(organization=cast.organization, slug="demo")
    agent = make_agent(organization=cast.organization, slug="hello")
    run = make_run(project=project, agent=agent)
    make_artifact(run)
    make_file(project)
    make_environment(project=project)
    return {"cast": cast, "project": project, "agent": agent, "run": run}


def grow(world):
    """Three more of everything."""
    home = world["cast"].organization
    for number in range(3):
        project = make_project(organization=home)
        make_run(project=world["project"], agent=make_agent(organization=home))
        make_run(project=project, agent=world["agent"])
        make_agent_version(agent=world["agent"])
        make_artifact(world["run"], name=f"more-{number}.md")
        make_file(world["project"], name=f"more-{number}.csv")
        make_environment(project=world["project"])


@pytest.mark.parametrize("path", PINNED)
def test_a_read_costs_what_is_pinned_however_many_rows_there_are(world, path):
    client = api(world["cast"].vera)
    address = path.format(run=world["run"].public_id)
    client.get("/api/me")

    with CaptureQueriesContext(connection) as few:
        client.get(address)
    grow(world)
    with CaptureQueriesContext(connection) as many:
        response = client.get(address)

    assert response.status_code == 200
    assert len(many) == len(few), [query["sql"][:200] for query in many]
    assert len(few) == PINNED[path], [query["sql"][:200] for query in few]


def test_a_list_of_runs_does_not_carry_their_inputs(world):
    client = api(world["cast"].vera)

    with CaptureQueriesContext(connection) as queries:
        client.get("/api/runs")

    assert not [query for query in queries if '"runs_run"."spec"' in query["sql"]]
    assert not [query for query in queries if '"agents_agentversion"."spec"' in query["sql"]]
    assert Artifact.objects.exists()
