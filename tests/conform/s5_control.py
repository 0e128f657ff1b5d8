"""Control frames: RFC 6455 section 5.5, Ping and Pong. (Close is in s7_closing.)"""
import random

from s5_framing import t_bad, t_bad_head
from suite import add, case
from wire import BINARY, CLOSE, PING, PONG, TEXT, check, chop, close_body, frame, header

for n in (0, 1, 2, 63, 64, 124, 125):
    async def t_ping(ctx, n):
        data = random.Random(n).randbytes(n)
        p = await ctx.ws()
        p.send(frame(PING, data))
        await p.expect_pong(data)
        await p.leave()
    add("5.5.3", f"a Pong MUST have identical application data as the Ping [{n} bytes]", t_ping, n)


@case("5.5.3", "Ping data is arbitrary bytes, not text")
async def t_ping_bytes(ctx):
    p = await ctx.ws()
    for data in (b"\xff\xfe\xfd\xfc", b"\0" * 125, b"\xed\xa0\x80", bytes(range(131, 256))):
        p.send(frame(PING, data))
        await p.expect_pong(data)
    await p.leave()


for op, note in ((PING, "ping"), (PONG, "pong"), (CLOSE, "close")):
    for n, form in ((126, None), (127, None), (1000, None), (65535, None), (65536, None), (5, 16), (5, 64), (0, 16)):
        add("5.5", f"all control frames MUST have a length of 125 or less [{note}, {n} bytes"
            f"{', in %d bits' % form if form else ''}]: 1002", t_bad_head, header(op, n, form=form), (1002,))
    add("5.5", f"a control frame that says 126 is refused before its length comes [{note}]: 1002", t_bad_head,
        bytes([0x80 | op, 0x80 | 126]), (1002,))
    for data in (b"", close_body(1000)):
        add("5.5", f"control frames MUST NOT be fragmented [{note}, {len(data)} bytes]: 1002", t_bad,
            frame(op, data, fin=False))
        add("5.5", f"control frames MUST NOT be fragmented [{note}, {len(data)} bytes, nothing in front]: 1002", t_bad,
            frame(op, data, fin=False), 1002, False)


@case("5.5.2", "ten Pings in one segment: ten Pongs in order for a client that reads")
async def t_ten(ctx):
    # 5.5.3 would allow a Pong for the last only; suites expect all ten, and nothing hinders
    p = await ctx.ws()
    p.send(b"".join(frame(PING, b"ping %d" % i) for i in range(10)))
    for i in range(10):
        await p.expect_pong(b"ping %d" % i)
    await p.leave()


@case("5.5.2", "ten Pings in pieces of one byte: ten Pongs in order")
async def t_ten_bytes(ctx):
    p = await ctx.ws()
    p.send(*chop(b"".join(frame(PING, b"ping %d" % i) for i in range(10)), 1))
    for i in range(10):
        await p.expect_pong(b"ping %d" % i)
    await p.leave()


@case("5.5.2", "a Ping in pieces of one byte is answered")
async def t_ping_bytewise(ctx):
    p = await ctx.ws()
    p.send(*chop(frame(PING, b"y" * 125), 1))
    await p.expect_pong(b"y" * 125)
    await p.leave()


@case("5.5.2", "300 Pings in one segment: the last Pong is for the last Ping, in order, none invented")
async def t_many(ctx):
    p = await ctx.ws()
    p.send(b"".join(frame(PING, b"%d" % i) for i in range(300)))
    last = -1
    while last < 299:
        f = await p.frame()
        check(f is not None and f.op == PONG, f"{f} instead of a Pong")
        check(int(f.data) > last, f"Pong {f.data} behind {last}")
        last = int(f.data)
    await p.leave()


@case("5.5.2", "Pings and messages answered in their order")
async def t_mixed(ctx):
    p = await ctx.ws()
    for i in range(20):
        p.send(frame(PING, b"%d" % i) + frame(TEXT, b"text %d" % i))
        await p.expect_pong(b"%d" % i)
        await p.expect(TEXT, b"text %d" % i)
    await p.leave()


for n in (0, 1, 125):
    async def t_pong(ctx, n):
        p = await ctx.ws()
        p.send(frame(PONG, b"u" * n) + frame(TEXT, b"next"))
        await p.expect(TEXT, b"next")
        await p.leave()
    add("5.5.3", f"an unsolicited Pong is not answered [{n} bytes]", t_pong, n)


@case("5.5.3", "an unsolicited Pong, then a Ping: one Pong for the Ping")
async def t_pong_ping(ctx):
    p = await ctx.ws()
    p.send(frame(PONG, b"unsolicited") + frame(PING, b"real"))
    await p.expect_pong(b"real")
    await p.leave()


@case("5.5.3", "300 unsolicited Pongs are ignored")
async def t_pongs(ctx):
    p = await ctx.ws()
    p.send(b"".join(frame(PONG, b"%d" % i) for i in range(300)) + frame(TEXT, b"next"))
    await p.expect(TEXT, b"next")
    await p.leave()


@case("5.5", "a Ping behind a large message is answered behind its echo, or before")
async def t_ping_large(ctx):
    p = await ctx.ws()
    data = bytes(500000)
    p.send(frame(BINARY, data) + frame(PING, b"after"))
    pongs = []
    await p.expect(BINARY, data, pongs)
    if not pongs:
        await p.expect_pong(b"after")
    else:
        check(pongs == [b"after"], f"{pongs}")
    await p.leave()


@case("5.5", "a Ping behind a Close is not answered")
async def t_ping_behind_close(ctx):
    p = await ctx.ws()
    p.send(frame(CLOSE, close_body(1000)) + frame(PING, b"late"))
    await p.expect_close([1000])
    await p.expect_end()
