"""OpenTelemetry for every kind of process. Spans leave the process only when an endpoint is set."""

from __future__ import annotations

from django.conf import settings
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.instrumentation.psycopg import PsycopgInstrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor


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
    provider = TracerProvider(resource=resource)
    if settings.OTLP_ENDPOINT:
        # The exporter reads OTEL_EXPORTER_OTLP_ENDPOINT itself, with its headers and time-outs.
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        PsycopgInstrumentor().instrument()
    trace.set_tracer_provider(provider)
    CeleryInstrumentor().instrument()
