"""A worker that lies: greetings and lanes full of nonsense, against a broker (hardening section 15).

The fake attaches like a ring thread does (proto/ipc.h) and then writes what it likes. The hash of the
message table is read from the memory of a real worker, so a new table needs no change here."""
import asyncio
import fcntl
import mmap
import os
import random
import re
import socket
import struct
import threading
import time

from harness import Violation, check, idle, scene, text

S = scene("lanes", {"lane.bytes": "64KiB", "lane.overflow_bytes": "1MiB", "ws.max_message": "24KiB",
                    "broker.dead_after": "1500ms"})
MAGIC, VERSION = 0x31454E414C534352, 1
SEGMENT, LANE, F_ADD_SEALS, SEALS = 384, 256, 1033, 1 | 2 | 4  # seal, shrink, grow
SUBSCRIBE, UNSUBSCRIBE, PUBLISH, SYNC, BUSY, EASED, TALLIED = 2, 4, 6, 8, 10, 12, 14
ASK = b"RCSASK 1"


def table_hash(pid):
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb") as mem:
        for line in maps:
            found = re.match(r"([0-9a-f]+)-[0-9a-f]+ rw-s .*memfd:", line)
            if found:
                mem.seek(int(found[1], 16))
                magic, value = struct.unpack("<QQ", mem.read(16))
                if magic == MAGIC:
                    return value
    raise Violation("no segment in the worker's memory")


class Fake:
    def __init__(self, ctx, lane=65536):
        self.s, self.lane = ctx.server, lane
        self.hash = table_hash(self.s.pids("worker")[0])
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(3)
        self.sock.connect(os.path.join(self.s.run_dir, "broker-0.sock"))
        self.tail = 0
        self.map = None

    def segment(self, size=None, seals=SEALS):
        size = SEGMENT + 2 * (LANE + self.lane) if size is None else size
        fd = os.memfd_create("fake", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, size)
        if seals:
            fcntl.fcntl(fd, F_ADD_SEALS, seals)
        self.map = mmap.mmap(fd, size) if size else None
        return fd

    def hello(self, fds, magic=MAGIC, hash_=None, version=VERSION, lane=None, extra=b"", cut=None):
        body = struct.pack("<QQIIIIiI", magic, self.hash if hash_ is None else hash_, version,
                           self.lane if lane is None else lane, 7, 7, os.getpid(), 0) + extra
        socket.send_fds(self.sock, [body[:cut]], fds)
        for fd in fds:
            os.close(fd)

    def welcome(self):
        try:
            answer = self.sock.recv(4096)
        except ConnectionError:
            return None
        if len(answer) < 12:
            return None
        return struct.unpack_from("<QI", answer)[1] == 1

    def attach(self):
        self.hello([self.segment()])
        check(self.welcome(), "a proper greeting was refused")
        self.beat()
        return self

    def beat(self):
        # One store of eight bytes. struct.pack_into clears its room first, and would show a heartbeat of long ago.
        with memoryview(self.map) as m, m.cast("Q") as words:
            words[128 // 8] = time.monotonic_ns()

    def write(self, raw, at=None):
        at = (self.tail if at is None else at) % self.lane
        self.map[SEGMENT + LANE + at:SEGMENT + LANE + at + len(raw)] = raw

    def commit(self, tail):
        # One store of eight bytes. struct.pack_into clears its room first, and would show a tail that went back.
        self.tail = tail
        with memoryview(self.map) as m, m.cast("Q") as words:
            words[SEGMENT // 8] = tail
        try:
            self.sock.send(b"!")
        except OSError:
            pass

    def record(self, type_, payload, flags=0, aux=0, n=None):
        raw = struct.pack("<IBBH", len(payload) if n is None else n, type_, flags, aux) + payload
        raw += bytes(-len(raw) % 8)
        self.write(raw)
        self.commit(self.tail + len(raw))

    def gone(self, limit=2):
        """Whether the broker hung up."""
        self.sock.settimeout(limit)
        try:
            while True:
                if not self.sock.recv(4096):
                    return True
        except (ConnectionError, socket.timeout) as e:
            return isinstance(e, ConnectionError)

    def end(self):
        self.sock.close()
        if self.map is not None:
            self.map.close()


def counters(ctx):
    page = next(p for p in ctx.server.pages() if p["process"] == "broker")
    return page["pid"], page["counters"]


async def settled(ctx):
    await ctx.until("only the real ring is attached", lambda: counters(ctx)[1]["peers"] == 1, 4)
    p = await ctx.sc()
    await p.alive()


@S.case("greetings: wrong magic, version, table, size, seals, descriptors: refused, counted, no descriptor kept")
async def greetings(ctx):
    s = ctx.server
    await settled(ctx)
    pid, before = counters(ctx)
    fds = s.fds("broker")
    attempts = [lambda f: f.hello([f.segment()], magic=1), lambda f: f.hello([f.segment()], version=2),
                lambda f: f.hello([f.segment()], hash_=f.hash ^ 1), lambda f: f.hello([f.segment(seals=0)]),
                lambda f: f.hello([f.segment(seals=2 | 4)]), lambda f: f.hello([f.segment(size=4096)]),
                lambda f: f.hello([f.segment(size=0)]), lambda f: f.hello([f.segment()], lane=65537),
                lambda f: f.hello([f.segment()], lane=0), lambda f: f.hello([f.segment()], lane=1 << 31),
                lambda f: f.hello([f.segment()], lane=1 << 30), lambda f: f.hello([]), lambda f: f.hello([f.segment()], cut=8),
                lambda f: f.hello([f.segment(), os.open("/dev/null", os.O_RDONLY)]),
                lambda f: f.hello([os.open("/dev/null", os.O_RDONLY) for _ in range(9)]),
                lambda f: f.hello([os.open("/dev/zero", os.O_RDWR)]), lambda f: f.hello([f.segment()], extra=bytes(400)),
                lambda f: f.sock.send(b"x"), lambda f: f.sock.send(bytes(60000))]
    for i, attempt in enumerate(attempts):
        for _ in range(3):
            f = Fake(ctx)
            attempt(f)
            ok = await asyncio.to_thread(f.welcome)
            # Bytes behind a greeting of the right form are cut off by the kernel: that one may pass.
            check(not ok or i == 16, f"greeting {i} was welcomed")
            f.end()
    for _ in range(50):
        Fake(ctx).end()
    await settled(ctx)
    now_pid, after = counters(ctx)
    check(now_pid == pid, "the broker died")
    check(after["refused_attach_total"] >= before["refused_attach_total"] + 3 * (len(attempts) - 1), "not counted")
    await ctx.until("descriptors back", lambda: s.fds("broker") <= fds, 7)


@S.case("a lane of another size than ours is refused: its ring could not take what others publish")
async def sizes(ctx):
    f = Fake(ctx, lane=131072)
    f.hello([f.segment()])
    check(await asyncio.to_thread(f.welcome) is False, "it was welcomed")
    f.end()


@S.case("records of every kind with nonsense in them: that lane is given up, counted, and nothing else")
async def nonsense(ctx):
    await settled(ctx)
    pid, before = counters(ctx)
    lies = [lambda f: f.record(SUBSCRIBE, b"1234567"), lambda f: f.record(SUBSCRIBE, bytes(8 + 4097)),
            lambda f: f.record(SUBSCRIBE, struct.pack("<II", 1 << 22, 0) + b"x"),
            lambda f: f.record(SUBSCRIBE, struct.pack("<II", 0xFFFFFFFF, 0) + b"x"), lambda f: f.record(SUBSCRIBE, b""),
            lambda f: f.record(UNSUBSCRIBE, b"123"), lambda f: f.record(UNSUBSCRIBE, bytes(9)),
            lambda f: f.record(PUBLISH, b"abc", aux=4), lambda f: f.record(PUBLISH, bytes(5000), aux=4097),
            lambda f: f.record(PUBLISH, b"", aux=65535), lambda f: f.record(3, bytes(16)), lambda f: f.record(1, b""),
            lambda f: f.record(255, b"x"), lambda f: f.record(5, bytes(4)), lambda f: f.record(BUSY, b"123"),
            lambda f: f.record(BUSY, bytes(8)), lambda f: f.record(TALLIED, bytes(7)), lambda f: f.record(TALLIED, b""),
            lambda f: f.record(EASED, b"x"), lambda f: f.record(PUBLISH, b"", n=0xFFFFFFFF),
            lambda f: f.record(PUBLISH, b"", n=0xFFFFFFF9), lambda f: f.record(PUBLISH, b"x", n=65536, aux=1),
            lambda f: f.record(PUBLISH, b"x", n=4096, aux=1), lambda f: f.record(0, b"", n=0xFFFFFFF8),
            lambda f: f.commit(4), lambda f: f.commit(65544), lambda f: f.commit((1 << 64) - 8), lambda f: f.commit(1 << 63)]
    for i, lie in enumerate(lies):
        f = Fake(ctx).attach()
        f.record(SUBSCRIBE, struct.pack("<II", 5, 1) + b"fake", flags=1)
        lie(f)
        check(await asyncio.to_thread(f.gone), f"lie {i} was believed")
        f.end()
    f, syncs = Fake(ctx).attach(), counters(ctx)[1]["lane_sync"]
    f.record(SYNC, b"")
    await ctx.until("it was read", lambda: counters(ctx)[1]["lane_sync"] > syncs)
    f.commit(0)  # back
    check(await asyncio.to_thread(f.gone), "a tail that went back was believed")
    f.end()
    await settled(ctx)
    now_pid, after = counters(ctx)
    check(now_pid == pid, "the broker died")
    check(after["corrupt_lanes_total"] >= before["corrupt_lanes_total"] + len(lies) + 1, "not counted")


@S.case("lanes of random bytes, 150 of them")
async def noise(ctx):
    await settled(ctx)
    pid, _ = counters(ctx)
    rnd = random.Random(5)
    for i in range(150):
        f = Fake(ctx).attach()
        if i % 2:
            f.write(rnd.randbytes(4096))
            f.commit(4096)
        else:  # of the right form, with wild contents
            for _ in range(rnd.randrange(1, 40)):
                kind = rnd.choice((2, 2, 4, 6, 6, 8, 10, 12, 14))
                body = rnd.randbytes(rnd.randrange(0, 24))
                if kind == 2:
                    body = struct.pack("<II", rnd.randrange(8), rnd.randrange(3)) + body[:rnd.randrange(3)]
                if kind == 4:
                    body = struct.pack("<II", rnd.randrange(8), rnd.randrange(3))
                f.record(kind, body, flags=rnd.randrange(4), aux=rnd.randrange(0, len(body) + 1) if kind == 6 else 0)
        if i % 5 == 0:
            await asyncio.sleep(0.01)
        f.end()
    await settled(ctx)
    check(counters(ctx)[0] == pid, "the broker died")


@S.case("one channel under many numbers and many channels under one: no interest is left")
async def renamed(ctx):
    await settled(ctx)
    f, before = Fake(ctx).attach(), counters(ctx)[1]["lane_subscribe"]
    for i in range(60):
        f.record(SUBSCRIBE, struct.pack("<II", i, i) + b"same", flags=1)
        f.record(SUBSCRIBE, struct.pack("<II", 9, i) + b"n%d" % (i % 7), flags=1)
        if i % 3 == 0:
            f.record(UNSUBSCRIBE, struct.pack("<II", i // 2, i // 2))
    await ctx.until("they were read", lambda: counters(ctx)[1]["lane_subscribe"] >= before + 120)
    f.end()
    await settled(ctx)
    check(counters(ctx)[1]["interests"] == 0, "interests of a dead ring")


@S.case("the back lane's head and flags lie: only that lane is affected")
async def head(ctx):
    await settled(ctx)
    pid, _ = counters(ctx)
    f = Fake(ctx).attach()
    f.record(SUBSCRIBE, struct.pack("<II", 1, 1) + b"liar", flags=1)
    back = SEGMENT + LANE + f.lane
    p = await ctx.sc()
    for lie in (1 << 63, (1 << 64) - 1, 7, 0, 1 << 20):
        struct.pack_into("<QI", f.map, back + 128, lie, 1)
        struct.pack_into("<I", f.map, back + 8, 1)
        for _ in range(100):
            p.send(text({"event": "#publish", "data": {"channel": "liar", "data": "l" * 200}}))
        await p.alive()
        f.beat()
    f.end()
    await settled(ctx)
    check(counters(ctx)[0] == pid, "the broker died")


@S.case("a ring that beats but takes nothing: its channel stops, others go on, the broker sleeps", deadline=30)
async def stuck(ctx):
    await settled(ctx)
    f = Fake(ctx).attach()
    f.record(SUBSCRIBE, struct.pack("<II", 1, 1) + b"stuck", flags=1)
    p = await ctx.sc()
    stop = threading.Event()

    def beating():  # whatever else this process waits for
        while not stop.wait(0.05):
            f.beat()
    task = threading.Thread(target=beating)
    task.start()
    try:
        for _ in range(300):
            p.send(text({"event": "#publish", "data": {"channel": "stuck", "data": "s" * 10000}}))
        await ctx.until("the stop", lambda: counters(ctx)[1]["xoff_total"] > 0)
        by = ctx.bystander(1.2)
        await by.verdict()
        await idle(ctx, "a lane is full", limit=0.06)
    finally:
        stop.set()
        task.join()
        f.end()
    await p.alive()


@S.case("a ring that stops beating is given up within broker.dead_after and a second")
async def silent(ctx):
    await settled(ctx)
    f = Fake(ctx).attach()
    check(await asyncio.to_thread(f.gone, 5), "still attached after five seconds")
    f.end()


@S.case("bells without end cost the broker no other's time")
async def bells(ctx):
    await settled(ctx)
    f = Fake(ctx).attach()
    by = ctx.bystander(1.0)
    f.sock.setblocking(False)
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        f.beat()
        try:
            for _ in range(50):
                f.sock.send(b"!")
        except BlockingIOError:
            pass
        except OSError:
            break
        await asyncio.sleep(0.002)
    await by.verdict()
    f.end()


@S.case("questions instead of greetings: many, long, of nobody's, and answers not taken: no descriptor kept, the broker goes on")
async def questions(ctx):
    s = ctx.server
    await settled(ctx)
    pid, before = counters(ctx)
    fds, rnd = s.fds("broker"), random.Random(9)
    held = []
    for i in range(120):
        f = Fake(ctx)
        f.sock.setblocking(False)
        question = (b"hosts", b"bus", b"occupancy x", b"", b"occupancy ", rnd.randbytes(50), b"occupancy " + bytes(5000), b"hosts\n")[i % 8]
        f.sock.send(ASK + question)
        held.append(f)
        if len(held) > 40:
            held.pop(0).end()
        await asyncio.sleep(0.002)
    ok = await asyncio.to_thread(answered, Fake(ctx), b"hosts")
    check(ok.startswith(b"host id=") and ok.endswith(b"end\n"), f"{ok}")
    f = Fake(ctx).attach()
    f.record(SUBSCRIBE, struct.pack("<II", 3, 1) + b"counted", flags=1)
    f.record(SYNC, b"")
    for ask in range(50):  # nobody asked
        f.record(TALLIED, struct.pack("<II", ask, 1 << 31))
    ok = await asyncio.to_thread(answered, Fake(ctx), b"occupancy counted")  # its ring does not answer
    check(b" count=0 silent=1 " in ok, f"{ok}")
    for h in held + [f]:
        h.end()
    await settled(ctx)
    now_pid, after = counters(ctx)
    check(now_pid == pid, "the broker died")
    check(after["asks_total"] > before["asks_total"], "not counted")
    await ctx.until("descriptors back", lambda: s.fds("broker") <= fds, 7)


def answered(f, question):
    f.sock.settimeout(3)
    f.sock.send(ASK + question)
    said = b""
    while piece := f.sock.recv(65536):
        said += piece
    f.end()
    return said
