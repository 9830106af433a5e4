"""The audit log as a file, line by line, so that its length does not matter."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from django.db import transaction
from django.http import StreamingHttpResponse

from apps.core import walking
from apps.events.models import AuditEntryQuerySet
from apps.events.services import outbox
from apps.identity import policy
from apps.identity.actor import Actor

CSV: Final = "text/csv"
JSONL: Final = "application/x-ndjson"
COLUMNS: Final = (
    "id",
    "at",
    "actor_kind",
    "actor_id",
    "actor_name",
    "token_id",
    "agent_id",
    "run_id",
    "action",
    "resource_type",
    "resource_id",
    "trace_id",
    "detail",
)


def respond(
    entries: AuditEntryQuerySet, *, by: Actor, form: str, asked: Mapping[str, object]
) -> StreamingHttpResponse:
    """The entries up to this moment as a download, oldest first. That they left is an entry too."""
    with transaction.atomic():
        policy.require(by, "audit.export")
        noted = outbox.audit(
            by.ref,
            "audit.export",
            resource_type="audit_log",
            resource_id=by.user.organization_id,
            detail={"form": form, "asked": dict(asked)},
        )
    lines = _csv_lines if form == "csv" else _json_lines
    response = StreamingHttpResponse(
        lines(entries.filter(pk__lt=noted.pk)),
        content_type=CSV if form == "csv" else JSONL,
    )
    response["Content-Disposition"] = f'attachment; filename="audit.{form}"'
    return response


def _rows(entries: AuditEntryQuerySet) -> Iterator[dict[str, Any]]:
    return walking.walk(entries.values(*COLUMNS), "id")


def _json_lines(entries: AuditEntryQuerySet) -> Iterator[str]:
    for row in _rows(entries):
        yield json.dumps(row | {"at": row["at"].isoformat()}, default=str) + "\n"


class _Line:
    """What the csv module writes into: gives each line back at once."""

    def write(self, text: str) -> str:
        return text


def _csv_lines(entries: AuditEntryQuerySet) -> Iterator[str]:
    writer = csv.writer(_Line())
    yield writer.writerow(COLUMNS)
    for row in _rows(entries):
        values = row | {"at": row["at"].isoformat(), "detail": json.dumps(row["detail"])}
        yield writer.writerow([_harmless(values[name]) for name in COLUMNS])


def _harmless(value: Any) -> str:
    """A spreadsheet must not take what somebody typed for a formula."""
    text = "" if value is None else str(value)
    return f"'{text}" if text[:1] in {"=", "+", "-", "@", "\t", "\r"} else text
