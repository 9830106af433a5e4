"""Queues: what operators see of them, pausing them, and why a run waits."""

from __future__ import annotations

from datetime import timedelta

import pytest

from apps.core import clock
from apps.core.errors import NotAllowed, NotFound
from apps.events.models import AuditEntry
from apps.identity.types import Role
from apps.runs.models import Run
from apps.runs.services import dispatch, figures, fleet, leases, queues
from apps.runs.types import Priority
from tests.faces import api, session
from tests.factories import make_actor, make_cast, make_project, make_run, make_worker

pytestmark = pytest.mark.django_db


def admin_of(run):
    return make_actor(Role.ADMIN, organization=run.project.organization)


def hold(run, *, paused=True, by=None):
    return queues.set_paused(
        by=by or admin_of(run), queue="default", priority=Priority.NORMAL, paused=paused
    )


def test_a_paused_queue_keeps_its_runs_until_it_is_resumed(seat):
    run = make_run()
    urgent = make_run(project=run.project, priority=Priority.URGENT)
    hold(run)

    assert [claim.run_id for claim in dispatch.claim(seat, slots=5)] == [urgent.pk]

    hold(run, paused=False)
    assert [claim.run_id for claim in dispatch.claim(seat, slots=5)] == [run.pk]


def test_pausing_is_recorded_once(seat):
    run = make_run()
    by = admin_of(run)

    hold(run, by=by)
    hold(run, by=by)

    entry = AuditEntry.objects.get(action="queue.pause")
    assert (entry.resource_id, entry.detail["changes"]) == (
        "default/normal",
        {"paused": [False, True]},
    )


def test_an_operator_looks_and_does_not_touch():
    run = make_run()
    with pytest.raises(NotAllowed):
        hold(run, by=make_actor(Role.OPERATOR, organization=run.project.organization))


def test_another_organizations_queue_does_not_exist():
    make_run()
    with pytest.raises(NotFound):
        hold(make_run(queue="other"), by=make_actor(Role.ADMIN))


def test_the_figures_are_of_ones_own_organization(seat):
    run = make_run()
    make_run(project=run.project)
    make_run()
    worker = make_worker()
    (claimed,) = [c for c in dispatch.claim(seat, slots=9) if c.run_id == run.pk]
    leases.start(run_id=run.pk, token=claimed.token, worker=worker)
    make_run(project=run.project)

    (lane,) = figures.lanes(run.organization_id)

    assert (lane.queue, lane.ready, lane.dispatched, lane.running) == ("default", 1, 1, 1)
    assert 0 <= lane.oldest_s < 60


def test_ended_runs_are_counted_by_minute():
    project = make_project()
    for minutes_ago in (0, 0, 5):
        run = make_run(project=project)
        moment = clock.now() - timedelta(minutes=minutes_ago)
        Run.objects.filter(pk=run.pk).update(state="cancelled", finished_at=moment)

    minutes = figures.ended_by_minute(project.organization_id, minutes=10)

    assert len(minutes) == 10
    assert [minute.minutes_ago for minute in minutes] == list(range(9, -1, -1))
    assert (minutes[-1].others, minutes[-6].others) == (2, 1)
    assert sum(minute.succeeded for minute in minutes) == 0


# --- why a run waits ------------------------------------------------------------------------------


def test_a_run_says_what_it_waits_for(seat):
    later = make_run(run_at=clock.now() + timedelta(hours=1))
    first = make_run()
    second = make_run(project=first.project)

    assert "asked to start later" in queues.why_waiting(later)
    assert "No worker is alive" in queues.why_waiting(first)
    make_worker()
    assert "next in its queue" in queues.why_waiting(first)
    assert queues.why_waiting(second).startswith("1 runs of its queue are before it")
    hold(first)
    assert queues.why_waiting(first) == "The queue default/normal is paused."


def test_without_an_engine_a_run_says_so():
    assert "No engine leads" in queues.why_waiting(make_run())


def test_what_does_not_wait_says_nothing(seat):
    run = make_run()
    make_worker()
    dispatch.claim(seat, slots=1)
    assert queues.why_waiting(Run.objects.get(pk=run.pk)) == ""


def test_a_silent_worker_is_not_alive(settings):
    node = make_worker()
    assert fleet.is_alive(node)
    node.last_seen -= settings.AOS_WORKER_TTL
    assert not fleet.is_alive(node)


# --- over HTTP ------------------------------------------------------------------------------------


def test_a_queue_is_listed_paused_and_resumed_over_the_api():
    cast = make_cast()
    make_run(project=make_project(organization=cast.organization))
    client = api(cast.adam)

    (row,) = client.get("/api/queues").json()["results"]
    assert (row["queue"], row["priority"], row["ready"], row["paused"]) == (
        "default",
        "normal",
        1,
        False,
    )
    assert client.post("/api/queues/default/normal/pause").json()["paused"] is True
    assert client.post("/api/queues/default/normal/resume").json()["paused"] is False
    for wrong in ("default/loud", "nothing/normal"):
        assert client.post(f"/api/queues/{wrong}/pause").status_code == 404


def test_the_page_is_for_operators_and_its_buttons_for_admins():
    cast = make_cast()
    make_run(project=make_project(organization=cast.organization))

    sent = {"queue": "default", "priority": "normal", "paused": "true"}
    assert session(cast.vera).get("/queue").status_code == 403
    assert session(cast.oscar).post("/queue/hold", sent).status_code == 403
    seen = session(cast.oscar).get("/queue").content.decode()
    assert "default" in seen
    assert ">Pause<" not in seen
    client = session(cast.adam)
    assert ">Pause<" in client.get("/queue").content.decode()
    assert client.post("/queue/hold", sent).status_code == 302
    assert ">Resume<" in client.get("/queue").content.decode()
    assert client.post("/queue/hold", sent | {"priority": "loud"}).status_code == 400
