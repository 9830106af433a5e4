"""Addresses as a real server tells them, behind a proxy and without one."""

from __future__ import annotations

import httpx
import pytest
import websockets

pytestmark = [pytest.mark.processes, pytest.mark.slow]
ALLOWED = {"AOS_ALLOWED_NETWORKS": "10.0.0.0/8, 2001:db8::/32"}


@pytest.fixture
def behind_a_proxy(platform):
    """A web process that believes 127.0.0.1, from where the test asks, and a second proxy."""
    platform.overrides |= ALLOWED | {"FORWARDED_ALLOW_IPS": "127.0.0.1,172.16.0.0/12"}
    return platform.web()


@pytest.fixture
def without_a_proxy(platform):
    platform.overrides |= ALLOWED | {"FORWARDED_ALLOW_IPS": "192.0.2.200"}
    return platform.web()


def statuses(url, *forwarded):
    return [
        httpx.get(f"{url}/api/me", headers={"X-Forwarded-For": value} if value else {}).status_code
        for value in forwarded
    ]


async def handshake(url, forwarded):
    """The status of a socket's handshake: 101 when it is opened."""
    headers = {"X-Forwarded-For": forwarded, "Authorization": "Bearer x"}
    try:
        async with websockets.connect(
            f"{url.replace('http', 'ws')}/ws/events?project=x", additional_headers=headers
        ):
            return 101
    except websockets.InvalidStatus as error:
        return error.response.status_code


async def test_what_a_proxy_says_counts_and_what_its_client_says_does_not(behind_a_proxy):
    url = behind_a_proxy
    let_in = statuses(
        url,
        "10.1.2.3",
        "2001:db8::7",
        # Spoofed by the client, overruled by the proxy that appended the true one.
        "192.0.2.1, 10.1.2.3",
        # Two proxies of ours.
        "10.1.2.3, 172.16.0.9",
    )
    shut_out = statuses(
        url, None, "192.0.2.1", "10.1.2.3, 192.0.2.1", "10.1.2.3, 192.0.2.1, 172.16.0.9", "nonsense"
    )

    assert let_in == [401] * 4
    assert shut_out == [403] * 5
    assert httpx.get(f"{url}/healthz").status_code == 200
    assert await handshake(url, "10.1.2.3") == 101
    assert await handshake(url, "10.1.2.3, 192.0.2.1") == 403


async def test_without_a_proxy_no_header_is_believed(without_a_proxy):
    url = without_a_proxy

    assert statuses(url, None, "10.1.2.3", "2001:db8::7") == [403] * 3
    assert await handshake(url, "10.1.2.3") == 403
