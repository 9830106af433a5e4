"""A run's own log is followed like a project's, and ends with the run."""

from __future__ import annotations

import asyncio
import json

from asgiref.sync import sync_to_async
from django.db import transaction

from apps.events import feed
from apps.runs.models import RunEvent
from apps.runs.services import control, lifecycle
from apps.runs.tail import RunLog
from apps.runs.types import RunState
from tests.factories import make_actor, make_run


@sync_to_async
def queued_run():
    run = make_run()
    return run, make_actor(organization=run.project.organization)


@sync_to_async
def write(run, **payload):
    with transaction.atomic():
        lifecycle.log(lifecycle.lock(run.pk), payload)


async def test_lines_come_as_they_are_written_and_the_stream_ends_with_the_run(live):
    run, by = await queued_run()
    await write(run, state="queued", note="before")
    seen = []

    async with (
        asyncio.timeout(10),
        feed.follow(RunLog(run.pk, run.public_id, run.organization_id), after=0) as listener,
    ):
        async for frame in listener:
            seen.append(json.loads(frame.text))
            if len(seen) == 1:
                await write(run, state="queued", note="while listening")
            if len(seen) == 2:
                await sync_to_async(control.cancel)(by=by, run=run)
    written = await sync_to_async(RunEvent.objects.filter(run=run).count)()

    assert [line["seq"] for line in seen] == list(range(1, written + 1))
    assert seen[0].keys() == {"seq", "kind", "payload", "at"}
    assert seen[-1]["payload"]["state"] == RunState.CANCELLED


async def test_a_run_that_is_over_gives_its_rest_and_ends(live):
    run, by = await queued_run()
    await write(run, state="queued")
    await sync_to_async(control.cancel)(by=by, run=run)
    last = await sync_to_async(RunEvent.objects.filter(run=run).count)()

    async with (
        asyncio.timeout(3),
        feed.follow(RunLog(run.pk, run.public_id, run.organization_id), after=last - 1) as listener,
    ):
        rest = [frame.seq async for frame in listener]
    async with (
        asyncio.timeout(3),
        feed.follow(RunLog(run.pk, run.public_id, run.organization_id), after=last) as listener,
    ):
        nothing = [frame.seq async for frame in listener]

    assert rest == [last]
    assert nothing == []
