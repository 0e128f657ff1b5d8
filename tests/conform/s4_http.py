"""What reaches a WebSocket port besides good requests: HTTP by RFC 9112, section 3 of the hardening
rules row by row. Names that begin with H3 cite that section."""
import base64
import os

from s4_opening import accepted, head, refused
from suite import add, case
from wire import CLOSE, TEXT, check, chop, close_body, frame

GET = b"GET / HTTP/1.1\r\nHost: x\r\n"


async def t_raw(ctx, text, statuses):
    await refused(ctx, text, statuses, marker=b"zzmarkerzz")


async def t_field(ctx, extra, statuses, drop=()):
    await refused(ctx, head(ctx, extra=extra, drop=drop), statuses, marker=b"zzmarkerzz")


# ---- malformed heads ----

for note, line in {
    "a bare CR in a value": b"X: a\rb", "a bare CR before the line end": b"X: a\r", "NUL in a value": b"X: a\0b",
    "NUL in a name": b"X\0: a", "DEL in a value": b"X: a\x7fb", "a blank before the colon": b"X : a",
    "a tab before the colon": b"X\t: a", "a folded line": b"X: a\r\n b", "a line folded by a tab": b"X: a\r\n\tb",
    "no colon": b"zzmarkerzz", "an empty name": b": a", "a colon only": b":", "a leading blank": b" X: a",
    "a name above 127": b"X\xe9: a",
}.items():
    add("H3", f"a malformed header field: 400 [{note}]", t_field, line + b"\r\n", {400})
for c in [*range(1, 9), 11, 12, *range(14, 32)]:
    add("H3", f"a control byte in a field value: 400 [{c:#04x}]", t_field, b"X: a" + bytes([c]) + b"b\r\n", {400})
for c in b"(),/;<=>?@[\\]{}\" ":
    add("H3", f"a field name that is no token: 400 [{chr(c)!r}]", t_field, b"X" + bytes([c]) + b"Y: a\r\n", {400})


async def t_first_fold(ctx):
    await refused(ctx, head(ctx).replace(b"\r\nHost", b"\r\n Host", 1), {400})

add("H3", "white space between the request line and the first field: 400 (RFC 9112 section 2.2)", t_first_fold)

for note, text in {
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "SMTP": b"EHLO example.com\r\n\r\n",
    "Redis": b"*1\r\n$4\r\nPING\r\n\r\n", "binary noise": bytes(range(128, 256)) * 2 + b"\r\n\r\n",
    "zeros": bytes(64) + b"\r\n\r\n", "a blank first": b" GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n", "no target": b"GET HTTP/1.1\r\nHost: x\r\n\r\n",
    "a blank too many": b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n", "tabs": b"GET\t/\tHTTP/1.1\r\nHost: x\r\n\r\n",
    "a bare CR in the request line": b"GET /\r HTTP/1.1\r\nHost: x\r\n\r\n",
    "NUL in the method": b"G\0T / HTTP/1.1\r\nHost: x\r\n\r\n",
    "NUL in the target": b"GET /zzmarkerzz\0 HTTP/1.1\r\nHost: x\r\n\r\n",
    "blank lines of spaces": b"  \r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "only a version": b"HTTP/1.1\r\n\r\n", "an answer": b"HTTP/1.1 200 OK\r\n\r\n",
    "a method that is no token": b"G(T / HTTP/1.1\r\nHost: x\r\n\r\n",
    "four words": b"GET / x HTTP/1.1\r\nHost: x\r\n\r\n", "no method": b" / HTTP/1.1\r\nHost: x\r\n\r\n",
}.items():
    add("H3", f"not an HTTP/1.1 head: 400 [{note}]", t_raw, text, {400, 505})


@case("H3", "a TLS hello where none is spoken: an alert (RFC 8446 section 6), or 400")
async def t_hello(ctx):
    p = await ctx.tcp()
    p.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xab" * 32 + b"\r\n\r\n")
    while await p._more():
        pass
    fatal = len(p.buf) == 7 and p.buf[0] == 21 and p.buf[5] == 2
    check(fatal or p.buf.startswith(b"HTTP/1.1 400 "), f"{bytes(p.buf[:40])}")
add("H3", "the HTTP/2 preface: 400 or 505", t_raw, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400, 505})

# ---- Host ----

add("H3", "no Host: 400", t_field, b"", {400}, ("host",))
add("H3", "Host twice, the same: 400", t_raw, b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", {400})
add("H3", "Host twice, different: 400", t_raw, b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", {400})
add("H3", "Host in another letter case counts: 400", t_raw, b"GET / HTTP/1.1\r\nHost: a\r\nhOST: b\r\n\r\n", {400})
for v in [b"a b", b"a/b", b"a\\b", b"<a>", b"a@b", b"a\"b", b"a?b", b"a#b", b"http://a", b"a{}", b"a|b",
          b"a\xe9", b"a:80:80", b"a:b", b"[::1", b"a^b", b"a`b"]:
    async def t_host(ctx, v):
        await refused(ctx, head(ctx, host=v), {400})
    add("H3", f"Host with illegal characters: 400 [{v.decode('latin-1')!r}]", t_host, v)

# ---- bodies and smuggling ----

for note, fields in {
    "Content-Length repeated, different": b"Content-Length: 5\r\nContent-Length: 6\r\n",
    "Content-Length list, different": b"Content-Length: 5, 6\r\n",
    "Content-Length 0 and 5": b"Content-Length: 0\r\nContent-Length: 5\r\n",
    "Content-Length: +5": b"Content-Length: +5\r\n", "Content-Length: -1": b"Content-Length: -1\r\n",
    "Content-Length: 0x5": b"Content-Length: 0x5\r\n", "Content-Length: 5a": b"Content-Length: 5a\r\n",
    "Content-Length: 5 5": b"Content-Length: 5 5\r\n", "Content-Length: 1_0": b"Content-Length: 1_0\r\n",
    "Content-Length: empty": b"Content-Length:\r\n", "Content-Length: 5.0": b"Content-Length: 5.0\r\n",
    "Content-Length: 2^63": b"Content-Length: 9223372036854775808\r\n",
    "Content-Length: 2^64": b"Content-Length: 18446744073709551616\r\n",
    "Content-Length: 2^64+5": b"Content-Length: 18446744073709551621\r\n",
    "Content-Length: 200 digits": b"Content-Length: " + b"9" * 200 + b"\r\n",
    "Content-Length and Transfer-Encoding": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding and Content-Length": b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
}.items():
    add("H3", f"lengths that disagree or are none: 400 [{note}, upgrade]", t_field, fields, {400})
    add("H3", f"lengths that disagree or are none: 400 [{note}, GET]", t_raw, GET + fields + b"\r\n", {400})
for v in [b"xchunked", b"chunkedx", b"identity", b"gzip", b"gzip, chunked", b"chunked, chunked", b"chunked, gzip",
          b"\x0bchunked", b"chunked\x0c", b"chunked;q=1", b"\"chunked\"", b"chu nked", b"", b",chunked,x",
          b"chunked\xa0"]:
    add("H3", f"a transfer coding other than exactly chunked: 400 or 501 [{v.decode('latin-1')!r}]", t_raw,
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: " + v + b"\r\n\r\n0\r\n\r\n", {400, 501})
add("H3", "Transfer-Encoding twice: 400 or 501", t_raw,
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n", {400, 501})

for note, body in {
    "no digit": b"\r\nx\r\n0\r\n\r\n", "not hexadecimal": b"g\r\n", "negative": b"-1\r\n", "0x": b"0x1\r\na\r\n0\r\n\r\n",
    "2^64": b"10000000000000000\r\n", "2^64 + 1": b"10000000000000001\r\na\r\n0\r\n\r\n",
    "100 digits": b"f" * 100 + b"\r\n", "data longer than said": b"1\r\nabc\r\n0\r\n\r\n",
    "a long extension": b"1;" + b"x" * 70000 + b"\r\na\r\n0\r\n\r\n", "bare LF": b"1\na\n0\n\n",
    "a blank before the size": b" 1\r\na\r\n0\r\n\r\n", "a good body": b"3\r\nabc\r\n0\r\n\r\n",
}.items():
    add("H3", f"a chunked body nobody takes is refused and never a request [{note}]", t_raw,
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + body,
        {400, 404, 405, 411, 413, 501})


@case("H3", "an upgrade request that announces a body: 400, the body never taken for frames")
async def t_upgrade_body(ctx):
    body = frame(TEXT, b"smuggled") + frame(CLOSE, close_body(1000))
    await refused(ctx, head(ctx, extra=b"Content-Length: %d\r\n" % len(body)) + body, {400})


@case("H3", "an upgrade request that announces chunks: 400, the body never taken for frames")
async def t_upgrade_chunks(ctx):
    body = frame(TEXT, b"smuggled")
    text = head(ctx, extra=b"Transfer-Encoding: chunked\r\n") + b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"
    await refused(ctx, text, {400, 501})


@case("H3", "an upgrade hidden in the body of a POST is never answered with 101")
async def t_smuggled_upgrade(ctx):
    inner = head(ctx)
    await refused(ctx, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(inner) + inner,
                  {400, 404, 405, 411, 413, 501})


@case("H3", "an upgrade hidden in the body of a GET is never answered with 101")
async def t_smuggled_get(ctx):
    inner = head(ctx)
    p = await ctx.tcp()
    p.send(b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(inner) + inner)
    r = await p.response()
    check(r is not None and r.status != 101, f"{r and r.status}")
    while (r := await p.response()) is not None:
        check(False, f"a second answer, {r.status}, from inside the body")


@case("H3", "a refused upgrade closes: what follows is neither frames nor a request")
async def t_refused_then_more(ctx):
    await refused(ctx, head(ctx, ws=b"12") + frame(TEXT, b"x") + head(ctx), {400, 426})


@case("H3", "behind an error no further request is served, on whatever path")
async def t_error_then_more(ctx):
    await refused(ctx, b"GET /nosuch HTTP/1.1\r\nHost: x\r\n\r\n" + head(ctx) * 3, {404})


# ---- sizes ----

async def t_long_target(ctx, n, pieces, statuses):
    p = await ctx.tcp()
    text = b"GET /" + b"x" * n + b" HTTP/1.1\r\nHost: x\r\n\r\n"
    p.send(*chop(text, pieces or len(text)))
    r = await p.response()
    check(r is not None and r.status in statuses, f"{r and r.status} instead of {statuses}")
    await p.expect_end()


for n in (8192, 9000, 16300, 70000):
    add("H3", f"a request line above 8 KiB: 414 [{n}, at once]", t_long_target, n, 0, {414})
    add("H3", f"a request line above 8 KiB: 414 [{n}, in pieces of 100]", t_long_target, n, 100, {414})
add("H3", "a request line above 8 KiB: 414 [byte by byte]", t_long_target, 8300, 1, {414})
add("H3", "a request line below 8 KiB is read: 404", t_long_target, 8000, 0, {404})
add("H3", "a request line below 8 KiB is read: 404 [in pieces of 7]", t_long_target, 8000, 7, {404})


async def t_endless(ctx, start, piece, total, statuses):
    """A head that never ends is answered at the limit, not at its end."""
    p = await ctx.tcp()
    p.send(start, *[piece] * (total // len(piece)))
    r = await p.response()
    check(r is not None and r.status in statuses, f"{r and r.status} instead of {statuses}")
    await p.expect_end()


add("H3", "a request line without an end: 414 at the limit", t_endless, b"GET /", b"x" * 64, 9000, {414})
add("H3", "a method without an end: refused at the limit", t_endless, b"", b"G" * 64, 9000, {400, 414, 501})
add("H3", "a field without an end: 431 at the limit", t_endless, GET + b"X: ", b"x" * 64, 17000, {431})
add("H3", "a field name without an end: 431 at the limit", t_endless, GET, b"x" * 64, 17000, {431})
add("H3", "fields without an end: 431 at the limit", t_endless, GET, b"X: y\r\n", 17000, {431})
add("H3", "a field without an end, byte by byte: 431", t_endless, GET + b"X: ", b"x", 16500, {431})
add("H3", "empty lines without an end: 400", t_endless, b"", b"\r\n", 64, {400})


async def t_head_size(ctx, total, ok):
    text = head(ctx, extra=b"X: %s\r\n")
    text = text.replace(b"%s", b"y" * (total - len(text) + 2))
    if ok:
        await accepted(ctx, text)
    else:
        await refused(ctx, text, {431})


for n, ok in ((16000, True), (16384, True), (16385, False), (16500, False), (40000, False)):
    add("H3", f"a head of {n} bytes: {'accepted' if ok else '431'}", t_head_size, n, ok)


async def t_fields(ctx, n, ok):
    text = head(ctx, extra=b"".join(b"X-%d: 1\r\n" % i for i in range(n - 5)))
    if ok:
        await accepted(ctx, text)
    else:
        await refused(ctx, text, {431})


for n, ok in ((50, True), (99, True), (100, True), (101, False), (102, False), (500, False)):
    add("H3", f"{n} header fields: {'accepted' if ok else '431'}", t_fields, n, ok)

for n in range(1, 5):
    async def t_empty_ok(ctx, n):
        await accepted(ctx, b"\r\n" * n + head(ctx))
    add("H3", f"{n} empty lines in front of the request are tolerated", t_empty_ok, n)
for n in (5, 6, 100):
    async def t_empty_bad(ctx, n):
        await refused(ctx, b"\r\n" * n + head(ctx), {400})
    add("H3", f"{n} empty lines in front of the request: 400", t_empty_bad, n)

# ---- ordinary HTTP ----


@case("H3", "an unknown path: 404 with a body of the announced length, closing")
async def t_404(ctx):
    r = await refused(ctx, b"GET /zzmarkerzz HTTP/1.1\r\nHost: x\r\n\r\n", {404}, marker=b"zzmarkerzz")
    check(r.get("Content-Length") is not None, "no Content-Length")


@case("H3", "HEAD has the fields of GET and no body (RFC 9110 section 9.3.2)")
async def t_head(ctx):
    p = await ctx.tcp()
    p.send(b"HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    r = await p.response(head_only=True)
    check(r is not None and r.status in {200, 404, 405}, f"{r and r.status}")
    await p.expect_end()


@case("H3", "GET / is answered, and Connection: close is obeyed")
async def t_get(ctx):
    p = await ctx.tcp()
    p.send(GET + b"Connection: close\r\n\r\n")
    r = await p.response()
    check(r is not None and r.status in {200, 404, 426}, f"{r and r.status}")
    await p.expect_end(clean=True)


@case("H3", "pipelined requests are answered in order, or the connection is closed")
async def t_pipeline(ctx):
    p = await ctx.tcp()
    p.send((GET + b"\r\n") * 20)
    count = 0
    while (r := await p.response()) is not None:
        check(r.status in {200, 404}, f"{r.status}")
        count += 1
        if r.has_token("Connection", b"close"):
            await p.expect_end()
            return
        if count == 20:
            p.send(GET + b"Connection: close\r\n\r\n")
    check(count in (0, 21) or p.eof, f"{count} answers")


@case("H3", "thousands of pipelined requests use bounded memory and end in order")
async def t_pipeline_many(ctx):
    p = await ctx.tcp()
    p.send(*chop((GET + b"\r\n") * 5000 + GET + b"Connection: close\r\n\r\n", 65536))
    count = 0
    while (r := await p.response()) is not None:
        check(r.status in {200, 404}, f"{r.status}")
        count += 1
    check(count >= 1, "no answer at all")


@case("H3", "an upgrade behind an answered request is a new request, or the connection is closed")
async def t_get_then_upgrade(ctx):
    p = await ctx.tcp()
    p.send(GET + b"\r\n")
    r = await p.response()
    check(r is not None, "no answer")
    if r.has_token("Connection", b"close"):
        await p.expect_end()
        return
    p.send(p.request())
    await p.expect_upgrade()
    p.send(frame(TEXT, b"late"))
    await p.expect(TEXT, b"late")


# ---- ends of TCP ----

@case("H3", "a client that half-closes behind its request gets the answer and the end")
async def t_half_close(ctx):
    p = await ctx.tcp()
    p.send(GET + b"\r\n", None)
    r = await p.response()
    check(r is not None, "no answer")
    await p.expect_end()


@case("H3", "a client that half-closes behind the upgrade and a message gets both and the end")
async def t_half_close_ws(ctx):
    p = await ctx.tcp()
    p.send(p.request() + frame(TEXT, b"last"), None)
    await p.expect_upgrade()
    await p.expect(TEXT, b"last")
    while (f := await p.frame()) is not None:
        check(f.op == CLOSE, f"{f} after our FIN")


@case("H3", "a client that half-closes inside the head: the connection ends")
async def t_half_close_head(ctx):
    for at in (0, 1, 20, 100):
        p = await ctx.tcp()
        p.send(head(ctx)[:at], None)
        r = await p.response()
        check(r is None or r.status in {400, 408}, f"{r and r.status}")
        await p.expect_end()


@case("H3", "RST at any moment leaves the server well")
async def t_reset(ctx):
    text = head(ctx) + frame(TEXT, b"x" * 1000) + frame(CLOSE, close_body(1000))
    for at in [*range(0, len(text), 61)]:
        p = await ctx.tcp()
        if at:
            p.send(text[:at])
            await p.sent()
        p.reset()
    await accepted(ctx, head(ctx))


@case("H3", "RST right behind a large message that is on its way back")
async def t_reset_echo(ctx):
    for _ in range(5):
        p = await ctx.ws()
        p.send(frame(2, bytes(300000)))
        await p.sent()
        p.reset()
    await accepted(ctx, head(ctx))


@case("H3", "opened and closed at once, a hundred times")
async def t_churn(ctx):
    for _ in range(100):
        (await ctx.tcp()).end()
    await accepted(ctx, head(ctx))


# ---- time ----

@case("H3", "a silent connection ends at http.header_timeout: 408 or the end", server="short")
async def t_silent(ctx):
    p = await ctx.tcp()
    r = await p.response(limit=4)
    check(r is None or r.status == 408, f"{r and r.status}")
    await p.expect_end()


@case("H3", "half a request and silence: 408 or the end", server="short")
async def t_half(ctx):
    p = await ctx.tcp()
    p.send(head(ctx)[:-2])
    r = await p.response(limit=4)
    check(r is None or r.status == 408, f"{r and r.status}")
    await p.expect_end()


@case("H3", "a head that trickles is ended at http.header_timeout all the same", server="short")
async def t_trickle(ctx):
    import asyncio
    p = await ctx.tcp()

    async def drip():
        p.send(GET + b"X: ")
        while True:
            p.send(b"x")
            await asyncio.sleep(0.05)  # the stimulus itself, not a wait for an effect

    task = asyncio.create_task(drip())
    try:
        r = await p.response(limit=4)
        check(r is None or r.status == 408, f"{r and r.status}")
        await p.expect_end()
    finally:
        task.cancel()


@case("4.2.1", "an upgrade with a key of random bytes, fifty connections at once")
async def t_many(ctx):
    peers = []
    for _ in range(50):
        key = base64.b64encode(os.urandom(16))
        p = await ctx.tcp()
        p.send(p.request(key))
        peers.append((p, key))
    for p, key in peers:
        await p.expect_upgrade(key)
        p.send(frame(TEXT, key))
    for p, key in peers:
        await p.expect(TEXT, key)
