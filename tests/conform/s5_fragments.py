"""Fragmentation: RFC 6455 section 5.4."""
import itertools
import random

from s5_framing import t_bad, text_of
from suite import add, case
from wire import BINARY, CLOSE, CONT, PING, PONG, TEXT, check, chop, close_body, frame, fragments

SHORT_TEXT = "Hé€😀".encode()  # 10 bytes, one character of each length


def compositions(data):
    """Every way to cut data into non-empty parts: 2^(n-1)."""
    n = len(data)
    for cuts in itertools.product((False, True), repeat=n - 1):
        parts, at = [], 0
        for i, cut in enumerate(cuts, 1):
            if cut:
                parts.append(data[at:i])
                at = i
        yield parts + [data[at:]]


async def t_all(ctx, op, ways, between=b"", pong=None):
    """The same message cut in all those ways, one connection, each echoed whole."""
    p = await ctx.ws()
    for batch in itertools.batched(ways, 32) if hasattr(itertools, "batched") else chunks(ways, 32):
        p.send(b"".join(fragments(op, list(parts), between) for parts in batch))
        for parts in batch:
            got = []
            await p.expect(op, b"".join(parts), got)
            gaps = len(parts) - 1
            if pong is not None and gaps:
                # 5.5.3: a Pong may answer only the most recent Ping, but some Pong must come
                check(got and set(got) == {pong}, f"pongs {got} for {gaps} pings")
    await p.leave()


def chunks(iterable, n):
    it = iter(iterable)
    while batch := list(itertools.islice(it, n)):
        yield batch


add("5.4", "every composition of a text of 10 bytes, characters cut too", t_all, TEXT, list(compositions(SHORT_TEXT)))
add("5.4", "every composition of a binary message of 8 bytes", t_all, BINARY, list(compositions(bytes(range(8)))))
add("5.4", "every composition of a text of 6 bytes with a Pong in each gap", t_all, TEXT,
    list(compositions(b"gapful")), frame(PONG, b"noise"))
add("5.4", "every composition of a text of 6 bytes with an empty fragment in each gap", t_all, TEXT,
    [[x for p in parts for x in (p, b"")] for parts in compositions(b"gapful")])
add("5.4", "every cut in three of a text of 40 bytes", t_all, TEXT,
    [[t[:i], t[i:j], t[j:]] for t in (text_of(40),) for i in range(41) for j in range(i, 41)])

for n in (125, 126, 127, 300):
    add("5.4", f"every cut in two of a text of {n} bytes", t_all, TEXT,
        [[t[:i], t[i:]] for t in (text_of(n),) for i in range(n + 1)])
for i in range(11):
    async def t_ping_between(ctx, i):
        """The Pong comes before the echo and before the rest of the message is sent."""
        p = await ctx.ws()
        p.send(frame(TEXT, SHORT_TEXT[:i], fin=False) + frame(PING, b"gap %d" % i))
        await p.expect_pong(b"gap %d" % i)
        p.send(frame(CONT, SHORT_TEXT[i:]))
        await p.expect(TEXT, SHORT_TEXT)
        await p.leave()
    add("5.4", f"a Ping in the middle of a fragmented message is answered at once [cut at byte {i}]", t_ping_between, i)

for sizes in ((0, 0), (0, 1), (1, 0), (0, 0, 0), (0, 5, 0), (5, 0, 5), (125, 126), (126, 125), (65535, 1), (1, 65536),
              (65536, 65536), (0, 70000, 0), (100000, 0, 100000)):
    for op in (TEXT, BINARY):
        async def t_sizes(ctx, op, sizes):
            await t_all(ctx, op, [[b"s" * n for n in sizes]])
        add("5.4", f"fragments of {sizes} bytes [{'text' if op == TEXT else 'binary'}]", t_sizes, op, sizes)

for count in (2, 10, 100, 1000, 16384, 65536):
    for size in (0, 1, 17):
        if count == 65536 and size == 17:
            size = 200
        async def t_count(ctx, count, size):
            data = random.Random(count).randbytes(count * size)
            p = await ctx.ws()
            p.send(fragments(BINARY, chop(data, size) if size else [b""] * count))
            await p.expect(BINARY, data)
            await p.leave()
        add("5.4", f"a message in {count} fragments of {size} bytes", t_count, count, size,
            alone=count > 5000, deadline=60)


@case("5.4", "a text of 65,536 fragments of one byte, characters cut everywhere", alone=True, deadline=60)
async def t_text_bytes(ctx):
    data = "é€".encode() * 13107 + b"!"
    check(len(data) == 65536, "the case is wrong")
    p = await ctx.ws()
    p.send(fragments(TEXT, chop(data, 1)))
    await p.expect(TEXT, data)
    await p.leave()


@case("5.4", "16 MiB in fragments of 4 KiB", alone=True, deadline=60)
async def t_large(ctx):
    data = random.Random(16).randbytes(min(16 << 20, ctx.max_message))
    p = await ctx.ws()
    p.send(fragments(BINARY, chop(data, 4096)))
    await p.expect(BINARY, data)
    await p.leave()


@case("5.4", "4 MiB of text in fragments of 256 bytes", alone=True, deadline=60)
async def t_large_text(ctx):
    data = text_of(min(4 << 20, ctx.max_message))
    p = await ctx.ws()
    p.send(fragments(TEXT, chop(data, 256)))
    await p.expect(TEXT, data)
    await p.leave()


# ---- violations ----

for data in (b"", b"x"):
    for fin in (True, False):
        add("5.4", f"a continuation with nothing to continue [FIN {fin}, {len(data)} bytes]: 1002", t_bad,
            frame(CONT, data, fin=fin))
        add("5.4", f"a continuation behind a complete message [FIN {fin}, {len(data)} bytes]: 1002", t_bad,
            frame(CONT, data, fin=fin))
for first, second in itertools.product((TEXT, BINARY), repeat=2):
    for fin in (True, False):
        async def t_interleaved(ctx, first, second, fin):
            p = await ctx.ws()
            p.send(frame(first, b"open", fin=False) + frame(second, b"new", fin=fin) + frame(CONT, b"late"))
            await p.expect_failed(1002)
        add("5.4", f"fragments of messages MUST NOT be interleaved [{first} then {second}, FIN {fin}]: 1002",
            t_interleaved, first, second, fin)


@case("5.4", "a continuation behind a finished fragmented message: 1002")
async def t_late(ctx):
    p = await ctx.ws()
    p.send(fragments(TEXT, [b"a", b"b"]) + frame(CONT, b"c"))
    await p.expect(TEXT, b"ab")
    await p.expect_failed(1002)


@case("5.4", "new data right behind an unfinished message is seen at its first byte: 1002")
async def t_first_byte(ctx):
    p = await ctx.ws()
    p.send(frame(TEXT, b"open", fin=False) + b"\x81\x80")
    await p.expect_failed(1002)


# ---- control frames in between ----

@case("5.4", "ten Pings, one in each gap, all answered in order when the client reads")
async def t_ten_gaps(ctx):
    p = await ctx.ws()
    for i in range(10):
        p.send(frame(TEXT if i == 0 else CONT, b"%d" % i, fin=False) + frame(PING, b"ping %d" % i))
        await p.expect_pong(b"ping %d" % i)
    p.send(frame(CONT, b"end"))
    await p.expect(TEXT, b"0123456789end")
    await p.leave()


@case("5.4", "Pings in the gaps, everything in one segment")
async def t_gaps_at_once(ctx):
    p = await ctx.ws()
    p.send(fragments(TEXT, [b"a", b"b", b"c", b"d"], frame(PING, b"gap")))
    pongs = []
    await p.expect(TEXT, b"abcd", pongs)
    check(1 <= len(pongs) <= 3 and set(pongs) == {b"gap"}, f"pongs {pongs}")
    await p.leave()


@case("5.4", "unsolicited Pongs in the gaps are ignored")
async def t_pong_gap(ctx):
    p = await ctx.ws()
    p.send(fragments(BINARY, [b"a", b"b", b"c"], frame(PONG, b"x" * 125)))
    await p.expect(BINARY, b"abc")
    await p.leave()


@case("5.4", "a Close in the middle of a fragmented message ends the connection with its code")
async def t_close_gap(ctx):
    p = await ctx.ws()
    p.send(frame(TEXT, b"open", fin=False) + frame(CLOSE, close_body(1001)) + frame(CONT, b"late"))
    await p.expect_close([1001])
    await p.expect_end()


for op, note in ((PING, "ping"), (PONG, "pong"), (CLOSE, "close")):
    async def t_control_fragment(ctx, op):
        p = await ctx.ws()
        p.send(frame(TEXT, b"open", fin=False) + frame(op, b"", fin=False) + frame(CONT, b"end"))
        await p.expect_failed(1002)
    add("5.4", f"control frames MUST NOT be fragmented, in a gap either [{note}]: 1002", t_control_fragment, op)


@case("5.4", "many fragmented messages behind each other, in one segment")
async def t_many_messages(ctx):
    r = random.Random(54)
    p = await ctx.ws()
    texts = [[b"%d" % r.randrange(10**6) for _ in range(r.randrange(1, 9))] for _ in range(500)]
    p.send(b"".join(fragments(TEXT, parts) for parts in texts))
    for parts in texts:
        await p.expect(TEXT, b"".join(parts))
    await p.leave()
