#!/usr/bin/env python3
"""Proves that the conformance runner can fail: a small echo server is run once as it should be and
once for each of a list of faults; each fault must fail the cases it concerns, and none of the others.
The server here is the stand-in of this test alone. Last line: `N passed, N failed`."""
import asyncio
import contextlib
import io
import re
import sys

import run
import suite
from s8_utf8 import first_bad
from wire import BINARY, CLOSE, CONT, PING, TEXT, accept_of, close_body, xor

# fault: (cases that are run, cases that must fail, at least this many)
FAULTS = {
    "": (r"^(5\.[1567]|5\.5|5\.2 (RSV|an unknown|the min|the most)|7|8\.1 .*(valid UTF-8 is|U\+D|0xff|surrogate)|4\.1 a )",
         None, 0),
    "accept": (r"^4\.2\.2 Sec|^5\.7", r".", 4),
    "drop_early": (r"^4\.1 (a frame|many frames|a Close)", r".", 2),
    "unmasked": (r"^5\.[167] ", r"^5\.1 ", 8),
    "rsv": (r"^5\.2 (RSV|an unknown)", r"RSV bits", 40),
    "opcode": (r"^5\.2 (RSV|an unknown)", r"an unknown opcode", 20),
    "minimal": (r"^5\.2 the m", r"minimal number", 8),
    "top_bit": (r"^5\.2 the m", r"most significant", 3),
    "mask_at": (r"^5\.3 |^5\.7", r"^5\.3 .*(cut|fresh|every length|key)", 2),
    "answer_mask": (r"^5\.7 .*text", r".", 1),
    "answer_length": (r"^5\.2 payload .*of (5|126|127|1000) bytes", r".", 8),  # its Close frame is too
    "pong_empty": (r"^5\.5\.3 ", r"identical|data is arbitrary|Ping", 6),
    "pong_late": (r"^5\.4 a Ping in", r".", 11),
    "control_long": (r"^5\.5 .*(length of 125|FRAG)", r"length of 125", 12),
    "control_fragment": (r"^5\.5 control frames MUST NOT", r".", 6),
    "interleave": (r"^5\.4 (frag.*inter|a contin)", r"interleaved", 4),
    "continuation": (r"^5\.4 (frag.*inter|a contin)", r"a continuation", 4),
    "utf8": (r"^8\.1 (valid|text that|found).*(U\+D800|overlong: U\+002F in 2|U\+0080)", r"1007|found", 5),
    "utf8_late": (r"^8\.1 (valid|text that|found).*(U\+D800|overlong: U\+002F in 2|U\+0080)", r"found", 4),
    "utf8_fragment": (r"^8\.1 valid", r"valid", 10),
    "close_any": (r"^7\.4 ", r"MUST NOT be used", 40),
    "close_1000": (r"^7\.4 a valid", r"\[(?!1000)", 30),
    "close_reason": (r"^7\.1\.6", r"a reason that", 8),
    "no_close": (r"^5\.5\.1|^7\.1\.[14]", r".", 10),
    "linger": (r"^7\.1\.[14]|^7\.4 a valid code is", r".", 20),
    "goes_on": (r"^5\.2 RSV.*(text, 0|ping, 0)", r".", 7),
    "no_limit": (r"^10\.4 a length", r".", 20),
    "kind": (r"^5\.6 a text", r".", 1),
    "silent": (r"^5\.7 .*text", r".", 1),
}


class Bad(Exception):
    def __init__(self, code):
        self.code = code


class Echo:
    """One connection of the stand-in server."""

    def __init__(self, fault, reader, writer):
        self.fault, self.r, self.w = fault, reader, writer

    def put(self, op, data):
        n, masked = len(data), 0x80 if self.fault == "answer_mask" else 0
        if n < 126 and self.fault != "answer_length":
            head = bytes([0x80 | op, masked | n])
        elif n < 65536:  # the fault: a length that is not minimal
            head = bytes([0x80 | op, masked | 126]) + n.to_bytes(2, "big")
        else:
            head = bytes([0x80 | op, masked | 127]) + n.to_bytes(8, "big")
        self.w.write(head + (b"\0\0\0\0" if masked else b"") + data)

    async def serve(self):
        head = await self.r.readuntil(b"\r\n\r\n")
        key = re.search(rb"Sec-WebSocket-Key: *(\S+)", head, re.I)[1]
        accept = accept_of(key) if self.fault != "accept" else accept_of(key[::-1])
        if self.fault == "drop_early":
            self.r._buffer.clear()
        self.w.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                     b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")
        try:
            await self.frames()
        except Bad as e:
            if self.fault != "no_close":
                self.put(CLOSE, close_body(e.code) if e.code else b"")
            if self.fault == "goes_on":
                self.put(TEXT, b"behind")
            if self.fault == "linger":
                await self.w.drain()
                await asyncio.sleep(5)
        # FIN first, then what the client still sends is read away, so that no RST overtakes the Close
        self.w.write_eof()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(3):
                while await self.r.read(65536):
                    pass

    async def payload(self, n, key, op, text):
        """Unmasked payload, text judged as it comes."""
        data, at = b"", 0
        while at < n:
            piece = await self.r.read(n - at)
            if not piece:
                raise asyncio.IncompleteReadError(data, n)
            turn = at % 4 if self.fault != "mask_at" else 0
            data += xor(piece, key[turn:] + key[:turn])
            at += len(piece)
            if text is not None and self.fault not in ("utf8", "utf8_late"):
                bad = first_bad(text + data)
                if bad is not None and bad < len(text + data):
                    raise Bad(1007)
        return data

    async def frames(self):
        op, parts, held = None, [], []
        while True:
            first, second = await self.r.readexactly(2)
            fin, code, n = first & 0x80, first & 15, second & 127
            if first & 0x70 and self.fault != "rsv":
                raise Bad(1002)
            if code in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
                if self.fault != "opcode":
                    raise Bad(1002)
                code = BINARY if code < 8 else 10
            if not second & 0x80 and self.fault != "unmasked":
                raise Bad(1002)
            if code >= 8 and (not fin and self.fault != "control_fragment" or n > 125 and self.fault != "control_long"):
                raise Bad(1002)
            if code == CONT and op is None and self.fault != "continuation":
                raise Bad(1002)
            if code in (TEXT, BINARY) and op is not None and self.fault != "interleave":
                raise Bad(1002)
            if n > 125:
                short, n = n == 126, int.from_bytes(await self.r.readexactly(2 if n == 126 else 8), "big")
                if n < (126 if short else 65536) and self.fault != "minimal":
                    raise Bad(1002)
                if n >> 63 and self.fault != "top_bit":
                    raise Bad(1002)
            if n > 16 << 20 and self.fault != "no_limit":
                raise Bad(1009)
            key = await self.r.readexactly(4) if second & 0x80 else b"\0\0\0\0"
            kind = op if code == CONT else code
            text = b"".join(parts) if code == CONT and self.fault != "utf8_fragment" else b""
            data = await self.payload(n, key, code, text if kind == TEXT else None)
            if code == CLOSE:
                self.close(data)
            elif code == PING:
                if self.fault == "pong_late" and op is not None:
                    held.append(data)
                else:
                    self.put(10, b"" if self.fault == "pong_empty" else data)
            elif code < 8:
                op = code if code != CONT or op is None else op
                op = op or BINARY
                parts.append(data)
                if fin:
                    whole = b"".join(parts)
                    if op == TEXT and self.fault != "utf8" and first_bad(whole) is not None:
                        raise Bad(1007)
                    if self.fault != "silent":
                        self.put(BINARY if self.fault == "kind" else op, whole)
                    for ping in held:
                        self.put(10, ping)
                    op, parts, held = None, [], []

    def close(self, data):
        if not data:
            raise Bad(0)
        if len(data) == 1:
            raise Bad(1002)
        code = int.from_bytes(data[:2], "big")
        good = 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999
        if not good and self.fault != "close_any":
            raise Bad(1002)
        if first_bad(data[2:]) is not None and self.fault != "close_reason":
            raise Bad(1007)
        raise Bad(1000 if self.fault == "close_1000" else code)


async def one(fault, cases):
    async def client(reader, writer):
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await Echo(fault, reader, writer).serve()
        writer.close()

    server = await asyncio.start_server(client, "127.0.0.1", 0, limit=1 << 20)
    options = run.parse(["--url", "-", "--limit", "2" if fault else "8"])
    target = run.Target("127.0.0.1", server.sockets[0].getsockname()[1], "/echo")
    await run.run_all(cases, {"main": target}, options)
    server.close()


def judge(fault, match, must, least):
    """Sentence of complaint, or nothing."""
    cases = [c for c in suite.CASES if c.server == "main" and re.search(match, c.name)]
    for c in cases:
        c.outcome = c.detail = ""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        asyncio.run(one(fault, cases))
    failed = [c for c in cases if c.outcome == "failed"]
    if must is None:
        return "".join(f"\n  {c.name}: {c.detail}" for c in failed)
    wrong = [c.name for c in failed if not re.search(must, c.name)]
    if wrong:
        return f"these failed too: {wrong[:5]}"
    return "" if len(failed) >= least else f"only {len(failed)} of {len(cases)} failed, at least {least} expected"


def main():
    count = {True: 0, False: 0}
    for fault, row in FAULTS.items():
        if len(sys.argv) > 1 and not re.search(sys.argv[1], fault):
            continue
        complaint = judge(fault, *row)
        count[not complaint] += 1
        if complaint:
            print(f"FAILED {fault or 'no fault'}: {complaint}", flush=True)
    print(f"{count[True]} passed, {count[False]} failed")
    return 1 if count[False] else 0


if __name__ == "__main__":
    sys.exit(main())
