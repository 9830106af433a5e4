from __future__ import annotations

import json
from uuid import UUID, uuid4

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from apps.events.models import AuditEntry
from apps.runs.models import Run
from apps.runs.services import control
from tests.faces import api, key, problem
from tests.factories import (
    make_actor,
    make_agent,
    make_agent_version,
    make_artifact,
    make_cast,
    make_file,
    make_project,
    make_run,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def cast():
    return make_cast()


@pytest.fixture
def project(cast):
    return make_project(organization=cast.organization, slug="demo")


@pytest.fixture
def agent(cast):
    return make_agent(organization=cast.organization, slug="hello")


def task(**fields):
    return {"project": "demo", "agent": "hello", "input": {}} | fields


def errors(response):
    return {error["field"]: error["rule"] for error in problem(response)["params"]["errors"]}


def test_a_submitted_run_is_stored_before_it_is_acknowledged(cast, project, agent):
    response = api(cast.oscar).post("/api/run", task(labels={"team": "ops"}), headers=key())

    assert response.status_code == 202
    run = Run.objects.get()
    body = response.json()
    assert response["Location"] == f"/api/runs/{run.public_id}"
    assert set(body) == {
        "id",
        "state",
        "project",
        "agent",
        "agent_version",
        "kind",
        "name",
        "queue",
        "priority",
        "concurrency_key",
        "labels",
        "requires",
        "trace_id",
        "attempts",
        "isolation",
        "run_at",
        "total_deadline",
        "created_at",
        "started_at",
        "finished_at",
        "parent",
        "root",
        "budget",
        "result",
        "error",
        "links",
    }
    assert body["id"] == str(run.public_id)
    assert body["state"] == "queued"
    assert body["project"]["slug"] == "demo"
    assert body["agent"]["id"] == str(agent.pk)
    assert (body["agent_version"], body["priority"]) == (1, "normal")
    assert body["trace_id"] == run.trace_id


def test_an_answer_says_which_trace_it_is_and_the_run_continues_it(cast, project, agent):
    trace.set_tracer_provider(TracerProvider())
    theirs = "4bf92f3577b34da6a3ce929d0e0e4736"

    response = api(cast.oscar).post(
        "/api/run", task(), headers=key() | {"traceparent": f"00-{theirs}-00f067aa0ba902b7-01"}
    )

    assert response["X-Trace-Id"] == theirs
    assert response.json()["trace_id"] == theirs


def test_runs_is_another_door_to_the_same_submission(cast, project, agent):
    response = api(cast.oscar).post("/api/runs", task(), headers=key())

    assert response.status_code == 202


def test_projects_and_agents_are_named_by_id_too(cast, project, agent):
    by_id = task(project=str(project.pk), agent=str(agent.pk))

    response = api(cast.oscar).post("/api/run", by_id, headers=key())

    assert response.status_code == 202


def test_every_field_of_the_task_reaches_the_run(cast, project, agent):
    wanted = task(
        priority="urgent",
        queue="reports",
        timeout_s=60,
        queue_deadline_s=120,
        total_deadline_s=600,
        run_at="2126-01-31T12:00:00Z",
        retry={"max_attempts": 5, "backoff": "fixed", "base_s": 1.5, "retry_on": ["exit_nonzero"]},
        labels={"team": "ops"},
    )

    response = api(cast.oscar).post("/api/run", wanted, headers=key())

    assert response.status_code == 202
    run = Run.objects.get()
    assert (run.priority, run.queue, run.timeout_s) == (0, "reports", 60)
    assert run.retry["max_attempts"] == 5
    assert run.labels == {"team": "ops"}
    assert run.run_at.isoformat() == "2126-01-31T12:00:00+00:00"
    assert (run.queue_deadline - run.run_at).total_seconds() == 120
    assert (run.total_deadline - run.run_at).total_seconds() == 600


@pytest.mark.parametrize(
    "value", [None, "short", "x" * 256, "sixteen chars é", "with a space 12345"]
)
def test_a_submission_needs_a_usable_idempotency_key(cast, project, agent, value):
    headers = {} if value is None else {"Idempotency-Key": value}

    response = api(cast.oscar).post("/api/run", task(), headers=headers)

    assert response.status_code == 400
    assert problem(response)["code"] == "idempotency_key_missing"
    assert not Run.objects.exists()


def test_a_repeated_submission_answers_with_the_first_run(cast, project, agent):
    client = api(cast.oscar)
    first = client.post("/api/run", task(), headers=key())

    again = client.post("/api/run", task(), headers=key())

    assert again.status_code == 200
    assert again["Idempotency-Replayed"] == "true"
    assert again["Location"] == first["Location"]
    assert again.json()["id"] == first.json()["id"]
    assert Run.objects.count() == 1


def test_a_key_is_good_for_one_payload_only(cast, project, agent):
    client = api(cast.oscar)
    client.post("/api/run", task(), headers=key())

    other = client.post("/api/run", task(priority="bulk"), headers=key())

    assert other.status_code == 422
    assert problem(other)["code"] == "idempotency_key_reused"
    assert Run.objects.count() == 1


@pytest.mark.parametrize("field", ["project", "agent"])
@pytest.mark.parametrize(
    "ref", ["nobody-knows-me", str(UUID(int=7)), "../../etc", "caf\u00e9", "a b"]
)
def test_an_unknown_project_or_agent_is_a_404(cast, project, agent, field, ref):
    response = api(cast.oscar).post("/api/run", task(**{field: ref}), headers=key())

    assert response.status_code == 404
    assert problem(response)["params"] == {"what": field, "ref": ref}


@pytest.mark.parametrize("field", ["project", "agent"])
def test_what_another_organization_has_answers_like_what_nobody_has(cast, project, agent, field):
    theirs = make_project(slug="theirs")
    agent_of_theirs = make_agent(organization=theirs.organization, slug="theirs")
    ref = str(theirs.pk if field == "project" else agent_of_theirs.pk)
    made_up = str(uuid4())
    client = api(cast.oscar)

    seen = client.post("/api/run", task(**{field: ref}), headers=key("a"))
    unseen = client.post("/api/run", task(**{field: made_up}), headers=key("b"))

    assert seen.status_code == unseen.status_code == 404
    assert json.dumps(problem(seen)).replace(ref, made_up) == json.dumps(problem(unseen))


@pytest.mark.parametrize(
    ("broken", "field"),
    [
        ({"needs": []}, "needs"),
        ({"depends_on": [{"run": "soon"}]}, "depends_on.0.run"),
        ({"inputs": {}}, "inputs"),
        ({"input": "text"}, "input"),
        ({"input": None}, "input"),
        ({"project": ""}, "project"),
        ({"project": {"id": 1}}, "project"),
        ({"agent": None}, "agent"),
        ({"agent": "x" * 65}, "agent"),
        ({"priority": "soon"}, "priority"),
        ({"priority": 1}, "priority"),
        ({"run_at": "tomorrow"}, "run_at"),
        ({"queue": "No Such Queue"}, "queue"),
        ({"queue": "q" * 65}, "queue"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"timeout_s": 86_401}, "timeout_s"),
        ({"timeout_s": "soon"}, "timeout_s"),
        ({"queue_deadline_s": -1}, "queue_deadline_s"),
        ({"retry": []}, "retry"),
        ({"retry": {"max_attempts": 0}}, "retry.max_attempts"),
        ({"retry": {"times": 3}}, "retry.times"),
        ({"retry": {"base_s": "x"}}, "retry.base_s"),
        ({"retry": {"jitter": 2}}, "retry.jitter"),
        ({"retry": {"backoff": "none"}}, "retry.backoff"),
        ({"retry": {"retry_on": [1, {}]}}, "retry.retry_on.1"),
        ({"labels": {"a": {"b": 1}}}, "labels.a"),
        ({"labels": {f"l{n}": "" for n in range(33)}}, "labels"),
        ({"labels": {"n" * 65: ""}}, "labels"),
    ],
)
def test_a_malformed_task_names_the_field_and_the_rule(cast, project, agent, broken, field):
    response = api(cast.oscar).post("/api/run", task(**broken), headers=key())

    assert response.status_code == 422, response.content
    assert problem(response)["code"] == "invalid"
    assert field in errors(response)
    assert errors(response)[field]
    assert not Run.objects.exists()


@pytest.mark.parametrize("missing", ["project", "agent", "input"])
def test_a_task_says_what_and_where(cast, project, agent, missing):
    incomplete = task()
    del incomplete[missing]

    response = api(cast.oscar).post("/api/run", incomplete, headers=key())

    assert response.status_code == 422
    assert errors(response) == {missing: "This field is required."}


@pytest.mark.parametrize("body", ["[]", '"task"', "7", "null"])
def test_a_task_is_an_object(cast, body):
    response = api(cast.oscar).generic(
        "POST", "/api/run", body, content_type="application/json", headers=key()
    )

    assert response.status_code == 422
    assert "body" in errors(response)


def test_input_is_checked_against_the_agents_schema(cast, project):
    schema = {"type": "object", "required": ["rows"], "properties": {"rows": {"type": "integer"}}}
    spec = {"entry": "main.py", "files": {"main.py": ""}, "input_schema": schema}
    make_agent(organization=cast.organization, slug="picky", spec=spec)

    response = api(cast.oscar).post(
        "/api/run", task(agent="picky", input={"rows": "many"}), headers=key()
    )

    assert response.status_code == 422
    assert "input.rows" in errors(response)


def test_an_input_file_must_be_one_of_the_project(cast, project):
    schema = {"type": "object", "properties": {"file": {"type": "string", "format": "aos-file"}}}
    spec = {"entry": "main.py", "files": {"main.py": ""}, "input_schema": schema}
    make_agent(organization=cast.organization, slug="reader", spec=spec)
    make_file(project, name="here.csv")
    client = api(cast.oscar)

    found = client.post(
        "/api/run", task(agent="reader", input={"file": "here.csv"}), headers=key("a")
    )
    missing = client.post(
        "/api/run", task(agent="reader", input={"file": "../../x"}), headers=key("b")
    )

    assert found.status_code == 202
    assert missing.status_code == 422
    assert "input.file" in errors(missing)


def test_an_agent_without_a_release_cannot_run(cast, project):
    make_agent(organization=cast.organization, slug="raw", released=False)

    response = api(cast.oscar).post("/api/run", task(agent="raw"), headers=key())

    assert response.status_code == 409
    assert problem(response)["code"] == "agent_not_released"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "bad_request"),
        (b"", 422, "invalid"),
        (b'{"a": NaN}', 400, "bad_request"),
        (b'{"project": "\xff\xfe"}', 400, "bad_request"),
        (b"[" * 100_000, 400, "bad_request"),
        (b'{"input": ' + b'{"a":' * 80 + b"1" + b"}" * 81, 422, "invalid"),
        (b'{"input": {"text": "a\\u0000b"}}', 422, "invalid"),
        (b'{"input": {"a\\u0000b": 1}}', 422, "invalid"),
        (b'{"input": {"text": "\\ud800"}}', 422, "invalid"),
        (b'{"input": "' + b"x" * (1024 * 1024) + b'"}', 413, "too_large"),
    ],
)
def test_hostile_bodies_are_refused_without_harm(cast, project, agent, body, status, code):
    response = api(cast.oscar).generic(
        "POST", "/api/run", body, content_type="application/json", headers=key()
    )

    assert response.status_code == status, response.content[:300]
    assert problem(response)["code"] == code
    assert not Run.objects.exists()


def test_a_number_that_json_cannot_hold_is_refused(cast, project, agent):
    response = api(cast.oscar).generic(
        "POST",
        "/api/run",
        b'{"project": "demo", "agent": "hello", "input": {"n": 1e999}}',
        content_type="application/json",
        headers=key(),
    )

    assert response.status_code == 422
    assert not Run.objects.exists()


def test_only_json_is_taken(cast, project, agent):
    response = api(cast.oscar).generic(
        "POST", "/api/run", b"<run/>", content_type="application/xml", headers=key()
    )

    assert response.status_code == 415
    assert problem(response)["code"] == "unsupported_media_type"


def test_a_role_over_one_project_does_not_reach_the_next(cast, agent):
    mine = make_project(organization=cast.organization, slug="mine")
    other = make_project(organization=cast.organization, slug="other")
    oscar = make_actor("operator", project=mine).user
    client = api(oscar)

    reached = client.post("/api/run", task(project="mine"), headers=key("a"))
    beyond = client.post("/api/run", task(project=str(other.pk)), headers=key("b"))

    assert reached.status_code == 202
    assert beyond.status_code == 404


def test_the_list_shows_ones_own_newest_first(cast, project, agent):
    first, second = (make_run(project=project, agent=agent) for _ in range(2))
    make_run()

    response = api(cast.vera).get("/api/runs")

    assert [run["id"] for run in response.json()["results"]] == [
        str(second.public_id),
        str(first.public_id),
    ]
    assert response.json()["next"] is None


def test_the_list_goes_on_where_its_cursor_points(cast, project, agent):
    runs = [make_run(project=project, agent=agent) for _ in range(3)]
    client = api(cast.vera)

    page = client.get("/api/runs?limit=2").json()
    make_run(project=project, agent=agent)
    rest = client.get("/api/runs", {"limit": 2, "cursor": page["next"]}).json()

    assert [run["id"] for run in rest["results"]] == [str(runs[0].public_id)]
    assert rest["next"] is None


def test_the_list_narrows(cast, project, agent):
    other = make_project(organization=cast.organization)
    wanted = make_run(project=project, agent=agent, queue="reports")
    late = make_run(project=other, agent=make_agent(organization=cast.organization))
    control.cancel(by=make_actor(organization=cast.organization), run=late)
    client = api(cast.vera)

    for query in (
        {"state": "queued"},
        {"project": "demo"},
        {"project": str(project.pk)},
        {"agent": "hello"},
        {"queue": "reports"},
        {"trace_id": wanted.trace_id},
        {"created_before": late.created_at.isoformat()},
        {"created_after": wanted.created_at.isoformat(), "queue": "reports"},
    ):
        found = client.get("/api/runs", query).json()["results"]
        assert [run["id"] for run in found] == [str(wanted.public_id)], query

    assert client.get("/api/runs", {"state": "cancelled"}).json()["results"][0]["id"] == str(
        late.public_id
    )


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("state=sleeping", 422),
        ("stat=queued", 422),
        ("trace_id=xyz", 422),
        ("created_after=yesterday", 422),
        ("queue=%00", 422),
        ("limit=0", 400),
        ("limit=many", 400),
        ("cursor=nonsense", 400),
        ("project=nobody", 404),
        ("agent=%00", 422),
    ],
)
def test_a_bad_filter_is_refused_not_ignored(cast, query, status):
    response = api(cast.vera).get(f"/api/runs?{query}")

    assert response.status_code == status
    problem(response)


def test_a_claimed_run_shows_as_dispatched(cast, project, agent):
    run = make_run(project=project, agent=agent)
    waiting = make_run(project=project, agent=agent)
    dispatch_lease(run)
    client = api(cast.vera)

    assert client.get(f"/api/runs/{run.public_id}").json()["state"] == "dispatched"
    assert client.get("/api/runs?state=dispatched").json()["results"][0]["id"] == str(run.public_id)
    assert [r["id"] for r in client.get("/api/runs?state=queued").json()["results"]] == [
        str(waiting.public_id)
    ]


def dispatch_lease(run):
    from django.db.models.functions import Now

    from apps.runs.models import Lane, ReadyRun, RunLease

    ReadyRun.objects.filter(run=run).delete()
    RunLease.objects.create(
        run=run, lane_id=Lane.objects.get().pk, token=1, seq=1, dispatch_deadline=Now()
    )


def test_a_waiting_run_is_cancelled_at_once_and_twice_is_harmless(cast, project, agent):
    run = make_run(project=project, agent=agent)
    client = api(cast.oscar)

    first = client.post(f"/api/runs/{run.public_id}/cancel")
    again = client.post(f"/api/runs/{run.public_id}/cancel")

    assert first.status_code == again.status_code == 202
    assert first.json()["state"] == again.json()["state"] == "cancelled"
    assert first.json()["error"]["code"] == "cancelled"
    assert AuditEntry.objects.filter(action="run.cancel").count() == 1


def test_a_rerun_is_a_new_run_and_once_for_its_key(cast, project, agent):
    run = make_run(project=project, agent=agent, input={"n": 1})
    client = api(cast.oscar)

    made = client.post(f"/api/runs/{run.public_id}/rerun", headers=key())
    again = client.post(f"/api/runs/{run.public_id}/rerun", headers=key())
    without = client.post(f"/api/runs/{run.public_id}/rerun")

    assert made.status_code == 202
    assert made.json()["id"] != str(run.public_id)
    assert again.status_code == 200
    assert again.json()["id"] == made.json()["id"]
    assert problem(without)["code"] == "idempotency_key_missing"
    assert Run.objects.count() == 2


def test_the_log_of_a_run_is_read_page_by_page_to_its_end(cast, project, agent):
    run = make_run(project=project, agent=agent)
    url = f"/api/runs/{run.public_id}/events"
    client = api(cast.vera)

    open_ = client.get(url).json()
    control.cancel(by=make_actor(organization=cast.organization), run=run)
    page = client.get(url, {"limit": 1}).json()
    rest = client.get(url, {"after": page["next_after"]}).json()
    end = client.get(url, {"after": rest["next_after"]}).json()

    assert open_["final"] is False
    assert [event["seq"] for event in page["results"]] == [1]
    assert set(page["results"][0]) == {"seq", "kind", "payload", "at"}
    assert page["final"] is False
    assert rest["results"][-1]["payload"]["state"] == "cancelled"
    assert rest["final"] is True
    assert end == {"results": [], "next_after": rest["next_after"], "final": True}


@pytest.mark.parametrize("query", ["after=-1", "after=x", "after=99999999999999", "limit=0"])
def test_a_bad_position_in_the_log_is_refused(cast, project, agent, query):
    run = make_run(project=project, agent=agent)

    response = api(cast.vera).get(f"/api/runs/{run.public_id}/events?{query}")

    assert response.status_code == 422


def test_artifacts_are_listed_and_downloaded_as_attachments(cast, project, agent):
    run = make_run(project=project, agent=agent)
    artifact = make_artifact(run, name="charts/über all.svg", content=b"<svg onload='x()'/>")
    client = api(cast.vera)

    (listed,) = client.get(f"/api/runs/{run.public_id}/artifacts").json()["results"]
    response = client.get(listed["links"]["download"], headers={"Accept": "image/svg+xml"})

    assert (listed["name"], listed["size"]) == ("charts/über all.svg", 19)
    assert response.status_code == 200
    assert b"".join(response.streaming_content) == b"<svg onload='x()'/>"
    assert response["Content-Disposition"].startswith("attachment; filename")
    assert response["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in response["Content-Security-Policy"]
    assert response["ETag"] == f'"{artifact.sha256}"'


def test_an_artifact_one_has_is_not_sent_again(cast, project, agent):
    run = make_run(project=project, agent=agent)
    artifact = make_artifact(run)

    response = api(cast.vera).get(
        f"/api/runs/{run.public_id}/artifacts/report.md",
        headers={"If-None-Match": f'"{artifact.sha256}"'},
    )

    assert response.status_code == 304


@pytest.mark.parametrize("name", ["missing.md", "../../etc/passwd", "a%00b"])
def test_a_missing_artifact_is_a_404(cast, project, agent, name):
    run = make_run(project=project, agent=agent)

    response = api(cast.vera).get(f"/api/runs/{run.public_id}/artifacts/{name}")

    assert response.status_code == 404
    problem(response)


@pytest.mark.parametrize(
    ("method", "suffix"),
    [
        ("get", ""),
        ("get", "/events"),
        ("get", "/artifacts"),
        ("get", "/artifacts/report.md"),
        ("post", "/cancel"),
        ("post", "/rerun"),
    ],
)
def test_a_strangers_run_does_not_exist(cast, method, suffix):
    theirs = make_run()
    make_artifact(theirs)
    client = api(cast.olivia)
    made_up = str(uuid4())

    seen = getattr(client, method)(f"/api/runs/{theirs.public_id}{suffix}", headers=key())
    unseen = getattr(client, method)(f"/api/runs/{made_up}{suffix}", headers=key())
    malformed = getattr(client, method)(f"/api/runs/not-an-id{suffix}", headers=key())

    assert seen.status_code == unseen.status_code == malformed.status_code == 404
    assert json.dumps(problem(seen)).replace(str(theirs.public_id), made_up) == json.dumps(
        problem(unseen)
    )
    theirs.refresh_from_db()
    assert theirs.state == "queued"


def test_a_run_of_a_named_version_needs_the_right_to_manage_the_agent(cast, project, agent):
    make_agent_version(agent=agent, released=False)

    def ask(user, number):
        return api(user).post("/api/run", task(version=number), format="json", headers=key())

    assert problem(ask(cast.oscar, 2))["code"] == "not_allowed"
    admin = ask(cast.adam, 2)
    assert (admin.status_code, admin.json()["agent_version"]) == (202, 2)
    assert ask(cast.adam, 9).status_code == 404
