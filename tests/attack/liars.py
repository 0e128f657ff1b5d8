"""A broker that lies: answers nobody asked for and lanes full of nonsense, against a worker (hardening
section 15). The worker runs alone and attaches to a socket of ours."""
import asyncio
import mmap
import os
import random
import socket
import struct
import subprocess
import tempfile
import time

from harness import Server, Violation, check, scene, text

MAGIC = 0x31454E414C534352
SEGMENT, LANE, BYTES = 384, 256, 65536
MESSAGE, DONE, FAILED, XOFF, XON, GAP, TALLY = 3, 5, 7, 9, 11, 13, 15


class Worker(Server):
    """`ringcast-worker` alone, with what the harness asks of a server."""

    def __init__(self, bin_dir, settings, nofile=0):
        self.bin, self.dir = bin_dir, tempfile.mkdtemp(prefix="attack-")
        self.run_dir, self.log_path = self.dir, os.path.join(self.dir, "stderr")
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(os.path.join(self.run_dir, "broker-0.sock"))
        os.chmod(self.run_dir, 0o711)  # as a broker does whose workers are of another user
        os.chmod(os.path.join(self.run_dir, "broker-0.sock"), 0o666)
        self.listener.listen(8)
        self.listener.settimeout(4)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.host, self.port = probe.getsockname()
        flags = {"worker.listen": f"tcp://{self.host}:{self.port}", "run.dir": self.run_dir, "worker.rings": 1,
                 "worker.index": 0, "lane.bytes": BYTES, "ws.max_message": "24KiB", "broker.dead_after": "60s",
                 "worker.user": "root" if os.geteuid() == 0 else "", **settings}  # the socket is ours
        with open(self.log_path, "wb") as errors:
            self.proc = subprocess.Popen([os.path.join(bin_dir, "ringcast-worker")] + [f"--{k}={v}" for k, v in flags.items()],
                                         stdout=subprocess.DEVNULL, stderr=errors)
        end = time.monotonic() + 10
        while time.monotonic() < end and self.proc.poll() is None:
            with socket.socket() as probe:
                listens = probe.connect_ex((self.host, self.port)) == 0
            if listens and self.shows_counters():  # it listens a moment before its counters are there
                return
            time.sleep(0.05)
        raise Violation("the worker did not start: " + self.log()[-1500:])

    def shows_counters(self):
        try:
            return any(p["process"] == "worker" for p in self.pages())
        except ValueError:
            return False

    def pids(self, role):
        return [self.proc.pid] if role == "worker" else []

    def end(self):
        self.listener.close()
        return super().end()


S = scene("liars", {}, server=Worker)


class FakeBroker:
    """One attach of the worker's ring."""

    def __init__(self, s):
        self.sock, _ = s.listener.accept()
        self.sock.settimeout(3)
        hello, fds, _, _ = socket.recv_fds(self.sock, 4096, 4)
        self.map = mmap.mmap(fds[0], SEGMENT + 2 * (LANE + BYTES))
        os.close(fds[0])
        self.back, self.tail, self.head = SEGMENT + LANE + BYTES, 0, 0

    def welcome(self, raw=None):
        self.sock.send(struct.pack("<QI116s", MAGIC, 1, b"") if raw is None else raw)
        struct.pack_into("@Q", self.map, 256, time.monotonic_ns())
        return self

    def write(self, raw):
        at = self.back + LANE + self.tail % BYTES
        self.map[at:at + len(raw)] = raw

    def commit(self, tail):
        # One store of eight bytes. struct.pack_into clears its room first, and would show a tail that went back.
        self.tail = tail
        with memoryview(self.map) as m, m.cast("Q") as words:
            words[self.back // 8] = tail & ((1 << 64) - 1)
        try:
            self.sock.send(b"!")
        except OSError:
            pass

    def record(self, kind, payload, flags=0, aux=0, n=None):
        raw = struct.pack("<IBBH", len(payload) if n is None else n, kind, flags, aux) + payload
        raw += bytes(-len(raw) % 8)
        end = time.monotonic() + 3
        while self.tail + len(raw) - struct.unpack_from("<Q", self.map, self.back + 128)[0] > BYTES:
            check(time.monotonic() < end, "the worker does not empty its lane")
            time.sleep(0.001)
        self.write(raw)
        self.commit(self.tail + len(raw))

    def take(self, wanted, seconds=3):
        """Payload of the next record of that type from the worker."""
        end = time.monotonic() + seconds
        base = SEGMENT + LANE
        while time.monotonic() < end:
            tail, = struct.unpack_from("<Q", self.map, SEGMENT)
            while self.head < tail:
                at = base + self.head % BYTES
                n, kind, _, _ = struct.unpack_from("<IBBH", self.map, at)
                payload = bytes(self.map[at + 8:at + 8 + n])
                self.head += (8 + n + 7) & ~7
                struct.pack_into("@Q", self.map, SEGMENT + 128, self.head)
                if kind == wanted:
                    return payload
            time.sleep(0.005)
        raise Violation(f"no record {wanted} from the worker")

    def gone(self):
        try:
            while self.sock.recv(4096):
                pass
            return True
        except ConnectionError:
            return True
        except (TimeoutError, socket.timeout):
            return False

    def end(self):
        self.sock.close()
        self.map.close()


async def attach(ctx):
    f = await asyncio.to_thread(FakeBroker, ctx.server)
    f.welcome()
    await asyncio.to_thread(f.take, 8)  # SYNC
    f.record(DONE, struct.pack("<I", 1))
    return f


@S.case("answers nobody asked for, and records of every kind with nonsense: the lane is given up, clients stay")
async def nonsense(ctx):
    s = ctx.server
    u32 = struct.Struct("<I").pack
    lies = [lambda f: f.record(DONE, u32(1)), lambda f: f.record(DONE, u32(0xFFFFFFFF)), lambda f: f.record(DONE, b"123"),
            lambda f: f.record(FAILED, u32(0)), lambda f: f.record(FAILED, u32(1)), lambda f: f.record(FAILED, u32(1 << 31)),
            lambda f: f.record(FAILED, b""), lambda f: f.record(MESSAGE, bytes(15)), lambda f: f.record(2, bytes(16)),
            lambda f: f.record(GAP, bytes(15)), lambda f: f.record(GAP, bytes(17)), lambda f: f.record(GAP, b""),
            lambda f: f.record(TALLY, bytes(11)), lambda f: f.record(TALLY, bytes(13)),
            lambda f: f.record(200, b"x"), lambda f: f.record(XOFF, b"x", n=0xFFFFFFF0), lambda f: f.record(0, b"", n=0xFFFFFFF8),
            lambda f: f.record(MESSAGE, bytes(16), n=BYTES), lambda f: f.commit(4), lambda f: f.commit(BYTES + 8),
            lambda f: f.commit(-8), lambda f: f.commit(1 << 63)]
    corrupt = s.total("lane_corrupt_total")
    p = await ctx.sc()
    for i, lie in enumerate(lies):
        f = await attach(ctx)
        lie(f)
        check(await asyncio.to_thread(f.gone), f"lie {i} was believed")
        f.end()
    check(s.total("lane_corrupt_total") == corrupt + len(lies), f"counted {s.total('lane_corrupt_total') - corrupt}")
    (await attach(ctx)).end()
    check((await p.ask("#handshake", {}))["data"]["id"], "the client does not go on")


@S.case("greetings that are no welcome are survived")
async def greetings(ctx):
    for raw in (b"x", struct.pack("<QI116s", MAGIC, 0, b"n" * 116)):
        f = await asyncio.to_thread(FakeBroker, ctx.server)
        f.welcome(raw)
        check(await asyncio.to_thread(f.gone), f"{raw[:12]} was a welcome")
        f.end()
    (await attach(ctx)).end()


@S.case("messages for channels and generations nobody has are dropped; XOFF and XON without end are bounded")
async def messages(ctx):
    f = await attach(ctx)
    p = await ctx.sc()
    p.say({"event": "#subscribe", "data": {"channel": "real"}, "cid": 5})
    chan, gen = struct.unpack_from("<II", await asyncio.to_thread(f.take, 2))
    f.record(DONE, struct.pack("<I", 1))
    await p.answer(5)
    before = ctx.server.rss()
    rnd = random.Random(3)
    for i in range(300):
        wild = rnd.choice((0, 1, chan, chan + 1, (1 << 22) - 1, 1 << 22, 0xFFFFFFFF))
        f.record(MESSAGE, struct.pack("<IIQ", wild, gen + 1, i) + b"1", flags=2)
        f.record(MESSAGE, struct.pack("<IIQ", wild | 1 << 30, gen, i) + b"1", flags=2)
        f.record(GAP, struct.pack("<IIQ", wild, gen + 1, i))
        f.record(TALLY, struct.pack("<III", wild, gen + 1, i))
        f.record(GAP, struct.pack("<IIQ", wild | 1 << 30, gen, i))
        await asyncio.sleep(0.001 if i % 20 == 0 else 0)
    for i in range(6000):
        f.record(XOFF, b"%d" % i)
        if i % 200 == 0:
            await asyncio.sleep(0.01)
    await ctx.until("they were read", lambda: ctx.server.total("lane_xoff") >= 6000)
    f.record(XON, b"nothing")
    f.record(TALLY, struct.pack("<III", chan, gen, 0xFFFFFFFF))
    while (told := struct.unpack("<II", await asyncio.to_thread(f.take, 14)))[0] != 0xFFFFFFFF:
        check(told[1] == 0, f"{told}")
    check(told[1] == 1, f"{told}")
    for count in (5, 0, (1 << 64) - 1):
        f.record(GAP, struct.pack("<IIQ", chan, gen, count))
        got = await p.packet()
        check(got == {"event": "#gap", "data": {"channel": "real", "count": count or None}}, f"{got}")
    f.record(MESSAGE, struct.pack("<IIQ", chan, gen, 7) + b'"true"', flags=2)
    got = await p.packet()
    check(got == {"event": "#publish", "data": {"channel": "real", "data": "true"}}, f"{got}")
    check(ctx.server.rss() - before < 8 << 20, "memory grew")
    ctx.end()
    f.end()


@S.case("a broker that answers no question: the client is not read from beyond a bound, and is told in the end", deadline=25)
async def silent(ctx):
    f = await attach(ctx)
    before = ctx.server.rss()
    p = await ctx.sc()
    n = 30000
    p.send(b"".join(text(b'{"event":"#publish","data":{"channel":"s"},"cid":%d}' % i) for i in range(n)))
    await ctx.until("reading has stopped", lambda: ctx.server.total("reads_paused_total") > 0)
    cpu = ctx.server.cpu("worker")
    await asyncio.sleep(1.0)
    used = ctx.server.cpu("worker") - cpu
    check(used < 0.06, f"{used * 1e3:.0f} ms of processor time while a broker is silent")
    check(ctx.server.rss() - before < 24 << 20, "memory grew")
    f.sock.close()
    g = await asyncio.to_thread(FakeBroker, ctx.server)
    a = await p.packet()
    check(a.get("rid") == 0 and a["error"]["name"] == "BrokerError", f"a false success: {a}")
    ctx.end()
    g.end()
    f.map.close()
