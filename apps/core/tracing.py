"""The W3C trace context as the rest of the code uses it: one id from request to receipt."""

from __future__ import annotations

from collections.abc import Mapping

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.propagate import extract, inject
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

TRACER = trace.get_tracer("aos")


def current_trace_id() -> str:
    """The active trace id as 32 hex digits, or an empty string outside any span."""
    context = trace.get_current_span().get_span_context()
    return format(context.trace_id, "032x") if context.is_valid else ""


def carrier() -> dict[str, str]:
    """The active context as headers, to be stored with a row or sent with a message.

    Outside any span (a script, a test) a fresh trace is begun, so that a run always has one.
    """
    headers: dict[str, str] = {}
    inject(headers)
    if "traceparent" not in headers:
        ids = RandomIdGenerator()
        trace_id, span_id = ids.generate_trace_id(), ids.generate_span_id()
        headers["traceparent"] = f"00-{trace_id:032x}-{span_id:016x}-01"
    return headers


def trace_id_of(headers: Mapping[str, str]) -> str:
    return headers["traceparent"].split("-")[1]


def context_of(headers: Mapping[str, str]) -> Context:
    return extract(headers)
