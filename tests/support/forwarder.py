"""Hands on connections from a network namespace to the same ports of this host's loopback:
``python tests/support/forwarder.py <namespace> <address> <port>...``.

Says a line when it listens, and ends with its parent's pipe.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import sys

CLONE_NEWNET = 0x40000000  # of sched.h


def listening(namespace: str, address: str, ports: list[int]) -> list[socket.socket]:
    """Sockets that stay where they were made, also after this process has come back from there."""
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    enter(there)
    sockets = [socket.create_server((address, port)) for port in ports]
    enter(home)
    return sockets


def enter(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    there_reader, there_writer = await asyncio.open_connection("127.0.0.1", port)
    await asyncio.gather(pump(reader, there_writer), pump(there_reader, writer))


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        return  # one of the two is gone
    finally:
        writer.close()


async def main(namespace: str, address: str, *ports: str) -> None:
    for sock in listening(namespace, address, [int(port) for port in ports]):
        port = sock.getsockname()[1]
        await asyncio.start_server(lambda r, w, port=port: carry(r, w, port), sock=sock)
    print("listening", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
