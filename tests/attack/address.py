"""Whose address a connection has: PROXY headers and forwarded fields count from trusted peers only (hardening 2, 13)."""
import asyncio
import re
import socket
import struct

from harness import check, scene

OURS, STRANGER = "127.0.0.1", "127.7.7.7"
SETTINGS = {"log.level": "debug", "log.rate": "0", "http.header_timeout": "1s", "ws.close_timeout": "500ms"}
P = scene("proxy", {**SETTINGS, "worker.listen": "tcp://0.0.0.0:0?proxy=on", "http.trusted_proxies": OURS + ",10.0.0.0/8"})
X = scene("x-forwarded-for", {**SETTINGS, "worker.listen": "tcp://0.0.0.0:0", "http.trusted_proxies": OURS + ",10.0.0.0/8"})
F = scene("forwarded", {**SETTINGS, "worker.listen": "tcp://0.0.0.0:0", "http.trusted_proxies": OURS,
                        "http.client_field": "forwarded"})
N = scene("nobody trusted", {**SETTINGS, "worker.listen": "tcp://0.0.0.0:0"})


def v1(source, family="TCP4"):
    return f"PROXY {family} {source} {source} 4711 443\r\n".encode()


def v2(source, tlvs=b"", command=1):
    v6 = ":" in source
    a = socket.inet_pton(socket.AF_INET6 if v6 else socket.AF_INET, source)
    body = a + a + struct.pack(">HH", 4711, 443) + tlvs
    return b"\r\n\r\n\0\r\nQUIT\n" + bytes([0x20 | command, 0x21 if v6 else 0x11]) + struct.pack(">H", len(body)) + body


async def goes(ctx, p, extra=b"", head=b"", pieces=False):
    """Shakes hands on a connection that begins with `head`, and leaves; returns the address in the log."""
    seen = len(ctx.server.log())
    raw = head + p.request(extra=extra)
    p.send(*([bytes([c]) for c in raw] if pieces else [raw]))
    await p.expect_upgrade()
    p.say({"event": "#handshake", "data": {"authToken": None}, "cid": 1})
    await p.answer(1)
    await p.leave()
    line = await ctx.until("the end is in the log", lambda: re.search(r"peer_closed .*client=(\S+)", ctx.server.log()[seen:]))
    return line[1]


async def is_client(ctx, address, source=OURS, **how):
    got = await goes(ctx, await ctx.tcp(source=source), **how)
    check(got == address, f"client={got} instead of {address} for {how}")


async def is_refused(ctx, raw, source=OURS):
    s = ctx.server
    before = s.total("close_proxy")
    p = await ctx.tcp(source=source)
    p.send(raw)
    await p.expect_end()
    await ctx.until("counted", lambda: s.total("close_proxy") == before + 1)


@P.case("a PROXY header names the client, in both versions, whole and byte by byte")
async def named(ctx):
    for pieces in (False, True):
        await is_client(ctx, "192.0.2.1", head=v1("192.0.2.1"), pieces=pieces)
        await is_client(ctx, "2001:db8::7", head=v1("2001:db8::7", "TCP6"), pieces=pieces)
        await is_client(ctx, "192.0.2.2", head=v2("192.0.2.2"), pieces=pieces)
        await is_client(ctx, "2001:db8::8", head=v2("2001:db8::8", b"\x04\0\x10" + bytes(16)), pieces=pieces)
    check(ctx.server.total("proxy_headers_total") == 8, "not counted")


@P.case("a health check, UNKNOWN and a UNIX client are the balancer itself")
async def unnamed(ctx):
    await is_client(ctx, OURS, head=v2("192.0.2.1", command=0))
    await is_client(ctx, OURS, head=b"PROXY UNKNOWN\r\n")
    await is_client(ctx, OURS, head=b"\r\n\r\n\0\r\nQUIT\n\x21\x31\0\xd8" + bytes(216))
    p = await ctx.tcp(source=OURS)
    p.end()  # a check of TCP alone


@P.case("without a header, with a broken one, or with half of one, a connection is refused and counted")
async def broken(ctx):
    whole = v2("192.0.2.1")
    await is_refused(ctx, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    await is_refused(ctx, b"\x16\x03\x01\x02\0\x01")
    await is_refused(ctx, b"PROXY TCP4 1.2.3.4 5.6.7.8 1 99999\r\n")
    await is_refused(ctx, whole[:12] + b"\x31" + whole[13:])
    await is_refused(ctx, v2("192.0.2.1", b"\x03\0\x04abcd"))
    await is_refused(ctx, v2("192.0.2.1", b"\x04\xff\xff"))
    await is_refused(ctx, whole[:20])  # and then nothing: ends at http.header_timeout
    await is_refused(ctx, b"PROXY TCP4 1.2")


@P.case("from an address that is not trusted a proxy listener takes nothing")
async def untrusted(ctx):
    await is_refused(ctx, b"", source=STRANGER)
    await is_refused(ctx, v1("192.0.2.1"), source=STRANGER)
    check("client=" + STRANGER in ctx.server.log(), "the stranger is not in the log")


@P.case("behind the header: a trusted hop's X-Forwarded-For counts, a client's does not")
async def chained(ctx):
    await is_client(ctx, "198.51.100.9", head=v1("10.1.1.1"), extra=b"X-Forwarded-For: 198.51.100.9\r\n")
    await is_client(ctx, "192.0.2.1", head=v1("192.0.2.1"), extra=b"X-Forwarded-For: 198.51.100.9\r\n")


@P.case("a flood of headers byte by byte, and of broken ones, leaves nothing", deadline=30)
async def flood(ctx):
    async def one(i):
        p = await ctx.tcp(source=OURS)
        head = v2("192.0.2.1", b"\x04\x01\0" + bytes(256)) if i % 2 else v1("192.0.2.1")
        p.send(*[bytes([c]) for c in head[: 1 + i * 7 % len(head)]])
        await p.sent()
        p.reset() if i % 3 else p.end()
    await asyncio.gather(*(one(i) for i in range(200)))
    await is_client(ctx, "192.0.2.1", head=v1("192.0.2.1"))


@X.case("the rightmost entry that is not a proxy of ours is the client")
async def rightmost(ctx):
    async def xff(value, address):
        await is_client(ctx, address, extra=b"X-Forwarded-For: " + value + b"\r\n")
    await xff(b"192.0.2.1", "192.0.2.1")
    await xff(b"203.0.113.1, 192.0.2.1, 10.2.2.2", "192.0.2.1")
    await xff(b"2001:db8::1", "2001:db8::1")
    await xff(b"192.0.2.1, unknown", OURS)
    await xff(b"203.0.113.1\r\nX-Forwarded-For: 192.0.2.1", "192.0.2.1")
    await is_client(ctx, OURS)
    await is_client(ctx, OURS, extra=b"Forwarded: for=192.0.2.1\r\n")


@F.case("Forwarded is read when the settings say so, and X-Forwarded-For is not")
async def rfc7239(ctx):
    await is_client(ctx, "2001:db8::7", extra=b"Forwarded: for=203.0.113.1, for=\"[2001:db8::7]:4711\";proto=https\r\n")
    await is_client(ctx, OURS, extra=b"X-Forwarded-For: 192.0.2.1\r\n")


@F.case("a Forwarded whose quote swallows what the proxy added is refused")
async def swallowed(ctx):
    await ctx.http(b"GET / HTTP/1.1\r\nHost: x\r\nForwarded: for=\"192.0.2.1, for=198.51.100.7\r\n\r\n", 400)


@X.case("spoofed fields of a stranger are ignored")
async def spoofed(ctx):
    for field in (b"X-Forwarded-For: 192.0.2.1\r\n", b"X-Forwarded-For: 127.0.0.1\r\n", b"Forwarded: for=192.0.2.1\r\n"):
        await is_client(ctx, STRANGER, source=STRANGER, extra=field)


@N.case("with nobody trusted, nobody is believed, and a PROXY header is no request")
async def nobody(ctx):
    await is_client(ctx, OURS, extra=b"X-Forwarded-For: 192.0.2.1\r\n")
    await ctx.http(v1("192.0.2.1") + b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 400)
