"""OpenTelemetry for every kind of process. Spans leave the process only when an endpoint is set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.conf import settings
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.instrumentation.psycopg import PsycopgInstrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, Status, TraceState
from opentelemetry.util.types import Attributes

from apps.core import redaction


class _NoLonelyQueries(Sampler):
    """Records every trace but those that would consist of one polling query.

    Engines and workers look into the database many times a second on nobody's behalf.
    """

    def should_sample(  # noqa: PLR0917  # the SDK's signature
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        decision = Decision.DROP if kind == SpanKind.CLIENT else Decision.RECORD_AND_SAMPLE
        return SamplingResult(decision, attributes, trace_state)

    def get_description(self) -> str:
        return "NoLonelyQueries"


class Redacting(SpanExporter):
    """Passes spans on without the secrets in their names, attributes, events and errors."""

    def __init__(self, inner: SpanExporter) -> None:
        self._inner = inner

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return self._inner.export([_without_secrets(span) for span in spans])

    def shutdown(self) -> None:
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._inner.force_flush(timeout_millis)


def _without_secrets(span: ReadableSpan) -> ReadableSpan:
    told = span.status.description
    return ReadableSpan(
        name=redaction.text(span.name),
        context=span.get_span_context(),
        parent=span.parent,
        resource=span.resource,
        attributes=_cleaned(span.attributes),
        events=[
            Event(event.name, _cleaned(event.attributes), event.timestamp) for event in span.events
        ],
        links=span.links,
        kind=span.kind,
        status=Status(span.status.status_code, redaction.text(told) if told else None),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _cleaned(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        name: redaction.text(given) if isinstance(given, str) else given
        for name, given in (attributes or {}).items()
    }


def setup(service: str) -> None:
    """Set up tracing for this process, once, before its first connection.

    Ids are made in any case: a run's trace id must exist whether or not anybody collects spans.
    """
    if isinstance(trace.get_tracer_provider(), TracerProvider):
        return
    resource = Resource.create(
        {
            "service.name": f"aos-{service}",
            "service.version": settings.VERSION,
            "service.namespace": settings.AOS_INSTANCE,
            "deployment.environment.name": settings.AOS_ENVIRONMENT,
        }
    )
    provider = TracerProvider(resource=resource, sampler=ParentBased(_NoLonelyQueries()))
    trace.set_tracer_provider(provider)
    if settings.OTLP_ENDPOINT:
        # The exporter reads OTEL_EXPORTER_OTLP_ENDPOINT itself, with its headers and time-outs.
        provider.add_span_processor(BatchSpanProcessor(Redacting(OTLPSpanExporter())))
        PsycopgInstrumentor().instrument()
        CeleryInstrumentor().instrument()  # type: ignore[no-untyped-call]
