"""What holds for every window of the admin, whichever app it belongs to."""

from __future__ import annotations

import re

import pytest
from django.db import connection, transaction
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from apps.events.services import outbox, relay
from apps.events.types import EventType, Subject
from apps.identity.adminsite import Window, site
from apps.identity.models import Binding, Department
from apps.identity.services import proposals
from apps.runs.fleet_models import Leader
from apps.runs.kin_models import Budget, ChildRun, RunDeadline, Share
from apps.runs.limit_models import Limit
from apps.runs.models import (
    Attempt,
    DeadLetter,
    Dependency,
    ReadyRun,
    Run,
    RunLease,
    ScheduledRun,
    ScheduleFire,
    WaitingRun,
)
from apps.runs.retention_models import Retention
from apps.sandboxes.models import Sandbox
from apps.sandboxes.services import offers
from apps.sandboxes.types import ImageReport, ProfileReport
from tests.faces import api, session
from tests.factories import (
    make_actor,
    make_agent,
    make_artifact,
    make_bulk_act,
    make_cast,
    make_file,
    make_organization,
    make_project,
    make_run,
    make_schedule,
    make_token,
    make_worker,
)

pytestmark = pytest.mark.django_db

LIMITS = {"memory_mb": 1024, "cpu": 1, "pids": 256, "workspace_mb": 512}
PROFILE = ProfileReport(
    name="base", image="base", runtime="runc", egress="none", gets=LIMITS, most=LIMITS
)
IMAGE = ImageReport(tag="base", source="base", digest="sha256:1", size=1)
WINDOWS = sorted(site._registry.items(), key=lambda pair: pair[0]._meta.label)
NAMES = [model._meta.label for model, _ in WINDOWS]


def url(model, page, *args):
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}", args=args)


def decide(organization, project):
    """What people decide about runs."""
    Limit.objects.create(
        organization_id=organization.pk, scope="project", project=project, gate=project.pk, cap=3
    )
    Retention.objects.update_or_create(organization_id=organization.pk, defaults={"run_days": 90})


def furnish(organization):
    """At least one row in every table that the admin shows."""
    project = make_project(organization=organization)
    agent = make_agent(organization=organization)
    run = make_run(project=project, agent=agent)
    ready = make_run(project=project, agent=agent)
    later = make_run(project=project, agent=agent)
    ended = make_run(project=project, agent=agent)
    held = make_run(project=project, agent=agent)
    make_file(project)
    make_artifact(run)
    by = make_actor(organization=organization)
    make_bulk_act(by=by, project=project)
    proposals.propose(by=by, user=by.user)
    Department.objects.create(organization=organization, name="Crew")
    worker = make_worker()
    ReadyRun.objects.filter(run__in=[run, later, ended, held]).delete()
    DeadLetter.objects.create(
        run=ended, organization_id=organization.pk, project=project, code="command_failed"
    )
    Dependency.objects.create(run=held, on=ready, on_failure="fail")
    WaitingRun.objects.create(run=held, organization_id=organization.pk, open=1)
    RunDeadline.objects.create(run=held, at=Now())
    Share.objects.create(
        run=ready,
        budget=Budget.objects.create(run=ready, granted_s=60, taken_s=9),
        held_s=9,
        attempt_s=9,
    )
    ChildRun.objects.create(run=held, parent=ready, root=ready, depth=1, on_parent_end="cancel")
    ScheduledRun.objects.create(run=later, due_at=Now())
    RunLease.objects.create(
        run=run,
        lane_id=ready.ready.lane_id,
        token=run.pk,
        seq=1,
        worker=worker,
        dispatch_deadline=Now(),
    )
    Attempt.objects.create(run=run, number=1, token=run.pk, worker_name=worker.name)
    Leader.objects.update_or_create(
        shard=0, defaults={"holder": "engine", "epoch": 3, "expires_at": Now()}
    )
    Sandbox.objects.create(
        organization_id=organization.pk,
        project_id=project.pk,
        run_id=run.public_id,
        attempt=1,
        driver="docker",
        isolation="docker",
        image="base",
        worker=worker.name,
    )
    offers.report(host="here", profiles=[PROFILE], images=[IMAGE])
    schedule = make_schedule(project=project, agent=agent)
    decide(organization, project)
    ScheduleFire.objects.create(schedule=schedule, fire_at=Now(), outcome="submitted", run=run)
    with transaction.atomic():
        relay.move(500)
        subject = Subject(
            organization_id=organization.pk, project_id=project.pk, run_id=None, trace_id="0" * 32
        )
        outbox.emit(EventType.MILESTONE, subject=subject, payload={"title": "half"})
    return run


@pytest.fixture
def cast():
    return make_cast()


@pytest.mark.parametrize(("model", "window"), WINDOWS, ids=NAMES)
def test_every_list_opens_searches_and_is_empty_of_strangers(cast, model, window):
    furnish(cast.sam.organization)
    make_token(cast.sam)
    furnish(cast.organization)
    make_token(cast.olivia)
    client = session(cast.olivia)

    listed = client.get(url(model, "changelist"))
    for term in ("a'b\"%\x00", "01943f60-91d2-7e11-b5a4-0a3fcb1f4a10"):
        searched = client.get(url(model, "changelist"), {"q": term})
        assert searched.status_code == 200, term

    assert listed.status_code == 200
    shown = listed.context["cl"].queryset
    assert shown.exists()
    if window.organization_path:
        homes = set(shown.values_list(window.organization_path, flat=True))
        assert homes == {cast.organization.pk}


def test_a_filter_that_no_row_can_match_is_dropped_and_no_crash(cast):
    client, crashed = session(cast.olivia), []
    client.raise_request_exception = False
    for model, window in WINDOWS:
        column = window.date_hierarchy or "created_at"
        for odd in ({f"{column}__year": "99999"}, {"pk__exact": "9" * 30}):
            answer = client.get(url(model, "changelist"), odd)
            if answer.status_code >= 500:
                crashed.append((model.__name__, odd))

    assert crashed == []


@pytest.mark.parametrize(("model", "window"), WINDOWS, ids=NAMES)
def test_every_row_has_a_page(cast, model, window):
    furnish(cast.organization)
    make_token(cast.olivia)
    client = session(cast.olivia)
    row = client.get(url(model, "changelist")).context["cl"].queryset.first()

    response = client.get(url(model, "change", row.pk))

    assert response.status_code == 200


@pytest.mark.parametrize(("model", "window"), WINDOWS, ids=NAMES)
def test_a_row_of_another_organization_does_not_exist(cast, model, window):
    if window.organization_path is None:
        pytest.skip("rows of the platform belong to nobody")
    furnish(cast.sam.organization)
    make_token(cast.sam)
    theirs = model._default_manager.filter(
        **{window.organization_path: cast.sam.organization.pk}
    ).first()
    client = session(cast.olivia)

    for page in ("change", "delete", "history"):
        response = client.get(url(model, page, theirs.pk))

        # Django leads away from a row that is not there; a page nobody may open is a 403.
        assert response.status_code in {302, 403, 404}, page
        assert str(theirs) not in response.content.decode()


@pytest.mark.parametrize(("model", "window"), WINDOWS, ids=NAMES)
def test_the_forms_open_exactly_for_those_who_may_add(cast, model, window):
    response = session(cast.olivia).get(url(model, "add"))

    assert response.status_code == (200 if window.add_action else 403)


@pytest.mark.parametrize(("model", "window"), WINDOWS, ids=NAMES)
def test_a_list_costs_the_same_with_many_rows(cast, model, window):
    furnish(cast.organization)
    make_token(cast.olivia)
    client = session(cast.olivia)

    with CaptureQueriesContext(connection) as few:
        client.get(url(model, "changelist"))
    furnish_more(cast.organization)
    with CaptureQueriesContext(connection) as many:
        client.get(url(model, "changelist"))

    assert len(many) <= len(few), [query["sql"] for query in many]


def furnish_more(organization):
    Leader.objects.all().delete()
    Department.objects.filter(organization=organization).delete()
    furnish(organization)


def test_a_viewer_is_refused_everywhere(cast):
    client = session(cast.vera)

    assert {page: client.get(page).status_code for page in pages()} == dict.fromkeys(pages(), 403)


def test_an_operator_is_refused_too(cast):
    client = session(cast.oscar)

    for page in ("/admin/", "/admin/runs/run/", "/admin/identity/user/add/"):
        assert client.get(page).status_code == 403, page


def test_an_owner_of_another_organization_sees_their_own(cast):
    furnish(cast.organization)
    client = session(cast.sam)

    response = client.get(reverse("admin:runs_run_changelist"))

    assert response.status_code == 200
    assert not response.context["cl"].queryset.exists()


def test_strangers_are_led_to_the_sign_in():
    make_organization()
    for page in pages():
        response = session().get(page)

        assert response.status_code == 302
        assert response["Location"].startswith("/login?next=/admin/"), page


def test_a_token_is_no_ticket_to_the_admin(cast):
    response = api(cast.olivia).get("/admin/")

    assert response.status_code == 302


def test_a_flag_on_the_person_opens_nothing(cast):
    cast.vera.is_staff = cast.vera.is_superuser = True
    cast.vera.save(update_fields=["is_staff", "is_superuser"])

    assert session(cast.vera).get("/admin/").status_code == 403


def test_a_disabled_admin_is_out(cast):
    client = session(cast.adam)
    cast.adam.is_active = False
    cast.adam.save(update_fields=["is_active"])

    assert client.get("/admin/").status_code == 302


def pages():
    """Every address of the admin but its own door, which leads to ours."""
    for route in addresses(site.get_urls()):
        if not route.startswith(("login", "logout")):
            yield "/admin/" + re.sub(r"<[^>]+>", "1", route)


def addresses(patterns, prefix=""):
    for pattern in patterns:
        route = prefix + re.sub(r"\(\?P<\w+>[^)]*\)|\^|\$", "", str(pattern.pattern))
        if hasattr(pattern, "url_patterns"):
            yield from addresses(pattern.url_patterns, route)
        else:
            yield route


def test_the_overview_counts_what_moves(cast):
    furnish(cast.organization)

    response = session(cast.adam).get("/admin/")

    figures = {label: value for label, value, _ in response.context["figures"]}
    assert figures == {
        "Queued": 3,
        "Running": 1,
        "Failed today": 0,
        "Workers alive": 1,
        "Engine": "nobody leads",
    }
    assert 'href="/flower/"' in response.content.decode()


def test_the_search_of_models_answers(cast):
    response = session(cast.adam).get("/admin/search/?s=lease")

    assert response.status_code == 200
    assert "/admin/runs/runlease/" in response.content.decode()


def test_the_admin_has_a_policy_of_its_own_and_the_rest_keeps_the_strict_one(cast):
    admin = session(cast.adam).get("/admin/")["Content-Security-Policy"]
    other = session(cast.adam).get("/login")["Content-Security-Policy"]

    assert "'unsafe-eval'" in admin
    assert "default-src 'none'" in admin
    assert "unsafe" not in other


def test_every_window_is_reached_from_the_sidebar(cast):
    groups = session(cast.olivia).get("/admin/").context["sidebar_navigation"]

    links = {item["link"] for group in groups for item in group["items"]}
    assert {url(model, "changelist") for model, _ in WINDOWS} <= links


def test_every_window_is_one_of_ours():
    assert all(isinstance(window, Window) for _, window in WINDOWS)


@pytest.mark.parametrize(
    ("model", "field"), [(Run, "agent"), (Run, "project"), (Binding, "project")]
)
def test_what_one_person_is_offered_stays_out_of_the_next_ones_form(cast, model, field):
    furnish(cast.organization)
    session(cast.olivia).get(url(model, "add"))

    shared = site._registry[model].add_form.base_fields[field]

    assert not shared.queryset.exists()
