from __future__ import annotations

import re
from uuid import uuid4

import pytest
from django.urls import reverse

from apps.events.models import AuditEntry
from apps.runs.models import Run, RunEvent
from tests.faces import session
from tests.factories import (
    HELLO,
    make_agent,
    make_artifact,
    make_cast,
    make_file,
    make_project,
    make_run,
)

pytestmark = pytest.mark.django_db

READER = HELLO | {
    "input_schema": {
        "type": "object",
        "properties": {"file": {"type": "string", "format": "aos-file"}},
    }
}


@pytest.fixture
def cast():
    return make_cast()


@pytest.fixture
def project(cast):
    return make_project(organization=cast.organization)


@pytest.fixture
def agent(cast):
    return make_agent(organization=cast.organization, slug="reader", spec=READER)


@pytest.fixture
def run(project, agent):
    return make_run(project=project, agent=agent)


def change(run):
    return reverse("admin:runs_run_change", args=[run.pk])


def test_a_run_is_read_only(cast, run):
    response = session(cast.olivia).post(change(run), {"state": "succeeded", "name": "mine"})

    assert response.status_code == 403
    run.refresh_from_db()
    assert run.state == "queued"


def test_a_runs_page_shows_its_story_and_leads_on(cast, run):
    make_artifact(run)

    page = session(cast.olivia).get(change(run)).content.decode()

    assert f'href="/runs/{run.public_id}"' in page
    assert f'href="/flower/task/{run.public_id}.1"' in page
    assert f"/admin/events/event/?q={run.trace_id}" in page
    assert f'href="/api/runs/{run.public_id}/artifacts/report.md"' in page
    assert "reader v1" in page


def test_the_history_of_a_run_is_its_audit_trail(cast, run):
    client = session(cast.olivia)
    make_run(project=run.project, agent=run.agent_version.agent)

    response = client.get(reverse("admin:runs_run_history", args=[run.pk]), follow=True)

    assert [entry.action for entry in response.context["cl"].queryset] == ["run.submit"]
    assert {entry.resource_id for entry in response.context["cl"].queryset} == {str(run.public_id)}


def test_a_long_log_comes_in_pages(cast, run):
    RunEvent.objects.bulk_create(
        RunEvent(run=run, seq=seq, kind="log", payload={"text": f"line-{seq}-"})
        for seq in range(2, 150)
    )

    page = session(cast.olivia).get(change(run)).content.decode()

    assert "line-40-" in page
    assert "line-140-" not in page


@pytest.mark.parametrize("term", ["id", "trace", "hex", "name"])
def test_a_run_is_found_by_what_people_paste(cast, run, project, term):
    make_run(project=project, agent=make_agent(organization=cast.organization, slug="other"))
    pasted = {
        "id": str(run.public_id),
        "trace": run.trace_id,
        "hex": run.public_id.hex,
        "name": "read",
    }[term]

    response = session(cast.olivia).get(reverse("admin:runs_run_changelist"), {"q": pasted})

    assert list(response.context["cl"].queryset) == [run]


@pytest.mark.parametrize(
    "query",
    [
        "state__exact=queued",
        "priority__exact=1",
        "queue=default",
        "project__id__exact={project}",
        "agent_version__agent__id__exact={agent}",
    ],
)
def test_the_filters_work(cast, run, project, agent, query):
    query = query.format(project=project.pk, agent=agent.pk)

    response = session(cast.olivia).get(f"{reverse('admin:runs_run_changelist')}?{query}")

    assert list(response.context["cl"].queryset) == [run]


def test_filters_offer_nothing_of_strangers(cast, run):
    theirs = make_run(project=make_project(name="Secret plan"))

    page = session(cast.olivia).get(reverse("admin:runs_run_changelist")).content.decode()

    assert "Secret plan" not in page
    assert str(theirs.project_id) not in page


def test_the_chosen_runs_are_cancelled_and_who_did_it_is_on_record(cast, run, project, agent):
    other = make_run(project=project, agent=agent)

    response = session(cast.adam).post(
        reverse("admin:runs_run_changelist"),
        {"action": "cancel", "_selected_action": [run.pk, other.pk]},
        follow=True,
    )

    assert "2 cancelled." in response.content.decode()
    assert set(Run.objects.values_list("state", flat=True)) == {"cancelled"}
    entries = AuditEntry.objects.filter(action="run.cancel")
    assert {entry.actor_id for entry in entries} == {cast.adam.pk}
    assert entries.count() == 2


def test_what_cannot_be_cancelled_is_said_and_the_rest_is_done(cast, run, project, agent):
    over = make_run(project=project, agent=agent)
    Run.objects.filter(pk=over.pk).update(state="expired", finished_at=over.created_at)

    response = session(cast.adam).post(
        reverse("admin:runs_run_changelist"),
        {"action": "cancel", "_selected_action": [run.pk, over.pk]},
        follow=True,
    )

    page = response.content.decode()
    assert "1 cancelled." in page
    assert "already expired" in page


def test_a_strangers_run_cannot_be_chosen(cast):
    theirs = make_run()

    session(cast.adam).post(
        reverse("admin:runs_run_changelist"),
        {"action": "cancel", "_selected_action": [theirs.pk]},
    )

    theirs.refresh_from_db()
    assert theirs.state == "queued"


def test_the_chosen_runs_are_run_again(cast, run):
    session(cast.adam).post(
        reverse("admin:runs_run_changelist"), {"action": "rerun", "_selected_action": [run.pk]}
    )

    assert Run.objects.get(rerun_of=run).submitted_by == cast.adam
    assert AuditEntry.objects.filter(action="run.rerun", actor_id=cast.adam.pk).exists()


@pytest.mark.parametrize("name", ["cancel_one", "rerun_one"])
def test_following_a_link_changes_nothing_confirming_does(cast, run, name):
    client = session(cast.adam)
    url = reverse(f"admin:runs_run_{name}", args=[run.pk])

    asked = client.get(url)
    untouched = Run.objects.count(), Run.objects.get(pk=run.pk).state
    done = client.post(url, {"key": "k" * 32})

    assert asked.status_code == 200
    assert untouched == (1, "queued")
    assert done.status_code == 302
    assert (Run.objects.count(), Run.objects.get(pk=run.pk).state) != untouched


@pytest.mark.parametrize("name", ["cancel_one", "rerun_one"])
def test_the_page_of_an_act_on_a_strangers_run_does_not_exist(cast, name):
    theirs = make_run()

    for object_id in (theirs.pk, "nonsense", uuid4()):
        url = reverse(f"admin:runs_run_{name}", args=[object_id])
        assert session(cast.adam).post(url).status_code == 404


def submit(client, **fields):
    return client.post(
        reverse("admin:runs_run_add"), {"key": "k" * 32, "file": "", "input": ""} | fields
    )


def test_an_agent_leads_to_the_form_that_submits_it(cast, agent):
    client = session(cast.adam)

    led = client.get(reverse("admin:agents_agent_submit", args=[agent.pk]))
    form = client.get(led["Location"])

    assert led["Location"] == f"/admin/runs/run/add/?agent={agent.pk}"
    assert re.search(rf'<option value="{agent.pk}" selected', form.content.decode())


def test_a_run_is_submitted_with_json(cast, project, agent):
    response = submit(session(cast.adam), agent=agent.pk, project=project.pk, input='{"rows": 3}')

    run = Run.objects.get()
    assert response.status_code == 302
    assert run.spec["input"] == {"rows": 3}
    assert run.submitted_by == cast.adam
    assert AuditEntry.objects.get(action="run.submit").actor_id == cast.adam.pk


def test_a_run_is_submitted_with_the_name_of_a_file(cast, project, agent):
    make_file(project, name="data.csv")

    submit(session(cast.adam), agent=agent.pk, project=project.pk, file="data.csv")

    assert Run.objects.get().spec["input"] == {"file": "data.csv"}


def test_a_double_click_is_one_run(cast, project, agent):
    client = session(cast.adam)

    for _ in range(2):
        assert submit(client, agent=agent.pk, project=project.pk).status_code == 302

    assert Run.objects.count() == 1


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"input": "{"}, "Enter a valid JSON"),
        ({"input": "[1]"}, "The input is a JSON object."),
        ({"input": '{"file": 7}'}, "7 is not of type"),
        ({"file": "../../x"}, "not a file of this project"),
    ],
)
def test_a_bad_input_is_told_on_the_form_with_what_was_typed(cast, project, agent, fields, told):
    response = submit(session(cast.adam), agent=agent.pk, project=project.pk, **fields)

    page = response.content.decode()
    assert response.status_code == 200
    assert told in page.replace("&#x27;", "'")
    assert not Run.objects.exists()


def test_an_agent_that_takes_no_file_says_so(cast, project):
    plain = make_agent(organization=cast.organization)

    response = submit(session(cast.adam), agent=plain.pk, project=project.pk, file="x.csv")

    assert "This agent takes no file" in response.content.decode()


def test_the_form_offers_and_takes_only_ones_own(cast, agent):
    theirs = make_project(name="Secret plan")
    client = session(cast.adam)

    page = client.get(reverse("admin:runs_run_add")).content.decode()
    refused = submit(client, agent=agent.pk, project=theirs.pk)

    assert "Secret plan" not in page
    assert refused.status_code == 200
    assert not Run.objects.exists()
