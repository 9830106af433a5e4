"""Reaching a Docker engine, and saying in our own words what goes wrong there."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import docker
import requests
from docker.errors import DockerException, ImageNotFound
from docker.utils import kwargs_from_env

from workers.sandbox.errors import SandboxUnavailable

DEFAULT_URL: Final = "unix:///var/run/docker.sock"

_PROBE_TIMEOUT_S: Final = 5.0


def connect(*, base_url: str | None = None, timeout_s: int) -> docker.APIClient:
    """A client of the engine that the environment names, or of the one given."""
    options = {"base_url": base_url} if base_url else kwargs_from_env()
    probe(base_url)
    with said_plainly():
        return docker.APIClient(version="auto", timeout=timeout_s, **options)


def probe(base_url: str | None) -> None:
    """Raise ``SandboxUnavailable`` when nobody listens on a local engine's socket.

    Asked before the client library is: its own failed attempts leave sockets open and say less.
    """
    url = urlsplit(base_url or kwargs_from_env().get("base_url") or DEFAULT_URL)
    if not url.scheme.endswith("unix"):
        return
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(_PROBE_TIMEOUT_S)
        try:
            sock.connect(url.path)
        except OSError as error:
            reason = error.strerror or "it does not answer"
            raise SandboxUnavailable(
                driver="docker", detail=f"no engine at {url.path} ({reason})."
            ) from error


@contextmanager
def said_plainly() -> Iterator[None]:
    """Turn what the engine or the way to it did wrong into ``SandboxUnavailable``."""
    try:
        yield
    except (DockerException, requests.RequestException, OSError) as error:
        raise SandboxUnavailable(driver="docker", detail=one_line(error)) from error


@contextmanager
def session(*, timeout_s: int) -> Iterator[docker.APIClient]:
    """A client for a while, with everything that goes wrong said plainly."""
    api = connect(timeout_s=timeout_s)
    try:
        with said_plainly():
            yield api
    finally:
        api.close()


def find_image(api: docker.APIClient, image: str) -> dict[str, Any] | None:
    """What the engine knows of an image, or None when it does not have it."""
    try:
        found: dict[str, Any] = api.inspect_image(image)  # type: ignore[no-untyped-call]
    except ImageNotFound:
        return None
    return found


def one_line(words: object) -> str:
    told = getattr(words, "explanation", None) or words
    return " ".join(str(told).split())[:500]
