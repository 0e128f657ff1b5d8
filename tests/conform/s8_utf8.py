"""UTF-8 in text messages: RFC 6455 section 8.1, RFC 3629 section 4; fail-fast as early as the byte."""
from s5_fragments import compositions
from suite import add, case
from wire import BINARY, CONT, PING, TEXT, chop, frame, fragments, header, xor

# RFC 3629 section 4: for each range of first bytes the ranges of those that follow.
SYNTAX = [((0x00, 0x7F), []), ((0xC2, 0xDF), [(0x80, 0xBF)]),
          ((0xE0, 0xE0), [(0xA0, 0xBF), (0x80, 0xBF)]), ((0xE1, 0xEC), [(0x80, 0xBF)] * 2),
          ((0xED, 0xED), [(0x80, 0x9F), (0x80, 0xBF)]), ((0xEE, 0xEF), [(0x80, 0xBF)] * 2),
          ((0xF0, 0xF0), [(0x90, 0xBF)] + [(0x80, 0xBF)] * 2), ((0xF1, 0xF3), [(0x80, 0xBF)] * 3),
          ((0xF4, 0xF4), [(0x80, 0x8F)] + [(0x80, 0xBF)] * 2)]


def first_bad(data):
    """Index of the first byte that cannot be; len(data) if the text is only cut short; None if valid."""
    want = []
    for i, b in enumerate(data):
        if want:
            if not want[0][0] <= b <= want[0][1]:
                return i
            want = want[1:]
            continue
        for (low, high), rest in SYNTAX:
            if low <= b <= high:
                want = rest
                break
        else:
            return i
    return len(data) if want else None


def enc(code):
    """The bytes UTF-8 would use, for numbers it forbids too."""
    if code < 0x80:
        return bytes([code])
    for n, top in ((2, 0xC0), (3, 0xE0), (4, 0xF0), (5, 0xF8), (6, 0xFC)):
        if code < 1 << (5 * n + 1):
            return wide(code, n, top)
    raise ValueError


def wide(code, n, top=None):
    """code in n bytes, overlong if need be."""
    top = {2: 0xC0, 3: 0xE0, 4: 0xF0, 5: 0xF8, 6: 0xFC}[n] if top is None else top
    return bytes([top | code >> 6 * (n - 1)]) + bytes(0x80 | code >> 6 * i & 63 for i in range(n - 2, -1, -1))


VALID = {f"U+{c:04X}": enc(c) for c in (
    0, 0x7F, 0x80, 0x7FF, 0x800, 0xFFF, 0x1000, 0xCFFF, 0xD000, 0xD7FF, 0xE000, 0xFDD0, 0xFEFF, 0xFFFD, 0xFFFE, 0xFFFF,
    0x10000, 0x1FFFE, 0x1FFFF, 0x3FFFF, 0x40000, 0xFFFFF, 0x100000, 0x10FFFE, 0x10FFFF)}
VALID |= {"Greek": "κόσμε, πάντα ῥεῖ".encode(), "Hebrew and Arabic": "שלום مرحبا".encode(),
          "Chinese and Japanese": "世界 こんにちは".encode(), "emoji with joiners": "👩‍👩‍👧‍👦🏳️‍🌈".encode(),
          "combining marks": "e\u0301\u0323".encode(), "noncharacters": b"".join(map(enc, range(0xFDD0, 0xFDF0)))}

INVALID = {}
for b in (0x80, 0xBF):
    INVALID[f"a lone continuation byte {b:#x}"] = bytes([b])
for n in range(2, 8):
    INVALID[f"{n} continuation bytes"] = b"\x80\xbf" * (n // 2) + b"\x80" * (n % 2)
INVALID["all continuation bytes"] = bytes(range(0x80, 0xC0))
for b in [0xC0, 0xC1, *range(0xF5, 0x100)]:
    INVALID[f"byte {b:#x} never appears"] = bytes([b]) + b"\x80\x80\x80"
for b in (0xC2, 0xDF, 0xE0, 0xE1, 0xED, 0xEF, 0xF0, 0xF1, 0xF4):
    INVALID[f"first byte {b:#x}, then a blank"] = bytes([b]) + b" "
    INVALID[f"first byte {b:#x} at the end"] = bytes([b])
    INVALID[f"first byte {b:#x} twice"] = bytes([b, b])
for text in (enc(0x800), enc(0xFFFF), enc(0x10000), enc(0x10FFFF)):
    for n in range(2, len(text)):
        INVALID[f"{text.hex()} without the last {len(text) - n}, then x"] = text[:n] + b"x"
        INVALID[f"{text.hex()} without the last {len(text) - n}, at the end"] = text[:n]
for code in (0, 0x2F, 0x7F):
    for n in range(2, 7):
        INVALID[f"overlong: U+{code:04X} in {n} bytes"] = wide(code, n)
for code, n in ((0x7FF, 3), (0xFFFF, 4), (0x1FFFFF, 5), (0x3FFFFFF, 6), (0x80, 3), (0x800, 4)):
    INVALID[f"overlong: {code:#x} in {n} bytes"] = wide(code, n)
for code in (0xD800, 0xDB7F, 0xDB80, 0xDBFF, 0xDC00, 0xDF80, 0xDFFF):
    INVALID[f"surrogate U+{code:04X}"] = enc(code)
for pair in ((0xD800, 0xDC00), (0xD83D, 0xDE00), (0xDBFF, 0xDFFF)):
    INVALID[f"surrogate pair {pair[0]:04X} {pair[1]:04X}"] = enc(pair[0]) + enc(pair[1])
for code in (0x110000, 0x13FFFF, 0x140000, 0x1FFFFF, 0x200000, 0x3FFFFFF, 0x4000000, 0x7FFFFFFF):
    INVALID[f"above U+10FFFF: {code:#x}"] = enc(code)
INVALID["a latin-1 text"] = "Grüße".encode("latin-1")
INVALID["UTF-16"] = "\ufeffhi".encode("utf-16-le")


async def t_valid(ctx, data):
    p = await ctx.ws()
    body = b"<" + data + b">"
    p.send(frame(TEXT, body) + fragments(TEXT, chop(body, 1)) + frame(TEXT, data))
    for want in (body, body, data):
        await p.expect(TEXT, want)
    await p.leave()


async def t_invalid(ctx, data, way):
    """1007, and what is behind is not processed."""
    p = await ctx.ws()
    good = "good ✓".encode()
    p.send(frame(TEXT, good))
    await p.expect(TEXT, good)
    body = "vor→".encode() + data
    if way == "whole":
        p.send(frame(TEXT, body) + frame(TEXT, b"behind"))
    elif way == "fragments of one byte":
        p.send(fragments(TEXT, chop(body, 1)) + frame(TEXT, b"behind"))
    elif way == "pieces of one byte":
        p.send(*chop(frame(TEXT, body) + frame(TEXT, b"behind"), 1))
    await p.expect_failed(1007)


async def t_fast(ctx, data, fragmented):
    """The frame stays incomplete: the byte that cannot be is the last one sent."""
    bad = first_bad(data)
    body = "före ".encode() + data[: bad + 1]
    p = await ctx.ws()
    if fragmented:
        p.send(frame(TEXT, body[:3], fin=False))
        p.send(header(CONT, 5000, fin=False) + xor(body[3:], b"\x37\xfa\x21\x3d"))
    else:
        p.send(header(TEXT, 5000) + xor(body, b"\x37\xfa\x21\x3d"))
    await p.expect_failed(1007)


for name, data in VALID.items():
    add("8.1", f"valid UTF-8 is echoed [{name}]", t_valid, data)
for name, data in INVALID.items():
    assert first_bad(data) is not None, name
    for way in ("whole", "fragments of one byte", "pieces of one byte"):
        add("8.1", f"text that is not UTF-8: 1007 [{name}, {way}]", t_invalid, data, way)
    if first_bad(data) < len(data):
        add("8.1", f"found at the offending byte, in an incomplete frame [{name}]", t_fast, data, False)
        add("8.1", f"found at the offending byte, in an incomplete continuation [{name}]", t_fast, data, True)


@case("8.1", "the same bytes in a binary message are fine")
async def t_binary(ctx):
    p = await ctx.ws()
    for data in INVALID.values():
        p.send(frame(BINARY, data))
    for data in INVALID.values():
        await p.expect(BINARY, data)
    await p.leave()


@case("8.1", "every composition of invalid sequences fails: 1007", deadline=40)
async def t_compositions(ctx):
    for data in (b"a\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe0\x9f\xbf", b"ab\xff", b"\xf0\x8f\xbf\xbf", b"\xe2\x82"):
        for parts in compositions(data):
            p = await ctx.ws()
            p.send(fragments(TEXT, parts))
            await p.expect_failed(1007)
            p.end()


@case("8.1", "a character cut by fragments, a Ping between: answered, then echoed")
async def t_cut_ping(ctx):
    p = await ctx.ws()
    for text in map(enc, (0x80, 0x7FF, 0x800, 0xD7FF, 0xE000, 0xFFFF, 0x10000, 0x10FFFF)):
        for at in range(1, len(text)):
            p.send(frame(TEXT, text[:at], fin=False) + frame(PING, b"mid"))
            await p.expect_pong(b"mid")
            p.send(frame(CONT, text[at:]))
            await p.expect(TEXT, text)
    await p.leave()


@case("8.1", "a character cut by fragments with empty ones between")
async def t_cut_empty(ctx):
    p = await ctx.ws()
    text = enc(0x10FFFF)
    p.send(fragments(TEXT, [b"", text[:1], b"", b"", text[1:2], b"", text[2:3], b"", text[3:], b""]))
    await p.expect(TEXT, text)
    await p.leave()


@case("8.1", "a message must not end inside a character though the next would complete it: 1007")
async def t_across(ctx):
    p = await ctx.ws()
    text = "€".encode()
    p.send(frame(TEXT, text[:2]) + frame(TEXT, text[2:]))
    await p.expect_failed(1007)


@case("8.1", "a cut character at the end of the last fragment, an empty one last: 1007")
async def t_empty_last(ctx):
    p = await ctx.ws()
    p.send(fragments(TEXT, [b"x", b"\xe2\x82", b""]))
    await p.expect_failed(1007)


@case("8.1", "an invalid byte at every place of a text of 200 bytes", deadline=60, alone=True)
async def t_places(ctx):
    base = "aé€😀".encode() * 20
    for at in range(0, len(base)):
        body = base[:at] + b"\xff" + base[at + 1 :]
        p = await ctx.ws()
        p.send(header(TEXT, len(body) + 100) + xor(body[: at + 1], b"\x37\xfa\x21\x3d"))
        await p.expect_failed(1007)
        p.end()


@case("8.1", "a bad byte at the end of a large message", alone=True)
async def t_large(ctx):
    p = await ctx.ws()
    p.send(frame(TEXT, b"x" * 1000000 + b"\xc3"))
    await p.expect_failed(1007)


@case("8.1", "validity starts anew with each message")
async def t_anew(ctx):
    p = await ctx.ws()
    p.send(frame(BINARY, b"\xe2\x82") + frame(TEXT, b"ok") + frame(BINARY, b"\xff") + frame(TEXT, "ü".encode()))
    await p.expect(BINARY, b"\xe2\x82")
    await p.expect(TEXT, b"ok")
    await p.expect(BINARY, b"\xff")
    await p.expect(TEXT, "ü".encode())
    await p.leave()


@case("8.1", "every character of the Basic Multilingual Plane and some above", alone=True, deadline=60)
async def t_everything(ctx):
    p = await ctx.ws()
    codes = [c for c in range(0x10000) if not 0xD800 <= c < 0xE000] + list(range(0x10000, 0x110000, 97))
    data = b"".join(map(enc, codes))
    p.send(frame(TEXT, data) + fragments(TEXT, chop(data, 1021)))
    await p.expect(TEXT, data)
    await p.expect(TEXT, data)
    await p.leave()
