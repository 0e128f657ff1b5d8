"""Frames: floods, fragments, announcements, trickles, closings (hardening section 5)."""
import asyncio
import os

from harness import (BINARY, CLOSE, CONT, PING, PONG, TEXT, check, close_body, frame, header, scene, text)

S = scene("frames", {"ws.message_timeout": "800ms", "ws.close_timeout": "600ms", "out.stall": "1s",
                     "sc.ping_interval": "300ms", "sc.ping_timeout": "900ms"})


async def together(*runs):
    await asyncio.gather(*runs)


def flood(raw, count, read):
    async def run(ctx):
        p = await ctx.sc(rcvbuf=None if read else 4096)
        before = ctx.server.rss()
        p.send(raw * count)
        if read:
            await p.closed(1008)
        else:
            await ctx.until("the flooder is gone", lambda: ctx.server.total("connections") == 0, 6)
        grown = ctx.server.rss() - before
        check(grown < 16 << 20, f"grew by {grown >> 20} MiB")
    return run


for _name, _raw in (("pings", frame(PING, b"p" * 125)), ("pongs", frame(PONG, b"x")), ("empty texts", frame(TEXT, b""))):
    S.case(f"a flood of {_name} that is read: 1008, memory flat")(flood(_raw, 20000, True))
    S.case(f"a flood of {_name} by a peer that does not read: ended, memory flat")(flood(_raw, 20000, False))


@S.case("endless tiny fragments: bounded by bytes, then 1008 at the frame limit")
async def tiny(ctx):
    before = ctx.server.rss()
    p, q = await ctx.sc(), await ctx.sc()
    p.send(frame(BINARY, b"", fin=False) + frame(CONT, b"", fin=False) * 70000)
    q.send(frame(TEXT, b"x", fin=False) + frame(CONT, b"y", fin=False) * 70000)
    await together(p.closed(1008), q.closed(1008))
    check(ctx.server.rss() - before < 16 << 20, "memory grew with empty fragments")


@S.case("huge announced lengths: 1009 at the header, nothing allocated")
async def huge(ctx):
    before = ctx.server.rss()

    async def one(raw):
        p = await ctx.sc()
        p.send(raw)
        await p.closed(1009, 1002)
    lengths = [(1 << 20) + 1, 1 << 31, (1 << 32) + 5, 1 << 62, (1 << 63) - 1]
    await together(*(one(header(TEXT, n)) for n in lengths),
                   *(one(frame(TEXT, b"abc", fin=False) + header(CONT, n)) for n in lengths))
    check(ctx.server.rss() - before < 8 << 20, "an announcement was believed")


@S.case("unshaken, the limit of a message is 64 KiB")
async def small(ctx):
    p = await ctx.ws()
    p.send(header(TEXT, 65537))
    await p.closed(1009)


@S.case("200 announced messages of 1 MiB with one byte each cost what arrived")
async def announced(ctx):
    before = ctx.server.rss()
    peers = await ctx.many(200, ctx.sc)
    came, piece = ctx.server.total("bytes_in_total"), header(TEXT, 1 << 20) + b"x"
    for p in peers:
        p.send(piece)
    await ctx.until("all of it", lambda: ctx.server.total("bytes_in_total") >= came + 200 * len(piece))
    grown = ctx.server.rss() - before
    check(grown < 24 << 20, f"200 announcements cost {grown >> 20} MiB")


@S.case("a message that trickles, or stops, ends at ws.message_timeout: 1008")
async def trickle(ctx):
    async def one(raw, drip):
        p = await ctx.sc()
        p.send(raw)

        async def feed():
            while True:
                p.send(drip)
                await asyncio.sleep(0.05)
        task = asyncio.create_task(feed()) if drip else None
        try:
            await p.closed(1008)
        finally:
            if task:
                task.cancel()
    await together(one(header(BINARY, 9000), b"x"), one(b"\x81", b""), one(frame(TEXT, b"{", fin=False), b""),
                   one(frame(TEXT, b"", fin=False), frame(CONT, b"", fin=False)),
                   one(frame(TEXT, b"{", fin=False), frame(PING, b"")))


@S.case("violations are answered by their code, and nothing behind them is done")
async def violations(ctx):
    before = ctx.server.total("publishes_in_total")
    behind = text({"event": "#publish", "data": {"channel": "behind"}})

    async def one(raw, *codes):
        p = await ctx.sc()
        p.send(raw + behind * 3)
        await p.closed(*codes)
    await together(
        one(frame(TEXT, b"x", rsv=4), 1002), one(frame(TEXT, b"x", rsv=2), 1002), one(frame(3, b"x"), 1002),
        one(frame(11, b"x"), 1002), one(frame(TEXT, b"x", key=None), 1002), one(frame(PING, b"x", fin=False), 1002),
        one(header(PING, 126) + b"x" * 126, 1002), one(header(TEXT, 5, form=16) + b"x" * 5, 1002),
        one(header(TEXT, 1 << 63, form=64), 1002), one(frame(CONT, b"x"), 1002),
        one(frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"), 1002), one(frame(TEXT, b"\xff\xfe"), 1007),
        one(frame(TEXT, b"\xed\xa0\x80"), 1007), one(frame(TEXT, b"\xf0\x9f", fin=False) + frame(CONT, b"x"), 1007),
        one(frame(CLOSE, b"\x03"), 1002), one(frame(CLOSE, close_body(1005)), 1002),
        one(frame(CLOSE, close_body(999)), 1002), one(frame(CLOSE, close_body(1000, b"\xff")), 1007),
        one(frame(CLOSE, close_body(1000, b"bye")), 1000), one(frame(CLOSE, close_body(4999)), 4999),
        one(frame(CLOSE, close_body(3000)), 3000), one(frame(CLOSE, b""), None, 1000))
    check(ctx.server.total("publishes_in_total") == before, "a publish behind a violation was done")


@S.case("megabytes behind a Close, an unanswered Close and a half-close end within the timeouts")
async def closings(ctx):
    async def noise():
        p = await ctx.sc()
        p.send(frame(CLOSE, close_body(1000)) + os.urandom(1 << 20))
        await p.expect_close([1000])
        await p.expect_end(limit=3)

    async def mute():
        p = await ctx.sc()
        p.send(b"\xff\xff")
        await p.expect_close([1002])
        await p.expect_end(limit=3)

    async def half():
        p = await ctx.sc()
        p.send(text({"event": "#publish", "data": {"channel": "half"}, "cid": 5}))
        p.send_fin()
        seen = []
        while (f := await p.frame()) is not None:
            seen.append(f)
        check(p.eof in ("fin", "rst"), "TCP stays open")
    await together(noise(), mute(), half())


@S.case("pings unanswered: 4001 between sc.ping_timeout and one interval later")
async def unanswered(ctx):
    p = await ctx.sc()
    begin = asyncio.get_running_loop().time()
    await p.closed(4001)
    took = asyncio.get_running_loop().time() - begin
    check(0.85 < took < 3, f"after {took:.2f} s")
