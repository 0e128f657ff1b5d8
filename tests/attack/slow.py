"""Who does not read, who floods, and what others notice of it (hardening 1.4, 9, 12)."""
import asyncio
import os
import signal

from harness import (BINARY, TEXT, Violation, books, check, frame, idle, scene, text)

SETTINGS = {"out.queue_bytes": "1MiB", "out.stall": "1500ms", "ws.close_timeout": "700ms", "sc.ping_timeout": "60s"}
S = scene("slow", SETTINGS)
Q = scene("slow 2x2x2", SETTINGS, shape=(2, 2, 2))
# With the queue of the defaults: what a client in Python can fall behind a flood fits into it.
F = scene("flood", {k: v for k, v in SETTINGS.items() if k != "out.queue_bytes"})
M = scene("memory ceiling", {"mem.buffers": "8MiB", "out.queue_bytes": "4MiB", "out.stall": "30s",
                             "ws.close_timeout": "700ms", "sc.ping_timeout": "60s"})

L = scene("memory limit", {"mem.limit": "96MiB", "mem.buffers": "1GiB", "ws.close_timeout": "700ms", "sc.ping_timeout": "60s"})


@S.case("answers are not read: the client is stopped at the TCP window, then 1013", deadline=25)
async def answers(ctx):
    before = ctx.server.rss()
    by = ctx.bystander(2.5)
    p = await ctx.sc(rcvbuf=4096)
    p.send(b"".join(text({"event": "#subscribe", "data": {}, "cid": i}) for i in range(120000)))
    await by.verdict()
    grown = ctx.server.rss() - before
    check(grown < 24 << 20, f"grew by {grown >> 20} MiB")
    await ctx.until("the stalled one is gone", lambda: ctx.server.total("connections") == 0, 6)


@S.case("an echo of 16 MiB is not read: at most one message is kept, then it ends", deadline=25)
async def echo(ctx):
    before = ctx.server.rss()
    p = await ctx.ws(path="/echo", rcvbuf=4096)
    p.send(*[frame(BINARY, bytes(16 << 20))] * 3)
    await ctx.until("the stalled one is gone", lambda: ctx.server.total("connections") == 0, 10)
    check(ctx.server.rss() - before < 80 << 20, f"grew by {(ctx.server.rss() - before) >> 20} MiB")


async def not_reading(ctx, readers, slow, messages, size):
    """Readers that read get everything in order; those that don't end; deliveries add up."""
    s = ctx.server
    base = {n: s.total(n) for n in ("deliveries_total", "dropped_slow_total")}
    good = await ctx.many(readers, ctx.sc)
    for g in good:
        await g.subscribe("busy")
    sleepers = await ctx.many(slow, lambda: ctx.sc(rcvbuf=4096))
    for z in sleepers:
        z.say({"event": "#subscribe", "data": {"channel": "busy"}, "cid": 2})
    await ctx.until("subscriptions", lambda: s.total("subscriptions") >= readers + slow)
    before, peak = s.rss(), 0
    by = ctx.bystander(2.5)
    p = await ctx.sc()

    async def reader(g):
        for i in range(messages):
            n = (await g.packet())["data"]["data"]
            check(n[0] == i, f"{n[0]} instead of {i}")
    tasks = [asyncio.create_task(reader(g)) for g in good]
    for i in range(messages):
        p.send(text({"event": "#publish", "data": {"channel": "busy", "data": [i, "x" * size]}}))
        await asyncio.sleep(0.003)  # what is measured is not reading, not publishing faster than can be handed out
        if i % 20 == 0:
            peak = max(peak, s.rss())
    await asyncio.gather(*tasks)
    await by.verdict()
    await ctx.until("the sleepers are gone", lambda: s.total("connections_open") <= readers + 1, 8)
    # n slow readers of one channel cost n queue entries and one copy of the messages.
    check(peak - before < 48 << 20, f"{slow} slow readers cost {(peak - before) >> 20} MiB")
    got = s.total("deliveries_total") - base["deliveries_total"]
    dropped = s.total("dropped_slow_total") - base["dropped_slow_total"]
    check(got >= readers * messages, f"{got} deliveries")
    return before, got, dropped


@S.case("200 slow readers of one busy channel: memory flat, others get everything, in order", deadline=40)
async def sleepers(ctx):
    before, _, _ = await not_reading(ctx, 3, 200, 700, 4000)
    ctx.end()
    await ctx.until("the memory is back", lambda: ctx.server.rss() < before * 1.1 + (32 << 20))


@Q.case("slow readers on two workers: others get everything, in order", deadline=40)
async def sleepers2(ctx):
    await not_reading(ctx, 4, 20, 400, 20000)


@S.case("a stalled reader gets 1013 and its queue is released at once")
async def code(ctx):
    z = await ctx.sc(rcvbuf=4096)
    await z.subscribe("loud")
    p = await ctx.sc()
    for i in range(40):
        p.say({"event": "#publish", "data": {"channel": "loud", "data": "y" * 100000}})
    await p.alive()
    await ctx.until("its end", lambda: ctx.server.total("connections_open") == 1, 6)
    check(ctx.server.total("queue_bytes") < 300000, "the queue is kept")
    try:
        await z.closed(1013, limit=4)
    except Violation as e:
        check("1013" not in str(e) or "TCP" in str(e), str(e))  # a reset is allowed once close_timeout is over


@F.case("a flood of publishes without answers: bounded, others undisturbed", deadline=30)
async def flood(ctx):
    before = ctx.server.rss()
    by = ctx.bystander(2.0)
    r, p = await ctx.sc(), await ctx.sc()
    await r.subscribe("f")
    n = 60000
    p.send(b"".join(text(b'{"event":"#publish","data":{"channel":"f","data":%d}}' % i) for i in range(n)))

    async def read():
        for i in range(n):
            check(int((await r.packet())["data"]["data"]) == i, f"not {i}")
    await read()
    await by.verdict()
    check(ctx.server.rss() - before < 48 << 20, f"grew by {(ctx.server.rss() - before) >> 20} MiB")


@S.case("the books of messages: published x subscribers = deliveries + drops, at worker and broker", deadline=25)
async def accounts(ctx):
    s = ctx.server
    names = ("publishes_in_total", "deliveries_total", "dropped_slow_total")
    before = {n: s.total(n) for n in names}
    at_broker = s.total("publishes_total", "broker")
    subs = await ctx.many(5, ctx.sc)
    for g in subs:
        await g.subscribe("acc")
    z = await ctx.sc(rcvbuf=4096)
    await z.subscribe("acc")
    p = await ctx.sc()
    n = 300

    async def read(g):
        for i in range(n):
            check((await g.packet())["data"]["data"][0] == i, f"not {i}")
    tasks = [asyncio.create_task(read(g)) for g in subs]
    for i in range(n):
        p.send(text({"event": "#publish", "data": {"channel": "acc", "data": [i, "x" * 20000]}}))
        if i % 10 == 0:
            await p.alive()  # one more publish, to a channel nobody wants
    await asyncio.gather(*tasks)
    now = {k: s.total(k) - before[k] for k in names}
    check(now["publishes_in_total"] == n + n // 10 == s.total("publishes_total", "broker") - at_broker, f"{now}")
    await ctx.until("the sleeper's end", lambda: s.total("close_slow_queue") + s.total("close_slow_stall") > 0)
    # What the sleeper was never meant to get, because it had ended, is neither.
    check(5 * n <= now["deliveries_total"] <= 6 * n, f"{now}")
    check(now["deliveries_total"] + now["dropped_slow_total"] <= 6 * n, f"{now}")


@S.case("a client process that is stopped: ended by out.stall, the server sleeps meanwhile", deadline=25)
async def stopped(ctx):
    s = ctx.server
    by = ctx.bystander(20)
    os.kill(by.proc.pid, signal.SIGSTOP)
    try:
        p = await ctx.sc()
        for _ in range(60):
            p.say({"event": "#publish", "data": {"channel": "by0", "data": "y" * 100000}})
        await p.alive()
        await idle(ctx, "a stopped peer")
        await ctx.until("its end", lambda: s.total("connections_open") <= 2, 6)
    finally:
        by.proc.kill()
        by.proc.wait()


@Q.case("a flood of publishes with answers by four clients: each answered once, in order by channel", deadline=30)
async def flood_acks(ctx):
    by = ctx.bystander(2.0)

    async def one(k):
        p = await ctx.sc()
        p.send(b"".join(text(b'{"event":"#publish","data":{"channel":"g%d","data":1},"cid":%d}' % (i % 7, i)) for i in range(10000)))
        # Answers of one broker come in order; two brokers are not waited for in turn.
        seen = [(await p.packet())["rid"] for _ in range(10000)]
        check(sorted(seen) == list(range(10000)), "not each answered once")
        for k in range(7):
            own = [i for i in seen if i % 7 == k]
            check(own == sorted(own), "answers for one channel out of order")
    await asyncio.gather(*(one(k) for k in range(4)))
    await by.verdict()


@Q.case("subscribers that leave while messages are handed out: the others get each, in order, once", deadline=30)
async def leaving(ctx):
    stay = await ctx.many(4, ctx.sc)
    for g in stay:
        await g.subscribe("fan")
    go = await ctx.many(40, ctx.sc)
    for g in go:
        g.say({"event": "#subscribe", "data": {"channel": "fan"}, "cid": 2})
    p = await ctx.sc()
    n = 3000

    async def leave():
        for i, g in enumerate(go):
            await asyncio.sleep(0.005)
            if i % 3 == 0:
                g.reset()
            elif i % 3 == 1:
                g.say({"event": "#unsubscribe", "data": "fan", "cid": 3})
            else:
                g.end()

    async def read(g):
        for i in range(n):
            check((await g.packet())["data"]["data"] == i, f"not {i}")
    task = asyncio.create_task(leave())
    for i in range(n):
        p.send(text(b'{"event":"#publish","data":{"channel":"fan","data":%d}}' % i))
        if i % 50 == 0:
            await asyncio.sleep(0.002)
    await asyncio.gather(task, *(read(g) for g in stay))


@S.case("after a stalled peer was met the server sleeps")
async def quiet(ctx):
    z = await ctx.sc(rcvbuf=4096)
    await z.subscribe("q")
    p = await ctx.sc()
    for i in range(8):
        p.say({"event": "#publish", "data": {"channel": "q", "data": "y" * 100000}})
    await p.alive()
    await idle(ctx, "one peer does not read", limit=0.02)


@M.case("queues above mem.buffers: the largest goes first, the others stay", deadline=25)
async def ceiling(ctx):
    z = await ctx.many(6, lambda: ctx.sc(rcvbuf=4096))
    for i, c in enumerate(z):
        await c.subscribe(f"own{i}")
    p = await ctx.sc()
    for r in range(100):
        for i in range(6):
            p.say({"event": "#publish", "data": {"channel": f"own{i}", "data": "z" * 100000}})
        await p.alive()
    s = ctx.server
    await ctx.until("some end", lambda: s.total("close_memory") > 0, 8)
    await ctx.until("the rest to fit", lambda: s.total("queue_bytes") <= 9 << 20)
    await p.alive()


@M.case("unfinished messages above mem.buffers: the largest goes", deadline=25)
async def unfinished(ctx):
    s = ctx.server
    had = s.total("close_memory")
    by = await ctx.sc()
    z = await ctx.many(30, ctx.sc)
    for c in z:
        c.send(frame(TEXT, b"x" * 600000, fin=False))
    await ctx.until("some end", lambda: s.total("close_memory") > had, 8)
    await by.alive()
    await ctx.until("the rest to fit", lambda: s.total("buffers_bytes") < 10 << 20)
    await ctx.until("most to have ended", lambda: s.total("connections") <= 20)


@L.case("above mem.limit nobody new is taken: 503, counted; established ones go on; afterwards all is as before", deadline=30)
async def limit(ctx):
    s = ctx.server
    by = await ctx.sc()
    z = await ctx.many(110, ctx.sc)
    for c in z:
        c.send(frame(TEXT, b"x" * 900000, fin=False))
    await ctx.until("the limit", lambda: s.total("memory_bytes") > 96 << 20, 8)
    refused = s.total("refused_connections_total")

    async def turned_away():
        p = await ctx.tcp()
        p.send(p.request())
        r = await p.response()
        return r is None or (r.status == 503 and r.get("Retry-After"))
    await ctx.until("refusals", lambda: s.total("memory_bytes") > 96 << 20)
    await asyncio.sleep(0.15)  # a look is due each 100 ms
    for _ in range(20):  # ... if there is a processor for it
        away = await turned_away()
        if away:
            break
        await asyncio.sleep(0.1)
    check(away, "new connections were taken above mem.limit")
    check(s.total("refused_connections_total") > refused and s.total("close_memory_limit") > 0, "not counted")
    check(s.rss() < 160 << 20, f"{s.rss() >> 20} MiB: nothing was done about it")
    await by.alive()
    for c in z:
        c.reset()
    await ctx.until("the memory is back", lambda: s.total("memory_bytes") < 48 << 20, 8)
    for _ in range(20):
        await asyncio.sleep(0.15)
        if not await turned_away():
            break
    await (await ctx.sc()).alive()
