"""Compressed messages that are broken, cut, too big, or not UTF-8 (RFC 7692 section 7.2.2, hardening
section 6)."""
import random
import time
import zlib

from d_messages import FRESH, KEPT
from flate import RSV1, TAIL, Bits, deflated, expect_judged, judge, packed
from s8_utf8 import first_bad
from suite import add, case
from wire import BINARY, CONT, PING, TEXT, check, chop, frame, fragments, header

HELLO = bytes.fromhex("f248cdc9c90700")


async def t_broken(ctx, payload):
    """A good message, then the broken one and a good one behind: 1007 and nothing more."""
    p = await deflated(ctx, FRESH)
    p.send(packed(BINARY, HELLO) + packed(BINARY, payload) + packed(BINARY, HELLO))
    await p.expect(BINARY, b"Hello")
    await p.expect_failed(1007)


def broken():
    b = Bits
    yield "block type 3", b().put(0, 1).put(3, 2).message()
    yield "block type 3 behind a good block", b().fixed(b"Hello").put(0, 1).put(3, 2).message()
    yield "a stored block whose lengths disagree", b().stored(b"Hello", nlen=0x1234).message()
    yield "a stored block with NLEN equal to LEN", b().stored(b"Hello", nlen=5).message()
    yield "a stored block longer than the message", b().put(0, 3).align().put(500, 16).put(500 ^ 0xFFFF, 16).put(0x6F6C6C6548, 40).message()
    for d in (1, 2, 4, 32768):
        yield f"distance {d} at the very start", b().fixed((3, d)).message()
    for d in (6, 7, 100, 1024, 24577, 32768):
        yield f"distance {d} behind 5 bytes", b().fixed(b"Hello", (4, d)).message()
    yield "distance 1 before the start, late", b().fixed(b"x" * 500, (258, 501)).message()
    yield "a distance into the message before", b().fixed((3, 5)).message()
    for s in (286, 287):
        yield f"length symbol {s}", b().fixed(b"Hello", s).message()
    for s in (30, 31):
        yield f"distance symbol {s}", b().put(0, 1).put(1, 2).symbol(72).symbol(257).code(s, 5).symbol(256).message()
    yield "dynamic: 288 length codes", b().dynamic(31, 0, {0: 1, 1: 1}).message() + bytes(60)
    yield "dynamic: 287 length codes", b().dynamic(30, 0, {0: 1, 1: 1}).message() + bytes(60)
    yield "dynamic: 32 distance codes", b().dynamic(0, 31, {0: 1, 1: 1}).message() + bytes(60)
    yield "dynamic: no code for code lengths", b().dynamic(0, 0, {}).message() + bytes(60)
    yield "dynamic: one code of length 2, incomplete", b().dynamic(0, 0, {0: 2}).message() + bytes(60)
    yield "dynamic: code lengths oversubscribed", b().dynamic(0, 0, {i: 1 for i in range(19)}).message() + bytes(60)
    yield "dynamic: a repeat with nothing before it", b().dynamic(0, 0, {0: 1, 16: 1}).code(1, 1).put(0, 2).message() + bytes(60)
    yield "dynamic: zeros beyond the last code", (b().dynamic(0, 0, {0: 1, 18: 1}).code(1, 1).put(127, 7).code(1, 1).put(127, 7)
                                                  .message() + bytes(60))
    yield "dynamic: no end of block", b().dynamic(0, 0, {0: 1, 18: 1}).code(1, 1).put(127, 7).code(1, 1).put(109, 7).message() + bytes(60)
    yield "dynamic: all literals of one bit", b().dynamic(0, 0, {1: 1, 18: 1}).put(0, 258).message()
    yield "0xff all over", b"\xff" * 40
    yield "gzip's header", zlib.compress(b"Hello", wbits=31) + b"\0"
    yield "zlib's header", zlib.compress(b"Hello") + b"\0"
    yield "plain text", b"Hello, this is not compressed at all"
    yield "rubbish behind a final block", b().fixed(b"Hello", final=1).align().put(0xFFFFFF, 24).done()


for _what, _payload in broken():
    assert judge(_payload) == (None, True), _what
    add("D7.2.2", f"a broken stream [{_what}]: 1007", t_broken, _payload)


@case("D7.2.2", "random bytes as a compressed message: what zlib says, or 1007", deadline=60)
async def t_noise(ctx):
    r = random.Random(1951)
    good = bad = 0
    while good < 40 or bad < 160:
        payload = r.randbytes(r.choice((1, 2, 3, 5, 8, 20, 100)))
        text = judge(payload)[0]
        if text is None and bad >= 160 or text is not None and good >= 40:
            continue
        good, bad = (good, bad + 1) if text is None else (good + 1, bad)
        p = await deflated(ctx, FRESH)
        if await expect_judged(p, BINARY, payload):
            await p.leave()
        ctx.end()
        ctx.peers.clear()


@case("D7.2.2", "one bit turned over in a good message: what zlib says, or 1007", deadline=60)
async def t_flip(ctx):
    c = zlib.compressobj(6, zlib.DEFLATED, -15)
    text = random.Random(2).randbytes(20) * 3 + b"and a text, and a text with it" * 3
    payload = (c.compress(text) + c.flush(zlib.Z_SYNC_FLUSH))[:-4]
    for i in range(0, len(payload) * 8, 5):
        other = bytearray(payload)
        other[i // 8] ^= 1 << i % 8
        p = await deflated(ctx, FRESH)
        if await expect_judged(p, BINARY, bytes(other)):
            await p.leave()
        ctx.end()
        ctx.peers.clear()


def whole(text, **options):
    c = zlib.compressobj(options.get("level", 6), zlib.DEFLATED, -15, 8, options.get("strategy", 0))
    return (c.compress(text) + c.flush(zlib.Z_SYNC_FLUSH))[:-4]


CUTTABLE = (("fixed codes", HELLO), ("codes of its own", whole(b"".join(b"%d, " % (i * i) for i in range(90)))),
            ("stored blocks", Bits().stored(b"Hello").stored(b"there").message()))
for _what, _payload in CUTTABLE:
    async def t_cut(ctx, payload):
        """At each byte: refused, unless what is left is whole by itself."""
        for n in range(1, len(payload), max(1, len(payload) // 40)):
            p = await deflated(ctx, FRESH)
            if await expect_judged(p, BINARY, payload[:n]):
                p.send(packed(BINARY, HELLO))
                await p.expect(BINARY, b"Hello")
                await p.leave()
            ctx.end()
            ctx.peers.clear()
    add("D7.2.2", f"a stream that ends in the middle of a block [{_what}]: 1007", t_cut, _payload, deadline=60)


@case("D7.2.2", "a compressed message without a byte: 1007, or an empty message")
async def t_nothing(ctx):
    p = await deflated(ctx, FRESH)
    p.send(packed(TEXT, b""))
    f = await p.frame()
    check(f is not None and (f.op == 8 and f.code == 1007 or f.op == TEXT and f.fin), f"{f}")


@case("D7.2.2", "a broken stream in a message of many fragments: 1007, at the latest with the last of them")
async def t_early(ctx):
    p = await deflated(ctx, FRESH)
    p.send(frame(TEXT, b"\xff" * 20, fin=False, rsv=RSV1) + frame(CONT, b"\xff" * 20, fin=False) * 20 + frame(CONT, b""))
    await p.expect_failed(1007)


@case("D7.2.2", "behind 1007 a new connection starts anew, many times")
async def t_again(ctx):
    for _ in range(30):
        p = await deflated(ctx, KEPT)
        p.send(packed(TEXT, p.codec.deflate(b"good")) + packed(TEXT, b"\xff\xff\xff"))
        await p.expect(TEXT, b"good")
        await p.expect_failed(1007)


@case("D7.2.2", "with contexts kept, a distance beyond all that was ever said: 1007", server="takeover")
async def t_before(ctx):
    p = await deflated(ctx, KEPT)
    p.send(packed(TEXT, HELLO) + packed(TEXT, Bits().fixed((5, 5)).message()) + packed(TEXT, Bits().fixed((5, 10)).message()))
    for _ in range(3):
        await p.expect(TEXT, b"Hello")
    p.send(packed(TEXT, Bits().fixed((5, 16)).message()))
    await p.expect_failed(1007)


@case("D7.2.2", "with contexts kept, plain messages are not in the window", server="takeover")
async def t_plain_window(ctx):
    p = await deflated(ctx, KEPT)
    p.send(packed(TEXT, HELLO) + frame(TEXT, b"plain") + packed(TEXT, Bits().fixed((5, 5)).message()))
    for want in (b"Hello", b"plain", b"Hello"):
        await p.expect(TEXT, want)
    p.send(packed(TEXT, Bits().fixed((5, 11)).message()))
    await p.expect_failed(1007)


# ---- too big: judged on what comes out, while it comes out ----

def bomb(n):
    """n MiB of zeros."""
    c = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = c.compress(bytes(1 << 20)) + c.flush(zlib.Z_FULL_FLUSH)
    each = c.compress(bytes(1 << 20)) + c.flush(zlib.Z_FULL_FLUSH)
    return (block + each * (n - 1))[:-4]


for n, note in ((17, "17 MiB"), (200, "200 MiB"), (2000, "2 GiB")):
    async def t_bomb(ctx, n, size):
        payload = bomb(n)
        p = await deflated(ctx, FRESH)
        begin = time.monotonic()
        p.send(packed(BINARY, payload, *range(size, len(payload), size)) if size else packed(BINARY, payload))
        await p.expect_failed(1009)
        took = time.monotonic() - begin
        check(took < 3, f"told after {took:.1f} s")
    for size, how in ((0, "one frame"), (1000, "frames of 1000 bytes")):
        add("D10", f"a bomb of {note} in {how}: 1009 soon", t_bomb, n, size, alone=True, deadline=60)


@case("D10", "a bomb in front of a broken end is too big before it is broken: 1009", alone=True, deadline=60)
async def t_bomb_early(ctx):
    p = await deflated(ctx, FRESH)
    p.send(frame(BINARY, bomb(20), fin=False, rsv=RSV1) + frame(CONT, b"\xff" * 100))
    await p.expect_failed(1009)


@case("D10", "the announced length of a compressed frame is bounded as well: 1009", alone=True)
async def t_announced(ctx):
    for n in (1 << 31, 1 << 40, (1 << 63) - 1):
        p = await deflated(ctx, FRESH)
        p.send(header(BINARY, n, rsv=RSV1))
        await p.expect_failed(1009, 1002)


for n in (999, 1000):
    for kind in ("zeros", "random"):
        async def t_fits(ctx, n, kind):
            data = bytes(n) if kind == "zeros" else random.Random(n).randbytes(n)
            p = await deflated(ctx, FRESH)
            for payload in (p.codec.deflate(data), Bits().stored(data).message(), Bits().stored(data, final=1).message()):
                p.send(packed(BINARY, payload))
                await p.expect(BINARY, data)
            p.send(frame(BINARY, data))
            await p.expect(BINARY, data)
            await p.leave()
        add("D10", f"a compressed message of {n} bytes, {kind}, passes where 1000 is the limit", t_fits, n, kind, server="short")
for n in (1001, 1002, 2000, 100000):
    async def t_over(ctx, n, cut):
        p = await deflated(ctx, FRESH)
        payload = p.codec.deflate(bytes(n))
        p.send(packed(BINARY, payload, *([3] if cut else [])))
        await p.expect_failed(1009)
    for cut in (False, True):
        add("D10", f"a compressed message of {n} bytes where 1000 is the limit{', in two frames' if cut else ''}: 1009", t_over, n, cut,
            server="short")


@case("D10", "a broken stream behind the limit is too big before it is broken: 1009 or 1007", server="short")
async def t_over_broken(ctx):
    p = await deflated(ctx, FRESH)
    p.send(packed(BINARY, Bits().fixed(b"a", *[(258, 1)] * 8).put(0, 1).put(3, 2).done()))
    await p.expect_failed(1009, 1007)


@case("D10", "a message of empty blocks grows nothing and comes back empty")
async def t_empty_blocks(ctx):
    p = await deflated(ctx, FRESH)
    payload = (b"\0" + TAIL) * 100000 + b"\0"
    p.send(packed(BINARY, payload))
    f = await p.frame()
    check(f is not None and (f.op == BINARY or f.code in (1007, 1008, 1009)), f"{f}")


@case("D10", "the number of fragments is bounded for compressed messages too: 1008", server="short")
async def t_fragments(ctx):
    p = await deflated(ctx, FRESH)
    p.send(frame(TEXT, b"", fin=False, rsv=RSV1) + frame(CONT, b"", fin=False) * 20)
    await p.expect_failed(1008)


@case("D10", "half a compressed message and silence: 1008 at ws.message_timeout", server="short")
async def t_half(ctx):
    p = await deflated(ctx, FRESH)
    p.send(frame(TEXT, HELLO[:4], fin=False, rsv=RSV1))
    await p.expect_failed(1008)


# ---- text: RFC 6455 section 8.1 inside of RFC 7692 ----

GOOD = ["aé€😀", "\u0000", "\uffff", "\U0010ffff", "κόσμε", "x" * 3000 + "😀"]
for text in GOOD:
    async def t_good(ctx, data):
        """Whole, a block per byte, a fragment per byte."""
        p = await deflated(ctx, FRESH)
        bits = Bits()
        for c in data[:60]:
            bits.stored(bytes([c])) if c % 3 else bits.fixed(bytes([c]))
        for payload, want in ((whole(data), data), (bits.message(), data[:60])):
            if first_bad(want) is not None:
                continue
            p.send(packed(TEXT, payload) + packed(TEXT, payload, *range(1, len(payload))))
            await p.expect(TEXT, want)
            await p.expect(TEXT, want)
        await p.leave()
    add("D8.1", f"compressed text that is UTF-8 passes [{text[-5:]!a}, {len(text)} characters]", t_good, text.encode())

BAD = [b"\xff", b"\xc0\xaf", b"\xe0\x80\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xf8\x88\x80\x80\x80", b"\xce", b"\xf0\x9f\x98",
       b"\x80", b"abc\xfe", "κόσμε".encode() + b"\xed\xa0\x80edited", b"x" * 70000 + b"\xff", b"\xff" + b"x" * 70000]
for data in BAD:
    note = repr(data[:12] if len(data) < 1000 else data[:2] + b"..." + data[-2:])
    for how in ("one frame", "fragments of one byte", "two blocks"):
        async def t_bad_text(ctx, data, how):
            p = await deflated(ctx, FRESH)
            payload = whole(data) if how != "two blocks" else Bits().fixed(data[:1]).fixed(data[1:]).message()
            cuts = range(1, len(payload)) if "byte" in how else ()
            p.send(packed(TEXT, HELLO) + packed(TEXT, payload, *cuts) + packed(TEXT, HELLO))
            await p.expect(TEXT, b"Hello")
            await p.expect_failed(1007)
        add("D8.1", f"compressed text that is not UTF-8 [{note}, {how}]: 1007", t_bad_text, data, how)
    async def t_binary(ctx, data):
        p = await deflated(ctx, FRESH)
        p.send(packed(BINARY, whole(data)))
        await p.expect(BINARY, data)
        await p.leave()
    add("D8.1", f"the same bytes pass as a binary message [{note}]", t_binary, data)


@case("D8.1", "text is judged as it comes out, the compressed bytes need not be UTF-8")
async def t_compressed_bytes(ctx):
    p = await deflated(ctx, FRESH)
    data = "".join(map(chr, random.Random(8).choices(range(0x400, 0x2000), k=3000))).encode()
    p.send(packed(TEXT, whole(data)) + fragments(TEXT, chop(whole(data), 7), frame(PING, b""), rsv=RSV1))
    pongs = []
    await p.expect(TEXT, data, pongs)
    await p.expect(TEXT, data, pongs)


@case("D8.1", "plain text behind compressed text is judged from its own start")
async def t_mixed(ctx):
    p = await deflated(ctx, FRESH)
    p.send(packed(BINARY, whole(b"ends inside \xf0\x9f")) + frame(TEXT, "gut €".encode()) + packed(TEXT, whole("gut €".encode())))
    await p.expect(BINARY, b"ends inside \xf0\x9f")
    for _ in range(2):
        await p.expect(TEXT, "gut €".encode())
    p.send(frame(TEXT, b"\x98\x80"))
    await p.expect_failed(1007)
