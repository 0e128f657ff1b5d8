"""TLS: what a hostile peer can do to handshakes and records (hardening section 4). What needs a client that plays
by the rules (tickets, names, reload) is in tests/e2e/tls.test.mjs, the library by itself in tests/unit/test_tls.c."""
import asyncio
import atexit
import os
import random
import re
import shutil
import ssl
import subprocess
import tempfile
import time
from dataclasses import dataclass

import certs
from harness import BINARY, Server, Violation, check, frame, idle, scene, text

KEYS = tempfile.mkdtemp(prefix="attack-keys-")
atexit.register(shutil.rmtree, KEYS, True)
os.chmod(KEYS, 0o755)  # read by the worker's own user when it is started as root
SETTINGS = {"tls.handshake_timeout": "1s", "http.header_timeout": "2s", "ws.close_timeout": "700ms", "out.stall": "1500ms",
            "out.queue_bytes": "1MiB", "sc.ping_timeout": "60s"}


def key_pair(name, **options):
    path = os.path.join(KEYS, name)
    if not os.path.exists(path + ".pem"):
        certs.make(KEYS, name, **options)
        os.chmod(path + ".key", 0o644)
    return path


@dataclass
class Target:
    host: str
    port: int
    path: str = "/socketcluster/"

    @property
    def authority(self):
        return f"{self.host}:{self.port}"


class Secure(Server):
    """With a tls:// listener beside the plain one."""

    def __init__(self, bin_dir, settings, nofile=0):
        pair = key_pair("server")
        extra = {"tls.client_ca": key_pair("ca") + ".pem"} if "tls.client_verify" in settings else {}
        super().__init__(bin_dir, {"worker.listen": "tcp://127.0.0.1:0,tls://127.0.0.1:0", "tls.certificate": pair + ".pem",
                                   "tls.key": pair + ".key", **extra, **settings}, nofile)
        self.secure = Target(self.host, int(re.search(r"tls://[\d.]+:(\d+)", self.ready)[1]))


S = scene("tls", SETTINGS, server=Secure)
Q = scene("tls 2x2x1", {**SETTINGS, "tls.handshakes_per_turn": "2", "tls.handshake_timeout": "10s", "http.header_timeout": "10s"}, shape=(2, 2, 1), server=Secure)
V = scene("tls optional", {**SETTINGS, "tls.client_verify": "optional"}, server=Secure)


def context(**options):
    return certs.client(key_pair("server"), **options)


async def bare(ctx, **options):
    """TCP to the TLS port."""
    return await ctx.tcp(to=ctx.server.secure, **options)


async def shaken(ctx, tls=None, **options):
    p = await bare(ctx, **options)
    await asyncio.wait_for(p.shake_tls(tls or context()), ctx.limit)
    return p


async def sc(ctx, **options):
    return await (await shaken(ctx, **options)).shake()


def hello(name="localhost", **options):
    """Bytes of a ClientHello."""
    inward, outward = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        context(**options).wrap_bio(inward, outward, server_hostname=name).do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outward.read()


async def ended(p, limit=3.0):
    """The end of TCP, whatever came before it; how long it took."""
    begin = time.monotonic()
    while await p._more(limit):
        pass
    return time.monotonic() - begin


def raw(p, data):
    """Past TLS, straight to the socket."""
    p.sock.send(data)


@S.case("cipher text byte by byte, in handshake and messages, is served")
async def bytewise(ctx):
    p = await bare(ctx)
    first = hello()
    p.inward, p.outward = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context().wrap_bio(p.inward, p.outward, server_hostname="localhost")
    done = False
    while not done:
        try:
            tls.do_handshake()
            done = True
        except ssl.SSLWantReadError:
            pass
        for b in p.outward.read():
            raw(p, bytes([b]))
            await asyncio.sleep(0)
        if not done:
            p.inward.write(await p.loop.sock_recv(p.sock, 65536))
    check(len(first) > 100, "no hello")
    p.tls = tls
    p.send(*[bytes([b]) for b in p.request()])  # a record each
    await p.expect_upgrade()
    p.send(*[bytes([b]) for b in text({"event": "#handshake", "data": {}, "cid": 1})])
    check((await p.packet())["rid"] == 1, "no welcome")
    await p.alive()


@S.case("first bytes that are no TLS record end the connection at once, or are told; nobody spins")
async def garbage(ctx):
    s = ctx.server
    used = s.cpu("worker")

    async def one(data):
        p = await bare(ctx)
        raw(p, data)
        took = await ended(p)
        check(took < 0.9, f"{data[:8]!r} ended after {took:.2f} s")
    for first in range(0, 256, 8):
        await asyncio.gather(*(one(bytes([b]) + os.urandom(40)) for b in range(first, first + 8) if b != 22))
    # A handshake record in its head, but of another version, too long, or with rubbish in it.
    await asyncio.gather(*(one(d) for d in (b"\x16\x02\x01\x00\x05hello", b"\x16\x03\x01\xff\xff" + bytes(200), b"\x16\x03\x01\x00\x05hello",
                                            b"\x16\x03\x01\x00\x00" * 50, b"\x16\x03\x01\x00\x04\x01\xff\xff\xff" * 2,
                                            b"\x80\x2e\x01\x03\x01" + bytes(60))))
    check(s.cpu("worker") - used < 1.0, f"{s.cpu('worker') - used:.2f} s of processor time for 260 connections")
    await idle(ctx, "after garbage")


@S.case("plain HTTP on the TLS port gets an answer one can read; TLS on the plain port an alert")
async def wrong_port(ctx):
    p = await bare(ctx)
    p.send(b"GET /socketcluster/ HTTP/1.1\r\nHost: x\r\n\r\n")
    r = await p.response()
    check(r is not None and r.status == 400 and b"wss://" in r.body, f"{r and r.status}")
    await p.expect_end()
    q = await ctx.tcp()
    try:
        await asyncio.wait_for(q.shake_tls(context()), 3)
        check(False, "a handshake with the plain port")
    except ssl.SSLError as e:
        check("ALERT" in str(e).upper() or "VERSION" in str(e).upper(), f"{e}")


@S.case("only TLS 1.2 and 1.3 are spoken; 1.0 and 1.1 get an alert")
async def versions(ctx):
    for v, good in ((ssl.TLSVersion.TLSv1_2, True), (ssl.TLSVersion.TLSv1_3, True), (ssl.TLSVersion.TLSv1, False), (ssl.TLSVersion.TLSv1_1, False)):
        c = context()
        c.set_ciphers("DEFAULT:@SECLEVEL=0")
        c.minimum_version = c.maximum_version = v
        try:
            p = await shaken(ctx, c)
            check(good, f"{v} was spoken")
            check(p.tls.compression() is None, "compression")
            await p.shake()
        except ssl.SSLError as e:
            check(not good and "VERSION" in str(e).upper(), f"{v}: {e}")


@S.case("ALPN: http/1.1 where it is offered, nothing else is agreed to")
async def alpn(ctx):
    for offers, want in ((["http/1.1"], "http/1.1"), (["h2", "http/1.1"], "http/1.1"), ([], None), (["http/1.1", "h2"], "http/1.1")):
        c = context()
        if offers:
            c.set_alpn_protocols(offers)
        p = await shaken(ctx, c)
        check(p.tls.selected_alpn_protocol() == want, f"{offers}: {p.tls.selected_alpn_protocol()}")
        await p.shake()
    c = context()
    c.set_alpn_protocols(["h2"])
    try:
        p = await shaken(ctx, c)
        check(p.tls.selected_alpn_protocol() is None, "h2 was agreed to")
    except (ssl.SSLError, Violation):
        pass


@S.case("the record layer broken in the middle ends the connection at once, whatever the break; nobody spins")
async def broken(ctx):
    s = ctx.server
    used = s.cpu("worker")

    async def one(version, damage):
        c = context()
        c.maximum_version = version
        p = await shaken(ctx, c)
        await p.shake()
        p.tls.write(text({"event": "#publish", "data": {"channel": "broken"}}))
        raw(p, damage(bytearray(p.outward.read())))
        try:
            took = await ended(p)
        except Violation as e:  # the alert; that is an answer
            check("alert" in str(e).lower(), f"{e}")
            took = 0
        check(took < 0.9, f"ended after {took:.2f} s")

    def at(i, value):
        def damage(data):
            data[i] ^= value
            return data
        return damage
    damages = [at(0, 1), at(0, 0xFF), at(1, 0x10), at(5, 1), at(-1, 1), at(20, 0x80), lambda d: d + b"\0" * 40, lambda d: os.urandom(400),
               lambda d: d + d, lambda d: d[:2] + b"\x48\x00" + d[4:] + bytes(0x4800), lambda d: b"\x17\x03\x03\x00\x00" + d,
               lambda d: b"\x17\x03\x03\x00\x01x" * 10, lambda d: b"GET / HTTP/1.1\r\n\r\n", lambda d: b"\x15\x03\x03\x00\x02\x02\x50",
               lambda d: b"\x16\x03\x03\x00\x04\0\0\0\0", lambda d: b"\x14\x03\x03\x00\x01\x01" * 2000]
    before = s.total("publishes_in_total")
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        await asyncio.gather(*(one(version, d) for d in damages))
    check(s.cpu("worker") - used < 2.0, f"{s.cpu('worker') - used:.2f} s of processor time")
    check(s.total("publishes_in_total") - before <= 12, "what was broken was obeyed")
    await idle(ctx, "after broken records")


@S.case("one byte of a handshake turned over, 200 times: an alert, an end or a handshake, nothing left", deadline=30)
async def mutants(ctx):
    r = random.Random(4)
    first = hello()

    async def one():
        p = await bare(ctx)
        data = bytearray(first)
        for _ in range(r.choice((1, 1, 3))):
            data[r.randrange(len(data))] = r.randrange(256)
        raw(p, data)
        await p._more(3)
        p.reset() if r.random() < 0.5 else p.end()
    for _ in range(10):
        await asyncio.gather(*(one() for _ in range(20)))
    await idle(ctx, "after mutants")


@S.case("half handshakes, silent and trickling, end at tls.handshake_timeout; they count as unshaken and cost what came", deadline=25)
async def halves(ctx):
    s = ctx.server
    first, before = hello(), s.rss()
    peers = []
    for i in range(300):
        p = await bare(ctx)
        if i % 3:
            raw(p, first[:i % len(first)] if i % 3 == 1 else first[:6])
        peers.append(p)
    await ctx.until("they are counted", lambda: s.total("connections_unshaken") >= 290)
    check(s.total("tls_connections") == 0, "a session for half a hello")
    check(s.rss() - before < 8 << 20, f"300 half hellos cost {(s.rss() - before) >> 10} KiB")
    trickler = await bare(ctx)
    begin = time.monotonic()

    async def drip():
        for b in first:
            raw(trickler, bytes([b]))
            await asyncio.sleep(0.03)
    task = asyncio.create_task(drip())
    try:
        await ended(trickler, 3)
    finally:
        task.cancel()
    took = time.monotonic() - begin
    check(0.8 < took < 2.2, f"a trickled hello ended after {took:.2f} s, tls.handshake_timeout is 1 s")
    await ctx.until("they are gone", lambda: s.total("connections") == 0, 4)


@S.case("the answer to a hello is not taken: the session ends at tls.handshake_timeout, too", deadline=20)
async def unanswered(ctx):
    s = ctx.server
    first = hello()
    for _ in range(60):
        raw(await bare(ctx, rcvbuf=2048), first)
    await ctx.until("sessions", lambda: s.total("tls_connections") >= 50)
    await ctx.until("they are gone", lambda: s.total("connections") == 0, 4)
    check(s.total("tls_connections") == 0, "sessions are left")


@S.case("a handshake message that never ends, warning alerts, empty and change-cipher-spec records without end: bounded")
async def endless(ctx):
    s = ctx.server
    before = s.rss()

    async def one(data):
        p = await bare(ctx)
        raw(p, data[:300])
        for at in range(300, len(data), 60000):
            try:
                await asyncio.wait_for(p.loop.sock_sendall(p.sock, data[at:at + 60000]), 3)
            except OSError:
                break
        try:
            await ended(p)
        except Violation as e:
            check("no answer" not in str(e), f"{e}")
    record = b"\x16\x03\x01\x40\x00"
    await asyncio.gather(
        one(record + b"\x01\x01\x00\x00" + bytes(16380) + (record + bytes(16384)) * 20), one(record + b"\x01\xff\xff\xff" + bytes(16380) + (record + bytes(16384)) * 200),
        one(b"\x16\x03\x01\x00\x01\x01" * 30000), one(hello() + b"\x15\x03\x03\x00\x02\x01\x00" * 30000), one(hello() + b"\x15\x03\x03\x00\x02\x01\x5a" * 30000),
        one(hello() + b"\x14\x03\x03\x00\x01\x01" * 30000), one(hello() + b"\x17\x03\x03\x00\x00" * 30000), one(hello() * 300))
    check(s.rss() - before < 16 << 20, f"grew by {(s.rss() - before) >> 20} MiB")
    await idle(ctx, "after endless records")


async def s_client(ctx, version, command, times):
    """openssl s_client that gives a command so many times; what it said, and whether it was cut off."""
    p = await asyncio.create_subprocess_exec("openssl", "s_client", "-connect", ctx.server.secure.authority, version, "-msg",
                                             stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
                                             stderr=asyncio.subprocess.STDOUT)
    said = b""
    try:
        while b"Verify return code" not in said:
            said += await asyncio.wait_for(p.stdout.read(65536), 5)

        async def listen():
            nonlocal said
            while data := await p.stdout.read(65536):
                said += data
        ear = asyncio.create_task(listen())
        for _ in range(times):
            if p.returncode is not None:
                break
            try:
                p.stdin.write(command)
                await p.stdin.drain()
            except OSError:
                break
            await asyncio.sleep(0.004)
        await asyncio.wait([asyncio.create_task(p.wait())], timeout=1.0)
        cut = p.returncode is not None
    finally:
        if p.returncode is None:
            p.kill()
        await p.wait()
    await ear
    return said, cut


@S.case("renegotiation by the client is refused")
async def renegotiation(ctx):
    s = ctx.server
    before = s.total("tls_handshakes_total")
    said, _ = await s_client(ctx, "-tls1_2", b"R\n", 3)
    check(b"RENEGOTIATING" in said, "s_client did not try")
    check(s.total("tls_handshakes_total") == before + 1, "a second handshake")
    check(b"no_renegotiation" in said or b"handshake_failure" in said or b"SSL alert" in said or b"alert" in said.lower(), f"{said[-300:]}")


@S.case("a few key updates are served; a flood of them ends the connection")
async def key_updates(ctx):
    s = ctx.server
    broken_before = s.total("close_tls_broken")
    _, cut = await s_client(ctx, "-tls1_3", b"K\n", 5)
    check(not cut, "five key updates were not served")
    by = ctx.bystander(1.5)
    _, cut = await s_client(ctx, "-tls1_3", b"K\n", 200)
    check(cut, "200 key updates within a second or so were served")
    check(s.total("close_tls_broken") > broken_before, "not counted")
    await by.verdict()


@S.case("TCP that ends without close_notify is an ordinary end: nothing in the log, nothing left")
async def no_notify(ctx):
    s = ctx.server
    before, lines = s.total("close_peer_gone"), s.log().count("\n")
    for i in range(40):
        p = await sc(ctx)
        p.reset() if i % 2 else p.end()
    await ctx.until("they are gone", lambda: s.total("connections") == 0)
    check(s.total("close_peer_gone") == before + 40, f"{s.total('close_peer_gone') - before} of 40 counted as gone")
    check(s.total("tls_broken_total") == 0 or s.log().count("\n") - lines < 5, s.log()[-500:])


@S.case("close_notify is answered by one, and the server's own end has one")
async def notify(ctx):
    p = await sc(ctx)
    p.send_fin()
    await ended(p)
    check(p.notified, "no close_notify in answer")
    q = await shaken(ctx)
    q.send(b"GET /nosuch HTTP/1.1\r\nHost: x\r\n\r\n")
    check((await q.response()).status == 404, "no 404")
    await q.expect_end(clean=True)


@S.case("a reader that does not read over TLS: plain and cipher text count, memory flat, 1013 or an end", deadline=30)
async def slow(ctx):
    s = ctx.server
    good = await sc(ctx)
    await good.subscribe("busy")
    sleepers = await asyncio.gather(*(sc(ctx, rcvbuf=4096) for _ in range(40)))
    for z in sleepers:
        z.say({"event": "#subscribe", "data": {"channel": "busy"}, "cid": 2})
    await ctx.until("subscriptions", lambda: s.total("subscriptions") == 41)
    before, peak = s.rss(), 0
    p = await sc(ctx)

    async def reader():
        for i in range(400):
            check((await good.packet())["data"]["data"][0] == i, f"not {i}")
    task = asyncio.create_task(reader())
    for i in range(400):
        p.send(text({"event": "#publish", "data": {"channel": "busy", "data": [i, "x" * 8000]}}))
        await asyncio.sleep(0.003)
        peak = max(peak, s.rss()) if i % 20 == 0 else peak
    await task
    await ctx.until("the sleepers are gone", lambda: s.total("connections_open") <= 2, 8)
    check(peak - before < 64 << 20, f"40 slow readers cost {(peak - before) >> 20} MiB")


@S.case("an echo over TLS that is not read stops the reading, then ends", deadline=25)
async def echo(ctx):
    s = ctx.server
    before = s.rss()
    p = await shaken(ctx, rcvbuf=4096)
    p.path = "/echo"
    await p.upgrade()
    p.send(*[frame(BINARY, bytes(4 << 20))] * 8)
    await ctx.until("the stalled one is gone", lambda: s.total("connections") == 0, 12)
    check(s.rss() - before < 48 << 20, f"grew by {(s.rss() - before) >> 20} MiB")


@Q.case("a storm of handshakes: all get through, paced; a bystander is not kept waiting", deadline=40)
async def storm(ctx):
    s = ctx.server
    by = ctx.bystander(2.5)
    begin = time.monotonic()
    while time.monotonic() - begin < 2.0:
        peers = await asyncio.gather(*(shaken(ctx) for _ in range(40)))
        for i, p in enumerate(peers):
            p.reset() if i % 2 else p.end()
        ctx.peers = []
    await by.verdict()
    check(s.total("tls_handshakes_total") > 100, "no storm")


@Q.case("800 connections over TLS that come and are reset in every phase leave nothing", deadline=40)
async def churn(ctx):
    s = ctx.server
    fds, first = s.fds(), hello()
    for r in range(8):
        async def one(i):
            p = await bare(ctx)
            phase = i % 5
            if phase == 1:
                raw(p, first[:100])
            elif phase == 2:
                raw(p, first)
            elif phase > 2:
                await asyncio.wait_for(p.shake_tls(context()), 10)
                if phase == 4:
                    await p.shake()
            p.reset() if (i + r) % 2 else p.end()
        await asyncio.gather(*(one(i) for i in range(100)))
        ctx.peers = []
    await ctx.until("descriptors back", lambda: s.fds() <= fds + 2, 8)
    await ctx.until("sessions gone", lambda: s.total("tls_connections") == 0, 8)


@V.case("client certificates optional: none is served, a good one is, one of a stranger is not")
async def optional(ctx):
    mine = key_pair("mine", subject="me", issuer=key_pair("ca"), usage="clientAuth")
    other = key_pair("other", subject="me")
    await (await shaken(ctx)).shake()
    await (await shaken(ctx, certs.client(key_pair("server"), mine))).shake()
    try:
        p = await shaken(ctx, certs.client(key_pair("server"), other))
        await p.shake()
        check(False, "a stranger's certificate was taken")
    except (ssl.SSLError, OSError):
        pass
    except Violation as e:
        check("taken" not in str(e), str(e))
    check('subject="CN=me"' in ctx.server.log() or "CN=me" in ctx.server.log(), "the subject is not in the log")
