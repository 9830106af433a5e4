"""An S3 store over real HTTP for the length of a test."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from moto.server import ThreadedMotoServer


@contextmanager
def running() -> Iterator[str]:
    """A store's address.

    It answers one request at a time: moto answers 500 when one object is written twice at once.
    """
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    assert server._server is not None
    app, turn = server._server.app, threading.Lock()

    def in_turn(environ, start_response):
        with turn:
            return app(environ, start_response)

    server._server.app = in_turn
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()
