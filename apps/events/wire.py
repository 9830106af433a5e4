"""A value event as every wire carries it: REST, server-sent events and sockets alike."""

from __future__ import annotations

import json
from typing import Any

from apps.events.models import Event


def as_json(event: Event) -> dict[str, Any]:
    return {
        "seq": event.seq,
        "id": str(event.event_id),
        "type": event.type,
        "run": str(event.run_id) if event.run_id else None,
        "project": str(event.project_id),
        "trace_id": event.trace_id,
        "severity": event.severity,
        "payload": event.payload,
        "at": event.at.isoformat().replace("+00:00", "Z"),
    }


def as_text(body: dict[str, Any]) -> str:
    """Compact JSON on one line, as frames of a stream need it."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))
