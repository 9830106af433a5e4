"""Artifacts as the real server sends them: piece by piece, and closed whoever leaves early."""

from __future__ import annotations

import pytest
from asgiref.sync import sync_to_async
from django.test import AsyncClient

from tests.factories import make_actor, make_artifact, make_project, make_run, make_token

CONTENT = bytes(range(256)) * 1024


def prepare():
    by = make_actor()
    run = make_run(project=make_project(organization=by.user.organization), by=by)
    make_artifact(run, name="big.bin", content=CONTENT)
    return f"/api/runs/{run.public_id}/artifacts/big.bin", make_token(by.user)


async def fetch():
    path, token = await sync_to_async(prepare)()
    return await AsyncClient().get(path, headers={"Authorization": f"Bearer {token}"})


async def test_a_large_artifact_comes_in_pieces(async_db):
    response = await fetch()

    pieces = [piece async for piece in response.streaming_content]

    assert response.is_async
    assert len(pieces) > 1
    assert b"".join(pieces) == CONTENT
    assert response["Content-Length"] == str(len(CONTENT))


async def test_nobody_comes_to_read_and_the_file_is_closed_all_the_same(async_db):
    response = await fetch()

    # What Django does when an answer is over, read or not.
    for close in response._resource_closers:
        close()

    with pytest.raises(ValueError, match="closed file"):
        assert [piece async for piece in response.streaming_content]
