"""Heads of requests: slow, oversized, broken, and what comes behind them (hardening section 3)."""
import asyncio
import time

from harness import check, frame, idle, scene, TEXT, text

S = scene("heads", {"http.header_timeout": "700ms", "ws.close_timeout": "500ms", "sc.handshake_timeout": "700ms",
                    "http.leading_empty_lines": "4"})
LISTED = (b"https://example.com", b"http://localhost:3000", b"http://[::1]:8080", b"null")
EVIL = b"https://" + b"evil.test"
O = scene("origins", {"http.origins": b",".join(LISTED).decode()})
HEAD = b"GET %s HTTP/1.1\r\nHost: x\r\n"
UP = (b"GET /socketcluster/ HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
      b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n")


async def together(*runs):
    await asyncio.gather(*runs)


@S.case("oversized request lines and headers are refused, whole or byte by byte")
async def oversized(ctx):
    await together(
        ctx.http(HEAD % (b"/" + b"a" * 9000) + b"\r\n", 414),
        ctx.http(HEAD % b"/" + b"X: " + b"y" * 17000 + b"\r\n\r\n", 431),
        ctx.http(HEAD % b"/" + b"".join(b"X%d: y\r\n" % i for i in range(120)) + b"\r\n", 431),
        ctx.http(b"\r\n" * 9 + HEAD % b"/" + b"\r\n", 400))
    p = await ctx.tcp()
    p.send(*[bytes([c]) for c in b"GET /" + b"b" * 9000])
    r = await p.response()
    check(r is not None and r.status == 414, f"trickled line: {r and r.status}")


@S.case("trickled and silent heads end at http.header_timeout")
async def trickled(ctx):
    async def one(raw, every):
        p = await ctx.tcp()
        begin = time.monotonic()

        async def drip():
            for c in raw:
                p.send(bytes([c]))
                await asyncio.sleep(every)
        task = asyncio.create_task(drip())
        try:
            r = await p.response(limit=5)
            check(r is None or r.status == 408, f"{r and r.status} instead of 408")
            if r is None and p.eof is None:
                await p.expect_end(limit=5)
        finally:
            task.cancel()
        took = time.monotonic() - begin
        check(0.5 < took < 4, f"ended after {took:.2f} s, header_timeout is 0.7 s")
    await together(one(UP, 0.02), one(b"", 1), one(b"G", 1), one(UP, 0.1), one(b"\r\n\r\n", 0.3))


@S.case("what is no well-formed HTTP/1.1 head is refused")
async def broken(ctx):
    bad = [b"\x17\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40), bytes(range(256)) * 4,
           b"SSH-2.0-OpenSSH\r\n\r\n", b"GET /\r\n\r\n", b"GET / http/1.1\r\nHost: x\r\n\r\n",
           b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n",
           b"GET / HTTP/1.1\r\nHost: x\r\nnocolon\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n: v\r\n\r\n",
           b"GET / HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\rA: b\r\n\r\n",
           b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n",
           b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
           b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
           b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
           b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
           UP + b"Content-Length: 4\r\n\r\nabcd", UP + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"]
    await together(*(ctx.http(b, 400, 501, 505) for b in bad),
                   ctx.http(b"GET / HTTP/1.0\r\nHost: x\r\n\r\n", 400, 426, 505, 200),
                   ctx.http(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, 505),
                   ctx.http(UP.replace(b"GET", b"POST", 1) + b"\r\n", 405),
                   ctx.http(UP.replace(b": 13", b": 12") + b"\r\n", 426, 400),
                   ctx.http(UP.replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"short") + b"\r\n", 400),
                   *(ctx.http(UP.replace(b"/socketcluster/", p) + b"\r\n", 404, 400)
                     for p in (b"/SocketCluster/", b"//socketcluster/", b"/socketcluster/../socketcluster/",
                               b"/%73ocketcluster/", b"/socketcluster//", b"/socketclusterx")))


@S.case("a second request behind the upgrade is WebSocket data: 1002")
async def second(ctx):
    p = await ctx.tcp()
    p.send(UP + b"\r\n" + UP + b"\r\n")
    await p.expect_upgrade()
    await p.closed(1002)


@S.case("frames in the segment of the request are served")
async def glued(ctx):
    p = await ctx.tcp()
    p.send(UP + b"\r\n" + text({"event": "#handshake", "data": {}, "cid": 9}))
    await p.expect_upgrade()
    check((await p.packet())["rid"] == 9, "no welcome")


@S.case("pipelined requests are answered in order or the connection closes; 400 deep")
async def pipelined(ctx):
    p = await ctx.tcp()
    p.send((HEAD % b"/" + b"\r\n") * 400)
    r = await p.response()
    check(r is not None and r.status in (200, 404), f"{r and r.status}")


@S.case("half-closed and reset in every phase of the opening")
async def phases(ctx):
    whole = UP + b"\r\n" + text({"event": "#handshake", "data": {}, "cid": 1}) + text({"event": "x"})[:9]
    cuts = list(range(0, len(whole), 7)) + [len(whole)]

    async def one(cut, fin):
        p = await ctx.tcp()
        p.send(whole[:cut])
        await p.sent()
        if fin:
            p.send_fin()
            while await p._more(4):
                pass
        else:
            await asyncio.sleep(0.01 * (cut % 3))
            p.reset()
    await together(*(one(c, fin) for c in cuts for fin in (True, False)))


@S.case("4000 connections that come and are reset leave nothing", deadline=30)
async def churn(ctx):
    fds = ctx.server.fds()
    for _ in range(20):
        peers = await ctx.many(200, ctx.tcp)
        for i, p in enumerate(peers):
            if i % 2:
                p.send(UP + b"\r\n" * (i % 3))
        await asyncio.sleep(0)
        for i, p in enumerate(peers):
            p.reset() if i % 3 else p.end()
        ctx.peers = []
    await ctx.until("descriptors back", lambda: ctx.server.fds() <= fds + 2)


@S.case("300 unfinished heads of 15 KiB cost what arrived, and nothing afterwards")
async def unfinished(ctx):
    s = ctx.server
    before = s.total("buffers_bytes")
    peers = await ctx.many(300, ctx.tcp)
    came, piece = s.total("bytes_in_total"), b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 15000
    for p in peers:
        p.send(piece)
    await ctx.until("all of it", lambda: s.total("bytes_in_total") >= came + 300 * len(piece))
    check(s.total("buffers_bytes") - before < 300 * 40000, "more than twice what arrived")
    ctx.end()
    await ctx.until("the buffers are released", lambda: s.total("buffers_bytes") <= before + 65536)


@S.case("no handshake in time: 4005; anything else first: 4009, nothing of it done")
async def unshaken(ctx):
    async def first(raw, *codes):
        p = await ctx.ws()
        p.send(raw)
        await p.closed(*codes)
    pub = {"event": "#publish", "data": {"channel": "z"}, "cid": 3}
    shake = {"event": "#handshake", "data": {}, "cid": 1}
    p = await ctx.ws()
    await together(first(b"", 4005), first(b"\x89\x80abcd", 4005), first(text(pub), 4009), first(text([pub, shake]), 4009),
                   first(frame(TEXT, b""), 4009), first(text(b"raw"), 4009), first(text({"event": "#handshake"}), 4008),
                   first(text({"event": "#handshake", "cid": "x", "data": {}}), 4008),
                   first(text(b'[]'), 4005), first(text({"rid": 1}), 4009), p.closed(4005))
    check(ctx.server.total("publishes_in_total") == 0, "a publish before the handshake was done")


@S.case("an idle server sleeps")
async def quiet(ctx):
    await idle(ctx, "nothing is connected", limit=0.02)


async def from_origin(ctx, *origins):
    """Status of an upgrade that says it comes from there, a publish in the same segment."""
    p = await ctx.tcp()
    p.send(UP + b"".join(b"Origin: " + o + b"\r\n" for o in origins) + b"\r\n"
           + text({"event": "#handshake", "data": {}, "cid": 1}) + text({"event": "#publish", "data": {"channel": "o"}}))
    r = await p.response()
    check(r is not None, "no answer")
    if r.status == 101:
        check((await p.packet())["rid"] == 1, "no welcome")
    else:
        check(r.has_token("Connection", b"close"), "no Connection: close")
        await p.expect_end()
    return r.status


@O.case("an Origin in http.origins may connect, and who sends none; the whole entry is compared: 403, nothing behind it done")
async def origins(ctx):
    s = ctx.server
    for o in LISTED:
        check(await from_origin(ctx, o) == 101, f"{o} was refused")
    check(await from_origin(ctx) == 101, "no Origin was refused")
    done, refused = s.total("publishes_in_total"), s.total("refused_origins_total")
    # What could be taken for a listed one by its beginning, its end, its case or its port.
    hosts = (b"evil.test", b"example.com.evil.test", b"example.co", b"example.comm", b"example.com:443", b"example.com:8443", b"example.com/",
             b"EXAMPLE.com", b"sub.example.com", b"xexample.com", b"example.com https://example.com", b"example.com\xc2\xa0",
             b"example.com%00", b"example.com,null", b"a" * 4000)
    strangers = [b"https://" + h for h in hosts] + [b"http://" + h for h in (b"example.com", b"localhost", b"localhost:30000", b"[::1]")]
    strangers += [b"xhttps://example.com", b"example.com", b"Null", b"nul", b"*", b""]
    for o in strangers:
        check(await from_origin(ctx, o) == 403, f"{o[:40]} was let in")
    for pair in ((LISTED[0], LISTED[0]), (LISTED[0], EVIL), (EVIL, LISTED[0])):
        check(await from_origin(ctx, *pair) in (400, 403), f"{pair} was let in")
    check(s.total("publishes_in_total") == done, "a publish behind a 403 was done")
    check(s.total("refused_origins_total") >= refused + len(strangers), "not counted")
    await ctx.http(b"GET /nosuch HTTP/1.1\r\nHost: x\r\nOrigin: " + EVIL + b"\r\n\r\n", 404)


@S.case("with http.origins = *, any page may connect")
async def any_origin(ctx):
    for o in (EVIL, b"null", b"x"):
        check(await from_origin(ctx, o) == 101, f"{o} was refused")
