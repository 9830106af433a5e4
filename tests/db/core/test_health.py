from __future__ import annotations

import pytest
import redis
from django.db import DatabaseError, connection
from django.db.models.functions import Now
from django.test import Client

from apps.core import clock, doorbell, health
from apps.runs.fleet_models import Leader, WorkerNode
from apps.runs.services import leadership
from tests.faces import api, session
from tests.factories import make_cast, make_run, make_worker

pytestmark = pytest.mark.django_db


@pytest.fixture
def leader():
    return leadership.take("engine-1")


def ready():
    response = Client().get("/readyz")
    return response.status_code, response.json()


def test_the_process_says_that_it_lives_without_asking_anybody(django_assert_num_queries):
    with django_assert_num_queries(0):
        response = Client().get("/healthz")

    assert (response.status_code, response.content) == (200, b"ok\n")


def test_ready_means_database_migrations_redis_and_a_leader(leader):
    make_worker()

    status, body = ready()

    assert status == 200
    assert body["ready"] is True
    assert body["degraded"] is False
    assert set(body["checks"]) == {"database", "migrations", "redis", "leader", "workers", "audit"}
    assert all(check["ok"] for check in body["checks"].values())


def test_without_workers_it_is_degraded_but_ready(leader):
    status, body = ready()

    assert status == 200
    assert (body["ready"], body["degraded"]) == (True, True)
    assert body["checks"]["workers"] == {
        "ok": False,
        "needed": False,
        "detail": "none alive; accepted runs wait",
    }


def test_a_silent_worker_does_not_count(leader, settings):
    worker = make_worker()
    silent = clock.now() - settings.AOS_WORKER_TTL
    WorkerNode.objects.filter(pk=worker.pk).update(last_seen=silent)

    _, body = ready()

    assert body["checks"]["workers"]["ok"] is False


def test_without_a_leader_it_is_not_ready():
    Leader.objects.create(shard=0, holder="gone", epoch=1, expires_at=Now())

    status, body = ready()

    assert status == 503
    assert body["ready"] is False
    assert "manage.py engine" in body["checks"]["leader"]["detail"]


def test_without_redis_it_is_not_ready_and_tells_no_address(leader, monkeypatch):
    def away():
        raise redis.ConnectionError("Error 111 connecting to secret-host:6379")

    monkeypatch.setattr(doorbell, "connect", away)

    status, body = ready()

    assert status == 503
    assert body["checks"]["redis"]["detail"] == "Redis does not answer"


def test_without_the_database_every_check_of_it_fails_and_the_answer_still_comes(monkeypatch):
    def away():
        raise DatabaseError("connection to secret-host failed")

    monkeypatch.setattr(connection, "cursor", away)

    status, body = ready()

    assert status == 503
    assert body["checks"]["database"] == {
        "ok": False,
        "needed": True,
        "detail": "the database does not answer",
    }
    assert body["checks"]["redis"]["ok"] is True


def test_a_missing_migration_is_named(leader, monkeypatch):
    shipped = health._shipped() | {("runs", "9999_from_the_future")}
    monkeypatch.setattr(health, "_shipped", lambda: shipped)

    status, body = ready()

    assert status == 503
    assert "runs.9999_from_the_future" in body["checks"]["migrations"]["detail"]


def numbers(client):
    response = client.get("/metrics", headers={"Accept": "application/openmetrics-text"})
    assert response.status_code == 200
    assert response["Content-Type"].startswith("text/plain")
    lines = [line for line in response.content.decode().splitlines() if line[:1] != "#"]
    return dict(line.rsplit(" ", 1) for line in lines)


def test_the_metrics_count_what_moves(leader):
    cast = make_cast()
    make_run()
    make_worker(slots=3)

    found = numbers(api(cast.oscar, "metrics:read"))

    assert found['aos_runs_open{state="queued"}'] == "1.0"
    assert found['aos_runs_open{state="running"}'] == "0.0"
    assert found["aos_ready_runs"] == "1.0"
    assert float(found["aos_oldest_waiting_seconds"]) >= 0
    assert found["aos_leases"] == "0.0"
    assert (found["aos_workers"], found["aos_worker_slots"]) == ("1.0", "3.0")
    assert (found["aos_leader_epoch"], found["aos_leader_alive"]) == ("1.0", "1.0")
    assert found["aos_outbox_entries"] == "1.0"
    assert found['aos_sandboxes{state="paused"}'] == "0.0"


def test_requests_are_counted_by_route_never_by_path():
    cast = make_cast()
    run = make_run()
    client = session(cast.oscar)
    client.get(f"/api/runs/{run.public_id}")
    client.get("/nowhere/at/all")
    client.generic("BREW", "/healthz")

    text = client.get("/metrics").content.decode()

    route = 'route="/api/runs/<str:run_id>"'
    assert f'aos_http_requests_total{{method="GET",{route},status="404"}}' in text
    assert 'method="GET",route="none",status="404"' in text
    assert 'method="other",route="/healthz"' in text
    assert str(run.public_id) not in text
    assert "nowhere" not in text


@pytest.mark.parametrize("name", ["oscar", "adam", "olivia"])
def test_operators_see_the_metrics_in_the_browser(leader, name):
    assert session(getattr(make_cast(), name)).get("/metrics").status_code == 200


def test_viewers_do_not():
    assert session(make_cast().vera).get("/metrics").status_code == 403
