from __future__ import annotations

import httpx
import pytest

from apps.events.models import Event
from apps.events.types import EventType
from apps.identity.services import tokens
from apps.identity.types import Role
from tests.factories import make_actor, make_agent, make_project
from tests.support.otlp import collecting
from tests.support.platform import SLOW, wait_for

pytestmark = [pytest.mark.processes, pytest.mark.slow]


def test_one_trace_leads_from_the_request_to_the_receipt(platform):
    project = make_project()
    agent = make_agent(organization=project.organization, spec=SLOW)
    by = make_actor(Role.OPERATOR, organization=project.organization)
    _, token = tokens.issue(by=by, name="test", scopes=["run:write"])
    with collecting() as collector:
        platform.overrides["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.url
        platform.overrides["OTEL_BSP_SCHEDULE_DELAY"] = "200"
        url = platform.web()
        platform.engine()
        platform.worker()

        response = httpx.post(
            f"{url}/api/run",
            headers={
                "Authorization": f"Bearer {token}",
                "Idempotency-Key": "one-key-for-this-test",
            },
            json={"project": project.slug, "agent": agent.slug, "input": {"seconds": 0.1}},
        )
        trace_id = response.headers["X-Trace-Id"]
        receipt = wait_for(
            "the receipt", lambda: Event.objects.filter(type=EventType.RECEIPT).first()
        )
        spans = wait_for(
            "the spans of all parts",
            lambda: _complete(collector.of_trace(trace_id)),
        )

    assert response.status_code == 202
    assert receipt.trace_id == trace_id == response.json()["trace_id"]
    assert {service for service, *_ in spans} == {"aos-web", "aos-engine", "aos-worker"}
    known = {span_id for *_, span_id in spans}
    roots = [name for _, name, _, parent, _ in spans if parent not in known]
    assert roots == ["POST api/run"]


def _complete(spans):
    """The spans, once each part of the path has sent its own."""
    names = {name for _, name, *_ in spans}
    parts = {"POST api/run", "run/aos.runs.execute", "sandbox start", "sandbox exec", "INSERT"}
    return spans if parts <= names else None
