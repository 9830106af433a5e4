"""Asks whether a Docker engine answers, before anything is promised about isolation."""

from __future__ import annotations

import http.client
import os
import socket
from collections.abc import Mapping
from contextlib import closing
from enum import Enum
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

SOCKET: Final = "/var/run/docker.sock"
ANSWER_SECONDS: Final = 5.0


class Docker(Enum):
    ANSWERS = "answers"
    ABSENT = "No Docker engine answers"
    FORBIDDEN = "You may not use the Docker engine of this machine"


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=ANSWER_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def look(environ: Mapping[str, str] = os.environ) -> Docker:
    try:
        with closing(_connection(environ.get("DOCKER_HOST") or f"unix://{SOCKET}")) as connection:
            connection.request("GET", "/_ping")
            answer = connection.getresponse()
    except PermissionError:
        return Docker.FORBIDDEN
    except (OSError, ValueError, http.client.HTTPException):
        return Docker.ABSENT
    return Docker.ANSWERS if answer.status == http.HTTPStatus.OK else Docker.ABSENT


def cure(found: Docker) -> str:
    """Say what would make the engine usable."""
    if found is Docker.FORBIDDEN:
        return "sudo usermod -aG docker $USER, then sign in again"
    if Path("/usr/bin/dockerd").exists():
        return "sudo systemctl start docker"
    return "sudo apt install docker.io"


def _connection(host: str) -> http.client.HTTPConnection:
    parts = urlsplit(host)
    if parts.scheme == "unix":
        return _UnixConnection(parts.path)
    secure = bool(os.environ.get("DOCKER_TLS_VERIFY"))
    if parts.scheme != "tcp" or parts.hostname is None or secure:
        # What only the docker library understands (ssh, TLS) is left for it to try.
        raise ValueError(host)
    return http.client.HTTPConnection(parts.hostname, parts.port or 2375, timeout=ANSWER_SECONDS)
