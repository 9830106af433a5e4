"""G9 for what this release holds: no key, password, token or cookie in a log, a trace, an argument or
what ``docker inspect`` shows, whatever the processes are asked and whatever fails."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import docker
import httpx
import pytest
from django.conf import settings as django_settings

from apps.identity.types import Role
from apps.runs.models import Run
from launcher import ports
from tests.contracts.engine import required_driver
from tests.factories import make_agent, make_project, make_token, make_user, unwatched
from tests.support.otlp import collecting
from tests.support.platform import SLOW, database_url, kill, wait_for
from tests.support.servers import PROJECT

pytestmark = [pytest.mark.processes, pytest.mark.slow]
USER_PASSWORD = "correct-horse-battery-19"  # noqa: S105  # of somebody who lives for one test


@pytest.fixture
def canaries(platform, settings):
    """Every secret of the platform: those of its settings, and those that people will bring."""
    made = {
        "AOS_SECRET_KEY": f"canary-key-{secrets.token_urlsafe(32)}",
        "AOS_TOKEN_PEPPER": f"canary-pepper-{secrets.token_urlsafe(16)}",
        "AOS_FLOWER_BASIC_AUTH": f"aos:canary-flower-{secrets.token_urlsafe(12)}",
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=canary-otlp-{secrets.token_hex(8)}",
    }
    platform.overrides |= made | {
        "FLOWER_BASIC_AUTH": made["AOS_FLOWER_BASIC_AUTH"],
        # Everything that can talk shall talk.
        "AOS_LOG_LEVEL": "DEBUG",
        "AOS_STATIC_ROOT": str(platform.folder / "static"),
    }
    subprocess.run(
        [sys.executable, "manage.py", "collectstatic", "--no-input", "--verbosity", "0"],
        cwd=PROJECT, env=platform.env, check=True,
    )  # fmt: skip
    settings.AOS_TOKEN_PEPPER = made["AOS_TOKEN_PEPPER"]
    held = {value.partition(":")[2] or value for value in made.values()}
    held.add(made["OTEL_EXPORTER_OTLP_HEADERS"].partition("=")[2])
    for url in (settings.AOS_REDIS_URL, database_url()):
        held.add(unquote(urlsplit(url).password or ""))
    return held - {""} | {USER_PASSWORD}


@pytest.fixture
def people():
    """A project with an agent that works for a moment, Oscar with a password, and Oscar's token."""
    project = make_project()
    agent = make_agent(organization=project.organization, spec=SLOW)
    oscar = make_user(role=Role.OPERATOR, organization=project.organization, username="oscar")
    with unwatched():
        oscar.set_password(USER_PASSWORD)
        oscar.save(update_fields=["password"])
    return project, agent, oscar


def knock(url, token):
    """Ask the web process well and badly, with secrets in every place; return those made up here."""
    wrong, odd = f"canary-wrong-{secrets.token_hex(8)}", f"canary-odd-{secrets.token_hex(8)}"
    forged = f"aos_pat_{secrets.token_hex(4)}_{secrets.token_hex(20)}_0a1b2c3"
    basic = httpx.BasicAuth("oscar", wrong)
    with httpx.Client(base_url=url, follow_redirects=False, timeout=20) as client:
        for value in (token, forged, wrong):
            bearer = {"Authorization": f"Bearer {value}"}
            client.get("/api/me", headers=bearer)
            client.get("/api/nowhere", headers=bearer, params={"token": value, "password": wrong})
            client.get("/metrics", headers=bearer)
            client.post("/api/run", headers=bearer, content=f'{{"password": "{wrong}"'.encode())
        client.get("/api/me", auth=basic)
        client.get("/nowhere", params={"api_key": wrong, "sessionid": odd})
        # Django logs what it refuses: the host as it was sent, and the path of what is not there.
        client.get("/login", headers={"Host": forged, "Cookie": f"sessionid={odd}"})
        client.get(f"/reset/password={wrong}")
        client.get("/", headers={"Cookie": f"sessionid={odd}; csrftoken={odd * 2}"})
        client.post("/login", data={"username": "oscar", "password": wrong})
        client.get("/flower/", auth=basic)
        cookies = sign_in(client, wrong), sign_in(client, USER_PASSWORD)
        client.get("/account/security")
        client.get("/flower/workers")
    return {wrong, odd, forged, token, *cookies[0], *cookies[1]}


def sign_in(client, password):
    client.get("/login")
    csrf = client.cookies["csrftoken"]
    client.post(
        "/login",
        data={"username": "oscar", "password": password, "csrfmiddlewaretoken": csrf},
        headers={"Referer": str(client.base_url)},
    )
    return set(client.cookies.values())


def leaks(canaries, told):
    """The canaries found in the text, as they are or as an address would hold them."""
    return {
        canary for canary in canaries for form in {canary, quote(canary, safe="")} if form in told
    }


def spoken(folder):
    return "\n".join(path.read_text("utf-8", "replace") for path in folder.glob("*.log"))


def arguments(processes):
    """The command lines of these processes, which everybody on the host can read."""
    return "\n".join(
        Path(f"/proc/{process.pid}/cmdline").read_bytes().decode("utf-8", "replace")
        for process in processes
        if process.poll() is None
    )


def flower(platform):
    port = ports.pick()
    platform.overrides["AOS_FLOWER_URL"] = f"http://127.0.0.1:{port}"
    platform.spawn(
        "flower",
        [sys.executable, "-m", "celery", "-A", "workers", "flower", "--address=127.0.0.1",
         f"--port={port}", "--url-prefix=flower", "--logging=debug"],
    )  # fmt: skip
    health = f"http://127.0.0.1:{port}/flower/healthcheck"
    wait_for("Flower", lambda: _is_up(health), seconds=60)
    for auth in (None, httpx.BasicAuth("aos", "canary-guessed-password")):
        httpx.get(f"http://127.0.0.1:{port}/flower/workers?password=canary-asked", auth=auth)


def _is_up(url):
    try:
        return httpx.get(url, timeout=2).is_success
    except httpx.TransportError:
        return False


def test_G9_no_secret_is_in_a_log_a_trace_or_an_argument(platform, canaries, people):  # noqa: N802
    project, agent, oscar = people
    token = make_token(oscar)
    with collecting() as collector:
        platform.overrides["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.url
        platform.overrides["OTEL_BSP_SCHEDULE_DELAY"] = "200"
        flower(platform)
        url = platform.web()
        platform.engine()
        platform.worker()
        canaries |= knock(url, token) | {"canary-guessed-password", "canary-asked"}
        answer = httpx.post(
            f"{url}/api/run",
            headers={
                "Authorization": f"Bearer {token}",
                "Idempotency-Key": "one-key-for-this-test",
            },
            json={"project": project.slug, "agent": agent.slug, "input": {"seconds": 0.1}},
        )
        assert answer.status_code == 202, answer.text
        wait_for("the run", lambda: Run.objects.filter(state="succeeded").exists())
        words = arguments(platform.processes)
        platform.stop()
        traces = b"\n".join(collector.bodies).decode("utf-8", "replace")

    told = spoken(platform.folder)
    assert len(canaries) > 12
    assert leaks(canaries, told) == set()
    assert leaks(canaries, words) == set()
    assert leaks(canaries, traces) == set()
    # They did talk, and there were secrets to be hidden: the refused host and the path.
    assert "Invalid HTTP_HOST header: '[hidden]'" in told
    assert "Not Found: /reset/password=[hidden]" in told
    assert "GET /reset/password=[hidden]" in traces
    for name in ("web", "engine", "w1", "flower"):
        assert (platform.folder / f"{name}.log").stat().st_size > 1000, name


def test_G9_a_process_that_cannot_start_or_connect_does_not_tell_its_password(platform, canaries):  # noqa: N802
    """Broken set-ups are when tracebacks with addresses are printed."""
    wrong = f"canary-broken-{secrets.token_hex(8)}"
    database = database_url().replace(
        f":{quote(django_settings.DATABASES['default']['PASSWORD'])}@", f":{wrong}@"
    )
    port = urlsplit(django_settings.AOS_REDIS_URL)
    redis = port._replace(netloc=f":{wrong}@{port.hostname}:{port.port}").geturl()
    good = dict(platform.overrides)

    platform.overrides = good | {"DATABASE_URL": database}
    engine = platform.engine()
    manage = subprocess.run(
        [sys.executable, "manage.py", "migrate", "--check"],
        cwd=PROJECT, env=platform.env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    platform.overrides = good | {"REDIS_URL": redis, "BROKER_URL": redis}
    platform.worker()
    url = platform.web()
    assert httpx.get(f"{url}/readyz").status_code == 503
    log = platform.folder / "engine.log"
    wait_for("the engine's complaint", lambda: log.exists() and "assword" in log.read_text())
    worker = platform.folder / "w1.log"
    wait_for("the worker's complaint", lambda: "onnect" in worker.read_text(), seconds=60)
    kill(engine)
    platform.stop()

    told = spoken(platform.folder) + manage.stdout + manage.stderr
    assert manage.returncode != 0
    assert "Traceback" in told
    assert leaks(canaries | {wrong}, told) == set()


@pytest.mark.docker
def test_G9_docker_inspect_shows_no_secret(platform, canaries, people):  # noqa: N802
    required_driver().close()
    project, agent, oscar = people
    platform.overrides["AOS_SANDBOX_DRIVER"] = "docker"
    token = make_token(oscar)
    url = platform.web()
    platform.engine()
    platform.worker()
    client = docker.APIClient(version="auto")
    httpx.post(
        f"{url}/api/run",
        headers={"Authorization": f"Bearer {token}", "Idempotency-Key": "one-key-for-this-test"},
        json={"project": project.slug, "agent": agent.slug, "input": {"seconds": 3}},
    ).raise_for_status()

    ours = {"label": [f"aos.instance={platform.env['AOS_INSTANCE']}"]}
    found = wait_for("the sandbox", lambda: client.containers(all=True, filters=ours), seconds=60)
    shown = json.dumps([client.inspect_container(each["Id"]) for each in found])
    shown += json.dumps(client.volumes(filters=ours))
    wait_for("the run", lambda: Run.objects.filter(state="succeeded").exists(), seconds=60)
    client.close()

    assert platform.env["AOS_INSTANCE"] in shown
    assert leaks(canaries | {token}, shown) == set()
    assert leaks(canaries | {token}, spoken(platform.folder)) == set()
