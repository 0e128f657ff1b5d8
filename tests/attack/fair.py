"""Greedy publishers and subscribers: what they ask for is done, and nobody else waits for it (hardening 1.1, 1.4).
The figures are those of bench/fair; here is that nothing is lost on the way, and that nobody waits long."""
import asyncio
import json

from harness import check, scene, text

SETTINGS = {"out.queue_bytes": "64MiB", "sc.ping_timeout": "60s", "out.stall": "20s"}
S = scene("fair", SETTINGS)
Q = scene("fair 2x2x2", SETTINGS, shape=(2, 2, 2))


async def greedy(ctx, publishers, subscribers, channels, messages, size, seconds=4.0):
    """Everything a few publishers say reaches every subscriber, in order of each publisher and channel, while a
    bystander's messages are not late."""
    subs = []
    for _ in range(subscribers):
        p = await ctx.sc()
        for c in range(channels):
            await p.subscribe(f"hog{c}")
        subs.append(p)
    pubs = await ctx.many(publishers, ctx.sc)
    by = ctx.bystander(seconds)

    async def hear(p):
        last = {}
        for _ in range(publishers * messages):
            d = (await p.packet())["data"]
            who, n = d["data"][0], d["data"][1]
            check(n > last.get((who, d["channel"]), -1), f"{n} after {last.get((who, d['channel']))}")
            last[who, d["channel"]] = n
    heard = [asyncio.create_task(hear(p)) for p in subs]
    for i, p in enumerate(pubs):
        p.send(b"".join(text(json.dumps({"event": "#publish", "data": {"channel": f"hog{n % channels}", "data": [i, n, "x" * size]}},
                                        separators=(",", ":")).encode()) for n in range(messages)))
    await asyncio.gather(*heard)
    await by.verdict()
    for p in pubs:
        await p.alive()
    await ctx.until("nothing is left to send", lambda: ctx.server.total("backlog_bytes") == 0)


@S.case("a burst of 4 KB to a hundred: all of it arrives, in order, and a bystander does not wait for it", deadline=60)
async def burst(ctx):
    await greedy(ctx, 1, 100, 1, 200, 4096)


@S.case("a burst of small messages to a hundred", deadline=60)
async def small(ctx):
    await greedy(ctx, 1, 100, 1, 500, 50)


@S.case("a few large messages to a hundred", deadline=60)
async def large(ctx):
    await greedy(ctx, 1, 100, 1, 3, 300000)


@S.case("a burst over many channels with many subscribers each", deadline=60)
async def wide(ctx):
    await greedy(ctx, 2, 20, 30, 150, 2000)


@S.case("a subscriber of three hundred channels", deadline=60)
async def subscriber(ctx):
    await greedy(ctx, 4, 1, 300, 1000, 1000)


@Q.case("several publishers, rings, workers and brokers", deadline=60)
async def spread(ctx):
    await greedy(ctx, 4, 60, 2, 100, 4096)


@S.case("publishers of what costs too much are stopped and go on, those who ask for an answer and those who do not", deadline=60)
async def stopped(ctx):
    subs = await ctx.many(100, ctx.sc)
    for p in subs:
        await p.subscribe("hog")
    pub = await ctx.sc()
    for i in range(2, 302):
        pub.say({"event": "#publish", "data": {"channel": "hog", "data": "y" * 8000}, "cid": i})
        pub.say({"event": "#publish", "data": {"channel": "hog", "data": "y" * 8000}})

    async def hear(p):
        for _ in range(600):
            await p.packet()
    heard = [asyncio.create_task(hear(p)) for p in subs]
    for i in range(2, 302):
        a = await pub.packet()
        check(a.get("rid") == i and "error" not in a, f"{a} instead of the answer to {i}")
    await asyncio.gather(*heard)
    check(ctx.server.total("reads_paused_total") > 0, "it was never stopped")
