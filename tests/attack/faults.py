"""System calls and allocations that fail, one after the other (the method of SQLite's tests): the n-th operation
of each kind that a worker gives to its ring fails, a load runs, and all must be as before; then n + 1."""
import asyncio
import mmap
import os
import shutil
import struct
import subprocess
import tempfile
import time

from harness import BINARY, Violation, check, frame, scene
from tls import SETTINGS, Secure, shaken

HERE = os.path.dirname(os.path.abspath(__file__))
# IORING_OP_... of the kernel's io_uring.h
OPS = {"poll": 6, "sendmsg": 9, "accept": 13, "cancel": 14, "send": 26, "receive": 27}
FAIL, SHORT, NONE = 0, 1, 255


class Plan:
    """The file that tests/attack/faults.c looks at: struct plan."""

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="attack-faults-")
        os.chmod(self.dir, 0o755)
        self.library = os.path.join(self.dir, "faults.so")
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", self.library, os.path.join(HERE, "faults.c"), "-ldl"], check=True)
        self.path = os.path.join(self.dir, "plan")
        with open(self.path, "wb") as f:
            f.write(struct.pack("8I", NONE, 0, 0, 0, 0, 0, 0, 0))
        os.chmod(self.path, 0o666)  # the worker may be another user
        with open(self.path, "r+b") as f:
            self.map = mmap.mmap(f.fileno(), 32)

    def make(self, op=NONE, how=FAIL, nth=0, alloc_nth=0):
        """Counters first, what sets it going last."""
        self.map[12:32] = struct.pack("5I", 0, 0, 0, 0, 0)
        self.map[4:12] = struct.pack("2I", how, nth)
        self.map[0:4] = struct.pack("I", op)
        self.map[20:24] = struct.pack("I", alloc_nth)

    @property
    def hits(self):
        _, _, _, _, hit, _, _, alloc_hit = struct.unpack("8I", self.map[:])
        return hit + alloc_hit


class Faulty(Secure):
    def __init__(self, bin_dir, settings, nofile=0):
        self.plan = Plan()
        self.env = {"LD_PRELOAD": self.plan.library, "FAULTS_PLAN": self.plan.path}
        self.plan.make(OPS["accept"], FAIL, 1)
        super().__init__(bin_dir, settings, nofile)
        end = time.monotonic() + 5  # a worker is ready before its first turn is over
        while self.plan.hits == 0 and time.monotonic() < end:
            time.sleep(0.01)
        self.accept_failed = self.plan.hits
        self.plan.make()

    def end(self):
        self.plan.make()
        try:
            return super().end()
        finally:
            shutil.rmtree(self.plan.dir, ignore_errors=True)


F = scene("faults", {**SETTINGS, "lane.hold_time": "300ms"}, server=Faulty)


async def a_life(ctx, secure):
    """A bit of everything. Any of it may be cut off; nothing in it may be wrong."""
    async def tcp(**options):
        p = await asyncio.wait_for(shaken(ctx, **options), 2) if secure else await ctx.tcp(**options)
        p.limit = 1.0
        return p
    try:
        p = await (await tcp()).shake()
        channel = f"life {secure}"
        await p.subscribe(channel)
        a = await p.ask("#publish", {"channel": channel, "data": "x" * 3000})
        check("error" not in a, f"{a}")
        got = p.news[0] if p.news else await p.packet()
        check(got["data"]["data"] == "x" * 3000, "another message")
        await p.ask("#unsubscribe", channel)
        # More than sockets take, not read at once: short sends, waiting for room, receiving that is called back.
        z = await tcp(rcvbuf=4096)
        z.path = "/echo"
        await z.upgrade()
        z.send(*[frame(BINARY, bytes([i]) * 300000) for i in range(8)])
        await asyncio.sleep(0.05)  # the stimulus: it is not read meanwhile
        for i in range(8):
            await z.expect(BINARY, bytes([i]) * 300000)
        await z.leave()
        return 1
    except (Violation, OSError, TimeoutError) as e:
        check("instead of" not in str(e) or "TCP ended" in str(e) or "op=8" in str(e) or "101" in str(e), str(e))
        return 0


async def life(ctx):
    """Plain and over TLS; how many came through."""
    done = await asyncio.gather(a_life(ctx, False), a_life(ctx, True))
    ctx.end()
    return sum(done)


@F.case("accepting fails at the start: it is tried again")
async def accepting(ctx):
    check(ctx.server.accept_failed == 1, "it did not fail")
    check(await life(ctx) == 2, "nobody is accepted")
    check(ctx.server.total("accept_paused_total") == 1, "not counted")


@F.case("the n-th completion of each kind fails: at most the one concerned ends, and the server goes on", deadline=120)
async def each(ctx):
    plan = ctx.server.plan
    check(await life(ctx) == 2, "does not work without faults either")
    missed = []
    for what, op in OPS.items():
        n = 1
        while n <= 6 and what != "accept":
            plan.make(op, FAIL, n)
            await life(ctx)
            hit = plan.hits
            plan.make()
            check(ctx.server.proc.poll() is None, f"{what} {n}: the server ended")
            await ctx.until(f"{what} {n}: life goes on", lambda: ctx.server.total("connections") == 0, 5)
            if hit == 0:
                break
            n += 1
        if n == 1 and what != "accept":
            missed.append(what)
        check(await life(ctx) == 2, f"after {what}: it does not work any more")
    check(set(missed) <= {"sendmsg"}, f"these never happened: {missed}")


@F.case("each send is short, one byte at a time: everything arrives, in order", deadline=60)
async def short(ctx):
    plan = ctx.server.plan
    for what in ("send", "sendmsg"):
        plan.make(OPS[what], SHORT)
        p = await ctx.sc()
        await p.subscribe("short")
        for i in range(6):
            p.say({"event": "#publish", "data": {"channel": "short", "data": [i, "y" * 40]}})
        for i in range(6):
            check((await p.packet())["data"]["data"][0] == i, f"not {i}")
        q = await shaken(ctx)
        await q.shake()
        await q.alive()
        hits = plan.hits
        plan.make()
        check(what != "send" or hits > 100, f"only {hits} short sends")
        ctx.end()


@F.case("allocations fail now and then: the one concerned ends, the server goes on", deadline=90)
async def memory(ctx):
    plan, hits = ctx.server.plan, 0
    for nth in (2, 5, 11, 29, 97, 211):
        plan.make(alloc_nth=nth)
        await life(ctx)
        hits += plan.hits
        plan.make()
        check(ctx.server.proc.poll() is None, f"every {nth}th: the server ended")
        await ctx.until(f"every {nth}th: nobody is left", lambda: ctx.server.total("connections") == 0, 5)
        check(await life(ctx) == 2, f"every {nth}th: it does not work any more")
    check(hits > 10, f"only {hits} allocations failed")
