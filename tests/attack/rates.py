"""Rates and limits per connection and per client address, each with each of its answers (hardening 2, 13)."""
import asyncio
import time

from harness import check, scene, text

BASE = {"http.header_timeout": "2s", "ws.close_timeout": "500ms", "worker.listen": "tcp://0.0.0.0:0"}
ONE, TWO, THREE = "127.0.1.1", "127.0.1.2", "127.0.1.3"


def rated(name, shape=(1, 1, 1), **settings):
    return scene("rates " + name, {**BASE, **{k.replace("__", "."): v for k, v in settings.items()}}, shape=shape)


async def asks(p, n, size=1):
    """Publishes with a cid each, all at once; the answers as a list of error names or None."""
    first = p.cid + 1
    for _ in range(n):
        p.cid += 1
        p.say({"event": "#publish", "data": {"channel": "r", "data": "x" * size}, "cid": p.cid})
    answers = {}
    while len(answers) < n:
        a = await p.packet()
        answers[a["rid"]] = a.get("error", {}).get("name")
    return [answers[i] for i in range(first, first + n)]


def refused_within(answers, rate, took):
    """Were as many refused as there are above a burst of two seconds (rate.burst), and what comes to it in the time they took?
    The client has taken a few itself, and a machine with much else to do takes its time."""
    over = len(answers) - 2 * rate
    refused = answers.count("RateLimitError")
    check(refused > 0, f"{len(answers)} in {took:.1f} s, and none was refused")
    return over - rate * took - 10 <= refused <= over + 10


PD = rated("packets, delay", sc__packet_rate="100", rate__delay="0")
PC = rated("packets, delay and then close", sc__packet_rate="100")
PE = rated("packets, error", sc__packet_rate="20", rate__packet_answer="error")
PX = rated("packets, close", sc__packet_rate="20", rate__packet_answer="close")


@PD.case("packets above the rate wait: all are served, at the rate, and nobody else waits")
async def delayed(ctx):
    p, other = await ctx.sc(), await ctx.sc()
    begin = time.monotonic()
    task = asyncio.create_task(asks(p, 350))
    while not task.done():
        await asyncio.sleep(0.02)
        began = time.monotonic()
        if time.monotonic() - begin < 1:
            await asks(other, 1)
            check(time.monotonic() - began < 1, "another connection waited")
    took = time.monotonic() - begin
    check(not any(task.result()), "a request failed")
    check(took > 1.2, f"350 packets at 100/s with a burst of 200 took {took:.2f} s")
    check(ctx.server.total("limit_sc_packet_rate_total") > 0, "not counted")


@PC.case("who goes on above the rate ends with 1008 after a second of waiting, and who stops does not")
async def persistent(ctx):
    good, bad = await ctx.sc(), await ctx.sc()
    await asks(good, 240)
    begin = time.monotonic()
    bad.send(b"".join(text({"event": "#publish", "data": {"channel": "r"}}) for _ in range(3000)))
    await bad.closed(1008)
    check(0.7 < time.monotonic() - begin < 7, f"closed after {time.monotonic() - begin:.2f} s")
    check(ctx.server.total("close_packet_rate") == 1, "not counted")
    await asks(good, 20)


@PE.case("packets above the rate fail by name, and the connection goes on")
async def failed(ctx):
    p, begin = await ctx.sc(), time.monotonic()
    got = await asks(p, 120)
    check(refused_within(got, 20, time.monotonic() - begin) and got[:30] == [None] * 30, f"{got}")
    await asyncio.sleep(0.5)
    check((await asks(p, 1)) == [None], "still refused")


@PX.case("packets above the rate end the connection at once")
async def closed(ctx):
    p = await ctx.sc()
    p.send(b"".join(text({"event": "#publish", "data": {"channel": "r"}}) for _ in range(100)))
    await p.closed(1008)


BD = rated("bytes, delay", sc__byte_rate="64KiB", rate__delay="0", rate__burst="1s")
BC = rated("bytes, delay and then close", sc__byte_rate="64KiB")
BE = rated("bytes, error", sc__byte_rate="64KiB", rate__byte_answer="error")
BX = rated("bytes, close", sc__byte_rate="64KiB", rate__byte_answer="close")


@BD.case("bytes above the rate wait", deadline=25)
async def bytes_delayed(ctx):
    p = await ctx.sc()
    begin = time.monotonic()
    check(not any(await asks(p, 20, 8192)), "a request failed")
    check(time.monotonic() - begin > 0.9, "160 KiB at 64 KiB/s went through at once")
    check(ctx.server.total("limit_sc_byte_rate_total") > 0, "not counted")


@BC.case("bytes without end above the rate end the connection")
async def bytes_closed(ctx):
    p = await ctx.sc()
    p.send(*[text({"event": "#publish", "data": {"channel": "r", "data": "x" * 60000}})] * 40)
    await p.closed(1008)
    check(ctx.server.total("close_byte_rate") == 1, "not counted")


@BE.case("requests in bytes above the rate fail by name")
async def bytes_failed(ctx):
    p = await ctx.sc()
    check("RateLimitError" in await asks(p, 40, 8192), "none failed")
    await asyncio.sleep(0.3)
    check((await asks(p, 1)) == [None], "still refused")


@BE.case("the end of a message does not make up for a beginning above the rate")
async def bytes_in_pieces(ctx):
    p, s = await ctx.sc(), ctx.server
    frame, came = text({"event": "#publish", "data": {"channel": "r", "data": "x" * 300000}, "cid": 901}), s.total("bytes_in_total")
    p.send(frame[:-50])
    await ctx.until("all but the end", lambda: s.total("bytes_in_total") >= came + len(frame) - 50)
    await asyncio.sleep(0.1)  # 6 KiB of the rate, for what follows
    p.send(frame[-50:], text({"event": "#publish", "data": {"channel": "r"}, "cid": 902}))
    check((await p.packet()).get("error", {}).get("name") == "RateLimitError", "it was taken")
    check((await p.packet()) == {"rid": 902}, "a small one behind it was refused too")


@BX.case("bytes above the rate end the connection at once")
async def bytes_ended(ctx):
    p = await ctx.sc()
    p.send(*[text({"event": "#publish", "data": {"channel": "r", "data": "x" * 60000}})] * 10)
    await p.closed(1008)


SD = rated("subscribes, delay", sc__subscribe_rate="50", rate__burst="200ms", rate__delay="0")
SE = rated("subscribes, error", sc__subscribe_rate="5", rate__subscribe_answer="error")
SX = rated("subscribes, close", sc__subscribe_rate="5", rate__subscribe_answer="close")


@SD.case("subscribes above the rate wait")
async def subscribes_delayed(ctx):
    p = await ctx.sc()
    begin = time.monotonic()
    for i in range(40):
        await p.subscribe(f"c{i}")
    check(time.monotonic() - begin > 0.45, "40 subscribes at 50/s went through at once")


@SE.case("subscribes above the rate fail by name; publishes go on")
async def subscribes_failed(ctx):
    p = await ctx.sc()
    got = []
    while len(got) < 100 and got.count("RateLimitError") < 5:
        got.append((await p.ask("#subscribe", {"channel": f"c{len(got)}"})).get("error", {}).get("name"))
    check(got[:10] == [None] * 10 and got.count("RateLimitError") == 5, f"{got}")
    check(not any(await asks(p, 50)), "a publish failed")


@SX.case("subscribes above the rate end the connection")
async def subscribes_closed(ctx):
    p = await ctx.sc()
    p.send(b"".join(text({"event": "#subscribe", "data": {"channel": f"c{i}"}, "cid": i + 2}) for i in range(30)))
    await p.closed(1008)
    check(ctx.server.total("close_subscribe_rate") == 1, "not counted")


# All rings of a worker count together: connections of one address land on any of them.
A = rated("of an address, two rings", (1, 2, 1), address__packet_rate="50", address__subscribe_rate="50",
          address__byte_rate="1MiB", rate__packet_answer="error")
C = rated("connections of an address, two rings", (1, 2, 1), conn__max_per_address="6")
K = rated("connects of an address", (1, 2, 1), address__connect_rate="5")
KX = rated("connects of an address, close", address__connect_rate="5", rate__connect_answer="close")
P = rated("behind a proxy", conn__max_per_address="2", address__packet_rate="50", rate__packet_answer="error",
          http__trusted_proxies="127.0.0.1")


@A.case("connections of one address share its rates on all rings, another address has its own")
async def shared(ctx):
    peers, begin = [await ctx.sc(source=ONE) for _ in range(8)], time.monotonic()
    got = sum([await asks(p, 50) for p in peers], [])
    took = time.monotonic() - begin
    check(refused_within(got, 50, took), f"{got.count(None)} of 400 packets taken in {took:.1f} s, where 100 and a little more are allowed")
    check(not any(await asks(await ctx.sc(source=TWO), 60)), "another address was refused")
    check(ctx.server.total("limit_address_packet_rate_total") > 0, "not counted")


@C.case("connections of one address above the limit: 429, far above: closed; others come in; places come free")
async def per_address(ctx):
    peers = [await ctx.sc(source=ONE) for _ in range(6)]
    statuses = []
    for _ in range(10):
        p = await ctx.tcp(source=ONE)
        p.send(p.request())
        r = await p.response()
        statuses.append(r and r.status)
        if r:
            check(r.get("Retry-After"), "no Retry-After")
    check(set(statuses) <= {429, None} and 429 in statuses, f"{statuses}")
    held = [await ctx.tcp(source=ONE) for _ in range(10)]  # they send nothing: no more than twice as many are held
    await ctx.until("the rest is closed", lambda: ctx.server.total("connections") <= 12)
    await (await ctx.sc(source=TWO)).alive()
    for p in peers:
        await p.alive()
    for p in held + peers[:3]:
        p.reset()
    await ctx.until("they are gone", lambda: ctx.server.total("connections") <= 4)
    await (await ctx.sc(source=ONE)).alive()
    check(ctx.server.total("limit_max_per_address_total") >= 10, "not counted")
    check(ctx.server.total("close_address_limit") >= 10, "not counted as ends")


@K.case("connects of one address above the rate: 429; other addresses come in")
async def connect_rate(ctx):
    statuses = []
    while len(statuses) < 100 and statuses.count(429) < 5:
        p = await ctx.tcp(source=ONE)
        p.send(p.request())
        statuses.append((await p.response()).status)
        p.end()
    check(statuses[:10] == [101] * 10 and statuses.count(429) == 5, f"{statuses}")
    await (await ctx.sc(source=TWO)).alive()
    await asyncio.sleep(0.5)
    await (await ctx.sc(source=ONE)).alive()
    check(ctx.server.total("limit_address_connect_rate_total") >= 5, "not counted")


@KX.case("connects of one address above the rate are closed at accept")
async def connect_closed(ctx):
    ended = tried = 0
    while tried < 100 and ended < 5:
        p, tried = await ctx.tcp(source=THREE), tried + 1
        p.send(p.request())
        ended += await p.response() is None
    check(ended == 5, f"{ended} of {tried} were closed")


@P.case("behind a proxy limits go by the client it names, not by the proxy")
async def behind(ctx):
    async def client(address):
        p = await ctx.tcp(source="127.0.0.1")
        p.send(p.request(extra=b"X-Forwarded-For: " + address + b"\r\n"))
        r = await p.response()
        if r.status == 101:
            p.say({"event": "#handshake", "data": {}, "cid": 1})
            await p.answer(1)
            p.cid = 1
        return r.status, p
    for address in (b"192.0.2.1", b"192.0.2.2", b"2001:db8::1"):
        for _ in range(2):
            status, p = await client(address)
            check(status == 101, f"{status} for {address}")
        check((await client(address))[0] == 429, "a third connection of one client")
    check((await client(b"2001:db8::ffff"))[0] == 429, "the same /64 is the same client")
    check((await client(b"2001:db8:0:1::1"))[0] == 101, "another /64 is another client")
    for _ in range(5):
        await ctx.sc(source="127.0.0.1")  # the proxy itself has no limit
    begin = time.monotonic()
    got = await asks(p, 240)
    check(refused_within(got, 50, time.monotonic() - begin), f"{got.count('RateLimitError')} of 240 failed")
