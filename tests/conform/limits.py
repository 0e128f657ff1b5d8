"""Bounds: what is refused, with which code, and how early (RFC 6455 section 10.4, hardening section 5)."""
import asyncio

from s5_framing import t_bad_head
from suite import add, case
from wire import BINARY, CONT, PING, PONG, TEXT, check, frame, fragments, header, xor

for n in (1 << 30, 1 << 31, (1 << 31) - 1, 1 << 32, (1 << 32) + 5, 1 << 40, 1 << 48, 1 << 61, (1 << 62) + 1,
          (1 << 63) - 1, (1 << 63) - 14):
    for op in (TEXT, BINARY):
        codes = (1009, 1002) if n > 1 << 62 else (1009,)
        add("10.4", f"a length above the limit is refused at the header: 1009 "
            f"[{n:#x}, {'text' if op == TEXT else 'binary'}]", t_bad_head, header(op, n, form=64), codes)
for n in (1 << 40, (1 << 63) - 1, (1 << 63) - 2):
    add("10.4", f"the sum over fragments above the limit: 1009 [5 + {n:#x}]", t_bad_head,
        frame(BINARY, b"12345", fin=False) + header(CONT, n, form=64), (1009, 1002) if n > 1 << 62 else (1009,))


@case("10.4", "one byte above the limit is refused at the header: 1009")
async def t_above(ctx):
    p = await ctx.ws()
    p.send(header(BINARY, ctx.max_message + 1))
    await p.expect_failed(1009)


@case("10.4", "the limit holds for the sum of the fragments: 1009 at the header that exceeds it", alone=True, deadline=60)
async def t_sum(ctx):
    p = await ctx.ws()
    half = ctx.max_message // 2
    p.send(frame(BINARY, bytes(half), fin=False) + header(CONT, ctx.max_message - half + 1))
    await p.expect_failed(1009)


@case("10.4", "above the limit, the payload sent all the same: the Close frame arrives", alone=True)
async def t_payload(ctx):
    p = await ctx.ws()
    p.send(header(BINARY, ctx.max_message + 1) + bytes(1000000))
    await p.expect_close([1009])
    await p.expect_end(limit=12)


@case("10.4", "a message of exactly the limit passes", server="short")
async def t_exact(ctx):
    p = await ctx.ws()
    for data in (bytes(1000), bytes(999)):
        p.send(frame(BINARY, data))
        await p.expect(BINARY, data)
    p.send(fragments(BINARY, [bytes(500), bytes(500), b""]))
    await p.expect(BINARY, bytes(1000))
    await p.leave()


for parts in ((1001,), (1000, 1), (500, 501), (0, 1001), (1, 1, 999)):
    async def t_over(ctx, parts):
        p = await ctx.ws()
        raw = b"".join(frame(BINARY if i == 0 else CONT, bytes(n), fin=False) for i, n in enumerate(parts[:-1]))
        p.send(raw + header(CONT if raw else BINARY, parts[-1]))
        await p.expect_failed(1009)
    add("10.4", f"a message above echo.max_message: 1009 [{parts}]", t_over, parts, server="short")


@case("H5", "as many fragments as ws.max_frames_per_message pass", server="short")
async def t_frames(ctx):
    p = await ctx.ws()
    p.send(fragments(TEXT, [b"x"] * 16))
    await p.expect(TEXT, b"x" * 16)
    p.send(fragments(TEXT, [b"y"] * 16))
    await p.expect(TEXT, b"y" * 16)
    await p.leave()


for size in (0, 1):
    async def t_frames_over(ctx, size):
        p = await ctx.ws()
        p.send(b"".join(frame(TEXT if i == 0 else CONT, b"x" * size, fin=False) for i in range(17)))
        await p.expect_failed(1008)
    add("H5", f"more fragments than ws.max_frames_per_message: 1008 [{size} bytes each]", t_frames_over, size,
        server="short")

for note, raw in (("pings", frame(PING, b"")), ("pongs", frame(PONG, b"x")), ("empty messages", frame(TEXT, b""))):
    async def t_flood(ctx, raw):
        p = await ctx.ws()
        p.send(raw * 300)
        while (f := await p.frame()) is not None:
            if f.op == 8:
                check(f.code == 1008, f"Close {f.code} instead of 1008")
                p.send(frame(8, f.data))
                await p.expect_end()
                return
            check(f.op in (PONG, TEXT), f"{f} in the flood")
        check(False, "TCP ended without Close 1008")
    add("H5", f"a flood above ws.control_rate: 1008 [{note}]", t_flood, raw, server="short")


@case("H5", "control frames within ws.control_rate pass", server="short")
async def t_rate_ok(ctx):
    p = await ctx.ws()
    for i in range(45):
        p.send(frame(PING, b"%d" % i))
        await p.expect_pong(b"%d" % i)
    await p.leave()


for note, raw in (("half a header", b"\x81"), ("half a payload", header(TEXT, 100) + xor(b"half", b"\x37\xfa\x21\x3d")),
                  ("an open message", frame(TEXT, b"open", fin=False))):
    async def t_stalled(ctx, raw):
        p = await ctx.ws()
        p.send(raw)
        await p.expect_failed(1008)
    add("H5", f"half a message and silence: 1008 at ws.message_timeout [{note}]", t_stalled, raw, server="short")


@case("H5", "a message that trickles: 1008 at ws.message_timeout all the same", server="short")
async def t_trickle(ctx):
    p = await ctx.ws()

    async def drip():
        p.send(header(BINARY, 900))
        while True:
            p.send(b"x")
            await asyncio.sleep(0.05)  # the stimulus itself

    task = asyncio.create_task(drip())
    try:
        await p.expect_close([1008])
        await p.expect_end(limit=4)
    finally:
        task.cancel()


@case("H5", "empty fragments without an end are bounded by ws.max_frames_per_message", server="short")
async def t_endless(ctx):
    p = await ctx.ws()
    p.send(frame(BINARY, b"", fin=False) + frame(CONT, b"", fin=False) * 100)
    await p.expect_failed(1008)


@case("H5", "messages in a row without a read: the echo of each arrives, none lost", alone=True, deadline=60)
async def t_unread(ctx):
    p = await ctx.ws(rcvbuf=8192)
    data = [bytes([i]) * 60000 for i in range(40)]
    p.send(*[frame(BINARY, d) for d in data])
    for d in data:
        await p.expect(BINARY, d)
    await p.leave()
