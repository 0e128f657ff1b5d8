"""The opening handshake: RFC 6455 sections 4.1, 4.2 and 4.4, and what may follow it in one segment."""
import base64
import os

from suite import add, case
from wire import CLOSE, PING, TEXT, accept_of, check, chop, close_body, frame, fragments

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="


async def refused(ctx, head, statuses, marker=None):
    """One answer with one of the statuses, saying that it closes; then the end of TCP."""
    p = await ctx.tcp()
    p.send(head)
    r = await p.response()
    check(r is not None, f"TCP ended without an answer; expected {statuses}")
    check(r.status in statuses, f"{r.status} instead of {statuses}")
    check(r.has_token("Connection", b"close"), f"{r.status} without Connection: close")
    if marker:
        check(marker not in r.body, "the answer's body repeats the request")
    await p.expect_end()
    return r


def head(ctx, method=b"GET", path=None, version=b"HTTP/1.1", drop=(), extra=b"", **replace):
    """An upgrade request; a keyword (upgrade, connection, key, version_, host) replaces a value."""
    names = {"host": b"Host", "upgrade": b"Upgrade", "connection": b"Connection",
             "key": b"Sec-WebSocket-Key", "ws": b"Sec-WebSocket-Version"}
    values = {"host": ctx.target.authority.encode(), "upgrade": b"websocket", "connection": b"Upgrade",
              "key": KEY, "ws": b"13"} | replace
    lines = [method + b" " + (path or ctx.target.path.encode()) + b" " + version]
    lines += [names[k] + b": " + v for k, v in values.items() if k not in drop]
    return b"\r\n".join(lines) + b"\r\n" + extra + b"\r\n"


async def accepted(ctx, text, key=KEY):
    p = await ctx.tcp()
    p.send(text)
    r = await p.expect_upgrade(key)
    p.send(frame(TEXT, b"through"))
    await p.expect(TEXT, b"through")
    await p.leave()
    return r


# ---- what must be accepted ----

async def t_accept(ctx, changes):
    await accepted(ctx, head(ctx, **changes))


for note, changes in {
    "the smallest request": {},
    "Upgrade value is an ASCII case-insensitive match: WebSocket": {"upgrade": b"WebSocket"},
    "Upgrade value is an ASCII case-insensitive match: WEBSOCKET": {"upgrade": b"WEBSOCKET"},
    "Connection token is an ASCII case-insensitive match: upgrade": {"connection": b"upgrade"},
    "Connection token is an ASCII case-insensitive match: UPGRADE": {"connection": b"UPGRADE"},
    "Connection includes the token Upgrade: keep-alive, Upgrade": {"connection": b"keep-alive, Upgrade"},
    "Connection includes the token Upgrade: Upgrade,keep-alive": {"connection": b"Upgrade,keep-alive"},
    "Connection includes the token Upgrade, white space around": {"connection": b"keep-alive ,\tUpgrade "},
    "an Origin header": {"extra": b"Origin: http://example.com\r\n"},
    "Origin: null": {"extra": b"Origin: null\r\n"},
    "any other header fields MAY be included": {"extra": b"Cookie: a=b; c=d\r\nX-Any: thing\r\n"},
    "white space around field values": {"upgrade": b" \t websocket \t "},
    "no white space around a field value": {"extra": b"X:y\r\n"},
    "a Connection field in two lines": {"connection": b"keep-alive", "extra": b"Connection: Upgrade\r\n"},
    "an empty field value": {"extra": b"X-Empty:\r\n"},
    "a field name of every token character": {"extra": b"!#$%&'*+-.^_`|~09azAZ: 1\r\n"},
    "a query behind the resource name": {"path": b"%PATH%?a=b&c=%20"},
    "Host: localhost": {"host": b"localhost"},
    "Host with a port": {"host": b"example.com:8000"},
    "Host as an IPv6 literal": {"host": b"[::1]:80"},
    "Host as an IPv4 address": {"host": b"127.0.0.1"},
}.items():
    async def run(ctx, ch=changes):
        ch = dict(ch)
        if "path" in ch:
            ch["path"] = ch["path"].replace(b"%PATH%", ctx.target.path.encode())
        await t_accept(ctx, ch)
    add("4.2.1", f"is accepted: {note}", run)


@case("4.2.2", "Sec-WebSocket-Accept is the base64 of the SHA-1 of key and GUID (the RFC's example)")
async def t_example(ctx):
    r = await accepted(ctx, head(ctx))
    check(r.get("Sec-WebSocket-Accept") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "not the RFC's example")


@case("4.2.2", "Sec-WebSocket-Accept is right for many keys")
async def t_keys(ctx):
    for i in range(24):
        key = base64.b64encode(bytes([i * 11 & 255]) * 16 if i % 2 else os.urandom(16))
        p = await ctx.tcp()
        p.send(head(ctx, key=key))
        r = await p.expect_upgrade(key)
        check(r.get("Sec-WebSocket-Accept") == accept_of(key), "wrong accept")
        p.end()


@case("4.2.1", "field names are case-insensitive")
async def t_names(ctx):
    for change in (bytes.lower, bytes.upper):
        lines = head(ctx).split(b"\r\n")
        lines = [lines[0]] + [change(n) + c + v for n, c, v in (x.partition(b":") for x in lines[1:])]
        await accepted(ctx, b"\r\n".join(lines))


@case("4.2.1", "header fields may come in any order")
async def t_order(ctx):
    lines = head(ctx).rstrip(b"\r\n").split(b"\r\n")
    for turn in range(1, len(lines) - 1):
        fields = lines[1:][turn:] + lines[1:][:turn]
        await accepted(ctx, b"\r\n".join([lines[0]] + fields) + b"\r\n\r\n")


# ---- what must be refused ----

async def t_version(ctx, changes):
    r = await refused(ctx, head(ctx, **changes), {426, 400})
    check(r.get("Sec-WebSocket-Version") == b"13", "the answer lacks Sec-WebSocket-Version: 13")


for v in [b"0", b"1", b"4", b"7", b"8", b"9", b"12", b"14", b"25", b"255", b"256", b"113", b"131",
          b"013", b"13.0", b"+13", b"-13", b"13x", b"x", b"0x0d", b"1 3", b"13, 13", b"13, 8",
          b"99999999999999999999", b"4294967309", b""]:
    add("4.4", f"a version the server does not speak: 426 with Sec-WebSocket-Version: 13 [{v.decode()!r}]",
        t_version, {"ws": v})
add("4.4", "no Sec-WebSocket-Version: 426 with Sec-WebSocket-Version: 13", t_version, {"drop": ("ws",)})


async def t_refused(ctx, changes, statuses):
    await refused(ctx, head(ctx, **changes), statuses)


add("11.3.5", "Sec-WebSocket-Version MUST NOT appear more than once: both 13", t_refused,
    {"extra": b"Sec-WebSocket-Version: 13\r\n"}, {400, 426})
add("11.3.5", "Sec-WebSocket-Version MUST NOT appear more than once: different", t_refused,
    {"extra": b"Sec-WebSocket-Version: 8\r\n"}, {400, 426})
for note, v in {
    "empty": b"", "15 bytes": base64.b64encode(bytes(15)), "17 bytes": base64.b64encode(bytes(17)),
    "12 bytes": base64.b64encode(bytes(12)), "32 bytes": base64.b64encode(bytes(32)),
    "no padding": KEY[:22], "one = too few": KEY[:23], "one = too many": KEY + b"=",
    "padding only": b"=" * 24, "a blank inside": KEY[:10] + b" " + KEY[11:],
    "base64url letters": b"-_" + KEY[2:], "a letter that is none": b"*" + KEY[1:],
    "a byte above 127": b"\xc3\xa9" + KEY[2:], "= in the middle": KEY[:8] + b"=" + KEY[9:],
    "1000 letters": b"A" * 1000, "two in a list": KEY + b", " + KEY,
    "three =": KEY[:21] + b"===",
}.items():
    add("4.2.1", f"a Sec-WebSocket-Key that does not decode to 16 bytes: 400 [{note}]", t_refused,
        {"key": v}, {400})
add("4.2.1", "no Sec-WebSocket-Key: 400", t_refused, {"drop": ("key",)}, {400, 426})
add("11.3.1", "Sec-WebSocket-Key MUST NOT appear more than once: the same twice", t_refused,
    {"extra": b"Sec-WebSocket-Key: " + KEY + b"\r\n"}, {400})
add("11.3.1", "Sec-WebSocket-Key MUST NOT appear more than once: two different", t_refused,
    {"extra": b"Sec-WebSocket-Key: " + base64.b64encode(bytes(16)) + b"\r\n"}, {400})


async def t_half(ctx, changes):
    r = await refused(ctx, head(ctx, **changes), {426, 400, 404})
    if r.status == 426:
        check((r.get("Upgrade") or b"").lower() == b"websocket", "426 without Upgrade: websocket")


for note, changes in {
    "no Upgrade": {"drop": ("upgrade",)}, "no Connection": {"drop": ("connection",)},
    "neither Upgrade nor Connection": {"drop": ("upgrade", "connection")},
    "none of the WebSocket fields": {"drop": ("upgrade", "connection", "key", "ws")},
    "Upgrade: h2c": {"upgrade": b"h2c"}, "Upgrade: empty": {"upgrade": b""},
    "Upgrade: websockets": {"upgrade": b"websockets"}, "Upgrade: web socket": {"upgrade": b"web socket"},
    "Upgrade: xwebsocket": {"upgrade": b"xwebsocket"},
    "Connection: keep-alive": {"connection": b"keep-alive"}, "Connection: close": {"connection": b"close"},
    "Connection: Upgraded": {"connection": b"Upgraded"}, "Connection: empty": {"connection": b""},
    "Connection: xUpgrade": {"connection": b"xUpgrade"},
}.items():
    add("4.2.1", f"half an upgrade is none: 426 [{note}]", t_half, changes)

for m in [b"POST", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"PATCH"]:
    async def t_method(ctx, m):
        p = await ctx.tcp()
        p.send(head(ctx, method=m))
        r = await p.response(head_only=m == b"HEAD")
        check(r is not None and r.status == 405, f"{r and r.status} instead of 405")
        check(r.get("Allow") is not None, "405 without Allow (RFC 9110 section 15.5.6)")
        await p.expect_end()
    add("4.1", f"the method of the request MUST be GET: 405 [{m.decode()}]", t_method, m)
for m in [b"get", b"Get", b"GETX", b"GE", b"TRACE", b"CONNECT", b"PRI", b"X" * 300]:
    add("4.1", f"the method of the request MUST be GET [{m[:20].decode()}]", t_refused,
        {"method": m}, {405, 400, 501})

for v in [b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/2", b"HTTP/3.0", b"HTTP/1", b"HTTP/1.", b"HTTP/11",
          b"HTTP/01.1", b"HTTP/1.10", b"HTTP/1.01", b"http/1.1", b"Http/1.1", b"HTTP/1,1", b"HTTP /1.1",
          b"HTTP/1.1x", b"HTTP/1.1 x", b"HTTPS/1.1", b"FTP/1.1", b"HTTP/-1.1", b"HTTP/1.1\x00"]:
    add("4.1", f"the HTTP version MUST be at least 1.1, and spelled so [{v.decode()!r}]", t_refused,
        {"version": v}, {400, 426, 505})

async def t_path(ctx, form, statuses):
    path = form.replace(b"%P", ctx.target.path.encode().lstrip(b"/"))
    await refused(ctx, head(ctx, path=path), statuses)


for form in [b"/%P/", b"//%P", b"/./%P", b"/x/../%P", b"/%Px", b"/x%P", b"/%P/x", b"/%P.", b"/%P;x",
             b"/%P%2f", b"/%P%00", b"/%P%20", b"/nosuch", b"/zzmarkerzz?<script>"]:
    add("4.2.2", f"a resource that is not served: 404, paths compared exactly [{form.decode()}]",
        t_path, form, {404, 400})
for form in [b"%P", b"*", b"", b"?", b"ws:%P", b"/%P#frag", b"/%P\x7f", b"/%P\x01", b"/%P\xff"]:
    add("4.2.1", f"a request target that is malformed: 400 [{form.decode('latin-1')!r}]", t_path,
        form or b" ", {400, 404})


@case("4.2.2", "another letter case of the path is another path")
async def t_case(ctx):
    path = ctx.target.path.swapcase().encode()
    await refused(ctx, head(ctx, path=path), {404})


@case("4.2.1", "absolute-form of the target is understood or refused (RFC 9112 section 3.2.2)")
async def t_absolute(ctx):
    p = await ctx.tcp()
    p.send(head(ctx, path=f"http://{ctx.target.authority}{ctx.target.path}".encode()))
    r = await p.response()
    check(r and r.status in {101, 400, 404}, f"{r and r.status}")


# ---- extensions and subprotocols ----

async def t_offer(ctx, name, value):
    """What cannot be used is declined by silence, or refused with 400."""
    p = await ctx.tcp()
    p.send(head(ctx, extra=name + b": " + value + b"\r\n"))
    r = await p.response()
    check(r is not None and r.status in {101, 400}, f"{r and r.status} to an offer")
    if r.status == 101:
        check(r.get(name.decode()) is None, f"{name.decode()} in the answer: {r.get(name.decode())}")
        p.send(frame(TEXT, b"plain"))
        await p.expect(TEXT, b"plain")


for v in [b"chat", b"chat, superchat", b"a, b, c", b"", b",", b",,,", b"a,,b", b"bad token", b"\"quoted\"",
          b"x" * 4000, b", ".join(b"p%d" % i for i in range(500)), b"a\xff", b"(", b"wamp.2.json"]:
    add("4.2.2", f"no subprotocol the server has not agreed to [{v[:30].decode('latin-1')!r}]", t_offer,
        b"Sec-WebSocket-Protocol", v)
for v in [b"no-such-extension", b"a; b; c=d", b"a; b=\"c\"", b"", b",", b";", b"=", b"a;", b"a; =b", b"a; b=",
          b"a; b=\"", b"\"", b"a; b=\"\\", b"x" * 4000, b"x;" * 2000, b", ".join([b"e"] * 500),
          b"permessage-foo; client_max_window_bits", b"permessage-deflatex",
          b"permessage-deflate; nonsense", b"permessage-deflate; server_max_window_bits=99",
          b"a\xff; b", b"(;)"]:
    add("9.1", f"no extension the client did not validly offer [{v[:40].decode('latin-1')!r}]", t_offer,
        b"Sec-WebSocket-Extensions", v)


@case("9.1", "without an offer there is no Sec-WebSocket-Extensions in the answer")
async def t_no_offer(ctx):
    r = await accepted(ctx, head(ctx))
    check(r.get("Sec-WebSocket-Extensions") is None and r.get("Sec-WebSocket-Protocol") is None,
          "the answer agrees to what was not offered")


# ---- behind the head ----

@case("4.1", "a frame in the same segment as the request is answered behind the 101")
async def t_same_segment(ctx):
    p = await ctx.tcp()
    p.send(head(ctx) + frame(TEXT, b"early"))
    await p.expect_upgrade()
    await p.expect(TEXT, b"early")
    await p.leave()


@case("4.1", "many frames in the same segment as the request are answered in order")
async def t_same_segment_many(ctx):
    p = await ctx.tcp()
    texts = [b"early %d" % i for i in range(200)]
    p.send(head(ctx) + b"".join(frame(TEXT, t) for t in texts))
    await p.expect_upgrade()
    for t in texts:
        await p.expect(TEXT, t)
    await p.leave()


@case("4.1", "a large message in the same segment as the request")
async def t_same_segment_large(ctx):
    p = await ctx.tcp()
    data = os.urandom(200000)
    p.send(head(ctx) + frame(2, data))
    await p.expect_upgrade()
    await p.expect(2, data)
    await p.leave()


@case("4.1", "a Close in the same segment as the request")
async def t_same_segment_close(ctx):
    p = await ctx.tcp()
    p.send(head(ctx) + frame(CLOSE, close_body(1001, b"bye")))
    await p.expect_upgrade()
    await p.expect_close([1001])
    await p.expect_end(clean=True)


@case("4.1", "a violation in the same segment as the request")
async def t_same_segment_bad(ctx):
    p = await ctx.tcp()
    p.send(head(ctx) + frame(TEXT, b"x", key=None))
    await p.expect_upgrade()
    await p.expect_failed(1002)


@case("4.1", "request and frames split at every byte")
async def t_every_split(ctx):
    text = head(ctx) + frame(TEXT, b"split") + frame(PING, b"p")
    for at in range(1, len(text)):
        p = await ctx.tcp()
        p.send(text[:at], text[at:])
        await p.expect_upgrade()
        await p.expect(TEXT, b"split")
        await p.expect_pong(b"p")
        p.end()


for n in (1, 2, 3, 7, 64):
    async def t_chopped(ctx, n):
        p = await ctx.tcp()
        p.send(*chop(head(ctx) + fragments(TEXT, [b"in ", b"pieces"]), n))
        await p.expect_upgrade()
        await p.expect(TEXT, b"in pieces")
        await p.leave()
    add("4.1", f"request and frames in pieces of {n} bytes", t_chopped, n)


@case("4.2.2", "nothing is answered before the head is complete")
async def t_not_early(ctx):
    p = await ctx.tcp()
    text = head(ctx)
    for piece in chop(text[:-1], 9):
        p.send(piece)
        await p.sent()
        check(p.silent(), "an answer to half a request")
    p.send(text[-1:])
    await p.expect_upgrade()


@case("4.2.2", "a second HTTP request behind the upgrade is WebSocket data: 1002")
async def t_second_request(ctx):
    p = await ctx.tcp()
    p.send(head(ctx) + head(ctx))
    await p.expect_upgrade()
    await p.expect_failed(1002)


@case("4.2.2", "connections are independent: one that fails leaves the other alone")
async def t_independent(ctx):
    a, b = await ctx.ws(), await ctx.ws()
    a.send(frame(TEXT, b"first"))
    b.send(frame(3, b""))
    await b.expect_failed(1002)
    await a.expect(TEXT, b"first")
    a.send(frame(TEXT, b"second"))
    await a.expect(TEXT, b"second")
    await a.leave()
