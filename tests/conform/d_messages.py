"""Compressed messages: RFC 7692 sections 6 and 7.2. Every kind of stream, size, fragment and window."""
import itertools
import random
import zlib

from flate import NAME, RSV1, Agreed, Bits, Codec, agreement, deflated, judge, packed, upgrade
from s5_fragments import compositions
from s5_framing import text_of
from suite import add, case
from wire import BINARY, CLOSE, CONT, PING, PONG, TEXT, check, chop, close_body, frame, header

FRESH = NAME + b"; client_no_context_takeover; server_no_context_takeover; client_max_window_bits"
KEPT = NAME + b"; client_max_window_bits"
SIZES = (0, 1, 125, 126, 127, 65535, 65536, 128 << 10, 1 << 20)


def sample(op, n, kind):
    """n bytes that compress well, or not at all. Text stays text."""
    r = random.Random(n * 2 + op)
    if kind == "compressible":
        return text_of(n) if op == TEXT else (b"\0\1\2\3 the same again and again" * (n // 28 + 1))[:n]
    if op == BINARY:
        return r.randbytes(n)
    data = "".join(map(chr, r.choices([*range(32, 127), *range(0x400, 0x2000), *range(0x20000, 0x20400)], k=n // 2))).encode()[:n]
    while data:
        try:
            data.decode()
            break
        except UnicodeDecodeError as e:
            data = data[: e.start]
    return data + b"x" * (n - len(data))


async def t_message(ctx, op, n, kind, size):
    """One message of that size in fragments of that size, twice, and a plain one between."""
    p = await deflated(ctx)
    data = sample(op, n, kind)
    for _ in range(2):
        payload = p.codec.deflate(data)
        p.send(packed(op, payload, *range(size, len(payload), size)) if size else packed(op, payload))
        await p.expect(op, data)
        p.send(frame(TEXT, b"plain"))
        await p.expect(TEXT, b"plain")
    await p.leave()


for n, size, kind, op in itertools.product(SIZES, (0, 1, 125, 126, 1000, 65535, 65536), ("compressible", "random"), (TEXT, BINARY)):
    if n <= size or (kind == "random" and size and n // size > 70000):
        continue
    add("D6", f"{n} bytes, {kind} {'text' if op == TEXT else 'binary'}, "
        f"{'in one frame' if not size else f'in fragments of {size}'}", t_message, op, n, kind, size,
        alone=n > 100000, deadline=60)


# ---- the examples of section 7.2.3 ----

HELLO = {
    "7.2.3.1 one block": "f248cdc9c90700", "7.2.3.3 a stored block": "000500faff48656c6c6f00",
    "7.2.3.4 a block with BFINAL": "f348cdc9c9070000", "7.2.3.5 two blocks": "f24805000000ffffcac9c90700",
}
for _name, _hex in HELLO.items():
    async def t_hello(ctx, payload):
        """As it stands in the RFC, three times, and cut at every byte."""
        p = await deflated(ctx, FRESH)
        for _ in range(3):
            p.send(packed(TEXT, payload))
            await p.expect(TEXT, b"Hello")
        for cut in range(len(payload) + 1):
            p.send(packed(TEXT, payload, cut))
            await p.expect(TEXT, b"Hello")
        await p.leave()
    section, _, what = _name.partition(" ")
    add("D" + section, f"the RFC's example: {what}", t_hello, bytes.fromhex(_hex))


@case("D7.2.3.1", "the RFC's example in two frames, byte for byte, unmasked key zero")
async def t_example_frames(ctx):
    p = await deflated(ctx, FRESH)
    key = b"\0\0\0\0"
    p.send(frame(TEXT, bytes.fromhex("f248cd"), fin=False, rsv=RSV1, key=key) + frame(CONT, bytes.fromhex("c9c90700"), key=key))
    await p.expect(TEXT, b"Hello")
    await p.leave()


@case("D7.2.3.2", "the RFC's example of a shared window, if the answer left us ours")
async def t_shared(ctx):
    p = await deflated(ctx, KEPT)
    p.send(packed(TEXT, bytes.fromhex("f248cdc9c90700")) + packed(TEXT, bytes.fromhex("f200110000")))
    await p.expect(TEXT, b"Hello")
    if p.codec.agreed.client_fresh:
        await p.expect_failed(1007)  # the second refers to what is before its window
    else:
        await p.expect(TEXT, b"Hello")
        await p.leave()


@case("D7.2.3.2", "the RFC's example of a shared window", server="takeover")
async def t_shared_takeover(ctx):
    p = await deflated(ctx, KEPT)
    check(not p.codec.agreed.client_fresh, "client_no_context_takeover where takeover is configured")
    p.send(packed(TEXT, bytes.fromhex("f248cdc9c90700")) + packed(TEXT, bytes.fromhex("f200110000")) * 50)
    for _ in range(51):
        await p.expect(TEXT, b"Hello")
    await p.leave()


@case("D7.2.3.6", "an empty compressed message is one byte of zero, and what follows is not disturbed")
async def t_empty(ctx):
    p = await deflated(ctx)
    for op in (TEXT, BINARY):
        p.send(packed(op, b"\0") + packed(op, b"\0", 0, 0, 1, 1) + packed(op, b"\x03\0\0"))
        for _ in range(3):
            await p.expect(op, b"")
        p.send(packed(TEXT, p.codec.deflate(b"and on")))
        await p.expect(TEXT, b"and on")
    await p.leave()


# ---- blocks ----

def streams():
    """Every way to say the same, as (what, text, payload)."""
    text, low = b"Hello, hello, hello! " * 8, b"Hello, hello, hello! "
    b = Bits
    for level in range(10):
        for mem in (1, 9):
            c = zlib.compressobj(level, zlib.DEFLATED, -15, mem)
            yield f"level {level}, memLevel {mem}", text, (c.compress(text) + c.flush(zlib.Z_SYNC_FLUSH))[:-4]
    for name in ("Z_FILTERED", "Z_HUFFMAN_ONLY", "Z_RLE", "Z_FIXED"):
        c = zlib.compressobj(6, zlib.DEFLATED, -15, 8, getattr(zlib, name))
        yield f"strategy {name}", text, (c.compress(text) + c.flush(zlib.Z_SYNC_FLUSH))[:-4]
    for name in ("Z_SYNC_FLUSH", "Z_FULL_FLUSH", "Z_PARTIAL_FLUSH", "Z_BLOCK"):
        c, out = zlib.compressobj(6, zlib.DEFLATED, -15), b""
        for part in chop(text, 10):
            out += c.compress(part) + c.flush(getattr(zlib, name))
        yield f"{name} every 10 bytes", text, (out + c.flush(zlib.Z_SYNC_FLUSH))[:-4]
    c = zlib.compressobj(6, zlib.DEFLATED, -15)
    yield "Z_FINISH: one final block", text, c.compress(text) + c.flush() + b"\0"
    yield "a final stored block", b"Hello", b().stored(b"Hello", final=1).message()
    yield "a final fixed block that ends within a byte", b"Hello!", b().fixed(b"Hello!", final=1).align().message()
    yield "a final block, then another block", b"Hello, you", b().fixed(b"Hello", final=1).align().fixed(b", you").message()
    yield "three final blocks", b"abc", (b().fixed(b"a", final=1).align().stored(b"b", final=1).align().fixed(b"c", final=1)
                                        .align().message())
    yield "an empty final block first", b"Hello", b().fixed(final=1).align().fixed(b"Hello").message()
    yield "an empty final block last", b"Hello", b().fixed(b"Hello").fixed(final=1).align().message()
    yield "stored blocks of one byte", low, _all(b(), [("stored", low[i:i + 1]) for i in range(len(low))])
    yield "fixed blocks of one byte", low, _all(b(), [("fixed", low[i:i + 1]) for i in range(len(low))])
    yield "empty stored blocks between", low, _all(b(), [(k, d) for c in chop(low, 4) for k, d in (("stored", b""), ("fixed", c))])
    yield "1000 empty fixed blocks in front", low, _all(b(), [("fixed", b"")] * 1000 + [("fixed", low)])
    yield "1000 empty stored blocks in front", low, _all(b(), [("stored", b"")] * 1000 + [("fixed", low)])
    yield "the tail of a flush inside the message", low, b().fixed(low[:9]).stored(b"").stored(b"").fixed(low[9:]).message()
    yield "the tail not cut off", low, b().fixed(low).stored(b"").message()
    yield "a run: distance 1, length 258", b"a" * 1033, b().fixed(b"a", *[(258, 1)] * 4).message()
    yield "the farthest distance, 32768", bytes(range(256)) * 128 + b"\0\1\2", \
        b().stored(bytes(range(256)) * 128).fixed((3, 32768)).message()
    yield "a stored block of 65535 bytes", bytes(65535), b().stored(bytes(65535)).message()


def _all(bits, blocks):
    for kind, data in blocks:
        getattr(bits, kind)(data)
    return bits.message()


for _what, _text, _payload in streams():
    assert judge(_payload) == (_text, True), _what

    async def t_stream(ctx, payload, text):
        """Whole, twice; byte by byte; then another compressed message, so that nothing was left over."""
        p = await deflated(ctx, FRESH)
        p.send(packed(BINARY, payload) * 2)
        await p.expect(BINARY, text)
        await p.expect(BINARY, text)
        if len(payload) < 5000:
            p.send(packed(BINARY, payload, *range(1, len(payload))))
            await p.expect(BINARY, text)
        p.send(*chop(packed(BINARY, payload), max(1, len(payload) // 50)))
        await p.expect(BINARY, text)
        p.send(packed(TEXT, Bits().fixed(b"next").message()))
        await p.expect(TEXT, b"next")
        await p.leave()
    add("D7.2.1", f"any DEFLATE may be used [{_what}]", t_stream, _payload, _text)


@case("D7.2.1", "all those streams as one conversation, nothing carried from one to the next")
async def t_streams(ctx):
    p = await deflated(ctx, FRESH)
    rows = [(payload, text) for _, text, payload in streams()]
    random.Random(3).shuffle(rows)
    p.send(b"".join(packed(BINARY, payload) for payload, _ in rows))
    for _, text in rows:
        await p.expect(BINARY, text)
    await p.leave()


# ---- fragments, and control frames between ----

for cuts in (list(compositions(bytes.fromhex("f248cdc9c90700"))),):
    async def t_compositions(ctx, ways, between):
        p = await deflated(ctx, FRESH)
        for parts in ways:
            payload = b"".join(parts)
            ends = list(itertools.accumulate(map(len, parts)))[:-1]
            p.send(packed(TEXT, payload, *ends, between=between))
        for parts in ways:
            pongs = []
            await p.expect(TEXT, b"Hello", pongs)
            check(not between or len(parts) == 1 or set(pongs) == {b"gap"}, f"pongs {pongs}")
        await p.leave()
    add("D6.1", "every way to cut a compressed message of 7 bytes", t_compositions, cuts, b"")
    add("D6.1", "every way to cut a compressed message of 7 bytes, a Ping in each gap", t_compositions, cuts, frame(PING, b"gap"))


@case("D6.1", "control frames between the fragments are not compressed, and answered at once", deadline=60)
async def t_control(ctx):
    p = await deflated(ctx)
    for round_ in range(3):
        payload = p.codec.deflate(b"fragmented, with control frames between" * 20)
        p.send(frame(TEXT, payload[:1], fin=False, rsv=RSV1))
        for i in range(1, len(payload)):
            p.send(frame(PING, b"%d" % i) + frame(PONG, b"x") + frame(CONT, payload[i:i + 1], fin=i == len(payload) - 1))
            if i < len(payload) - 1:
                await p.expect_pong(b"%d" % i)
        pongs = []
        await p.expect(TEXT, b"fragmented, with control frames between" * 20, pongs)
    await p.leave()


@case("D6.1", "a Close between the fragments of a compressed message ends the connection with its code")
async def t_close_between(ctx):
    p = await deflated(ctx)
    payload = p.codec.deflate(b"never whole")
    p.send(frame(TEXT, payload[:3], fin=False, rsv=RSV1) + frame(CLOSE, close_body(1001)) + frame(CONT, payload[3:]))
    await p.expect_close([1001])
    await p.expect_end()


@case("D6.1", "empty fragments anywhere in a compressed message")
async def t_empty_fragments(ctx):
    p = await deflated(ctx)
    for _ in range(3):
        payload = p.codec.deflate(b"text with holes " * 9)
        cuts = sorted([0, 0, 0, *range(1, len(payload)), *range(1, len(payload)), len(payload), len(payload)])
        p.send(packed(TEXT, payload, *cuts))
        await p.expect(TEXT, b"text with holes " * 9)
    await p.leave()


@case("D6", "compressed and uncompressed messages take turns; the plain ones are not in the window", deadline=60)
async def t_turns(ctx):
    p = await deflated(ctx)
    r = random.Random(6)
    for i in range(200):
        data = b"%d " % i * r.randrange(1, 400)
        raw = packed(TEXT, p.codec.deflate(data)) if r.random() < 0.5 else frame(TEXT, data)
        p.send(raw)
        await p.expect(TEXT, data)
    await p.leave()


@case("D6", "messages in one segment, compressed and not, come back in order")
async def t_one_segment(ctx):
    p = await deflated(ctx)
    texts = [b"message %d " % i * (i % 90 + 1) for i in range(300)]
    p.send(b"".join(packed(TEXT, p.codec.deflate(t)) if i % 3 else frame(TEXT, t) for i, t in enumerate(texts)))
    for t in texts:
        await p.expect(TEXT, t)
    await p.leave()


@case("D6", "frames in the segment of the request are compressed if the offer is taken")
async def t_early(ctx):
    p = await ctx.tcp()
    p.send(p.request(extra=b"Sec-WebSocket-Extensions: " + FRESH + b"\r\n") + packed(TEXT, bytes.fromhex("f248cdc9c90700")))
    p.codec = Codec(agreement(await p.expect_upgrade()))
    await p.expect(TEXT, b"Hello")
    await p.leave()


@case("D6", "a large compressible message is answered compressed")
async def t_compresses(ctx):
    p = await deflated(ctx)
    p.send(frame(TEXT, text_of(65536)))
    await p.expect(TEXT, text_of(65536))
    check(p.was_packed, "64 KiB of the same came back as they are")
    await p.leave()


for n in (1, 2, 3, 7, 50):
    async def t_pieces(ctx, n):
        p = await ctx.tcp()
        raw, texts = p.request(extra=b"Sec-WebSocket-Extensions: " + FRESH + b"\r\n"), []
        codec = Codec(Agreed(True, True))
        for i in range(12):
            texts.append(b"piece by piece %d " % i * (3 * i))
            payload = codec.deflate(texts[-1])
            raw += packed(TEXT, payload, len(payload) // 2)
        p.send(*chop(raw, n))
        p.codec = Codec(agreement(await p.expect_upgrade()))
        for t in texts:
            await p.expect(TEXT, t)
        await p.leave()
    add("D6", f"a conversation in pieces of {n} bytes", t_pieces, n)


# ---- RSV1 ----

async def t_rsv(ctx, raw, code=1002):
    """A good message, then the violation: at its first byte."""
    p = await deflated(ctx, FRESH)
    p.send(packed(TEXT, bytes.fromhex("f248cdc9c90700")) + raw)
    await p.expect(TEXT, b"Hello")
    await p.expect_failed(code)


for op, what in ((PING, "ping"), (PONG, "pong"), (CLOSE, "close")):
    for n in (0, 2, 125):
        add("D6.1", f"RSV1 MUST NOT be set on control frames [{what}, {n} bytes]: 1002", t_rsv,
            frame(op, close_body(1000) + b"x" * (n - 2) if n else b"", rsv=RSV1))
for first in (0, RSV1):
    for fin in (True, False):
        add("D6.1", f"RSV1 MUST NOT be set on a continuation [first frame {'compressed' if first else 'plain'}, FIN {fin}]: 1002", t_rsv,
            frame(TEXT, bytes.fromhex("f248") if first else b"a", fin=False, rsv=first) + frame(CONT, b"\0", fin=fin, rsv=RSV1))
for rsv in (1, 2, 3, 5, 6, 7):
    for op in (TEXT, BINARY):
        add("D6", f"RSV2 and RSV3 are still nobody's [rsv {rsv}, {'text' if op == TEXT else 'binary'}]: 1002", t_rsv, frame(op, b"\0", rsv=rsv))
for op in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
    add("D6", f"RSV1 on a reserved opcode [{op}]: 1002", t_rsv, frame(op, b"\0", rsv=RSV1))
add("D6.1", "RSV1 on a continuation with nothing to continue: 1002", t_rsv, frame(CONT, b"\0", rsv=RSV1))
add("D6.1", "RSV1 on a control frame between fragments: 1002", t_rsv,
    frame(TEXT, bytes.fromhex("f248"), fin=False, rsv=RSV1) + frame(PING, b"", rsv=RSV1))
add("D6", "new data within a compressed message: 1002", t_rsv,
    frame(TEXT, bytes.fromhex("f248"), fin=False, rsv=RSV1) + frame(TEXT, b"\0", rsv=RSV1))
add("D6.1", "RSV1 of a continuation is seen in the header, before its payload: 1002", t_rsv,
    frame(TEXT, bytes.fromhex("f248"), fin=False, rsv=RSV1) + header(CONT, 1000, rsv=RSV1))
add("D6", "an unmasked compressed frame: 1002", t_rsv, frame(TEXT, bytes.fromhex("f248cdc9c90700"), rsv=RSV1, key=None))


@case("D6", "RSV1 of 0 means not compressed, whatever was agreed")
async def t_plain(ctx):
    p = await deflated(ctx, FRESH)
    for data in (b"", bytes.fromhex("0148"), text_of(70000)):
        p.send(frame(TEXT, data) + frame(TEXT, data[:1], fin=False) + frame(CONT, data[1:]))
        await p.expect(TEXT, data)
        await p.expect(TEXT, data)
    await p.leave()


# ---- windows and contexts ----

def echoes_at(distance, n=70000):
    """Random bytes that come again at that distance, so that a compressor with such a window finds them."""
    r = random.Random(distance)
    out = bytearray(r.randbytes(distance))
    while len(out) < n:
        out += out[-distance:][:200] + r.randbytes(20)
    return bytes(out[:n])


WINDOW_TEXTS = [echoes_at(d, 24000) for d in (40, 200, 250, 257, 400, 600, 1500, 3000, 6000, 12000)] + [text_of(20000)]


async def t_window(ctx, bits, which, fresh):
    """Server: what comes back inflates with that window and no other. Client: ours is found again."""
    offer = NAME + b"; server_max_window_bits=%d" % bits if which == "server" else NAME + b"; client_max_window_bits=%d" % bits
    if fresh:
        offer += b"; server_no_context_takeover; client_no_context_takeover"
    p = await ctx.tcp()
    a = await upgrade(p, offer, strict=which == "server")
    if a is None and bits == 8 and which == "server":
        return  # declined, which section 7.1.2.1 allows
    check(a is not None, "not agreed")
    check(which == "client" or a.server_bits <= bits, f"{a}")
    for data in WINDOW_TEXTS:
        p.send(packed(BINARY, p.codec.deflate(data)))
        await p.expect(BINARY, data)
    await p.leave()


for bits, which, fresh in itertools.product(range(8, 16), ("server", "client"), (True, False)):
    options = {"deadline": 60, "alone": which == "server"}
    add("D7.1.2", f"a window of 2^{bits}, the {which}'s{', no takeover' if fresh else ''}", t_window, bits, which, fresh, **options)
    if not fresh:
        add("D7.1.2", f"a window of 2^{bits}, the {which}'s, contexts kept", t_window, bits, which, fresh, server="takeover", **options)


async def t_context(ctx, offer, want):
    """A hundred messages that resemble each other, each at its turn."""
    p = await deflated(ctx, offer)
    a = p.codec.agreed
    check(want is None or (a.server_fresh, a.client_fresh) == want, f"{a}")
    sizes = []
    for i in range(100):
        data = b'{"price":%d,"name":"the very same words in each of them","time":%d}' % (i * 7, i) * 24
        payload = p.codec.deflate(data)
        sizes.append(len(payload))
        p.send(packed(TEXT, payload))
        await p.expect(TEXT, data)
    check(a.client_fresh or sizes[-1] < sizes[0], "the client's context is not used")
    await p.leave()


for header_ in (KEPT, FRESH, NAME + b"; server_no_context_takeover", NAME + b"; client_no_context_takeover"):
    add("D7.1.1", f"messages that resemble each other [{header_.decode()}]", t_context, header_, None, deadline=60)
    add("D7.1.1", f"contexts kept, messages that resemble each other [{header_.decode()}]", t_context, header_, None, server="takeover", deadline=60)


@case("D7.1.1", "contexts kept: both sides refer to the message before", server="takeover")
async def t_both(ctx):
    p = await deflated(ctx, KEPT)
    check(not p.codec.agreed.client_fresh and not p.codec.agreed.server_fresh, f"{p.codec.agreed}")
    data = random.Random(5).randbytes(1500).hex().encode()
    for i in range(20):
        payload = p.codec.deflate(data)
        check(i == 0 or len(payload) < 100, "the client's window is not used")
        p.send(packed(BINARY, payload))
        f = await p.frame()
        check(f is not None and f.packed, f"message {i} came back as it is")
        check(i == 0 or len(f.data) < 200, f"message {i} takes {len(f.data)} bytes: the server's window is not used")
        check(p.codec.inflate(f.data) == data, "another message came back")
    await p.leave()


@case("D7.1.1.1", "contexts kept: server_no_context_takeover is honoured when asked for", server="takeover")
async def t_asked(ctx):
    p = await deflated(ctx, FRESH)
    check(p.codec.agreed.server_fresh, f"{p.codec.agreed}")
    for _ in range(5):
        p.send(packed(TEXT, p.codec.deflate(text_of(5000))))
        await p.expect(TEXT, text_of(5000))
    await p.leave()


@case("D7.2.2", "many connections at once, each with its own stream in the middle of a message", deadline=40)
async def t_interleaved(ctx):
    """State that is shared between connections would show."""
    peers = [await deflated(ctx, KEPT) for _ in range(24)]
    texts = [b"connection %d has its own words, " % i * 40 for i in range(24)]
    payloads = [p.codec.deflate(t) for p, t in zip(peers, texts)]
    for p, payload in zip(peers, payloads):
        p.send(header(TEXT, len(payload), rsv=RSV1))
    for at in range(0, max(map(len, payloads)), 5):
        for p, payload in zip(peers, payloads):
            if payload[at:at + 5]:
                p.send(bytes(a ^ b for a, b in zip(payload[at:at + 5], (b"\x37\xfa\x21\x3d" * 3)[at % 4:])))
                await p.sent()
    for p, t in zip(peers, texts):
        await p.expect(TEXT, t)
        await p.leave()


async def t_storm(ctx, seed):
    """Random sizes, levels, blocks, fragments, controls."""
    r = random.Random(seed)
    p = await deflated(ctx, r.choice((KEPT, FRESH)))
    raw, wants = [], []
    for _ in range(60):
        data = "".join(r.choice("aé€😀bcd ") for _ in range(r.choice((0, 1, 10, 100, 1000, 5000)))).encode()
        op = r.choice((TEXT, BINARY))
        if r.random() < 0.7:
            payload = p.codec.deflate(data, blocks=r.choice((1, 1, 2, 9)))
            cuts = sorted(r.randrange(len(payload) + 1) for _ in range(r.choice((0, 0, 1, 6))))
            raw.append(packed(op, payload, *cuts, between=frame(PONG, b"") if r.random() < 0.2 else b""))
        else:
            raw.append(frame(op, data))
        wants.append((op, data))
    whole, at = b"".join(raw), 0
    while at < len(whole):
        n = r.choice((1, 3, 50, 700, 9000))
        p.send(whole[at:at + n])
        at += n
    for op, data in wants:
        await p.expect(op, data)
    await p.leave()


for seed in range(16):
    add("D6", f"random messages, blocks, fragments and cuts, seed {seed}", t_storm, seed)
    add("D6", f"contexts kept: random messages, blocks, fragments and cuts, seed {seed}", t_storm, seed, server="takeover")
