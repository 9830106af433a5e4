from __future__ import annotations

from functools import partial

import pytest

from apps.events.models import AuditEntry, OutboxEntry
from apps.identity.types import Role
from apps.runs.models import BulkAct, ReadyRun, Run
from apps.runs.types import BulkState
from tests.faces import api, key, problem
from tests.factories import (
    make_agent,
    make_binding,
    make_file,
    make_organization,
    make_project,
    make_run,
    make_user,
)
from tests.support.stand_in import StandIn
from tests.support.threads import at_once

ECHO = {"function": "aos.echo"}
TASK = {"project": "demo", "agent": "echo", "input": {}}
FILE_AGENT = ECHO | {
    "input_schema": {
        "type": "object",
        "required": ["file"],
        "properties": {"file": {"type": "string", "format": "aos-file"}},
    }
}


def _scene():
    organization = make_organization()
    project = make_project(organization=organization, slug="demo")
    make_agent(organization=organization, slug="echo", spec=ECHO, kind="function")
    return project, make_user(role=Role.OPERATOR, organization=organization)


@pytest.fixture
def scene(db):
    return _scene()


@pytest.fixture
def client(scene):
    return api(scene[1])


def _post(client, runs, name="intention"):
    return client.post("/api/runs/bulk", {"runs": runs}, format="json", headers=key(name))


def test_a_thousand_runs_are_accepted_in_one_request(client, django_assert_max_num_queries):
    with django_assert_max_num_queries(45):
        response = _post(client, [TASK] * 1000)

    assert response.status_code == 202
    body = response.json()
    assert (body["accepted"], body["refused"]) == (1000, 0)
    stored = list(Run.objects.order_by("pk").values_list("public_id", flat=True))
    assert [each["run"]["id"] for each in body["results"]] == [str(pk) for pk in stored]
    assert ReadyRun.objects.count() == OutboxEntry.objects.count() == 1000
    (entry,) = AuditEntry.objects.filter(action="run.submit_many")
    assert entry.detail["count"] == 1000


def test_each_is_accepted_or_refused_by_itself(client, scene):
    make_agent(organization=scene[0].organization, slug="draft", released=False)
    make_agent(organization=scene[0].organization, slug="files", spec=FILE_AGENT, kind="function")
    make_file(scene[0], name="here.csv")
    response = _post(
        client,
        [
            TASK,
            TASK | {"project": "nowhere"},
            TASK | {"agent": "draft"},
            TASK | {"agent": "files", "input": {"file": "gone.csv"}},
            TASK | {"agent": "files", "input": {"file": "here.csv"}, "priority": "urgent"},
        ],
    )

    results = response.json()["results"]
    codes = [each["error"] and each["error"]["code"] for each in results]
    assert codes == [None, "not_found", "agent_not_released", "invalid", None]
    assert results[3]["error"]["params"]["errors"][0]["field"] == "input.file"
    assert [each["index"] for each in results] == [0, 1, 2, 3, 4]
    assert Run.objects.count() == 2


def test_the_same_request_again_gets_the_same_verdicts_and_makes_nothing(client):
    runs = [TASK, TASK | {"agent": "nobody"}]
    first, again = _post(client, runs), _post(client, runs)

    assert (first.status_code, again.status_code) == (202, 200)
    assert again["Idempotency-Replayed"] == "true"
    assert first.json() == again.json()
    assert Run.objects.count() == 1


def test_another_request_with_the_same_key_is_refused(client):
    _post(client, [TASK])
    response = _post(client, [TASK, TASK])

    assert response.status_code == 422
    assert problem(response)["code"] == "idempotency_key_reused"


def test_a_body_that_is_wrong_in_form_changes_nothing(client):
    response = _post(client, [TASK, TASK | {"prioritty": "urgent"}])

    assert response.status_code == 422
    assert "prioritty" in str(problem(response))
    assert not Run.objects.exists()


@pytest.mark.parametrize("number", [0, 1001])
def test_nothing_and_more_than_a_thousand_are_refused(client, number):
    response = _post(client, [TASK] * number)

    assert response.status_code == 422
    assert not Run.objects.exists()


def test_where_one_may_not_submit_each_place_says_so(scene):
    other = make_project(organization=scene[0].organization, slug="other")
    guest = make_user(role=Role.OPERATOR, project=scene[0])
    make_binding(guest, Role.VIEWER, other)
    response = _post(api(guest), [TASK, TASK | {"project": "other"}])

    codes = [each["error"] and each["error"]["code"] for each in response.json()["results"]]
    assert codes == [None, "not_allowed"]


@pytest.mark.django_db(transaction=True)
def test_the_same_request_sent_many_times_at_once_takes_effect_once():
    _, user = _scene()
    clients = [api(user) for _ in range(4)]

    answers = at_once([partial(_post, client, [TASK] * 50) for client in clients])

    assert Run.objects.count() == 50
    told = [answer.json() for answer in answers if answer.status_code in {200, 202}]
    assert all(each == told[0] for each in told)
    assert sorted({answer.status_code for answer in answers} - {409}) in ([200, 202], [202])


# --- acts -----------------------------------------------------------------------------------------


def _act(client, name="act", **body):
    wanted = {"act": "cancel", "filter": {"project": "demo"}} | body
    return client.post("/api/runs/bulk/acts", wanted, format="json", headers=key(name))


def test_a_preview_counts_and_changes_nothing(client):
    _post(client, [TASK] * 3)
    body = {"act": "cancel", "filter": {"project": "demo", "queue": "default"}}
    response = client.post("/api/runs/bulk/preview", body, format="json")

    newest = Run.objects.latest("pk")
    assert response.json() == {
        "count": 3,
        "states": {"queued": 3},
        "upto": str(newest.public_id),
    }
    assert not BulkAct.objects.exists()


def test_an_act_is_accepted_once_for_each_key(client):
    _post(client, [TASK] * 3)
    first, again = _act(client), _act(client)

    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json() == again.json()
    assert BulkAct.objects.count() == 1
    read = client.get(first["Location"])
    assert read.json() == first.json()
    assert read.json()["matched"] == 3


def test_an_act_with_another_wish_under_the_same_key_is_refused(client):
    _post(client, [TASK] * 3)
    _act(client)

    assert problem(_act(client, canary=1))["code"] == "idempotency_key_reused"


def test_an_unknown_filter_is_refused_because_it_would_mean_everything(client):
    _post(client, [TASK])
    response = _act(client, filter={"project": "demo", "sttate": "queued"})

    assert response.status_code == 422
    assert not BulkAct.objects.exists()


def test_without_a_project_a_role_over_the_organization_is_needed(scene):
    make_run(project=scene[0])
    guest = make_user(role=Role.OPERATOR, project=scene[0])

    assert problem(_act(api(guest), filter={}))["code"] == "not_allowed"
    assert _act(api(guest)).status_code == 202


def test_acts_of_other_projects_are_not_shown(scene):
    make_run(project=scene[0])
    act = _act(api(scene[1])).json()
    stranger = make_user(
        role=Role.OPERATOR, project=make_project(organization=scene[0].organization)
    )

    assert api(stranger).get("/api/runs/bulk/acts").json()["results"] == []
    assert api(stranger).get(f"/api/runs/bulk/acts/{act['id']}").status_code == 404


def test_stopping_is_told(client):
    _post(client, [TASK])
    act = _act(client).json()
    stopped = client.post(f"/api/runs/bulk/acts/{act['id']}/stop")
    again = client.post(f"/api/runs/bulk/acts/{act['id']}/stop")

    assert stopped.json()["state"] == BulkState.STOPPED
    assert problem(again)["code"] == "bulk_act_is_over"


def test_runs_are_listed_by_the_code_of_their_error(client, scene):
    failed, _ = make_run(project=scene[0]), make_run(project=scene[0])
    StandIn(failed).fail("command_failed", "It ended with 1.")
    response = client.get("/api/runs?error=command_failed")

    assert [run["id"] for run in response.json()["results"]] == [str(failed.public_id)]
