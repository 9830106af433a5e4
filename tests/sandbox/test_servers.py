"""MCP servers in real containers, spoken to by the official client, started and ended many times."""

from __future__ import annotations

import gc
import os
import threading
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import anyio
import pytest
from asgiref.sync import sync_to_async
from mcp import Client, MCPError

from apps.sandboxes.models import Sandbox
from apps.sandboxes.services import tracking
from apps.sandboxes.stdio import transport
from apps.sandboxes.types import SandboxState
from tests.contracts.engine import INSTANCE, small_spec
from tests.contracts.sandbox_driver import a_long_sleep, becomes_true, found_by, sleepers
from workers.sandbox import images
from workers.sandbox.base import Command
from workers.sandbox.errors import ImageMissing, SandboxError
from workers.servers import Servers, Wanted

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("async_db")]

TIME = ("python3", "-m", "mcp_server_time", "--local-timezone", "UTC")
FILES = ("mcp-server-filesystem", "/workspace")
# One that needs no image of its own: it answers, and misbehaves on demand.
PLAIN = """
import json, os, subprocess, sys, time
for line in sys.stdin:
    asked = json.loads(line)
    if asked.get("method") == "initialize":
        version = asked["params"]["protocolVersion"]
        told = {"protocolVersion": version, "capabilities": {"tools": {}},
                "serverInfo": {"name": "plain", "version": "1"}}
    elif asked.get("method") == "tools/list":
        told = {"tools": [{"name": name, "inputSchema": {"type": "object"}}
                          for name in ("echo", "die", "flood", "garbage", "hang", "fork")]}
    elif asked.get("method") == "tools/call":
        name = asked["params"]["name"]
        if name == "die": os._exit(9)
        if name == "flood": sys.stdout.write("x" * 6_000_000); sys.stdout.flush(); time.sleep(60)
        if name == "garbage":
            for _ in range(60): print("no message", flush=True)
            time.sleep(60)
        if name == "hang": time.sleep(3600)
        if name == "fork":
            words = ["setsid", "sleep", asked["params"]["arguments"]["amount"]]
            subprocess.Popen(words, stdout=subprocess.DEVNULL)
        told = {"content": [{"type": "text", "text": json.dumps(asked["params"].get("arguments"))}]}
    elif "id" in asked:
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"],
                          "error": {"code": -32601, "message": "unknown"}}), flush=True)
        continue
    else:
        continue
    print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": told}), flush=True)
"""


@pytest.fixture
def servers(driver):
    holder = tracking.Holder(worker="test", host="here", incarnation=uuid4())
    return Servers(driver, holder=holder)


def wanted(argv=("python3", "-u", "-c", PLAIN), **spec):
    return Wanted(
        spec=small_spec(**spec),
        command=Command(argv=argv, timeout=timedelta(days=1), env={"TZ": "UTC"}),
    )


def client(servers, each, *, idle_s=None, **options):
    line = transport(lambda: servers.line(each), idle_s=idle_s)
    return Client(line, mode="legacy", **options)


@pytest.fixture(scope="module")
def time_image(driver):
    return _image("mcp-time")


@pytest.fixture(scope="module")
def files_image(driver):
    return _image("mcp-files")


def _image(name):
    try:
        images.build(name, progress=print)
    except SandboxError as error:
        pytest.skip(f"its packages cannot be had here: {error}")
    return images.tag_of(name)


def states():
    return list(Sandbox.objects.values_list("state", flat=True))


async def test_the_time_server_answers_from_a_container_without_network(servers, time_image):
    async with client(servers, wanted(TIME, image=time_image)) as time:
        tools = {tool.name for tool in (await time.list_tools()).tools}
        told = await time.call_tool(
            "convert_time",
            {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"},
        )

    assert tools == {"get_current_time", "convert_time"}
    assert "21:00" in told.content[0].text


async def test_the_file_server_sees_its_own_workspace_only(servers, files_image):
    async with client(servers, wanted(FILES, image=files_image, memory_mb=512)) as files:
        await files.call_tool("write_file", {"path": "/workspace/a.txt", "content": "kept"})
        read = await files.call_tool("read_text_file", {"path": "/workspace/a.txt"})
        refused = await files.call_tool("read_text_file", {"path": "/etc/passwd"})

    assert read.content[0].text == "kept"
    assert refused.is_error


async def test_many_calls_at_once_are_answered_each_with_its_own(servers):
    answers = {}
    async with client(servers, wanted()) as plain, anyio.create_task_group() as tasks:

        async def call(number):
            told = await plain.call_tool("echo", {"number": number, "pad": "ü" * 20_000})
            answers[number] = f'"number": {number},' in told.content[0].text

        for number in range(40):
            tasks.start_soon(call, number)

    assert answers == dict.fromkeys(range(40), True)


async def test_a_server_is_on_record_while_it_serves_and_gone_after(servers):
    async with client(servers, wanted()) as plain:
        await plain.list_tools()
        assert await sync_to_async(states)() == [SandboxState.SERVING]

    assert await sync_to_async(states)() == [SandboxState.GONE]


async def until(state, *, within=10):
    with anyio.fail_after(within):
        while await sync_to_async(states)() != [state]:  # a row tells nobody
            await anyio.sleep(0.05)


async def test_a_server_nobody_asks_stands_still_and_answers_again_when_asked(
    servers, engine, container_of
):
    async with client(servers, wanted(), idle_s=0.3) as plain:
        for number in range(3):
            told = await plain.call_tool("echo", {"number": number})
            assert f'"number": {number}' in told.content[0].text
            await until(SandboxState.PAUSED)
            row = await sync_to_async(Sandbox.objects.get)()
            assert engine.inspect_container(container_of(row.pk))["State"]["Paused"]
        asked = anyio.current_time()
        await plain.list_tools()
        assert anyio.current_time() - asked < 5

    assert await sync_to_async(states)() == [SandboxState.GONE]


async def test_a_server_that_owes_an_answer_does_not_stand_still(servers):
    async with (
        client(servers, wanted(), idle_s=0.2) as plain,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(plain.call_tool, "hang", {})
        for _ in range(20):
            await anyio.sleep(0.1)
            assert await sync_to_async(states)() == [SandboxState.SERVING]
        tasks.cancel_scope.cancel()


async def test_a_server_written_off_while_it_stood_still_is_left(servers, driver):
    with anyio.fail_after(30), pytest.raises(BaseExceptionGroup):  # noqa: PT012
        async with client(servers, wanted(), idle_s=0.2) as plain:
            await until(SandboxState.PAUSED)
            row = await sync_to_async(Sandbox.objects.get)()
            await sync_to_async(tracking.failed)(row.pk)
            await plain.list_tools()

    assert found_by(driver) == frozenset()
    assert await sync_to_async(states)() == [SandboxState.FAILED]


@pytest.mark.parametrize("deed", ["die", "flood", "garbage"])
async def test_a_server_that_breaks_ends_the_call_and_leaves_nothing(servers, driver, deed):
    told = []
    with anyio.fail_after(30), pytest.raises(BaseExceptionGroup):  # noqa: PT012
        async with client(servers, wanted()) as plain:
            try:
                await plain.call_tool(deed, {})
            except MCPError as error:
                told.append(str(error))
                raise

    assert told == ["Connection closed"]
    assert found_by(driver) == frozenset()


async def test_a_server_that_hangs_is_left_when_its_caller_leaves(servers, driver):
    with anyio.move_on_after(4) as scope:
        async with client(servers, wanted()) as plain:
            await plain.call_tool("hang", {})

    assert scope.cancelled_caught
    assert found_by(driver) == frozenset()


async def test_what_a_server_started_ends_with_it(servers):
    amount = a_long_sleep()
    async with client(servers, wanted()) as plain:
        await plain.call_tool("fork", {"amount": amount})
        assert becomes_true(lambda: sleepers(amount) == 1)

    assert becomes_true(lambda: sleepers(amount) == 0)


async def test_a_caller_cancelled_while_it_starts_leaves_nothing(servers, driver):
    for delay in (0.0, 0.05, 0.15, 0.3):
        with anyio.move_on_after(delay):
            async with servers.line(wanted()):
                await anyio.sleep(10)

    assert found_by(driver) == frozenset()
    assert await sync_to_async(states)() == [SandboxState.GONE] * len(await sync_to_async(states)())


async def test_a_server_that_cannot_be_made_says_so_and_leaves_nothing(servers, driver):
    with pytest.raises(ImageMissing):
        async with servers.line(wanted(image="aos/no-such-image")):
            pass

    assert await sync_to_async(states)() == [SandboxState.GONE]


async def test_its_environment_is_told_to_nobody_else(servers, engine):
    secret = f"canary-{uuid4().hex}"
    each = Wanted(spec=small_spec(), command=Command(argv=("cat",), env={"KEY": secret}))

    async with servers.line(each) as line:
        await line.send(b"ready\n")
        assert await line.receive() == b"ready\n"
        (container,) = engine.containers(filters={"label": f"aos.instance={INSTANCE}"})
        told = str(engine.inspect_container(container["Id"]))
        execs = engine.inspect_container(container["Id"])["ExecIDs"]
        told += "".join(str(engine.exec_inspect(each)) for each in execs)

    assert secret not in told


def traces(engine):
    """What this process and its engine hold: descriptors, threads, children, containers, volumes."""
    gc.collect()
    filters = {"label": f"aos.instance={INSTANCE}"}
    children = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            children += int(path.read_text().rpartition(")")[2].split()[1]) == os.getpid()
    return {
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "threads": threading.active_count(),
        "children": children,
        "containers": len(engine.containers(all=True, filters=filters)),
        "volumes": len(engine.volumes(filters=filters).get("Volumes") or []),
    }


async def cycle(servers, number):
    """Start a server, use it, and end it in one of the ways servers end."""
    with suppress(BaseExceptionGroup, Exception), anyio.move_on_after(20):
        async with client(servers, wanted()) as plain:
            await plain.call_tool("echo", {"number": number})
            if number % 4 == 1:
                await plain.call_tool("die", {})
            elif number % 4 == 2:
                with anyio.move_on_after(0.05):
                    await plain.call_tool("hang", {})
            elif number % 4 == 3:
                raise ValueError("the caller broke")


async def many(servers, engine, count):
    for number in range(4):  # clients and pools are made at the first use
        await cycle(servers, number)
    traces(engine)  # so does the looking
    before = traces(engine)
    for number in range(count):
        await cycle(servers, number)
    return before, traces(engine)


async def test_starting_and_ending_leaves_no_process_container_or_descriptor(servers, engine):
    before, after = await many(servers, engine, 8)

    assert after["containers"] == after["volumes"] == 0
    assert after == before


@pytest.mark.proof
async def test_two_hundred_starts_and_ends_leave_no_process_container_or_descriptor(
    servers, engine
):
    before, after = await many(servers, engine, 200)
    rows = await sync_to_async(states)()

    print(f"before {before}, after {after}")
    assert after["containers"] == after["volumes"] == 0
    assert after == before
    assert rows == [SandboxState.GONE] * 204


async def test_without_the_ending_a_server_stays(servers, driver, monkeypatch):
    # Hung up, and not destroyed: the container is left to itself.
    monkeypatch.setattr(Servers, "_end", lambda _, __, sandbox: sandbox._session.close())

    await cycle(servers, 0)

    assert len(found_by(driver)) == 1
    assert driver.reap(lambda _: frozenset()) == 1
