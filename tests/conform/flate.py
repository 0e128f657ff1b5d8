"""The client's side of permessage-deflate (RFC 7692), and DEFLATE (RFC 1951) bit by bit for streams that
no compressor makes. Python's zlib is the other implementation."""
import re
import zlib
from dataclasses import dataclass

from wire import CLOSE, Peer, check, fragments, short

NAME = b"permessage-deflate"
TAIL = b"\0\0\xff\xff"  # section 7.2.1: what is cut off at the end of a message
RSV1 = 4
TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


# ---- agreement: sections 5 and 7.1 ----

@dataclass
class Offer:
    """What a valid offer asks for."""
    server_fresh: bool = False   # server_no_context_takeover
    server_bits: int = 0         # server_max_window_bits; 0: not there
    client_bits: int = 0         # client_max_window_bits; 15 also without a value

    def admits(self, a):
        """Whether an answer is one to this offer, by sections 7.1.1 and 7.1.2."""
        return ((a.server_fresh or not self.server_fresh)
                and (not self.server_bits or 8 <= a.said_server_bits <= self.server_bits)
                and (not a.said_client_bits or a.said_client_bits <= self.client_bits))


@dataclass
class Agreed:
    server_fresh: bool = False
    client_fresh: bool = False
    said_server_bits: int = 0
    said_client_bits: int = 0

    @property
    def server_bits(self):
        return self.said_server_bits or 15

    @property
    def client_bits(self):
        return self.said_client_bits or 15


def agreement(response):
    """The answer's Sec-WebSocket-Extensions, by the letter; None without one."""
    value = response.get("Sec-WebSocket-Extensions")
    if value is None:
        return None
    name, *rest = [p.strip(b" \t") for p in value.split(b";")]
    check(name == NAME, f"9.1: the answer names an extension nobody offered: {short(value)}")
    a, seen = Agreed(), set()
    for text in rest:
        key, equals, word = text.partition(b"=")
        check(key not in seen, f"7.1: a parameter twice in the answer: {short(value)}")
        seen.add(key)
        if key in (b"server_no_context_takeover", b"client_no_context_takeover"):
            check(not equals, f"7.1.1: a value for {key.decode()} in the answer: {short(value)}")
            setattr(a, key[:6].decode() + "_fresh", True)
        elif key in (b"server_max_window_bits", b"client_max_window_bits"):
            check(re.fullmatch(rb"[89]|1[0-5]", word), f"7.1.2: window bits of the answer: {short(value)}")
            setattr(a, f"said_{key[:6].decode()}_bits", int(word))
        else:
            check(False, f"7.1: a parameter nobody defined in the answer: {short(value)}")
    return a


class Codec:
    """Both directions of one connection, as agreed."""

    def __init__(self, agreed, strict=False):
        self.agreed, self.strict = agreed, strict
        self.out = self.window = None

    def compressor(self, level=6, mem=8, strategy=zlib.Z_DEFAULT_STRATEGY):
        # zlib makes no raw stream of 8 bits; with 9 its distances stay below 251 (window less 262).
        return zlib.compressobj(level, zlib.DEFLATED, -max(9, self.agreed.client_bits), mem, strategy)

    def deflate(self, data, blocks=1, flush=zlib.Z_SYNC_FLUSH, **options):
        """Payload of a compressed message, in at least so many blocks (7.2.1)."""
        if self.agreed.client_fresh or self.out is None:
            self.out = self.compressor(**options)
        step = max(1, -(-len(data) // blocks))
        out = b""
        for at in range(0, max(1, len(data)), step):
            out += self.out.compress(data[at:at + step]) + self.out.flush(flush)
        check(out.endswith(TAIL), "zlib does not end a flush as RFC 1951 has it")
        return out[:-4]

    def inflate(self, payload):
        """7.2.2. Whatever the server sent must come out with a window no larger than agreed."""
        d = self.window
        if self.agreed.server_fresh or d is None:
            d = self.window = zlib.decompressobj(-self.agreed.server_bits)
        try:
            if self.strict:
                out = one_by_one(d, payload + TAIL)
            else:
                out = d.decompress(payload + TAIL)
        except zlib.error as e:
            check(False, f"7.2.2: the server's message does not inflate: {e}")
        check(not d.eof, "7.2.1: a final block from this server")
        return out


def one_by_one(d, data):
    """Inflates byte by byte, in and out: zlib then knows nothing but its window, and a distance beyond
    that is found, which in one call it would not be."""
    out = bytearray()
    for i in range(len(data)):
        piece = data[i:i + 1]
        while True:
            got = d.decompress(piece, 1)
            out += got
            piece = d.unconsumed_tail
            if not got and not piece:
                break
    return bytes(out)


def packed(op, payload, *cuts, between=b""):
    """A compressed message as frames, cut at those places."""
    cuts = [0, *cuts, len(payload)]
    return fragments(op, [payload[a:b] for a, b in zip(cuts, cuts[1:])], between, rsv=RSV1)


async def upgrade(p: Peer, *headers, strict=False):
    """Sends the request with those Sec-WebSocket-Extensions; the agreement or None."""
    p.send(p.request(extra=b"".join(b"Sec-WebSocket-Extensions: " + h + b"\r\n" for h in headers)))
    a = agreement(await p.expect_upgrade())
    p.codec = Codec(a, strict) if a else None
    return a


async def deflated(ctx, offer=NAME + b"; client_max_window_bits", strict=False, **options):
    """A connection with compression."""
    p = await ctx.tcp(**options)
    check(await upgrade(p, offer, strict=strict), f"not agreed: {offer.decode()}")
    return p


# ---- DEFLATE by hand: RFC 1951 section 3.2 ----

LENGTHS = [(257 + i, 3 + i, 0) for i in range(8)]
for _e in range(1, 6):
    LENGTHS += [(261 + 4 * _e + i, 3 + ((4 + i) << _e), _e) for i in range(4)]
LENGTHS[-1] = (284, 227, 5)
LENGTHS.append((285, 258, 0))
DISTANCES = [(i, 1 + i, 0) for i in range(4)]
for _e in range(1, 14):
    DISTANCES += [(2 + 2 * _e + i, 1 + ((2 + i) << _e), _e) for i in range(2)]


class Bits:
    def __init__(self):
        self.value, self.n = 0, 0

    def put(self, value, n):
        """n bits, the least significant first."""
        self.value |= value << self.n
        self.n += n
        return self

    def code(self, value, n):
        """A Huffman code: the most significant bit first."""
        return self.put(int(format(value, f"0{n}b")[::-1], 2), n)

    def align(self):
        self.n += -self.n % 8
        return self

    def done(self):
        """The bytes, filled up with zero bits."""
        return self.value.to_bytes((self.n + 7) // 8, "little")

    # blocks

    def stored(self, data, final=0, nlen=None):
        n = len(data)
        self.put(final, 1).put(0, 2).align().put(n, 16).put(n ^ 0xFFFF if nlen is None else nlen, 16)
        return self.put(int.from_bytes(data, "little"), 8 * n)

    def fixed(self, *items, final=0, end=True):
        """Of bytes, of (length, distance), and of bare symbols as integers."""
        self.put(final, 1).put(1, 2)
        for item in items:
            if isinstance(item, bytes):
                for c in item:
                    self.symbol(c)
            elif isinstance(item, int):
                self.symbol(item)
            else:
                self.match(*item)
        return self.symbol(256) if end else self

    def symbol(self, s):
        if s < 144:
            return self.code(0x30 + s, 8)
        if s < 256:
            return self.code(0x190 + s - 144, 9)
        return self.code(s - 256, 7) if s < 280 else self.code(0xC0 + s - 280, 8)

    def match(self, length, distance):
        s, base, extra = max(t for t in LENGTHS if t[1] <= length)
        self.symbol(s).put(length - base, extra)
        s, base, extra = max(t for t in DISTANCES if t[1] <= distance)
        return self.code(s, 5).put(distance - base, extra)

    def dynamic(self, hlit, hdist, code_lengths, final=0):
        """Head of a block with codes of its own; code_lengths by symbol 0..18."""
        order = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)
        self.put(final, 1).put(2, 2).put(hlit, 5).put(hdist, 5).put(15, 4)
        for s in order:
            self.put(code_lengths.get(s, 0), 3)
        return self

    def message(self):
        """Payload of a message: an empty stored block follows, its last four bytes cut off (7.2.1)."""
        return self.put(0, 3).done()


def judge(payload):
    """What the message with that payload says, by Python's zlib, from an empty window: (its bytes, or None when
    the stream is broken or ends inside a block; whether there is no other reading). Two readings there are of
    a stored block that the four bytes of section 7.2.2 fill up, and of a final block with nothing behind it."""
    d, sure = zlib.decompressobj(-15), True
    try:
        out = d.decompress(payload)
        while d.eof and d.unused_data:
            rest = d.unused_data
            d = zlib.decompressobj(-15, zdict=out[-32768:])
            out += d.decompress(rest)
        if d.eof:
            return out, False
        added = d.decompress(TAIL)
        sure = not added
        # Between blocks, a block that is put here comes out; elsewhere it is taken for something else.
        mark = Bits().fixed(b"MARK", final=1).done()
        return (out + added, sure) if not d.eof and d.decompress(mark) == b"MARK" and d.eof else (None, True)
    except zlib.error:
        return None, sure


async def expect_judged(p, op, payload):
    """Sends it as a message; the server's verdict is zlib's. Whether the connection goes on."""
    text, sure = judge(payload)
    p.send(packed(op, payload))
    if text is None and sure:
        await p.expect_failed(1007)
        return False
    if sure:
        await p.expect(op, text)
        return True
    f = await p.frame()
    check(f is not None and (f.op == CLOSE and f.code == 1007 or f.op == op), f"{f} where 1007 or a message was due")
    return False
