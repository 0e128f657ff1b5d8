#!/usr/bin/env python3
"""Proves that the conformance runner can fail: a small echo server is run once as it should be and
once for each of a list of faults; each fault must fail the cases it concerns, and none of the others.
The server here is the stand-in of this test alone. Last line: `N passed, N failed`."""
import asyncio
import concurrent.futures
import contextlib
import io
import re
import sys
import zlib

import run
import suite
from flate import TAIL, Bits
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
    # RFC 7692. The stand-in inflates whole messages, and slowly, so without the large and the incremental cases.
    "deflate": (r"^D(5|7\.[12](?!\.2 (one bit|random))|6\.1|6 \d{1,3} bytes|6 RSV)", None, 0),
    "offer_any": (r"^D7\.1 (an offer with|a valid)", r"an offer with", 60),
    "offer_zero": (r"^D7\.1 (an offer with|a valid)", r"=\"?0", 8),
    "offer_twice": (r"^D7\.1 (an offer with|a valid)", r"(\w+_\w+).*\1|80 bytes", 5),
    "offer_first": (r"^D5\.1 (behind|of several)", r"^D5\.1 behind", 100),
    "offer_field": (r"^D5\.1 (behind|of several)", r"next header", 50),
    "answer_bits": (r"^D7\.1\.2\.2", r"only if the offer|offer's \[([89]|1[0-4])", 8),
    "answer_wide": (r"^D7\.1\.2\.[12]", r"confirmed or lowered", 6),
    "answer_fresh": (r"^D7\.1 a valid", r"server_no_context", 8),
    "answer_twice": (r"^D5\.1 (the answer takes|no offer)", r"takes", 1),
    "answer_always": (r"^D5\.1 (the answer takes|no offer)", r"no offer", 1),
    "rsv_all": (r"^D6 \d{1,3} bytes.*compressible.*in one frame|^D7\.2\.3\.1", r".", 10),
    "kept": (r"^D7\.1\.1 .*resemble", r"server_no_context", 2),
    "window": (r"^D7\.1\.2 a window.*server's, no", r"\^(8|9|10|11|12|13|14),", 5),
    "rsv1_control": (r"^D6(\.1)? (RSV|control)", r"control", 10),
    "rsv1_continuation": (r"^D6(\.1)? (RSV|control)", r"continuation", 5),
    "unpacked": (r"^D6 RSV1 of 0", r".", 1),
    "ended_early": (r"^D7\.2\.2 a (broken stream \[|stream that)", r"ends in|longer|behind a final", 3),
    "final_stops": (r"^D7\.2\.[13]", r"final|as one conversation", 4),
    "lenient": (r"^D7\.2\.2 a broken", r".", 20),
    "bomb": (r"^D10 a bomb of 17", r".", 2),
    "packed_limit": (r"^D8\.1 compressed text that is UTF|^D6 65\d+ bytes.*(one frame|of 1000)", r"random (text|bin)", 4),
    "packed_utf8": (r"^D8\.1 compressed text that is not", r"1007", 30),
    "between": (r"^D6\.1 (every|control)", r"Ping|control", 2),
}


class Bad(Exception):
    def __init__(self, code):
        self.code = code


OFFER = re.compile(rb"permessage-deflate((?:[ \t]*;[ \t]*[a-z_]+(?:=(?:\d+|\"\d+\"))?)*)[ \t]*")


class Deflate:
    """RFC 7692 of the stand-in server."""

    def __init__(self, fault):
        self.fault, self.on, self.params, self.answer = fault, False, {}, b""

    def read(self, text):
        """Parameters of an offer, or None."""
        found, params = OFFER.fullmatch(text.strip()), {}
        if not found:
            return {} if self.fault == "offer_any" and text.strip().startswith(b"permessage-deflate;") else None
        for word in found[1].split(b";")[1:]:
            key, equals, value = word.strip().partition(b"=")
            value = value.strip(b'"')
            good = {b"server_no_context_takeover": not equals, b"client_no_context_takeover": not equals,
                    b"server_max_window_bits": equals, b"client_max_window_bits": True}.get(key, False)
            if equals:
                good = good and (re.fullmatch(rb"[89]|1[0-5]", value.lstrip(b"0") if self.fault == "offer_zero" else value))
            if (not good or key in params and self.fault != "offer_twice") and self.fault != "offer_any":
                return None
            params[key] = int(value or 15) if good else 15
        return params

    def agree(self, head):
        fields = re.findall(rb"\r\nSec-WebSocket-Extensions: *([^\r]*)", head)
        offers = b",".join(fields[:1] if self.fault == "offer_field" else fields).split(b",")
        for text in offers[:1] if self.fault == "offer_first" else offers:
            params = self.read(text)
            if params is not None and params.get(b"server_max_window_bits") != 8:
                self.on, self.params = True, params
                break
        if not self.on and self.fault != "answer_always":
            return b""
        say = [b"permessage-deflate", b"client_no_context_takeover"]
        if b"server_no_context_takeover" in self.params and self.fault != "answer_fresh":
            say.append(b"server_no_context_takeover")
        bits = self.params.get(b"server_max_window_bits")
        if bits:
            say.append(b"server_max_window_bits=%d" % (bits + 1 if self.fault == "answer_wide" and bits < 15 else bits))
        if self.fault == "answer_bits":
            say.append(b"client_max_window_bits=15")
        value = b"; ".join(say)
        return b"Sec-WebSocket-Extensions: " + (value + b", " + value if self.fault == "answer_twice" else value) + b"\r\n"

    out = None

    def pack(self, data):
        fresh = b"server_no_context_takeover" in self.params and self.fault != "kept"
        if fresh or self.out is None:
            bits = 15 if self.fault == "window" else self.params.get(b"server_max_window_bits", 15)
            self.out = zlib.compressobj(6, zlib.DEFLATED, -bits)
        return (self.out.compress(data) + self.out.flush(zlib.Z_SYNC_FLUSH))[:-4]

    def unpack(self, payload):
        d, out = zlib.decompressobj(-15), b""
        limit = (64 if self.fault == "bomb" else 16) << 20
        data = payload + TAIL
        try:
            while True:
                out += d.decompress(data, limit + 1 - len(out))
                if len(out) > limit:
                    raise Bad(1009)
                if not d.eof or not d.unused_data or self.fault == "final_stops":
                    break
                data, d = d.unused_data, zlib.decompressobj(-15, zdict=out[-32768:])
            # At the end of a block another one can follow.
            if self.fault not in ("ended_early", "final_stops"):
                if d.eof or d.decompress(MARK) != b"MARK" or not d.eof:
                    raise Bad(1007)
        except zlib.error:
            if self.fault != "lenient":
                raise Bad(1007) from None
        return out


MARK = Bits().fixed(b"MARK", final=1).done()


class Echo:
    """One connection of the stand-in server."""

    def __init__(self, fault, reader, writer):
        self.fault, self.r, self.w = fault, reader, writer
        self.flate = Deflate(fault)

    def put(self, op, data):
        packed = op < 8 and self.flate.on and len(data) > 64
        if packed:
            data = self.flate.pack(data)
        if packed and self.fault != "rsv_all" or self.fault == "rsv_all" and self.flate.on:
            op |= 0x40
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
                     b"Sec-WebSocket-Accept: " + accept + b"\r\n" + self.flate.agree(head) + b"\r\n")
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

    def rsv_is_bad(self, first):
        rsv, code = first & 0x70, first & 15
        if rsv == 0x40 and self.flate.on:
            return (code >= 8 and self.fault != "rsv1_control") or (code == CONT and self.fault != "rsv1_continuation")
        return rsv and self.fault != "rsv"

    async def frames(self):
        op, parts, held, packed = None, [], [], False
        while True:
            first, second = await self.r.readexactly(2)
            fin, code, n = first & 0x80, first & 15, second & 127
            if self.rsv_is_bad(first):
                raise Bad(1002)
            if code in (TEXT, BINARY) and op is None:
                packed = bool(first & 0x40) or self.fault == "unpacked" and self.flate.on
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
            data = await self.payload(n, key, code, text if kind == TEXT and not packed else None)
            if code == CLOSE:
                self.close(data)
            elif code == PING:
                if self.fault in ("pong_late", "between") and op is not None:
                    held.append(data)
                else:
                    self.put(10, b"" if self.fault == "pong_empty" else data)
            elif code < 8:
                op = code if code != CONT or op is None else op
                op = op or BINARY
                parts.append(data)
                if fin:
                    whole = b"".join(parts)
                    if packed:
                        if self.fault == "packed_limit" and len(whole) > 65000:
                            raise Bad(1009)
                        whole = self.flate.unpack(whole)
                        if op == TEXT and self.fault != "packed_utf8" and first_bad(whole) is not None:
                            raise Bad(1007)
                    elif op == TEXT and self.fault != "utf8" and first_bad(whole) is not None:
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
    options = run.parse(["--url", "-", "--limit", "3" if fault not in ("", "deflate") else "8"])
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
    rows = {f: row for f, row in FAULTS.items() if len(sys.argv) < 2 or re.search(sys.argv[1], f)}
    with concurrent.futures.ProcessPoolExecutor(4) as pool:  # they mostly wait
        complaints = pool.map(judge, rows, *zip(*rows.values()))
    for fault, complaint in zip(rows, complaints):
        count[not complaint] += 1
        if complaint:
            print(f"FAILED {fault or 'no fault'}: {complaint}", flush=True)
    print(f"{count[True]} passed, {count[False]} failed")
    return 1 if count[False] else 0


if __name__ == "__main__":
    sys.exit(main())
