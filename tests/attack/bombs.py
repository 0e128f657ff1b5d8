"""Compressed messages made to hurt (hardening section 6)."""
import asyncio
import os

import d_streams
import flate
from harness import CONT, TEXT, check, frame, idle, scene

FRESH = flate.NAME + b"; client_max_window_bits"
S = scene("bombs", {"ws.close_timeout": "700ms", "sc.ping_timeout": "60s", "ws.message_timeout": "1500ms"})
K = scene("contexts", {"ws.close_timeout": "700ms", "sc.ping_timeout": "60s", "deflate.server_takeover": "on", "deflate.client_takeover": "on",
                       "deflate.memory": "4MiB"})


async def deflated(ctx, path="/echo", offer=FRESH):
    p = await ctx.tcp(path=path)
    check(await flate.upgrade(p, offer), "compression was not agreed to")
    return p


@S.case("bombs by many at once: 1009, memory flat, others undisturbed", deadline=40)
async def bombs(ctx):
    s = ctx.server
    payload = d_streams.bomb(300)
    before = s.rss()
    by = ctx.bystander(2.0)

    async def one(cut):
        p = await deflated(ctx, "/socketcluster/")  # where the limit is 1 MiB
        p.say({"event": "#handshake", "data": {}, "cid": 1})
        await p.message()
        p.send(flate.packed(TEXT, payload, *range(cut, len(payload), cut)))
        await p.closed(1009)
    for cut in (1000, 20000, 1 << 30):
        await asyncio.gather(*(one(cut) for _ in range(8)))
    check(s.rss() - before < 32 << 20, f"24 bombs cost {(s.rss() - before) >> 20} MiB")
    await by.verdict()
    ctx.end()
    await ctx.until("the memory is back", lambda: s.rss() < before * 1.1 + (32 << 20), 8)


@S.case("a bomb before the handshake meets the smaller limit: 1009")
async def unshaken(ctx):
    p = await deflated(ctx, "/socketcluster/")
    p.send(flate.packed(TEXT, flate.Codec(flate.Agreed(client_fresh=True)).deflate(b"{" + b" " * 70000)))
    await p.closed(1009)


@S.case("many bombs, each within the limit, are an account that runs out: 1008", deadline=30)
async def account(ctx):
    p = await deflated(ctx)
    one = flate.packed(TEXT, flate.Codec(flate.Agreed(client_fresh=True)).deflate(b"\0" * (15 << 20)))
    p.send(one * 12)
    await p.closed(1008)
    check(ctx.server.total("close_inflate_budget") > 0, "not counted")


@S.case("unfinished compressed messages cost what arrived, and end at ws.message_timeout: 1008", deadline=25)
async def unfinished(ctx):
    s = ctx.server
    before = s.rss()
    piece = d_streams.bomb(1)[:500]
    peers = []
    for _ in range(200):
        p = await deflated(ctx)
        p.send(frame(TEXT, piece, fin=False, rsv=flate.RSV1) + frame(CONT, b"", fin=False))
        peers.append(p)
    await ctx.until("they are there", lambda: s.total("connections") == 200)
    check(s.rss() - before < 16 << 20, f"200 beginnings of bombs cost {(s.rss() - before) >> 20} MiB")
    await asyncio.gather(*(p.closed(1008) for p in peers))


@S.case("noise in compressed frames, 400 of them: 1007 or an echo, nothing left")
async def noise(ctx):
    async def one(n):
        p = await deflated(ctx)
        p.send(flate.packed(2, os.urandom(n)))
        f = await p.frame()
        check(f is not None and (f.op == 2 or f.code == 1007), f"{f}")
    for k in range(10):
        await asyncio.gather(*(one(1 + k * 40 + i) for i in range(40)))
        ctx.end()
    await idle(ctx, "after noise")


@K.case("contexts are kept within deflate.memory; who comes later is served without", deadline=40)
async def contexts(ctx):
    s = ctx.server
    before, kept = s.rss(), 0
    for _ in range(120):
        p = await deflated(ctx)
        a = p.codec.agreed
        kept += not a.server_fresh or not a.client_fresh
        for _ in range(2):
            data = b"the same words " * 500
            p.send(flate.packed(TEXT, p.codec.deflate(data)))
            await p.expect(TEXT, data)
    check(0 < kept < 120, f"{kept} of 120 keep context")
    check(s.rss() - before < 24 << 20, f"grew by {(s.rss() - before) >> 20} MiB")
