"""A receiver of webhooks on this host: keeps what it is sent as the documents ask of one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Request:
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """``answer`` may be replaced: it gets a request and gives a status and headers."""

    requests: list[Request] = field(default_factory=list)
    kept: dict[int, bytes] = field(default_factory=dict)
    server: ThreadingHTTPServer | None = None
    port: int = 0

    def __post_init__(self) -> None:
        self.lock = threading.Lock()
        self.answer: Callable[[Request], tuple[int, dict[str, str]]] = self.keep

    def keep(self, request: Request) -> tuple[int, dict[str, str]]:
        number = int(request.headers["x-aos-checkpoint"])
        with self.lock:
            held = self.kept.setdefault(number, request.body)
        return (204 if held == request.body else 409), {}

    def start(self) -> None:
        """Listen; on the same port as before, when it was stopped."""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Request(self.path, headers, body)
                receiver.requests.append(request)
                status, answered = receiver.answer(request)
                self.send_response(status)
                for name, value in answered.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
            self.server = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"
