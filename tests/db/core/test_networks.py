"""Who may connect, by address, in every form an address comes in."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from channels.testing import WebsocketCommunicator
from django.test import Client

from aos_project.asgi import application
from apps.core import networks
from apps.identity.types import Role
from tests.faces import session
from tests.factories import make_user
from tests.support.asgi import ask

HOME = [ip_network("10.0.0.0/8"), ip_network("2001:db8:1::/48"), ip_network("192.0.2.7")]


@pytest.mark.parametrize(
    "address",
    ["10.1.2.3", "::ffff:10.1.2.3", "::FFFF:0A01:0203", "2001:db8:1:2::9", "2001:DB8:1::", "192.0.2.7"],
)  # fmt: skip
def test_an_address_in_one_of_the_networks_is_let_in(address):
    assert networks.includes(HOME, address)


@pytest.mark.parametrize(
    "address",
    [
        "11.0.0.1",
        "192.0.2.8",
        "::ffff:11.0.0.1",
        "2001:db8:2::1",
        "::10.1.2.3",
        "64:ff9b::10.1.2.3",
        "2002:a01:203::1",
        "fe80::1%eth0",
        "10.1.2",
        "010.001.002.003",
        "0x0a010203",
        "167838211",
        "10.1.2.3:80",
        "[2001:db8:1::1]",
        " 10.1.2.3",
        "10.1.2.3, 11.0.0.1",
        "localhost",
        "unknown",
        "",
        None,
    ],
)
def test_every_other_form_is_not(address):
    assert not networks.includes(HOME, address)


async def status_of(path, host, **headers):
    """The status of a request that reaches the application from this address."""
    sent = await ask(path, host=host, headers=headers)
    return sent[0]["status"]


@pytest.mark.parametrize(
    "path", ["/login", "/api/schema", "/static/x.css", "/nowhere", "/metrics", "//healthz"]
)
async def test_nothing_is_answered_to_a_foreign_address(settings, path):
    settings.AOS_ALLOWED_NETWORKS = HOME

    assert await status_of(path, "11.0.0.1") == 403
    assert await status_of(path, None) == 403
    spoofed = {"x-forwarded-for": "10.1.2.3", "x-real-ip": "10.1.2.3", "forwarded": "for=10.1.2.3"}
    assert await status_of(path, "11.0.0.1", **spoofed) == 403


async def test_health_is_told_to_everybody(settings, async_db):
    settings.AOS_ALLOWED_NETWORKS = HOME

    assert await status_of("/healthz", "11.0.0.1") == 200
    assert not networks.shuts_out({"path": "/readyz", "client": ("11.0.0.1", 1)})


async def test_a_known_address_is_answered(settings, async_db):
    settings.AOS_ALLOWED_NETWORKS = HOME

    assert await status_of("/api/schema", "10.1.2.3") == 200


async def test_without_a_list_everybody_is_answered(settings, async_db):
    assert settings.AOS_ALLOWED_NETWORKS == ()
    assert await status_of("/api/schema", "11.0.0.1") == 200


@pytest.mark.parametrize(("host", "accepted"), [("11.0.0.1", False), ("::ffff:10.1.2.3", True)])
async def test_sockets_are_asked_as_well(live, settings, host, accepted):
    settings.AOS_ALLOWED_NETWORKS = HOME
    headers = [(b"authorization", b"Bearer x")]
    connection = WebsocketCommunicator(application, "/ws/events?project=x", headers=headers)
    connection.scope["client"] = (host, 4711)

    got, _ = await connection.connect(timeout=5)

    assert got is accepted
    await connection.disconnect()


@pytest.mark.django_db
@pytest.mark.parametrize(
    "path", ["/admin/", "/admin/runs/run/", "/admin/nowhere", "/flower/", "/flower/x"]
)
def test_admin_and_flower_can_be_kept_to_a_network(settings, path):
    settings.AOS_ADMIN_NETWORKS = HOME
    client = session(make_user(role=Role.OWNER))

    foreign = client.get(path, REMOTE_ADDR="11.0.0.1", HTTP_X_FORWARDED_FOR="10.1.2.3")

    assert foreign.status_code == 403
    assert client.get(path, REMOTE_ADDR="10.9.9.9").status_code != 403
    assert client.get("/runs", REMOTE_ADDR="11.0.0.1").status_code == 200


@pytest.mark.django_db
@pytest.mark.parametrize(
    "path", ["/ADMIN/", "/admin%2f", "/./admin/", "/%61dmin/", "/login/../admin/"]
)
def test_no_spelling_of_the_address_gets_round_it(settings, path):
    settings.AOS_ADMIN_NETWORKS = HOME
    make_user(role=Role.OWNER)

    answer = Client().get(path, REMOTE_ADDR="11.0.0.1")

    assert answer.status_code in {400, 403, 404}
