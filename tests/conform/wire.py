"""A WebSocket client at the level of bytes, written from RFC 6455, that can also do everything wrong.

Nothing here is shared with the server: what it accepts from the server is only what the RFC allows a
server to send, and every departure raises Violation. Sockets are bare and non-blocking: a failed
write never hides what is still to be read, and the end of TCP is seen as what it is (FIN or RST).
Over TLS (Python's ssl on memory, so that the socket stays ours) a piece is a record.
"""
import asyncio
import base64
import hashlib
import socket
import ssl
import struct

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
CONT, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
MASK = b"\x37\xfa\x21\x3d"  # the masking key of the examples in section 5.7


class Violation(Exception):
    """The server did what the case forbids, or not what it asks for."""


def check(condition, text):
    if not condition:
        raise Violation(text)


def xor(data, key):
    """Section 5.3: octet i of the payload with octet i mod 4 of the key, by way of large integers."""
    n = len(data)
    if n == 0 or key == b"\0\0\0\0":
        return bytes(data)
    pad = key * (n // 4) + key[: n % 4]
    return (int.from_bytes(data, "little") ^ int.from_bytes(pad, "little")).to_bytes(n, "little")


def header(op, n, fin=True, rsv=0, key=MASK, form=None):
    """Section 5.2. `form` forces 7, 16 or 64 bits of length; key None leaves the frame unmasked."""
    if form is None:
        form = 7 if n < 126 else 16 if n < 65536 else 64
    first = (0x80 if fin else 0) | rsv << 4 | op
    masked = 0 if key is None else 0x80
    if form == 7:
        out = struct.pack(">BB", first, masked | n)
    elif form == 16:
        out = struct.pack(">BBH", first, masked | 126, n)
    else:
        out = struct.pack(">BBQ", first, masked | 127, n)
    return out + (key or b"")


def frame(op, data=b"", fin=True, rsv=0, key=MASK, form=None):
    return header(op, len(data), fin, rsv, key, form) + (data if key is None else xor(data, key))


def fragments(op, parts, between=b"", key=MASK, rsv=0):
    """One message in as many frames as there are parts (section 5.4), `between` put in the gaps, `rsv` on
    the first of them."""
    last = len(parts) - 1
    frames = [frame(op if i == 0 else CONT, p, fin=i == last, key=key, rsv=0 if i else rsv) for i, p in enumerate(parts)]
    return between.join(frames)


def close_body(code, reason=b""):
    return struct.pack(">H", code) + reason


def chop(data, n):
    return [data[i : i + n] for i in range(0, len(data), n)]


def accept_of(key):
    return base64.b64encode(hashlib.sha1(key + GUID).digest())


class Frame:
    def __init__(self, fin, op, data, packed=False):
        self.fin, self.op, self.data, self.packed = fin, op, data, packed

    def __repr__(self):
        return f"frame op={self.op:x} fin={int(self.fin)} {short(self.data)}"

    @property
    def code(self):
        """Status code of a Close frame, None when it has none."""
        return struct.unpack(">H", self.data[:2])[0] if len(self.data) >= 2 else None


def short(data):
    return repr(bytes(data[:40])) + (f"... {len(data)} bytes" if len(data) > 40 else "")


class Response:
    """Head and body of an HTTP answer."""

    def __init__(self, head):
        lines = head.split(b"\r\n")
        check(b"\n" not in head.replace(b"\r\n", b""), f"a bare LF in the answer's head: {short(head)}")
        parts = lines[0].split(b" ", 2)
        check(len(parts) == 3 and parts[0] == b"HTTP/1.1" and len(parts[1]) == 3 and parts[1].isdigit(),
              f"not a status line: {short(lines[0])}")
        self.status = int(parts[1])
        self.fields = []
        for line in lines[1:]:
            name, colon, value = line.partition(b":")
            check(colon and name and name == name.strip(), f"not a header field: {short(line)}")
            self.fields.append((name.lower(), value.strip(b" \t")))
        self.body = b""

    def get(self, name):
        """Value of a field that may be there once at most, or None."""
        found = [v for n, v in self.fields if n == name.lower().encode()]
        check(len(found) <= 1, f"{name} is there {len(found)} times")
        return found[0] if found else None

    def has_token(self, name, token):
        values = b",".join(v for n, v in self.fields if n == name.lower().encode())
        return token in [t.strip().lower() for t in values.split(b",")]


class Peer:
    """One TCP connection. Writing goes on in the background, in order, one system call per piece."""

    codec = None     # flate.Codec, when compression was agreed
    tls = None       # ssl.SSLObject between two memory buffers
    notified = False  # the server said close_notify

    def __init__(self, sock, host, path, limit):
        self.sock, self.host, self.path = sock, host, path
        self.limit = limit          # seconds for any one answer
        self.loop = asyncio.get_running_loop()
        self.buf = bytearray()
        self.eof = None             # None, "fin" or "rst"
        self.queue = asyncio.Queue()
        self.writer = asyncio.create_task(self._write())

    @classmethod
    async def connect(cls, target, limit, rcvbuf=None, source=None):
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if rcvbuf:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        if source:
            sock.bind((source, 0))
        try:
            await asyncio.get_running_loop().sock_connect(sock, (target.host, target.port))
        except BaseException:
            sock.close()
            raise
        p = cls(sock, target.authority, target.path, limit)
        if getattr(target, "tls", None):
            try:
                await asyncio.wait_for(p.shake_tls(target.tls), limit)
            except BaseException as e:
                p.end()
                if isinstance(e, ssl.SSLError) or isinstance(e, asyncio.TimeoutError):
                    raise Violation(f"TLS handshake: {e or 'no answer in time'}") from None
                raise
        return p

    async def shake_tls(self, context, **options):
        """The client's side of a TLS handshake on the connection as it stands."""
        self.inward, self.outward = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.inward, self.outward, server_hostname=options.pop("name", "localhost"), **options)
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self.loop.sock_sendall(self.sock, self.outward.read())
                data = await self.loop.sock_recv(self.sock, 65536)
                check(data, "TCP ended in the TLS handshake")
                self.inward.write(data)
            except ssl.SSLError:
                await self.loop.sock_sendall(self.sock, self.outward.read())
                raise
        await self.loop.sock_sendall(self.sock, self.outward.read())

    def _wrap(self, piece):
        """The records that carry a piece; None is close_notify."""
        if piece is not None:
            self.tls.write(piece)
        else:
            try:
                self.tls.unwrap()
            except ssl.SSLWantReadError:
                pass
        return self.outward.read()

    async def _write(self):
        while True:
            piece = await self.queue.get()
            try:
                raw = self._wrap(piece) if self.tls else piece
                if raw:
                    await self.loop.sock_sendall(self.sock, raw)
                if piece is None:
                    self.sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # the reader tells what became of the connection
            finally:
                self.queue.task_done()

    def send(self, *pieces):
        for piece in pieces:
            if piece is None or piece:
                self.queue.put_nowait(piece)

    def send_fin(self):
        self.queue.put_nowait(None)

    async def sent(self):
        await asyncio.wait_for(self.queue.join(), self.limit)

    def reset(self):
        """Ends TCP by RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.end()

    def end(self):
        self.writer.cancel()
        self.sock.close()

    async def _more(self, limit=None):
        """Reads on; False at the end of TCP."""
        if self.eof:
            return False
        try:
            data = await asyncio.wait_for(self.loop.sock_recv(self.sock, 262144), limit or self.limit)
        except ConnectionResetError:
            self.eof = "rst"
            return False
        except asyncio.TimeoutError:
            raise Violation(f"no answer within {limit or self.limit:g} s "
                            f"(unread: {short(self.buf)})") from None
        return self._came(data)

    def _came(self, data):
        if not data:
            self.eof = "fin"
            return False
        if not self.tls:
            self.buf += data
            return True
        self.inward.write(data)
        try:
            while not self.notified:
                plain = self.tls.read(65536)
                self.notified = not plain
                self.buf += plain
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.notified = True
        except ssl.SSLError as e:
            raise Violation(f"TLS: {e}") from None
        return True

    async def _need(self, n):
        while len(self.buf) < n:
            if not await self._more():
                return False
        return True

    def silent(self):
        """Whether nothing at all has come so far."""
        if not self.buf and not self.eof:
            try:
                self._came(self.sock.recv(65536))
            except (BlockingIOError, InterruptedError):
                pass
            except ConnectionResetError:
                self.eof = "rst"
        return not self.buf and not self.eof

    # ---- HTTP ----

    def request(self, key=b"dGhlIHNhbXBsZSBub25jZQ==", path=None, extra=b""):
        """The smallest upgrade request of section 4.1."""
        return (b"GET " + (path or self.path).encode() + b" HTTP/1.1\r\nHost: " + self.host.encode()
                + b"\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: " + key
                + b"\r\nSec-WebSocket-Version: 13\r\n" + extra + b"\r\n")

    async def response(self, head_only=False, limit=None):
        """The next answer, or None when TCP ended without one."""
        while b"\r\n\r\n" not in self.buf:
            check(len(self.buf) < 65536, "an endless answer head")
            if not await self._more(limit):
                check(not self.buf, f"TCP ended inside an answer: {short(self.buf)}")
                return None
        head, _, rest = bytes(self.buf).partition(b"\r\n\r\n")
        self.buf = bytearray(rest)
        r = Response(head)
        if r.status == 101 or r.status in (204, 304) or head_only:
            return r
        length = r.get("Content-Length")
        if length is not None:
            check(length.isdigit(), f"Content-Length: {short(length)}")
            check(await self._need(int(length)), "TCP ended inside the answer's body")
            r.body = bytes(self.buf[: int(length)])
            del self.buf[: int(length)]
        else:
            check(r.get("Transfer-Encoding") is None, "a transfer coding nobody needs")
            while await self._more():
                pass
            r.body = bytes(self.buf)
            self.buf.clear()
        return r

    async def expect_upgrade(self, key=b"dGhlIHNhbXBsZSBub25jZQ=="):
        """Section 4.2.2 point 5, and that nothing is there which was not agreed."""
        r = await self.response()
        check(r is not None, "TCP ended instead of an answer to the upgrade")
        check(r.status == 101, f"{r.status} instead of 101")
        check((r.get("Upgrade") or b"").lower() == b"websocket", "Upgrade is not websocket")
        check(r.has_token("Connection", b"upgrade"), "Connection lacks Upgrade")
        check(r.get("Sec-WebSocket-Accept") == accept_of(key),
              f"Sec-WebSocket-Accept is {r.get('Sec-WebSocket-Accept')}, not {accept_of(key)}")
        check(r.get("Content-Length") is None and r.get("Transfer-Encoding") is None,
              "a 101 that speaks of a body")
        return r

    async def upgrade(self):
        self.send(self.request())
        return await self.expect_upgrade()

    # ---- frames ----

    async def frame(self):
        """The next frame, checked as a client has to; None at the end of TCP."""
        if not await self._need(2):
            check(not self.buf, f"TCP ended inside a frame header: {short(self.buf)}")
            return None
        first, second = self.buf[0], self.buf[1]
        op, n, at = first & 15, second & 127, 2
        packed = bool(first & 0x40) and self.codec is not None and op in (TEXT, BINARY)
        check(not first & (0x30 if packed else 0x70), f"5.2: reserved bits in the server's frame: {first:#x}")
        check(op in (CONT, TEXT, BINARY, CLOSE, PING, PONG), f"5.2: opcode {op:#x} from the server")
        check(not second & 0x80, "5.1: a server MUST NOT mask any frames")
        if n >= 126:
            at = 4 if n == 126 else 10
            check(op < 8, f"5.5: a control frame of more than 125 bytes from the server, op {op:#x}")
            check(await self._need(at), "TCP ended inside a frame header")
            n = int.from_bytes(self.buf[2:at], "big")
            check(n >= (126 if at == 4 else 65536), "5.2: the server's length is not minimal")
            check(n < 1 << 63, "5.2: the most significant bit of the length MUST be 0")
        check(first & 0x80 or op < 8, "5.5: a fragmented control frame from the server")
        check(await self._need(at + n), "TCP ended inside a frame")
        data = bytes(self.buf[at : at + n])
        del self.buf[: at + n]
        if op == CLOSE and n:
            check(n >= 2, "5.5.1: a Close body of one byte from the server")
            data[2:].decode("utf-8")
        return Frame(bool(first & 0x80), op, data, packed)

    async def message(self, pongs=None):
        """The next whole message as (opcode, payload); pongs in front of it go to the list given."""
        op, parts, packed = None, [], False
        while True:
            f = await self.frame()
            check(f is not None, f"TCP ended ({self.eof}) instead of a message")
            if f.op == PONG and pongs is not None:
                pongs.append(f.data)
                continue
            check(f.op < 8, f"{f} instead of a message")
            check((f.op == CONT) == (op is not None), f"5.4: {f} at this place of a message")
            op, packed = (f.op, f.packed) if op is None else (op, packed)
            parts.append(f.data)
            if f.fin:
                self.was_packed, data = packed, b"".join(parts)
                return op, self.codec.inflate(data) if packed else data

    async def expect(self, op, data, pongs=None):
        got_op, got = await self.message(pongs)
        check(got_op == op, f"opcode {got_op} instead of {op}")
        if got != data:
            raise Violation(f"echo differs: {short(got)} instead of {short(data)}")

    async def expect_pong(self, data):
        f = await self.frame()
        check(f is not None, "TCP ended instead of a Pong")
        check(f.op == PONG and f.data == data, f"{f} instead of a Pong with {short(data)}")

    async def expect_close(self, codes):
        """A Close frame with one of the codes (None: without); nothing in front of it."""
        f = await self.frame()
        check(f is not None, f"TCP ended ({self.eof}) without a Close frame; expected {codes}")
        check(f.op == CLOSE, f"{f} instead of Close {codes}")
        check(f.code in codes, f"Close {f.code} instead of {codes}")
        return f

    async def expect_end(self, clean=False, limit=None):
        """The end of TCP and not one byte more."""
        while await self._more(limit):
            pass
        check(not self.buf, f"bytes behind the end: {short(self.buf)}")
        check(self.eof == "fin" or not clean, "TCP was reset where it should have been closed")
        check(not clean or not self.tls or self.notified, "TCP was closed without close_notify")

    async def expect_failed(self, *codes, answer=True):
        """7.1.7: Close with one of the codes, then the end of TCP; nothing behind the violation is
        answered. The client does its part of the closing handshake unless told not to."""
        f = await self.expect_close(codes)
        if answer:
            self.send(frame(CLOSE, f.data))
        await self.expect_end(limit=None if answer else self.limit + 6)

    async def leave(self):
        """An ordinary good-bye: everything asked for was received, and nothing else comes."""
        self.send(frame(CLOSE, close_body(1000)))
        await self.expect_close([1000])
        await self.expect_end(clean=True)
