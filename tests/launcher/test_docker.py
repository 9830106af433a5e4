"""Whether an engine answers, is forbidden, or is not there."""

from __future__ import annotations

import os
import socket
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import UnixStreamServer

import pytest

from launcher import docker
from launcher.docker import Docker


class Engine(BaseHTTPRequestHandler):
    code = 200

    def do_GET(self) -> None:
        self.send_response(self.code)
        self.end_headers()

    def log_message(self, *words: object) -> None:
        return

    def address_string(self) -> str:
        return "unix"


@pytest.mark.parametrize(("code", "found"), [(200, Docker.ANSWERS), (500, Docker.ABSENT)])
def test_an_engine_is_there_when_it_answers_a_ping(tmp_path: Path, code: int, found: Docker):
    handler = type("Handler", (Engine,), {"code": code})
    with UnixStreamServer(str(tmp_path / "s"), handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()

        assert docker.look({"DOCKER_HOST": f"unix://{tmp_path}/s"}) is found
        thread.join()


def test_a_socket_nobody_listens_on_is_no_engine(tmp_path: Path):
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "s"))

    assert docker.look({"DOCKER_HOST": f"unix://{tmp_path}/s"}) is Docker.ABSENT


@pytest.mark.parametrize("host", ["unix:///nowhere", "ssh://me@host", "tcp://", "nonsense"])
def test_an_address_that_leads_nowhere_is_no_engine(host: str):
    assert docker.look({"DOCKER_HOST": host}) is Docker.ABSENT


def test_an_engine_one_may_not_use_is_told_apart(monkeypatch: pytest.MonkeyPatch):
    def refuse(self, address):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "connect", refuse)

    assert docker.look({}) is Docker.FORBIDDEN
    assert "usermod -aG docker" in docker.cure(Docker.FORBIDDEN)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may use every socket")
def test_a_real_socket_without_permission_is_forbidden(tmp_path: Path):
    with socket.socket(socket.AF_UNIX) as engine:
        engine.bind(str(tmp_path / "s"))
        (tmp_path / "s").chmod(0)

        assert docker.look({"DOCKER_HOST": f"unix://{tmp_path}/s"}) is Docker.FORBIDDEN
