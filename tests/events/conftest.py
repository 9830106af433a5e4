from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import pytest
from channels.layers import channel_layers
from django.conf import settings as django_settings

from launcher import ports
from tests.support.platform import database_url, kill, private_valkey, wait_for
from tests.support.servers import PROJECT


@dataclass
class Web:
    """A real web process."""

    process: subprocess.Popen
    port: int

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def events(self, project, after=0):
        return f"ws://127.0.0.1:{self.port}/ws/events?project={project.slug}&after={after}"


@contextmanager
def _serving(folder, redis_url, instance):
    port = ports.pick()
    log = folder / "web.log"
    env = os.environ | {
        "DATABASE_URL": database_url(),
        "REDIS_URL": redis_url,
        "AOS_INSTANCE": instance,
        "DJANGO_SETTINGS_MODULE": "aos_project.settings.test",
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "aos_project.asgi:application", "--lifespan", "on",
             "--port", str(port), "--ws", "websockets-sansio", "--timeout-graceful-shutdown", "5"],
            cwd=PROJECT, env=env, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        wait_for("the web process", lambda: _answers(port) or process.poll())
        yield Web(process, port)
    finally:
        kill(process, signal.SIGTERM)
        try:
            process.wait(10)
        finally:
            kill(process)
            print(log.read_text("utf-8", "replace")[-5000:])


def _answers(port):
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=1).is_success
    except httpx.TransportError:
        return False


@pytest.fixture
def valkey(tmp_path, settings):
    """A Valkey of this test's own, which hints of this process go to as well."""
    instance = tmp_path.name[:20]
    with private_valkey(tmp_path) as switch:
        settings.AOS_INSTANCE = instance
        settings.CHANNEL_LAYERS = {
            "default": settings.CHANNEL_LAYERS["default"]
            | {"CONFIG": {"hosts": [{"address": switch.url}], "prefix": f"{instance}:layer"}}
        }
        yield switch
    channel_layers.backends.clear()


@pytest.fixture
def web(transactional_db, tmp_path, valkey):
    with _serving(tmp_path, valkey.url, django_settings.AOS_INSTANCE) as serving:
        yield serving
