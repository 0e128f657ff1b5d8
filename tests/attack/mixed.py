"""Everything at once: clients that do random things, right and wrong, to a server of several processes.
The seed is printed with a failure; ATTACK_SEED repeats it."""
import asyncio
import os
import random
import time

from harness import (BINARY, CLOSE, CONT, PING, PONG, TEXT, Violation, check, close_body, frame, header, scene, text)

SEED = int(os.environ.get("ATTACK_SEED", "0")) or random.randrange(1, 1 << 31)
S = scene("mixed 2x2x2", {"out.queue_bytes": "256KiB", "out.stall": "600ms", "ws.close_timeout": "400ms", "http.header_timeout": "500ms",
                          "ws.message_timeout": "500ms", "sc.handshake_timeout": "500ms", "sc.ping_interval": "200ms",
                          "sc.ping_timeout": "700ms", "mem.buffers": "16MiB", "lane.bytes": "128KiB", "ws.max_message": "40KiB",
                          "lane.overflow_bytes": "256KiB"}, shape=(2, 2, 2))
S1 = scene("mixed small", {**S.settings, "worker.count": 1, "worker.rings": 1, "broker.count": 1, "conn.max": "24",
                           "conn.max_unshaken": "8", "sc.max_channels": "12"})


def packet(r):
    c = r.choice(("a", "b", "c", "d" * 300, "é", "\0", ""))
    cid = r.choice((None, 1, 7, 1.5, "x"))
    p = r.choice(({"event": "#subscribe", "data": {"channel": c}}, {"event": "#unsubscribe", "data": c},
                  {"event": "#publish", "data": {"channel": c, "data": "p" * r.choice((0, 10, 3000, 30000))}},
                  {"event": "#publish", "data": {"channel": c}}, {"event": "#handshake", "data": {}}, {"rid": 3},
                  {"event": "#authenticate", "data": "a.b.c"}, {"event": "app", "data": [[[]]]}, {"event": "#removeAuthToken"}, 5))
    if isinstance(p, dict) and cid is not None:
        p = {**p, "cid": cid}
    return p


def noise(r):
    kind = r.randrange(14)
    if kind < 6:
        return text(packet(r)) * r.choice((1, 1, 1, 20))
    if kind == 6:
        return text([packet(r) for _ in range(r.randrange(60))])
    if kind == 7:
        raw = bytearray(text(packet(r)))
        raw[r.randrange(len(raw))] ^= 1 << r.randrange(8)
        return bytes(raw)
    if kind == 8:
        return text(packet(r))[:r.randrange(1, 30)]
    if kind == 9:
        return frame(TEXT, b'{"event":', fin=False) + frame(PING, b"x") + frame(CONT, b'"x"}')
    if kind == 10:
        return frame(r.choice((PING, PONG, TEXT)), b"") * r.randrange(1, 300)
    if kind == 11:
        return frame(CLOSE, close_body(r.choice((1000, 1001, 4000, 77))))
    if kind == 12:
        return r.randbytes(r.randrange(1, 400))
    return frame(TEXT, b"") * 3


async def client(ctx, r, until):
    while time.monotonic() < until:
        p = await ctx.tcp(rcvbuf=r.choice((None, 4096)))
        reader = None
        try:
            if r.random() < 0.1:
                p.send(r.choice((b"GET / HTTP/1.1\r\n", r.randbytes(50), b"")))
                await asyncio.sleep(r.random() * 0.7)
                continue
            await (p.upgrade() if r.random() < 0.1 else p.shake())

            async def read():
                while await p._more(3):
                    p.buf.clear()
            reader = asyncio.create_task(read()) if r.random() < 0.6 else None
            for _ in range(r.randrange(1, 40)):
                p.send(noise(r) if r.random() < 0.8 else text({"event": "#publish", "data": {"channel": "a", "data": "z" * 8000}}) * 5)
                if r.random() < 0.3:
                    await asyncio.sleep(r.random() * 0.02)
                if p.eof or (reader and reader.done()):
                    break
            if r.random() < 0.3:
                p.send_fin()
            await asyncio.sleep(r.choice((0, 0, 0.05, 0.3)))
        except (Violation, OSError, ValueError, KeyError, AttributeError, TypeError):
            pass  # refused, pushed out, cut off: it asked for that
        finally:
            if reader:
                reader.cancel()
                await asyncio.gather(reader, return_exceptions=True)
            ctx.peers.remove(p)
            try:
                p.reset() if r.random() < 0.5 else p.end()
            except OSError:
                pass


async def mixed(ctx, clients, seconds):
    until = time.monotonic() + seconds
    print_seed = f"ATTACK_SEED={SEED}"
    try:
        await asyncio.gather(*(client(ctx, random.Random(SEED + i), until) for i in range(clients)))
        check(ctx.server.proc.poll() is None, "the server ended")

        def serves():
            return ctx.server.total("brokers_up") > 0
        await ctx.until("brokers are attached", serves)
        p = await ctx.sc()
        await p.alive()
    except Violation as e:
        raise Violation(f"{print_seed}: {e}") from None


@S.case("40 clients do random things for 5 seconds; nothing breaks, nothing is left", deadline=30)
async def large(ctx):
    await mixed(ctx, 40, 5)


@S1.case("30 clients where 24 fit, for 3 seconds; nothing breaks, nothing is left", deadline=30)
async def small(ctx):
    await mixed(ctx, 30, 3)
