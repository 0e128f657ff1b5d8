"""The base framing protocol, masking and data frames: RFC 6455 sections 5.1, 5.2, 5.3, 5.6, 5.7."""
import os
import random

from suite import add, case
from wire import (BINARY, CLOSE, CONT, PING, PONG, TEXT, check, chop, close_body, frame, fragments,
                  header, xor)


def text_of(n):
    """n bytes of UTF-8 with characters of every length."""
    unit = "aé€😀".encode()
    out = unit * (n // len(unit))
    return out + b"x" * (n - len(out))


async def t_echo(ctx, op, data, form=None):
    p = await ctx.ws()
    p.send(frame(op, data, form=form))
    await p.expect(op, data)
    await p.leave()


LENGTHS = [0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 124, 125, 126, 127, 128, 129, 255, 256, 257,
           1000, 1023, 1024, 2033, 2034, 2035, 2040, 2047, 2048, 2049, 4095, 4096, 4097, 8191, 16384, 32767, 32768,
           65534, 65535, 65536, 65537, 131072, 262144, 1 << 20]
for n in LENGTHS:
    for op, kind in ((TEXT, "text"), (BINARY, "binary")):
        async def t_len(ctx, op, n):
            await t_echo(ctx, op, text_of(n) if op == TEXT else random.Random(n).randbytes(n))
        form = 7 if n < 126 else 16 if n < 65536 else 64
        add("5.2", f"payload length in {form} bits [{kind} of {n} bytes]", t_len, op, n, alone=n > 300000)
for n, note in ((4 << 20, "4 MiB"), (16 << 20, "16 MiB")):
    for op in (TEXT, BINARY):
        async def t_huge(ctx, op, n):
            n = min(n, ctx.max_message)
            await t_echo(ctx, op, text_of(n) if op == TEXT else os.urandom(n))
        add("5.2", f"payload length in 64 bits [{'text' if op == TEXT else 'binary'} of {note}]", t_huge, op, n,
            alone=True, deadline=60)


async def t_bad(ctx, raw, code=1002, before=True):
    """A good message, then the violation and more in the same segment: the good one is answered, then
    the connection fails, and nothing behind is answered."""
    p = await ctx.ws()
    p.send((frame(TEXT, b"before") if before else b"") + raw + frame(TEXT, b"behind") + frame(PING, b"behind"))
    if before:
        await p.expect(TEXT, b"before")
    await p.expect_failed(code)


async def t_bad_head(ctx, raw, codes):
    """Only the bytes that show the violation: the server does not wait for more."""
    p = await ctx.ws()
    p.send(raw)
    await p.expect_failed(*codes)


for form, sizes in ((16, [0, 1, 100, 125]), (64, [0, 1, 125, 126, 127, 1000, 65535])):
    for n in sizes:
        add("5.2", f"the minimal number of bytes MUST be used for the length [{n} in {form} bits]: 1002",
            t_bad_head, header(TEXT, n, form=form), (1002,))
for n in (1 << 63, (1 << 63) + 5, (1 << 64) - 1, 0xC000000000000000):
    add("5.2", f"the most significant bit of a 64-bit length MUST be 0 [{n:#x}]: 1002", t_bad_head,
        header(BINARY, n, form=64), (1002,))

for rsv in range(1, 8):
    for op, note in ((TEXT, "text"), (BINARY, "binary"), (PING, "ping"), (PONG, "pong")):
        for data in (b"", b"payload"):
            add("5.2", f"RSV bits MUST be 0 without an extension [rsv {rsv}, {note}, {len(data)} bytes]: 1002",
                t_bad, frame(op, data, rsv=rsv))
    add("5.2", f"RSV bits MUST be 0 without an extension [rsv {rsv}, close]: 1002", t_bad,
        frame(CLOSE, close_body(1000), rsv=rsv))
    add("5.2", f"RSV bits MUST be 0 without an extension [rsv {rsv}, continuation]: 1002", t_bad,
        frame(TEXT, b"a", fin=False) + frame(CONT, b"b", rsv=rsv))
    add("5.2", f"RSV bits MUST be 0: seen at the first byte of the frame [rsv {rsv}]: 1002", t_bad_head,
        bytes([0x80 | rsv << 4 | TEXT]) + b"\x80", (1002,))

for op in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
    for data in (b"", b"payload"):
        add("5.2", f"an unknown opcode MUST fail the connection [{op:#x}, {len(data)} bytes]: 1002", t_bad,
            frame(op, data))
    add("5.2", f"an unknown opcode MUST fail the connection [{op:#x}, without FIN]: 1002", t_bad,
        frame(op, b"x", fin=False))
    add("5.2", f"an unknown opcode MUST fail the connection [{op:#x}, between fragments]: 1002", t_bad,
        frame(TEXT, b"a", fin=False) + frame(op, b"x") + frame(CONT, b"b"))

# ---- masking ----

for op, note, data in ((TEXT, "text", b"x"), (BINARY, "binary", b"x"), (TEXT, "empty text", b""), (PING, "ping", b""),
                       (PONG, "pong", b"x"), (CLOSE, "close", close_body(1000))):
    add("5.1", f"a frame that is not masked MUST close the connection [{note}]: 1002", t_bad,
        frame(op, data, key=None))
add("5.1", "a frame that is not masked MUST close the connection [continuation]: 1002", t_bad,
    frame(TEXT, b"a", fin=False) + frame(CONT, b"b", key=None))
for n in (7, 16, 64):
    add("5.1", f"a frame that is not masked is seen in its header [{n}-bit length]: 1002", t_bad_head,
        header(BINARY, {7: 5, 16: 500, 64: 70000}[n], key=None), (1002,))

for key in (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\1", b"\1\0\0\0", b"\x80\x80\x80\x80", b"abcd", b"\r\n\r\n",
            b"\x81\x85\x37\xfa"):
    for n in (0, 1, 2, 3, 4, 5, 126, 1000, 70000):
        async def t_key(ctx, key, n):
            data = random.Random(n).randbytes(n)
            p = await ctx.ws()
            p.send(frame(BINARY, data, key=key))
            await p.expect(BINARY, data)
            await p.leave()
        add("5.3", f"any 32-bit masking key [{key.hex()}, {n} bytes]", t_key, key, n)


@case("5.3", "a fresh key for every frame of a message")
async def t_fresh(ctx):
    r = random.Random(53)
    p = await ctx.ws()
    for _ in range(50):
        parts = [r.randbytes(r.randrange(0, 40)) for _ in range(6)]
        p.send(b"".join(frame(BINARY if i == 0 else CONT, d, fin=i == 5, key=r.randbytes(4))
                        for i, d in enumerate(parts)))
        await p.expect(BINARY, b"".join(parts))
    await p.leave()


@case("5.3", "the mask goes on at the right octet wherever the payload is cut")
async def t_mask_cut(ctx):
    p = await ctx.ws()
    data = bytes(range(40))
    whole = frame(BINARY, data, key=b"\x11\x22\x44\x88")
    for at in range(1, len(whole)):
        p.send(whole[:at])
        await p.sent()
        p.send(whole[at:])
        await p.expect(BINARY, data)
    await p.leave()


@case("5.3", "every length from 0 to 300, each with another key")
async def t_mask_lengths(ctx):
    r = random.Random(535)
    p = await ctx.ws()
    sent = []
    for n in range(301):
        data = r.randbytes(n)
        sent.append(data)
        p.send(frame(BINARY, data, key=r.randbytes(4)))
    for data in sent:
        await p.expect(BINARY, data)
    await p.leave()


# ---- data frames, examples ----

@case("5.6", "a text message is echoed as text, a binary one as binary")
async def t_kinds(ctx):
    p = await ctx.ws()
    for op in (TEXT, BINARY, BINARY, TEXT):
        p.send(frame(op, b"kind"))
        await p.expect(op, b"kind")
    await p.leave()


@case("5.6", "binary data is arbitrary: all byte values and invalid UTF-8")
async def t_bytes(ctx):
    await t_echo(ctx, BINARY, bytes(range(256)) + b"\xff\xfe\xed\xa0\x80\xc0\x80")


@case("5.6", "text may hold U+0000 and every other control character")
async def t_controls(ctx):
    await t_echo(ctx, TEXT, bytes(range(128)) + "\x80\x9f\u2028\ufeff".encode())


@case("5.7", "the masked text Hello of the RFC's example")
async def t_hello(ctx):
    p = await ctx.ws()
    p.send(bytes.fromhex("818537fa213d7f9f4d5158"))
    await p.expect(TEXT, b"Hello")
    await p.leave()


@case("5.7", "the masked Pong Hello of the RFC's example is ignored")
async def t_hello_pong(ctx):
    p = await ctx.ws()
    p.send(bytes.fromhex("8a8537fa213d7f9f4d5158") + frame(TEXT, b"next"))
    await p.expect(TEXT, b"next")
    await p.leave()


@case("5.2", "messages of many lengths on one connection, in order")
async def t_mixture(ctx):
    r = random.Random(1)
    p = await ctx.ws()
    sent = [(r.choice((TEXT, BINARY)), text_of(r.choice((0, 1, 125, 126, 1000, 65535, 65536)))) for _ in range(100)]
    p.send(*[frame(op, data) for op, data in sent])
    for op, data in sent:
        await p.expect(op, data)
    await p.leave()


@case("5.2", "thousands of frames in one segment")
async def t_thousands(ctx):
    p = await ctx.ws()
    p.send(b"".join(frame(TEXT, b"%d" % i) for i in range(5000)))
    for i in range(5000):
        await p.expect(TEXT, b"%d" % i)
    await p.leave()


@case("5.2", "a header cut at every byte, in every length form")
async def t_header_cut(ctx):
    p = await ctx.ws()
    for n in (5, 300, 70000):
        data = text_of(n)
        whole = frame(TEXT, data)
        for at in range(1, len(whole) - n + 2):
            p.send(whole[:at])
            await p.sent()
            p.send(whole[at:])
            await p.expect(TEXT, data)
    await p.leave()


@case("5.2", "a frame in pieces of one byte")
async def t_bytewise(ctx):
    p = await ctx.ws()
    data = text_of(500)
    p.send(*chop(frame(TEXT, data), 1))
    await p.expect(TEXT, data)
    await p.leave()


@case("5.4", "what comes back in fragments or whole is the same message (coalescing is allowed)")
async def t_coalesce(ctx):
    p = await ctx.ws()
    p.send(fragments(BINARY, chop(xor(bytes(5000), b"1234"), 100)))
    await p.expect(BINARY, xor(bytes(5000), b"1234"))
    await p.leave()
    check(p.eof == "fin", "TCP was reset")
