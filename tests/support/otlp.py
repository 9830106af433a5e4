"""A small OTLP/HTTP collector: keeps the spans that real exporters send it."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass
class Collector:
    url: str
    #: (service, span name, trace id in hex, parent span id in hex, span id in hex)
    spans: list[tuple[str, str, str, str, str]] = field(default_factory=list)
    #: What was sent, as it was sent.
    bodies: list[bytes] = field(default_factory=list)

    def of_trace(self, trace_id: str) -> list[tuple[str, str, str, str, str]]:
        return [span for span in self.spans if span[2] == trace_id]

    def add(self, body: bytes) -> None:
        self.bodies.append(body)
        request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            names = {item.key: item.value.string_value for item in resource.resource.attributes}
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.spans.append(
                        (
                            names["service.name"],
                            span.name,
                            span.trace_id.hex(),
                            span.parent_span_id.hex(),
                            span.span_id.hex(),
                        )
                    )


@contextmanager
def collecting() -> Iterator[Collector]:
    """Collect spans on a free port of the loopback interface."""
    collector = Collector(url="")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            collector.add(body)
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Keep the test's output quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
