"""What the first start says of the platform's parts: clear, with a way out, and never in the way."""

from __future__ import annotations

import pytest

from apps.core import clock
from apps.hub import condition
from apps.runs.fleet_models import WorkerNode
from apps.runs.services import leadership
from apps.sandboxes import reports
from tests.factories import make_worker
from tests.support.platform import private_valkey

pytestmark = pytest.mark.django_db


def parts():
    return {part.name: part for part in condition.examine()}


@pytest.fixture(autouse=True)
def _own_keys(settings, tmp_path):
    settings.AOS_INSTANCE = tmp_path.name


def remark(**fields):
    return reports.Remark(
        **{"is_error": True, "message": "No engine.", "hint": "Start it."} | fields
    )


def test_an_empty_platform_says_what_to_start():
    found = parts()

    assert {name: part.tone for name, part in found.items()} == {
        "Database": "ok",
        "Redis": "ok",
        "Broker": "ok",
        "Engine": "bad",
        "Workers": "bad",
        "Docker": "warn",
    }
    assert all(part.advice for part in found.values() if part.tone != "ok")
    assert "manage.py engine" in found["Engine"].advice


def test_a_whole_platform_is_well():
    leadership.take("engine-1")
    reports.leave(make_worker(slots=4).name, [])

    found = parts()

    assert {part.tone for part in found.values()} == {"ok"}
    assert "room for 4 runs" in found["Workers"].detail


@pytest.mark.parametrize(
    ("said", "tone", "detail"),
    [
        ([remark()], "bad", "No engine."),
        ([remark(is_error=False, message="No isolation.")], "warn", "No isolation."),
        ([remark(is_error=False, message="Swap."), remark()], "bad", "No engine."),
    ],
)
def test_docker_is_as_the_worst_worker_says(said, tone, detail):
    reports.leave(make_worker().name, [])
    reports.leave(make_worker().name, said)

    docker = parts()["Docker"]

    assert (docker.tone, docker.detail, docker.advice) == (tone, detail, "Start it.")


def test_a_worker_that_is_gone_has_no_say():
    gone, silent = make_worker(), make_worker()
    for worker in (gone, silent):
        reports.leave(worker.name, [remark()])
    WorkerNode.objects.filter(pk=gone.pk).update(gone_at=clock.now())
    WorkerNode.objects.filter(pk=silent.pk).update(last_seen="2020-01-01T00:00Z")

    found = parts()

    assert found["Docker"].tone == "warn"
    assert found["Workers"].tone == "bad"


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_what_does_not_answer_is_said_and_no_password_with_it(settings, scheme):
    settings.CELERY_BROKER_URL = f"{scheme}://somebody:hunter2@127.0.0.1:1/"
    settings.AOS_REDIS_URL = "redis://:hunter2@127.0.0.1:1/0"
    make_worker()

    found = parts()

    assert [found[name].tone for name in ("Redis", "Broker", "Docker")] == ["bad", "bad", "warn"]
    assert "hunter2" not in str(found)
    assert "BROKER_URL" in found["Broker"].advice


def test_a_redis_without_what_workers_ask_for_is_too_old(settings, tmp_path):
    with private_valkey(tmp_path, "--rename-command", "LMPOP", "") as old:
        settings.CELERY_BROKER_URL = old.url

        broker = parts()["Broker"]

    assert (broker.tone, broker.detail) == ("bad", "is too old, so workers get no messages")
    assert "Redis 7" in broker.advice
