"""The platform is ready when its own web process says so, not when anybody does."""

from __future__ import annotations

import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from launcher import processes, readiness, status
from launcher.problems import Problem
from launcher.status import ServiceStatus, Status


class Ready(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"ready")

    def log_message(self, *_):
        pass


@pytest.fixture
def port():
    """Of somebody who answers that all is well: this process."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Ready) as server:
        threading.Thread(target=server.serve_forever).start()
        yield server.server_address[1]
        server.shutdown()


def wait_for(tmp_path, port, *, web):
    us = processes.this_process()
    said = Status(
        boot=processes.boot_id(),
        pid=us.pid,
        started=us.started,
        plan="plan",
        services=[ServiceStatus(name="web", state="running", pid=web, started=us.started)],
    )
    home = SimpleNamespace(status=tmp_path / "status.json", log=lambda name: tmp_path / name)
    status.write(home.status, said)
    settings = SimpleNamespace(url=f"http://127.0.0.1:{port}", port=port)
    readiness.wait(home, settings, since=said)


def test_the_answer_of_our_own_web_process_is_taken(tmp_path, port):
    wait_for(tmp_path, port, web=os.getpid())


def test_the_answer_of_another_clone_on_our_port_is_not(tmp_path, port, monkeypatch):
    monkeypatch.setattr(readiness, "SECONDS", 0.3)

    with pytest.raises(Problem, match="another program answers there"):
        wait_for(tmp_path, port, web=os.getppid())
