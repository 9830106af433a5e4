from __future__ import annotations

from http import HTTPStatus
from uuid import UUID, uuid4

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse

from apps.identity.actor import Actor
from apps.identity.types import Role
from apps.projects.models import WorkspaceFile
from apps.runs.models import Run
from apps.runs.services import children
from apps.runs.types import RunState
from tests.factories import make_agent, make_organization, make_project, make_run, make_user
from tests.support.stand_in import StandIn, artifact, publish

pytestmark = pytest.mark.django_db
HTMX = {"HTTP_HX_REQUEST": "true"}
FILE_AGENT = {
    "entry": "main.py",
    "files": {"main.py": ""},
    "input_schema": {
        "type": "object",
        "required": ["file"],
        "additionalProperties": False,
        "properties": {
            "file": {"type": "string", "format": "aos-file", "title": "Input file"},
            "rows": {"type": "integer", "minimum": 1},
        },
    },
}
CHART = b'<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>'


@pytest.fixture
def project():
    return make_project(name="Flight safety")


@pytest.fixture
def olivia(project):
    return make_user(
        role=Role.OWNER, organization=project.organization, first_name="Olivia", last_name="Owens"
    )


@pytest.fixture
def vera(project):
    return make_user(role=Role.VIEWER, project=project)


@pytest.fixture
def page(client, olivia):
    """A browser in which Olivia has signed in."""
    client.force_login(olivia)
    return client


def _finished(project, **facts):
    run = make_run(project=project)
    worker = StandIn(run)
    worker.milestone("Read the table", 0.5, rows=10_000)
    worker.succeed(
        "All rows kept.",
        artifacts=[
            artifact("chart.svg", CHART, "image/svg+xml"),
            artifact("clean.csv", b"a,b\n1,2\n3,4\n", "text/csv"),
            artifact(
                "report.md", b"# Report\n\n![c](chart.svg) <script>x</script>", "text/markdown"
            ),
        ],
        **facts,
    )
    run.refresh_from_db()
    return run


# Who may see what


@pytest.mark.parametrize("path", ["/", "/runs", "/palette", f"/runs/{UUID(int=7)}"])
def test_a_stranger_is_sent_to_the_sign_in_page_and_back(client, path):
    make_organization()
    response = client.get(path)

    assert response.status_code == HTTPStatus.FOUND
    assert response.url == f"/login?next={path}"


def test_a_fragment_asked_for_after_the_session_ended_leads_the_whole_page_to_sign_in(client):
    make_organization()
    response = client.get(
        "/runs", **HTMX, HTTP_HX_CURRENT_URL="http://testserver/runs?state=failed"
    )

    assert response.headers["HX-Redirect"] == "/login?next=%2Fruns%3Fstate%3Dfailed"
    assert response.content == b""


def test_signing_in_leads_to_the_page_that_was_asked_for(client, olivia):
    olivia.set_password("correct horse battery")
    olivia.save(update_fields=["password"])

    response = client.post(
        "/login",
        {"username": olivia.username, "password": "correct horse battery", "next": "/runs"},
    )

    assert response.url == "/runs"


def test_a_wrong_password_is_told_without_saying_which_part_was_wrong(client, olivia):
    response = client.post("/login", {"username": olivia.username, "password": "wrong"})

    assert response.status_code == HTTPStatus.OK
    assert 'role="alert"' in response.content.decode()
    assert "wrong" not in response.content.decode()


def test_sign_in_never_leads_to_another_site(client, olivia):
    olivia.set_password("correct horse battery")
    olivia.save(update_fields=["password"])

    response = client.post(
        "/login",
        {
            "username": olivia.username,
            "password": "correct horse battery",
            "next": "https://evil.example/",
        },
    )

    assert response.url == "/"


@pytest.mark.parametrize(
    "name", ["run", "run_row", "run_log", "workspace", "run_cancel", "run_rerun"]
)
def test_another_organizations_run_does_not_exist(page, name):
    run = make_run()

    method = page.post if name in {"run_cancel", "run_rerun"} else page.get
    response = method(reverse(name, args=[run.public_id]))

    assert response.status_code == HTTPStatus.NOT_FOUND
    run.refresh_from_db()
    assert run.state == RunState.QUEUED


@pytest.mark.parametrize("name", ["cards", "composer", "recent", "latest_workspace", "tabs"])
def test_another_organizations_project_does_not_exist(page, name):
    foreign = make_project()

    response = page.get(reverse(name, args=[foreign.pk]), **HTMX)

    assert response.status_code == HTTPStatus.NOT_FOUND


def test_a_run_of_a_project_one_has_no_role_in_does_not_exist(client, project):
    other = make_project(organization=project.organization)
    client.force_login(make_user(role=Role.OPERATOR, project=other))
    run = make_run(project=project)

    assert client.get(f"/runs/{run.public_id}").status_code == HTTPStatus.NOT_FOUND
    assert client.get(f"/?run={run.public_id}").status_code == HTTPStatus.NOT_FOUND
    assert client.get(f"/?panel={run.public_id}").status_code == HTTPStatus.NOT_FOUND
    assert client.get(f"/?project={project.slug}").status_code == HTTPStatus.NOT_FOUND


def test_a_person_without_any_project_is_told_whom_to_ask(client):
    client.force_login(make_user(organization=make_organization(name="Northwind")))

    html = client.get("/").content.decode()

    assert "No project yet" in html
    assert "Northwind" in html
    assert client.get("/runs").status_code == HTTPStatus.OK


def test_an_unknown_address_answers_inside_the_shell(page):
    response = page.get("/no-such-page")

    assert response.status_code == HTTPStatus.NOT_FOUND
    assert "There is nothing at this address" in response.content.decode()
    assert 'class="aos-side"' in response.content.decode()


@pytest.mark.parametrize("path", ["/?run=7", "/?run=../x", "/?panel=%00", "/runs?before=x"])
def test_an_address_that_is_no_id_does_not_exist(page, project, path):
    assert page.get(path).status_code == HTTPStatus.NOT_FOUND


def test_a_cursor_that_is_no_number_is_refused(page, project):
    response = page.get(reverse("cards", args=[project.pk]) + "?after=ten", **HTMX)

    assert response.status_code == HTTPStatus.BAD_REQUEST


def test_pages_carry_the_strict_policy_and_no_inline_code(page, project):
    run = _finished(project)

    for path in ("/", "/runs", f"/runs/{run.public_id}", f"/runs/{run.public_id}/files/report.md"):
        response = page.get(path)
        policy = response.headers["Content-Security-Policy"]
        html = response.content.decode()
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "<script>" not in html
        assert " style=" not in html


# Chat Hub


def test_an_empty_project_says_what_to_do(page, project):
    make_agent(organization=project.organization)

    html = page.get("/").content.decode()

    assert "Nothing has happened here yet" in html
    assert "No files yet" in html


def test_every_kind_of_event_is_a_card(page, project):
    run = make_run(project=project, retry={"max_attempts": 2, "base_s": 0.0001})
    StandIn(run).fail("sandbox_lost", "The sandbox was lost.", retryable=True)
    _finished(project)

    html = page.get("/").content.decode()

    for kind in ("Accepted", "Anomaly", "Recovering", "Receipt", "Milestone"):
        assert kind in html
    assert "All rows kept." in html


def test_a_receipt_shows_state_facts_files_and_isolation(page, project):
    run = make_run(project=project)
    worker = StandIn(run, isolation="none")
    worker.succeed(
        "Fine.", artifacts=[artifact("a.txt", b"x" * 2048, "text/plain")], rows_in=10_000
    )

    html = page.get("/").content.decode()

    assert 'data-state="succeeded"' in html
    assert "Rows in" in html
    assert "10,000" in html
    assert "a.txt" in html
    assert "2.0 kB" in html
    assert "isolation: none" in html


def test_a_failed_run_says_why_and_what_to_do(page, project):
    run = make_run(project=project)
    StandIn(run).fail("out_of_memory", "The command used more memory than its sandbox has.")

    for path in ("/", f"/runs/{run.public_id}"):
        html = page.get(path).content.decode()
        assert "The agent ran out of memory" in html
        assert "out_of_memory" in html
        assert "raise memory_mb" in html


def test_what_agents_and_people_write_is_never_markup(page, project):
    run = make_run(project=project)
    worker = StandIn(run)
    attack = "<img src=x onerror=alert(1)>"
    worker.log(attack)
    worker.milestone(attack, 0.5, **{attack: attack})
    worker.plan((attack, "doing"))
    worker.succeed(attack, artifacts=[artifact("x.csv", attack.encode(), "text/csv")])

    for path in ("/", f"/runs/{run.public_id}", f"/runs/{run.public_id}/files/x.csv"):
        html = page.get(path).content.decode()
        assert "<img src=x" not in html
        assert "&lt;img src=x" in html


def test_the_stream_of_one_run_shows_only_its_events(page, project):
    run, other = make_run(project=project), make_run(project=project)
    StandIn(run).milestone("Mine")
    StandIn(other).milestone("Not mine")

    html = page.get(f"/?run={run.public_id}").content.decode()

    assert "Mine" in html
    assert "Not mine" not in html
    assert f'data-run="{run.public_id}"' in html


def test_choosing_a_project_is_remembered(page, project):
    other = make_project(organization=project.organization, name="Ground", slug="ground")

    page.get("/?project=ground")

    assert page.get("/").context["project"] == other


# Cards behind a place in the log


def test_new_cards_are_those_behind_the_last_one_and_say_how_far_they_go(page, project):
    run = make_run(project=project)
    worker = StandIn(run)
    url = reverse("cards", args=[project.pk])
    shown = int(page.get(f"{url}?after=0", **HTMX).headers["X-Aos-Seq"])

    worker.milestone("News")
    response = page.get(f"{url}?after={shown}", **HTMX)

    assert response.content.decode().count("<article") == 1
    assert "News" in response.content.decode()
    assert int(response.headers["X-Aos-Seq"]) == shown + 1


def test_nothing_new_is_an_empty_answer(page, project):
    response = page.get(reverse("cards", args=[project.pk]) + "?after=0", **HTMX)

    assert response.status_code == HTTPStatus.NO_CONTENT


def test_a_burst_is_grouped_and_the_rest_can_be_viewed(page, project):
    worker = StandIn(make_run(project=project))
    for number in range(9):
        worker.milestone(f"Step {number}")
    url = reverse("cards", args=[project.pk])

    response = page.get(f"{url}?after=1", **HTMX)
    html = response.content.decode()

    assert "more updates grouped" in html
    assert html.count("<article") < 9
    rest = page.get(f"{url}?after=1&until=10&all=1", **HTMX).content.decode()
    assert rest.count("<article") == 9


def test_earlier_cards_are_fetched_in_pages(page, project):
    worker = StandIn(make_run(project=project))
    for number in range(70):
        worker.milestone(f"Step {number}")

    html = page.get("/").content.decode()
    assert "Show earlier events" in html

    earlier = page.get(reverse("cards", args=[project.pk]) + "?before=12", **HTMX).content.decode()
    assert "Show earlier events" not in earlier


def test_a_reader_far_behind_gets_the_newest_cards_and_a_way_to_the_rest(
    page, project, monkeypatch
):
    monkeypatch.setattr("apps.hub.views._CATCH_UP", 5)
    worker = StandIn(make_run(project=project))
    for number in range(20):
        worker.milestone(f"Step {number}")

    response = page.get(reverse("cards", args=[project.pk]) + "?after=3", **HTMX)

    html = response.content.decode()
    assert response.headers["X-Aos-Seq"] == "21"
    assert "Step 18" in html
    assert "13 more updates grouped" in html
    assert "?after=3&amp;until=16&amp;all=1" in html


def test_a_cursor_beyond_any_number_is_only_a_cursor(page, project):
    make_run(project=project)
    publish()
    url = reverse("cards", args=[project.pk])

    assert page.get(f"{url}?after={10**30}", **HTMX).status_code == HTTPStatus.NO_CONTENT
    assert "<article" in page.get(f"{url}?before={10**30}", **HTMX).content.decode()


def test_a_fragments_address_opened_in_a_browser_leads_to_its_page(page, project):
    run = _finished(project)

    for name, argument, start in (
        ("cards", project.pk, "/?project="),
        ("composer", project.pk, "/?project="),
        ("workspace", run.public_id, "/?panel="),
        ("run_row", run.public_id, "/runs/"),
        ("recent", project.pk, "/runs"),
        ("tabs", project.pk, "/"),
    ):
        response = page.get(reverse(name, args=[argument]))
        assert response.status_code == HTTPStatus.FOUND
        assert response.url.startswith(start)


# Composer


def _submit(client, project, agent, **fields):
    url = reverse("submit", args=[project.pk])
    return client.post(url, {"agent": agent.slug, "key": "k" * 32} | fields, **HTMX)


def test_an_uploaded_file_is_stored_and_the_run_accepted(page, project):
    agent = make_agent(organization=project.organization, spec=FILE_AGENT)
    upload = SimpleUploadedFile("Strikes été.csv", b"a,b\n1,2\n")

    response = _submit(page, project, agent, **{"input.file": upload, "input.rows": "5"})

    run = Run.objects.get()
    assert response.status_code == HTTPStatus.OK
    assert run.name in response.headers["HX-Trigger"]
    assert run.spec["input"] == {"file": "Strikes _t_.csv", "rows": 5}
    assert WorkspaceFile.objects.get().size == 8


def test_pressing_run_twice_submits_once(page, project):
    agent = make_agent(organization=project.organization)

    _submit(page, project, agent)
    _submit(page, project, agent)

    assert Run.objects.count() == 1


def test_wrong_input_comes_back_in_place_with_what_was_typed(page, project):
    agent = make_agent(organization=project.organization, spec=FILE_AGENT)

    response = _submit(page, project, agent, **{"input.file": "missing.csv", "input.rows": "0"})

    html = response.content.decode()
    assert response.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    assert "0 is less than the minimum of 1" in html
    assert 'value="0"' in html
    assert not Run.objects.exists()


def test_a_file_over_the_limit_is_refused_with_the_limit(page, project, settings):
    settings.AOS_FILE_LIMIT_BYTES = 1024
    agent = make_agent(organization=project.organization, spec=FILE_AGENT)

    response = _submit(
        page, project, agent, **{"input.file": SimpleUploadedFile("a.csv", b"x" * 1025)}
    )

    assert response.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    assert "1024" in response.content.decode()
    assert not Run.objects.exists()


def test_without_script_the_form_leads_to_the_run_or_back_with_its_errors(page, project):
    agent = make_agent(organization=project.organization, spec=FILE_AGENT)
    url = reverse("submit", args=[project.pk])

    wrong = page.post(url, {"agent": agent.slug})
    right = page.post(url, {"agent": agent.slug, "input.file": SimpleUploadedFile("a.csv", b"a\n")})

    assert wrong.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    assert "is a required property" in wrong.content.decode()
    assert 'class="aos-side"' in wrong.content.decode()
    assert right.url == f"/?run={Run.objects.get().public_id}"


def test_a_viewer_sees_no_composer_and_cannot_submit(client, project, vera):
    agent = make_agent(organization=project.organization)
    client.force_login(vera)

    html = client.get("/").content.decode()
    response = _submit(client, project, agent)

    assert "you need the operator role" in html
    assert response.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    assert "Your role does not allow" in response.content.decode()
    assert not Run.objects.exists()


def test_an_unreleased_agent_is_not_offered(page, project):
    agent = make_agent(organization=project.organization, released=False)

    assert _submit(page, project, agent).status_code == HTTPStatus.NOT_FOUND
    assert agent.title not in page.get("/").content.decode()


# Runs


def test_runs_are_listed_newest_first_and_narrowed_by_state_and_agent(page, project):
    agent = make_agent(organization=project.organization)
    done = _finished(project)
    waiting = make_run(project=project, agent=agent)

    everything = page.get("/runs").context["runs"]
    by_state = page.get("/runs?state=succeeded").context["runs"]
    by_agent = page.get(f"/runs?agent={agent.slug}").context["runs"]

    assert everything == [waiting, done]
    assert by_state == [done]
    assert by_agent == [waiting]


def test_a_long_list_goes_on_where_the_last_page_ended(page, project):
    agent = make_agent(organization=project.organization)
    runs = [make_run(project=project, agent=agent) for _ in range(33)]

    first = page.get("/runs").context
    second = page.get(first["more"], **HTMX)

    assert first["runs"] == runs[:2:-1]
    assert second.context["runs"] == runs[2::-1]
    assert "<table" not in second.content.decode()
    assert second.context["more"] == ""


def test_a_list_without_a_match_says_so_and_offers_the_way_back(page, project):
    make_run(project=project)

    html = page.get("/runs?state=dead").content.decode()

    assert "No run matches" in html
    assert "Show all runs" in html


def test_the_list_costs_the_same_queries_however_long_it_is(
    page, project, django_assert_max_num_queries
):
    agent = make_agent(organization=project.organization)
    for _ in range(20):
        make_run(project=project, agent=agent)
    publish()

    with django_assert_max_num_queries(16):
        page.get("/runs")
    with django_assert_max_num_queries(24):
        page.get("/")


# The run page


def test_the_run_page_tells_the_whole_story(page, project, olivia):
    run = _finished(project, rows_in=10_000)

    html = page.get(f"/runs/{run.public_id}").content.decode()

    for words in (
        "Accepted",
        "Started",
        "Read the table",
        "Succeeded",
        "All rows kept.",
        "chart.svg",
        "clean.csv",
        run.trace_id,
        "isolation: docker",
        "Re-run",
    ):
        assert words in html
    assert "Cancel the run" not in html or 'data-dialog="aos-cancel"' not in html


def test_a_running_run_can_be_cancelled_and_says_where_the_log_goes_on(page, project):
    run = make_run(project=project)
    worker = StandIn(run)
    worker.log("working", level="warn", source="stderr")
    worker.plan(("Read", "done"), ("Write", "doing"))

    html = page.get(f"/runs/{run.public_id}").content.decode()

    assert 'data-dialog="aos-cancel"' in html
    assert 'data-final="false"' in html
    assert f'data-after="{run.event_set.count()}"' in html
    assert 'data-level="warn"' in html
    assert "Write" in html


def test_the_live_fragment_replaces_every_part_that_changes(page, project):
    run = make_run(project=project)

    html = page.get(f"/runs/{run.public_id}", **HTMX).content.decode()

    for target in ("#run-status", "#run-tools", "#run-timeline", "#run-error", "#run-side"):
        assert f'hx-target="{target}"' in html
    assert "<html" not in html


def test_cancelling_asks_the_service_and_comes_back(page, project):
    run = make_run(project=project)

    response = page.post(f"/runs/{run.public_id}/cancel")

    run.refresh_from_db()
    assert response.url == f"/runs/{run.public_id}"
    assert run.state == RunState.CANCELLED


def test_cancelling_what_is_over_says_so(page, project):
    run = _finished(project)

    html = page.post(f"/runs/{run.public_id}/cancel", follow=True).content.decode()

    assert "This run has already succeeded" in html


def test_a_rerun_is_a_new_run_and_a_double_click_is_one(page, project):
    run = _finished(project)
    url = f"/runs/{run.public_id}/rerun"

    first = page.post(url, {"key": "r" * 32})
    second = page.post(url, {"key": "r" * 32})

    again = Run.objects.exclude(pk=run.pk).get()
    assert first.url == second.url == f"/runs/{again.public_id}"
    assert again.rerun_of == run


def test_a_viewer_can_look_but_not_act(client, project, vera):
    run = make_run(project=project)
    client.force_login(vera)

    html = client.get(f"/runs/{run.public_id}").content.decode()
    refused = client.post(f"/runs/{run.public_id}/cancel", follow=True).content.decode()

    assert "Re-run" not in html
    assert "Your role does not allow" in refused
    run.refresh_from_db()
    assert run.state == RunState.QUEUED


def test_actions_are_not_done_by_following_a_link(page, project):
    run = make_run(project=project)

    for name in ("cancel", "rerun"):
        response = page.get(f"/runs/{run.public_id}/{name}")
        assert response.status_code == HTTPStatus.METHOD_NOT_ALLOWED


def test_a_form_from_another_site_is_refused(olivia, project):
    from django.test import Client

    client = Client(enforce_csrf_checks=True)
    client.force_login(olivia)
    run = make_run(project=project)

    response = client.post(f"/runs/{run.public_id}/cancel")

    assert response.status_code == HTTPStatus.FORBIDDEN
    assert "This form has expired" in response.content.decode()


def test_the_whole_log_can_be_downloaded(page, project):
    run = make_run(project=project)
    worker = StandIn(run)
    worker.log("first line")
    worker.log("second line", level="error", source="stderr")

    response = page.get(f"/runs/{run.public_id}/log")

    lines = response.content.decode().splitlines()
    assert response.headers["Content-Disposition"].endswith(f'run-{run.public_id}.log"')
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert lines[-2].endswith("INFO  stdout     first line")
    assert "ERROR stderr" in lines[-1]


def test_a_long_log_shows_its_end_and_says_so(page, project):
    run = make_run(project=project)
    worker = StandIn(run)
    from apps.runs.types import Entry, EventKind

    lines = [Entry(kind=EventKind.LOG, payload={"text": f"line {n}"}) for n in range(500)]
    worker.say(*lines)

    html = page.get(f"/runs/{run.public_id}").content.decode()

    assert "Only the last 400 of" in html
    assert "line 499" in html
    assert "line 50<" not in html


# Files


def test_a_report_is_shown_with_its_chart_and_without_its_script(page, project):
    run = _finished(project)

    html = page.get(f"/runs/{run.public_id}/files/report.md").content.decode()

    assert f'<img src="/api/runs/{run.public_id}/artifacts/chart.svg"' in html
    assert "&lt;script&gt;x&lt;/script&gt;" in html


def test_a_table_shows_its_first_rows(page, project):
    run = _finished(project)

    html = page.get(f"/runs/{run.public_id}/files/clean.csv", **HTMX).content.decode()

    assert '<th scope="col">a</th>' in html
    assert "<td>3</td>" in html
    assert "2 rows." in html
    assert "<html" not in html


def test_the_workspace_goes_along_with_the_newest_files_until_a_run_is_chosen(page, project):
    older = _finished(project)
    newer = _finished(project)
    make_run(project=project)

    free = page.get("/").context["panel"]
    chosen = page.get(f"/?panel={older.public_id}&file=clean.csv").context["panel"]

    assert free["run"] == newer
    assert free["file"].name == "chart.svg"
    assert free["follow"] == "any"
    assert chosen["run"] == older
    assert chosen["file"].name == "clean.csv"
    assert chosen["follow"] == older.public_id


@pytest.mark.parametrize("name", ["nope.txt", "../chart.svg", "chart.svg/x"])
def test_a_file_the_run_did_not_leave_does_not_exist(page, project, name):
    run = _finished(project)

    assert page.get(f"/runs/{run.public_id}/files/{name}").status_code == HTTPStatus.NOT_FOUND


def test_a_file_whose_content_is_gone_says_so(page, project, settings, tmp_path):
    run = _finished(project)
    settings.AOS_DATA_DIR = tmp_path / "elsewhere"

    response = page.get(f"/runs/{run.public_id}/files/clean.csv")

    assert response.status_code == HTTPStatus.OK
    assert "no longer in storage" in response.content.decode()


# Command palette


def test_the_palette_finds_pages_projects_and_runs_one_may_see(page, project):
    mine = make_run(project=project)
    foreign = make_run()

    html = page.get("/palette?q=", **HTMX).content.decode()
    by_id = page.get(f"/palette?q={mine.public_id}", **HTMX).content.decode()
    by_trace = page.get(f"/palette?q={mine.trace_id}", **HTMX).content.decode()
    hidden = page.get(f"/palette?q={foreign.public_id}", **HTMX).content.decode()

    assert "Chat Hub" in html
    assert "Flight safety" in html
    assert str(mine.public_id) in html
    assert str(foreign.public_id) not in html
    assert str(mine.public_id) in by_id
    assert str(mine.public_id) in by_trace
    assert "Nothing matches" in hidden


def test_links_to_places_one_may_not_enter_are_absent(client, project, vera):
    client.force_login(vera)

    html = client.get("/").content.decode()

    assert "Django admin" not in html
    assert "Flower" not in html
    assert "Monitor" not in html


def test_the_list_of_runs_narrows_to_those_below_one(page, project, olivia):
    agent = make_agent(organization=project.organization, slug="work")
    by = Actor(user=olivia)
    root = make_run(project=project, agent=agent, by=by)
    first = StandIn(root)
    child = children.start(first.started, children.Wish(agent="work", input={}), key="a")
    below = children.start(StandIn(child).started, children.Wish(agent="work", input={}), key="b")

    def shown(query):
        answer = page.get(f"/runs?{query}")
        assert answer.context["may_bulk"] is (query == "")
        return {run.pk for run in answer.context["runs"]}

    assert shown("") == {root.pk, child.pk, below.pk}
    assert shown(f"parent={root.public_id}") == {child.pk}
    assert shown(f"root={root.public_id.hex}") == {child.pk, below.pk}
    assert page.get(f"/runs?parent={uuid4()}").status_code == HTTPStatus.NOT_FOUND
    assert page.get("/runs?parent=x").status_code == HTTPStatus.NOT_FOUND
