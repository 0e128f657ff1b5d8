"""Many connections: limits, descriptors, reconnect storms (hardening section 13)."""
import asyncio

from harness import check, idle, scene

S = scene("many", {"conn.max": "60", "conn.max_unshaken": "20", "http.header_timeout": "3s", "ws.close_timeout": "500ms"})
D = scene("descriptors", {"http.header_timeout": "8s", "sc.handshake_timeout": "8s", "conn.max": "2000",
                          "conn.max_unshaken": "1000"})


@S.case("unshaken connections above the limit push out the oldest, not the shaken")
async def unshaken(ctx):
    good = await ctx.many(5, ctx.sc)
    peers = []
    for _ in range(200):
        peers.append(await ctx.tcp())
    await ctx.until("the limit holds", lambda: ctx.server.total("connections_unshaken") <= 20)
    for g in good:
        await g.alive()
    await (await ctx.sc()).alive()


@S.case("above conn.max: 503 with Retry-After or an end, counted; room afterwards")
async def full(ctx):
    peers = []
    for _ in range(60):
        peers.append(await ctx.sc())
    refused = ctx.server.total("refused_connections_total")
    for _ in range(20):
        p = await ctx.tcp()
        r = await p.response()
        check(r is None or (r.status == 503 and r.get("Retry-After")), f"{r and r.status}")
    check(ctx.server.total("refused_connections_total") >= refused + 20, "not counted")
    await peers[0].alive()
    there = ctx.server.total("connections")
    peers[1].reset()
    await ctx.until("room", lambda: ctx.server.total("connections") < there)
    await (await ctx.sc()).alive()


# An armed multishot accept goes by the limit of the time it was armed, so the server starts with it.
E = scene("few descriptors", {"conn.max": "4000", "http.header_timeout": "20s"}, nofile=100)


@E.case("no descriptor left: established ones go on, no spinning, accepting resumes by itself", deadline=25)
async def emfile(ctx):
    s = ctx.server
    good = await ctx.many(5, ctx.sc)
    flood = [await ctx.tcp() for _ in range(150)]
    await ctx.until("accepting pauses", lambda: s.total("accept_paused_total") > 0)
    for g in good:
        await g.alive()
    await idle(ctx, "EMFILE", limit=0.06)
    for g in good:
        await g.alive()
    for f in flood:
        f.reset()
    await (await ctx.sc()).alive()
    await ctx.until("the flood is gone", lambda: s.total("connections") == 6)


@D.case("a reconnect storm: 600 at once, all gone, again, five times", deadline=40)
async def storm(ctx):
    fds = ctx.server.fds()
    for _ in range(5):
        peers = await ctx.many(300, ctx.sc)
        for i, p in enumerate(peers):
            p.reset() if i % 2 else p.end()
        ctx.peers = []
    await ctx.until("descriptors back", lambda: ctx.server.fds() <= fds + 2, 8)
