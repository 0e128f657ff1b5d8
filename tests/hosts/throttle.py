#!/usr/bin/env python3
"""A way to a server that is as slow as it is told to be.

    throttle.py ADDRESS:PORT TO_ADDRESS:PORT

Each line on stdin is a number: so many bytes a second go to the server from now on, all connections together; 0 means
as they come. What the server says passes freely. A connection that one side ends ends on the other."""
import asyncio
import sys
import time

CHUNK = 16384
rate, free_at = 0, 0.0


def place(text):
    host, port = text.rsplit(":", 1)
    return host, int(port)


async def pace(n):
    """Waits until n more bytes may go; a new rate is heeded within a tenth of a second."""
    global free_at
    while rate and time.monotonic() < free_at:
        await asyncio.sleep(min(0.1, max(0, free_at - time.monotonic())))
    if rate:
        free_at = max(free_at, time.monotonic()) + n / rate


async def carry(reader, writer, is_paced):
    try:
        while data := await reader.read(CHUNK if not (is_paced and rate) else max(256, min(CHUNK, rate // 20))):
            if is_paced:
                await pace(len(data))
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def serve(there, reader, writer):
    try:
        server = await asyncio.open_connection(*there, limit=CHUNK)
    except OSError:
        writer.close()
        return
    await asyncio.gather(carry(reader, server[1], True), carry(server[0], writer, False))


async def main():
    global rate, free_at
    here, there = place(sys.argv[1]), place(sys.argv[2])
    await asyncio.start_server(lambda r, w: serve(there, r, w), *here, limit=CHUNK)
    print("ready", flush=True)
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        rate, free_at = int(line), 0.0
        print(rate, flush=True)


asyncio.run(main())
