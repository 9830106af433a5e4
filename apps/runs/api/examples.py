"""Examples for the OpenAPI document: the platform's main job."""

from __future__ import annotations

from drf_spectacular.utils import OpenApiExample

_ID = "01943f60-91d2-7e11-b5a4-0a3fcb1f4a10"

TASK = OpenApiExample(
    "A report on a CSV file of the project",
    request_only=True,
    value={
        "project": "demo",
        "agent": "csv-report",
        "input": {"file": "birdstrikes.csv"},
        "priority": "normal",
        "timeout_s": 120,
        "retry": {"max_attempts": 3, "base_s": 2},
        "labels": {"team": "operations"},
    },
)
RUN = OpenApiExample(
    "A run that waits",
    response_only=True,
    status_codes=["200", "202"],
    value={
        "id": _ID,
        "state": "queued",
        "project": {
            "id": "01943f5e-7c2a-7cc3-8d1c-2f1f6f0c9b01",
            "slug": "demo",
            "name": "Demo",
        },
        "agent": {
            "id": "01943f5e-7c2a-7cc3-8d1c-2f1f6f0c9c01",
            "slug": "csv-report",
            "title": "CSV report",
        },
        "agent_version": 1,
        "kind": "script",
        "name": "csv-report: birdstrikes.csv",
        "queue": "default",
        "priority": "normal",
        "labels": {"team": "operations"},
        "concurrency_key": "",
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        "attempts": 0,
        "isolation": "",
        "run_at": None,
        "created_at": "2026-11-21T09:30:00.000000Z",
        "started_at": None,
        "finished_at": None,
        "result": None,
        "error": None,
        "links": {
            "self": f"/api/runs/{_ID}",
            "events": f"/api/runs/{_ID}/events",
            "artifacts": f"/api/runs/{_ID}/artifacts",
            "cancel": f"/api/runs/{_ID}/cancel",
            "rerun": f"/api/runs/{_ID}/rerun",
            "page": f"/runs/{_ID}",
        },
    },
)
