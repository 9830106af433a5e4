"""A run that reaches for the network: what is refused is in its log, and it ends like any other."""

from __future__ import annotations

import pytest

from apps.events.models import AuditEntry, Event
from apps.events.types import EventType
from apps.runs.models import Run, RunEvent
from apps.runs.types import EventKind, RunState
from tests.contracts.engine import required_driver
from tests.factories import make_actor, make_agent, make_project, make_run
from tests.support.platform import wait_for

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.docker]

REACHING = {
    "entry": "main.py",
    "files": {
        "main.py": """
import os, urllib.request, urllib.error
for url in ("http://evil.example.com/", "http://169.254.169.254/latest/meta-data"):
    try:
        urllib.request.urlopen(url, timeout=20)
    except urllib.error.HTTPError as error:
        print("refused", error.code, flush=True)
"""
    },
    "sandbox": {
        "memory_mb": 128,
        "egress": {"mode": "allowlist", "allow": ["api.example.com"]},
    },
    "retry": {"max_attempts": 1},
}


@pytest.fixture
def _docker():
    required_driver().close()


def _run(platform, spec):
    platform.overrides["AOS_SANDBOX_DRIVER"] = "docker"
    platform.engine()
    platform.worker()
    project = make_project()
    agent = make_agent(organization=project.organization, spec=spec)
    run = make_run(
        project=project, agent=agent, by=make_actor(organization=project.organization), input={}
    )
    receipts = Event.objects.filter(run_id=run.public_id, type=EventType.RECEIPT)
    wait_for("the receipt", receipts.exists, seconds=60)
    return Run.objects.get(pk=run.pk)


def _lines(run):
    events = RunEvent.objects.filter(run=run, kind=EventKind.LOG).order_by("seq")
    return list(events.values_list("payload", flat=True))


@pytest.mark.usefixtures("_docker")
def test_refused_ways_out_are_lines_of_the_runs_log(platform, tmp_path, settings):
    run = _run(platform, REACHING)

    lines = _lines(run)
    assert run.state == RunState.SUCCEEDED, run.error
    assert [line["text"] for line in lines if line["source"] == "stdout"] == ["refused 403"] * 2
    assert [line["egress"] for line in lines if "egress" in line] == [
        {"host": "evil.example.com", "port": 80, "reason": "not_listed"},
        {"host": "169.254.169.254", "port": 80, "reason": "not_listed"},
    ]
    assert any(line["text"].endswith("2 refused.") for line in lines)
    recorded = AuditEntry.objects.filter(action="access.denied", run_id=run.public_id)
    assert [entry.detail["host"] for entry in recorded.order_by("id")] == [
        "evil.example.com",
        "169.254.169.254",
    ]
    assert list((settings.AOS_DATA_DIR / "egress").iterdir()) == []


@pytest.mark.usefixtures("_docker")
def test_more_network_than_the_host_allows_fails_the_run_before_it_starts(platform):
    run = _run(platform, REACHING | {"sandbox": {"egress": {"mode": "open"}}})

    assert run.state == RunState.FAILED
    assert run.error["code"] == "egress_not_allowed"
    assert "AOS_SANDBOX_EGRESS" in run.error["detail"]
