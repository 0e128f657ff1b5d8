"""Closing the connection: RFC 6455 sections 5.5.1 and 7."""
import asyncio
import struct

from s5_framing import t_bad
from suite import add, case
from wire import BINARY, CLOSE, CONT, PING, TEXT, check, chop, close_body, frame, header

VALID = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3001, 3999, 4000, 4001, 4500,
         4998, 4999]
INVALID = [0, 1, 125, 500, 999, 1004, 1005, 1006, 1015, 1016, 1017, 1099, 1100, 1999, 2000, 2001, 2500, 2998, 2999,
           5000, 5001, 9999, 10000, 32767, 32768, 65534, 65535]


async def closes(ctx, body, codes, chunk=None):
    p = await ctx.ws()
    whole = frame(CLOSE, body)
    p.send(*(chop(whole, chunk) if chunk else [whole]))
    await p.expect_close(codes)
    await p.expect_end(clean=True, limit=3)  # below ws.close_timeout: the server ends TCP at once


for code in VALID:
    add("7.4", f"a valid code is echoed, then the server ends TCP [{code}]", closes, close_body(code), [code])
    add("7.4", f"a valid code with a reason [{code}]", closes, close_body(code, "grüße".encode()), [code])
for code in INVALID:
    add("7.4", f"a code that MUST NOT be used on the wire: 1002 [{code}]", closes, close_body(code), [1002])
    add("7.4", f"a code that MUST NOT be used on the wire: 1002 [{code} with a reason]", closes,
        close_body(code, b"reason"), [1002])

add("5.5.1", "a Close without a body is answered", closes, b"", [None, 1000])
for n in range(1):
    for b in (0, 3, 0xE8, 255):
        add("5.5.1", f"the body's first two bytes MUST be a code: a body of one byte is 1002 [{b:#04x}]", closes,
            bytes([b]), [1002])
for n in (1, 2, 60, 122, 123):
    add("5.5.1", f"a reason of {n} bytes", closes, close_body(1000, b"r" * n), [1000])
add("5.5.1", "a reason of 123 bytes of UTF-8 in three-byte characters", closes, close_body(1000, "€".encode() * 41),
    [1000])
add("5.5.1", "a Close with reason in pieces of one byte", closes, close_body(1000, "reason €".encode()), [1000], 1)
for note, bad in {"a lone continuation": b"\x80", "cut at the end": b"abc\xe2\x82", "overlong": b"\xc0\xaf",
                  "surrogate": b"\xed\xa0\x80", "above U+10FFFF": b"\xf4\x90\x80\x80", "0xff": b"ok\xffok",
                  "five bytes": b"\xf8\x88\x80\x80\x80", "long": b"x" * 122 + b"\xc3"}.items():
    add("7.1.6", f"a reason that is not UTF-8: 1007 [{note}]", closes, close_body(1000, bad), [1007])
    if note == "overlong":
        add("7.1.6", "an invalid code and an invalid reason: 1002 or 1007", closes, close_body(999, bad), [1002, 1007])


@case("5.5.1", "a Close longer than 125 bytes: 1002")
async def t_long(ctx):
    p = await ctx.ws()
    p.send(frame(CLOSE, close_body(1000, b"x" * 124)))
    await p.expect_failed(1002)


@case("7.1.1", "the server closes TCP first, without waiting for the client")
async def t_first(ctx):
    p = await ctx.ws()
    p.send(frame(CLOSE, close_body(1000)))
    await p.expect_close([1000])
    await p.expect_end(clean=True, limit=3)


@case("5.5.1", "data behind a Close is ignored")
async def t_behind(ctx):
    p = await ctx.ws()
    p.send(frame(CLOSE, close_body(1000)) + frame(TEXT, b"late"))
    await p.expect_close([1000])
    await p.expect_end()


@case("5.5.1", "a second Close behind a Close is ignored")
async def t_twice(ctx):
    p = await ctx.ws()
    p.send(frame(CLOSE, close_body(1000)) + frame(CLOSE, close_body(1001)))
    await p.expect_close([1000])
    await p.expect_end()


@case("5.5.1", "a violation behind a Close is ignored")
async def t_bad_behind(ctx):
    p = await ctx.ws()
    p.send(frame(CLOSE, close_body(3000)) + frame(7, b"x", key=None) + b"\xff" * 100)
    await p.expect_close([3000])
    await p.expect_end()


@case("5.5.1", "half a frame behind a Close is ignored")
async def t_half_behind(ctx):
    p = await ctx.ws()
    p.send(frame(CLOSE, close_body(1000)) + header(TEXT, 1000)[:3])
    await p.expect_close([1000])
    await p.expect_end()


@case("5.5.1", "much data behind a Close: the Close frame arrives all the same")
async def t_much_behind(ctx):
    p = await ctx.ws()
    p.send(frame(CLOSE, close_body(1000)) + frame(BINARY, bytes(300000)))
    await p.expect_close([1000])
    await p.expect_end()


@case("7.1.7", "much data behind a violation: the Close frame arrives all the same")
async def t_much_behind_bad(ctx):
    p = await ctx.ws()
    p.send(frame(3, b"") + frame(BINARY, bytes(300000)))
    await p.expect_close([1002])
    await p.expect_end(limit=12)


@case("5.5.1", "messages in front of a Close are echoed first")
async def t_front(ctx):
    p = await ctx.ws()
    p.send(frame(TEXT, b"one") + frame(BINARY, b"two") + frame(PING, b"three") + frame(CLOSE, close_body(1000)))
    await p.expect(TEXT, b"one")
    await p.expect(BINARY, b"two")
    await p.expect_pong(b"three")
    await p.expect_close([1000])
    await p.expect_end(clean=True)


@case("5.5.1", "a large message in front of a Close is echoed whole")
async def t_large_front(ctx):
    p = await ctx.ws()
    data = b"w" * 1000000
    p.send(frame(BINARY, data) + frame(CLOSE, close_body(1000)))
    await p.expect(BINARY, data)
    await p.expect_close([1000])
    await p.expect_end(clean=True)


@case("7.1.4", "many connections close cleanly at the same time")
async def t_many(ctx):
    peers = [await ctx.ws() for _ in range(50)]
    for p in peers:
        p.send(frame(CLOSE, close_body(1001)))
    for p in peers:
        await p.expect_close([1001])
        await p.expect_end(clean=True)


@case("7.1.5", "TCP that ends without a Close: the server ends its side")
async def t_fin(ctx):
    for rest in (b"", frame(TEXT, b"x", fin=False), header(TEXT, 100), b"\x81", frame(PING, b"abc")[:5]):
        p = await ctx.ws()
        p.send(rest, None)
        while (f := await p.frame()) is not None:
            check(f.op == CLOSE, f"{f} after our FIN")


@case("7.1.7", "after a violation the server does not wait for our Close for ever", deadline=30)
async def t_no_answer(ctx):
    p = await ctx.ws()
    p.send(frame(TEXT, b"x", rsv=4))
    await p.expect_failed(1002, answer=False)


@case("7.1.7", "a client that neither answers a Close nor ends TCP is ended at ws.close_timeout", server="short")
async def t_timeout(ctx):
    p = await ctx.ws()
    p.send(frame(TEXT, b"x", rsv=4))
    await p.expect_close([1002])
    await p.expect_end(limit=3)


@case("7.1.7", "a client that goes on sending instead of answering a Close is ended too", server="short")
async def t_goes_on(ctx):
    p = await ctx.ws()
    p.send(frame(BINARY, b"x", key=None))
    await p.expect_close([1002])

    async def drip():
        while True:
            p.send(frame(TEXT, b"still here"))
            await asyncio.sleep(0.02)  # the stimulus itself

    task = asyncio.create_task(drip())
    try:
        await p.expect_end(limit=4)
    finally:
        task.cancel()


@case("5.5.1", "a Close cut at every byte")
async def t_cut(ctx):
    whole = frame(CLOSE, close_body(4000, "über".encode()))
    for at in range(1, len(whole)):
        p = await ctx.ws()
        p.send(whole[:at])
        await p.sent()
        p.send(whole[at:])
        await p.expect_close([4000])
        await p.expect_end(clean=True)


@case("7.4.1", "a violation is 1002 whatever was open: continuation, then an invalid code")
async def t_open(ctx):
    p = await ctx.ws()
    p.send(frame(TEXT, b"a", fin=False) + frame(CONT, b"b", fin=False) + frame(CLOSE, struct.pack(">H", 1005)))
    await p.expect_failed(1002)


add("7.1.7", "what is behind a violation in the same segment is not processed", t_bad, frame(15, b"x"))
