"""Packets: batches, nesting, JSON of every kind, call ids, subscriptions (hardening 7 and 9)."""
import asyncio
import json
import os
import re
import sys

from harness import BINARY, TEXT, check, close_body, frame, scene, text, CLOSE

S = scene("packets", {"sc.max_channels": "10500", "sc.invalid_packets": "20"})
Q = scene("packets 2x2x2", {"sc.max_channels": "2000"}, shape=(2, 2, 2))


@S.case("a batch of sc.max_batch packets is served, one more is 1008")
async def batches(ctx):
    p, q = await ctx.sc(), await ctx.sc()
    await q.subscribe("batch")
    p.send(text(b"[" + b",".join([b'{"event":"#publish","data":{"channel":"batch"}}'] * 8191
                                 + [b'{"event":"#publish","data":{"channel":"batch","data":"last"},"cid":77}']) + b"]"))
    check((await p.answer(77)) == {"rid": 77}, "no answer behind the batch")
    for _ in range(8191):
        check("data" not in (await q.packet())["data"], "out of order")
    check((await q.packet())["data"]["data"] == "last", "the last one is missing")
    for n in (8193, 100000):
        r = await ctx.sc()
        r.send(text(b"[" + b",".join([b"1"] * n) + b"]"))
        await r.closed(1008)


@S.case("arrays in arrays and elements that are no packets are ignored one by one")
async def nested(ctx):
    p = await ctx.sc()
    await p.subscribe("nest")
    p.say([[{"event": "#publish", "data": {"channel": "nest", "data": "inner"}}], 1, None, "x", {}, [], [[]],
           {"event": 7}, {"rid": 12345}, {"event": "#publish", "data": {"channel": "nest", "data": "outer"}, "cid": 8}])
    await p.answer(8)
    got = [n for n in p.news if n.get("event") == "#publish"] or [await p.packet()]
    check(got[0]["data"]["data"] == "outer", f"got {got}")
    await p.alive()


@S.case("deep JSON: an error to a request, nothing to an event, whatever the shape")
async def deep(ctx):
    p = await ctx.sc()
    for n in (129, 1000, 100000):
        for a, b in ((b"[", b"]"), (b'{"a":', b"}")):
            body = a * n + (b"1" if a != b"[" else b"") + b * n
            p.send(text(b'{"event":"#publish","data":{"channel":"d","data":' + body + b'},"cid":%d}' % n))
            check((await p.answer(n))["error"]["name"] == "InvalidActionError", "no error")
            p.send(text(b'{"event":"#publish","data":{"channel":"d","data":' + body + b'}}'))
    p.send(text(b"[" * 60000))
    p.send(text(b'{"a":' * 60000))
    p.send(text(b"[" * 60000 + b"]" * 60000))
    await p.alive()
    ok = await p.ask("#publish", {"channel": "d", "data": json.loads("[" * 125 + "]" * 125)})
    check("error" not in ok, f"125 deep was refused: {ok}")


@S.case("wide JSON, 200000 members, and megabyte strings pass in linear time")
async def wide(ctx):
    p = await ctx.sc()
    for body in (b"{" + b",".join(b'"%d":1' % i for i in range(80000)) + b"}", b"[" + b"1," * 200000 + b"1]",
                 b'"' + b"\\u00e9" * 150000 + b'"', b'"' + b"\\\\" * 400000 + b'"', b" " * 900000 + b"1"):
        begin = asyncio.get_running_loop().time()
        p.send(text(b'{"event":"#publish","data":{"channel":"w","data":' + body + b'},"cid":5}'))
        await p.answer(5)
        check(asyncio.get_running_loop().time() - begin < 1.0, f"{len(body)} bytes took longer than 1 s")


@S.case("repeated, escaped and poisonous keys: the last one wins, names compare by bytes")
async def keys(ctx):
    p = await ctx.sc()
    await p.subscribe("k2")
    for raw in (rb'{"event":"#publish","event":"#publish","data":{"channel":"k1"},"data":{"channel":"k2","data":1},"cid":21}',
                rb'{"\u0065vent":"#pub\u006cish","d\u0061ta":{"ch\u0061nnel":"k\u0032","data":1},"c\u0069d":21}',
                rb'{"data":{"data":9,"channel":"k1","channel":"k2","data":1},"cid":5,"event":"#publish","cid":21}',
                rb'{"__proto__":{"x":1},"constructor":1,"event":"#publish","data":{"__proto__":2,"channel":"k2","data":1},"cid":21}'):
        p.news = []
        p.send(text(raw))
        await p.answer(21)
        got = p.news or [await p.packet()]
        check(got[0] == {"event": "#publish", "data": {"channel": "k2", "data": 1}}, f"{raw} gave {got}")


@S.case("channel names: U+0000, __proto__, quotes, emoji, empty, 1024 bytes; 1025 is refused")
async def names(ctx):
    p = await ctx.sc()
    for name in ("\0", "a\0b", "__proto__", "", " ", '"', "\\", "\U0001f600", "é" * 512, "x" * 1024, "../..", "#publish",
                 "toString", "\n\r\t", "\u2028", "a" * 1023 + '"'):
        await p.subscribe(name)
        p.news = []
        check("error" not in await p.ask("#publish", {"channel": name, "data": [name]}), f"{name!r} refused")
        got = p.news or [await p.packet()]
        check(got[0]["data"] == {"channel": name, "data": [name]}, f"{name!r} came as {got}")
        check("error" not in await p.ask("#unsubscribe", name), "no unsubscribe")
    for bad in ("x" * 1025, "é" * 513, 5, None, {}, ["a"], True):
        for event in ("#subscribe", "#publish"):
            check((await p.ask(event, {"channel": bad}))["error"]["name"] == "InvalidActionError", f"{bad!r} taken")
    check("error" in await p.ask("#unsubscribe", 5), "5 unsubscribed")


@S.case("a lone surrogate in a name or in data never reaches another client malformed")
async def surrogates(ctx):
    p = await ctx.sc()
    await p.subscribe("s")
    p.send(text(rb'{"event":"#subscribe","data":{"channel":"\ud800"},"cid":31}'))
    a = await p.answer(31)
    p.send(text(rb'{"event":"#publish","data":{"channel":"\ud800x","data":1},"cid":32}'))
    await p.answer(32)
    p.send(text(rb'{"event":"#publish","data":{"channel":"s","data":"\ud800"},"cid":33}'))
    await p.alive()  # wire.py decodes nothing here: the bytes themselves are looked at
    check(a is not None, "no answer")


@S.case("numbers no double can hold are forwarded as they are, what is no number is not")
async def numbers(ctx):
    p = await ctx.sc()
    await p.subscribe("n")
    for i, n in enumerate((b"1e999999", b"-0", b"0." + b"1" * 5000, b"9" * 5000, b"1E+2", b"-1.5e-300")):
        p.send(text(b'{"event":"#publish","data":{"channel":"n","data":' + n + b'}}'))
        check(await p.hear() == b'{"event":"#publish","data":{"channel":"n","data":' + n + b"}}", f"{n[:20]}")
    for n in (b"01", b"+1", b"1.", b".5", b"1e", b"NaN", b"Infinity", b"0x10", b"--1", b"- 1"):
        p.send(text(b'{"event":"#publish","data":{"channel":"n","data":' + n + b'}}'))
    await p.alive()
    check(not p.news, f"forwarded: {p.news}")


@S.case("call ids: extreme, negative, fractional, strings, the same one in several calls")
async def cids(ctx):
    p = await ctx.sc()
    for cid in (b"0", b"-1", b"1.5", b"1e300", b"-0.0", b"9007199254740993", b"123456789012345678901234567890", b'"abc"'):
        p.send(text(b'{"event":"#publish","data":{"channel":"c"},"cid":' + cid + b"}"))
        check(await p.hear() == b'{"rid":' + cid + b"}", f"{cid} was not echoed")
    for cid in (b"null", b"true", b"{}", b"[1]", b"1" * 5000, b'"' + b"x" * 5000 + b'"'):
        p.send(text(b'{"event":"#publish","data":{"channel":"c"},"cid":' + cid + b"}"))
    p.send(b"".join(text({"event": "#publish", "data": {"channel": "c"}, "cid": 4}) +
                    text({"event": "#subscribe", "data": {}, "cid": 4}) for _ in range(50)))
    for _ in range(50):
        check(await p.packet() == {"rid": 4}, "not answered in order")
        check("error" in await p.packet(), "not answered in order")
    await p.alive()


@S.case("reserved names a client must not send and answers to nothing are ignored")
async def reserved(ctx):
    p, q = await ctx.sc(), await ctx.sc()
    await q.subscribe("r")
    for e in ("#kickOut", "#setAuthToken", "#disconnect", "#removeAuthToken", "#foo", "", "x" * 300, "connection"):
        p.say({"event": e, "data": {"channel": "r", "token": "x", "message": "m", "code": 1000}})
    for r in ({"rid": 1}, {"rid": 99, "error": {}}, {"rid": "x"}, {"rid": 1e300, "data": 1}, {}):
        p.say(r)
    first = await p.ask("#handshake", {})
    second = await p.ask("#handshake", {"authToken": 5})
    check(first["data"]["id"] == second["data"]["id"], "another id at a second handshake")
    check(ctx.server.total("connections_open") == 2, "a second handshake counts twice")
    await q.alive()
    check(not q.news, f"relayed: {q.news}")


@S.case("repeated subscribe is one delivery; unsubscribe of an unknown channel is the reference's text")
async def repeated(ctx):
    p = await ctx.sc()
    for _ in range(5):
        await p.subscribe("twice")
    p.news = []
    await p.ask("#publish", {"channel": "twice", "data": 1})
    await p.alive()
    await asyncio.sleep(0.05)
    await p.alive()
    check(len(p.news) == 1, f"delivered {len(p.news)} times")
    await p.ask("#unsubscribe", "twice")
    e = (await p.ask("#unsubscribe", "twice"))["error"]
    check(e["name"] == "BrokerError" and re.fullmatch(
        r"Failed to unsubscribe socket from the twice channel - InvalidActionError: Socket [\w-]{20} tried to "
        r"unsubscribe from a channel which it is not subscribed to", e["message"]), f"{e}")
    await p.ask("#publish", {"channel": "twice", "data": 2})
    await p.alive()
    check(len(p.news) == 1, "delivered after the unsubscribe")


async def each_once(p, cids):
    """An answer without an error for each. They come in order from one broker, not from several."""
    seen = [await p.packet() for _ in cids]
    check(all(set(a) == {"rid"} for a in seen), f"{[a for a in seen if set(a) != {'rid'}][:1]}")
    check(sorted(a["rid"] for a in seen) == sorted(cids), "not each answered once")


async def churn(ctx, n):
    p = await ctx.sc()
    p.send(b"".join(text({"event": "#subscribe", "data": {"channel": f"c{i}"}, "cid": i}) for i in range(n)))
    await each_once(p, range(n))
    await ctx.until("the gauge", lambda: ctx.server.total("subscriptions") == n)
    check(ctx.server.total("interests", "broker") == n, "broker's interests")
    p.send(b"".join(text({"event": "#unsubscribe", "data": f"c{i}", "cid": i}) for i in range(0, n, 2)))
    await each_once(p, range(0, n, 2))
    p.send(b"".join(text({"event": e, "data": d, "cid": i}) for i in range(n // 2) for e, d in
                    (("#subscribe", {"channel": "flip"}), ("#unsubscribe", "flip"))))
    for i in range(n // 2):
        check(await p.packet() == {"rid": i} and await p.packet() == {"rid": i}, f"flip {i}")


@S.case("10000 subscriptions, half of them undone, 5000 flips: each answered, everything freed", deadline=30)
async def churn1(ctx):
    await churn(ctx, 10000)


@Q.case("2000 subscriptions over two brokers and 1000 flips", deadline=30)
async def churn2(ctx):
    await churn(ctx, 2000)


@Q.case("sc.max_channels: the reference's text, nothing kept")
async def limit(ctx):
    p = await ctx.sc()
    p.send(b"".join(text({"event": "#subscribe", "data": {"channel": f"l{i}"}, "cid": i}) for i in range(2005)))
    await each_once(p, range(2000))
    for i in range(2000, 2005):
        a = await p.packet()
        check(a["error"]["name"] == "BrokerError" and re.fullmatch(
            rf"Failed to subscribe socket to the l{i} channel - InvalidActionError: Socket [\w-]{{20}} tried to "
            r"exceed the channel subscription limit of 2000", a["error"]["message"]), f"{a}")
    check(ctx.server.total("subscriptions") == 2000, "the gauge")


@Q.case("2000 connections subscribe and are reset at any moment: no interest is left", deadline=40)
async def resets(ctx):
    for round_ in range(10):
        async def one():
            p = await ctx.sc()
            p.send(b"".join(text({"event": "#subscribe", "data": {"channel": f"r{i}"}, "cid": i}) for i in range(20)))
            return p
        peers = await ctx.many(100, one)
        for i, p in enumerate(peers):
            if i % 3 == 0:
                p.send(frame(CLOSE, close_body(1000)))
            p.reset() if i % 2 else p.end()
        ctx.peers = []


@S.case("more messages that do not parse than sc.invalid_packets: 1008")
async def invalid(ctx):
    p = await ctx.sc()
    p.send(text(b"{nonsense") * 19)
    await p.alive()
    p.send(text(b"{nonsense") * 3)
    await p.closed(1008)


@S.case("JSON in a binary frame is served or refused, min-bin noise is survived")
async def binary(ctx):
    p = await ctx.sc()
    p.send(*[frame(BINARY, os.urandom(n)) for n in range(1, 15)], frame(BINARY, b""))
    await p.alive()
