"""What those who keep the platform running ask: is it ready, and how busy is it?"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from http import HTTPStatus
from typing import Final

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_safe
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from rest_framework.request import Request
from rest_framework.views import APIView

from apps.core import health, metrics, tenancy
from apps.core.rest.negotiation import AnyAccept
from apps.events.services import delivery
from apps.runs.services import figures
from apps.sandboxes.services import tracking

logger = logging.getLogger(__name__)


def leader() -> health.Finding:
    now = figures.platform()
    if now.leader_alive:
        return health.Finding(ok=True, detail=f"leads in epoch {now.leader_epoch}")
    return health.Finding(ok=False, detail="no engine leads; start one with manage.py engine")


def workers() -> health.Finding:
    """Runs are accepted and kept without workers, so their absence does not make us unready."""
    alive = figures.platform().workers
    detail = f"{alive} alive" if alive else "none alive; accepted runs wait"
    return health.Finding(ok=alive > 0, detail=detail, needed=False)


def audit() -> health.Finding:
    """Checkpoints wait in the database while a place for them is away, so runs go on."""
    away = [each for each in delivery.standings() if each.away_since]
    if not away:
        return health.Finding(ok=True, detail="checkpoints are brought outside", needed=False)
    waiting = max(each.waiting for each in away)
    # Strangers may read this: which place it is stands in the log and in the admin.
    detail = f"{len(away)} places for checkpoints are away, {waiting} checkpoints wait"
    return health.Finding(ok=False, detail=detail, needed=False)


_CHECKS: Final = {**health.GROUND, "leader": leader, "workers": workers, "audit": audit}


@require_safe
def readyz(_request: HttpRequest) -> HttpResponse:
    """Ready needs database, migrations, Redis and a leading engine; workers are reported."""
    with tenancy.platform():
        findings = health.examine(_CHECKS)
    failed = [name for name, finding in findings.items() if finding.needed and not finding.ok]
    if failed:
        logger.warning("not ready", extra={"failed": failed})
    body = {
        "ready": not failed,
        "degraded": not all(finding.ok for finding in findings.values()),
        "checks": {name: finding.as_json() for name, finding in findings.items()},
    }
    status = HTTPStatus.SERVICE_UNAVAILABLE if failed else HTTPStatus.OK
    return JsonResponse(body, status=status, headers={"Cache-Control": "no-store"})


class _Motion(Collector):
    """Asks the database when Prometheus asks us: nothing is counted in between."""

    def collect(self) -> Iterator[Metric]:
        now = figures.platform()
        runs = GaugeMetricFamily("aos_runs_open", "Runs that are not over.", labels=["state"])
        runs.add_metric(["queued"], now.ready + now.scheduled)
        runs.add_metric(["dispatched"], now.dispatched)
        runs.add_metric(["running"], now.running)
        runs.add_metric(["cancelling"], now.cancelling)
        yield runs
        gauges = {
            "aos_ready_runs": ("Runs that may start now.", now.ready),
            "aos_scheduled_runs": ("Runs whose time has not come.", now.scheduled),
            "aos_oldest_waiting_seconds": (
                "Age of the oldest run that may start.",
                now.oldest_waiting_s,
            ),
            "aos_leases": ("Runs held by a worker.", now.dispatched + now.running + now.cancelling),
            "aos_workers": ("Workers heard of within the TTL.", now.workers),
            "aos_worker_slots": ("Runs those workers can hold.", now.slots),
            "aos_leader_epoch": ("Grows with each change of the leader.", now.leader_epoch or 0),
            "aos_leader_alive": ("1 while an engine leads.", int(now.leader_alive)),
            "aos_outbox_entries": ("Value events not yet in the log.", now.outbox),
        }
        for name, (help_text, value) in gauges.items():
            yield GaugeMetricFamily(name, help_text, value=value)
        yield from _sandboxes()
        yield from _checkpoints()


def _sandboxes() -> Iterator[Metric]:
    found = GaugeMetricFamily("aos_sandboxes", "Sandboxes that are not over.", labels=["state"])
    for state, count in sorted(tracking.counts().items()):
        found.add_metric([state], count)
    yield found


def _checkpoints() -> Iterator[Metric]:
    waiting = GaugeMetricFamily(
        "aos_audit_checkpoints_waiting",
        "Audit checkpoints that a place outside the database has not taken yet.",
        labels=["sink"],
    )
    away = GaugeMetricFamily(
        "aos_audit_sink_away", "1 while a place for checkpoints does not take any.", labels=["sink"]
    )
    for each in delivery.standings():
        waiting.add_metric([each.name], each.waiting)
        away.add_metric([each.name], int(each.away_since is not None))
    yield waiting
    yield away


_MOTION: Final = CollectorRegistry()
_MOTION.register(_Motion())


class Metrics(APIView):
    """Prometheus text. The counters are this process's, the gauges the whole platform's."""

    actions = {"get": "metrics.read"}
    content_negotiation_class = AnyAccept
    schema = None

    def get(self, request: Request) -> HttpResponse:
        with tenancy.platform():
            text = generate_latest(metrics.REGISTRY) + generate_latest(_MOTION)
        return HttpResponse(text, content_type=CONTENT_TYPE_LATEST)
