"""Hands on connections: ``python tests/support/forwarder.py <address> <port>...``, to loopback's same ports.

Says a line when it listens, and ends with its parent's pipe.
"""

from __future__ import annotations

import asyncio
import sys


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


async def main(address: str, *ports: str) -> None:
    for port in map(int, ports):
        await asyncio.start_server(lambda r, w, port=port: carry(r, w, port), address, port)
    print("listening", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
