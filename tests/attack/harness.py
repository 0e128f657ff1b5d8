"""What an attack has at hand: a server of its own, the server's processes and counters, clients that
misbehave, a bystander that notices when they are heard, and the books, which must balance afterwards.

A scene is one server with its settings; its cases run one after another, and after each of them the
gauges must be back at zero, no process may have died, and stderr may hold no sanitizer's report."""
import asyncio
import json
import os
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field

for _folder in ("conform", "lib"):
    sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", _folder))
import wire  # noqa: E402
from wire import (BINARY, CLOSE, CONT, PING, PONG, TEXT, Peer, Violation, check, close_body,  # noqa: E402,F401
                  fragments, frame, header, xor)

SCENES = []
ZERO_RING = ("connections", "connections_open", "connections_unshaken", "subscriptions", "channels",
             "queue_bytes", "lane_used_bytes")
ZERO_BROKER = ("channels", "interests", "overflow_bytes", "lane_used_bytes")
# What no attack may bring out of a process.
REPORTS = re.compile(r"ERROR: \w+Sanitizer|runtime error:|LeakSanitizer|BUG at|child-died|Assertion|log-lost|call-(?:refused|forbidden)")


@dataclass
class Scene:
    name: str
    settings: dict
    nofile: int = 0  # open-file limit of its processes
    server: type = None
    cases: list = field(default_factory=list)

    def case(self, name, **options):
        def register(run):
            self.cases.append((name, run, options))
            return run
        return register


def scene(name, settings=None, shape=(1, 1, 1), nofile=0, server=None):
    w, r, b = shape
    s = Scene(name, {"worker.count": w, "worker.rings": r, "broker.count": b, **(settings or {})}, nofile, server or Server)
    SCENES.append(s)
    return s


class Server:
    """`ringcast run` on a free port, in a directory of its own."""

    env = {}  # more of it for its processes

    def __init__(self, bin_dir, settings, nofile=0):
        self.bin = bin_dir
        self.dir = tempfile.mkdtemp(prefix="attack-")
        self.run_dir = os.path.join(self.dir, "run")
        self.log_path = os.path.join(self.dir, "stderr")
        flags = {"worker.listen": "tcp://127.0.0.1:0", "run.dir": self.run_dir, "echo.path": "/echo",
                 "http.playground": "on", **settings}
        argv = [os.path.join(bin_dir, "ringcast"), "run"] + [f"--{k}={v}" for k, v in flags.items()]
        env = {**os.environ, **self.env}
        # The quarantine would look like memory that never comes back.
        env["ASAN_OPTIONS"] = "quarantine_size_mb=4:thread_local_quarantine_size_kb=64:" + env.get("ASAN_OPTIONS", "")
        env["UBSAN_OPTIONS"] = "print_stacktrace=1:" + env.get("UBSAN_OPTIONS", "")
        with open(self.log_path, "wb") as errors:
            self.proc = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=errors, text=True, env=env,
                                         preexec_fn=lambda: nofile and resource.setrlimit(resource.RLIMIT_NOFILE, (nofile, nofile)))
        signal.alarm(30)
        for line in self.proc.stdout:
            found = re.search(r"ready on .*?tcp://([\d.]+):(\d+)", line)
            if found:
                break
        else:
            raise Violation("the server did not start: " + self.log()[-1500:])
        signal.alarm(0)
        self.host, self.port, self.ready = found[1], int(found[2]), line

    @property
    def authority(self):
        return f"{self.host}:{self.port}"

    path = "/socketcluster/"

    def log(self):
        with open(self.log_path, errors="replace") as f:
            return f.read()

    def pids(self, role):
        """Of "worker" or "broker", the latest of each index, in order."""
        found = {}
        for name, pid in re.findall(r"child-started name=(\w+\.\d+) pid=(\d+)", self.log()):
            found[name] = int(pid)
        return [found[n] for n in sorted(found) if n.startswith(role)]

    def pages(self):
        out = subprocess.run([os.path.join(self.bin, "ringcast"), "status", "--json", f"--run.dir={self.run_dir}"],
                             capture_output=True, text=True, timeout=10)
        return json.loads(out.stdout)["pages"]

    def total(self, name, process="worker", pages=None):
        return sum(p["counters"].get(name, 0) for p in pages or self.pages() if p["process"] == process)

    def rss(self, role="worker"):
        """Bytes, all processes of the role."""
        kb = 0
        for pid in self.pids(role):
            with open(f"/proc/{pid}/status") as f:
                kb += int(re.search(r"VmRSS:\s+(\d+)", f.read())[1])
        return kb * 1024

    def scheduled(self, column, roles):
        """Of all threads, by the nanosecond clock of the scheduler. Column 0: ran; 1: could have run, and waited for a processor."""
        ns = 0
        for role in roles:
            for pid in self.pids(role):
                for tid in os.listdir(f"/proc/{pid}/task"):
                    with open(f"/proc/{pid}/task/{tid}/schedstat") as f:
                        ns += int(f.read().split()[column])
        return ns / 1e9

    def cpu(self, *roles):
        """Seconds of processor time."""
        return self.scheduled(0, roles or ("worker", "broker"))

    def held_up(self):
        """Seconds that others had the processors it wanted."""
        return self.scheduled(1, ("worker", "broker"))

    def fds(self, role="worker"):
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in self.pids(role))

    def end(self):
        """Status of its end; the directory goes too."""
        if self.proc.poll() is None:
            self.proc.send_signal(signal.SIGTERM)
            try:
                self.proc.wait(8)
            except subprocess.TimeoutExpired:
                self.proc.kill()
                self.proc.wait()
        text = self.log()
        shutil.rmtree(self.dir, ignore_errors=True)
        return self.proc.returncode, text


class Sock(Peer):
    """A SocketCluster client, as far as an attack needs one."""

    answered_pings = True
    cid = 0

    async def shake(self):
        await self.upgrade()
        self.say({"event": "#handshake", "data": {"authToken": None}, "cid": 1})
        answer = json.loads((await self.message())[1])
        check(answer.get("rid") == 1 and "id" in answer["data"], f"no welcome: {answer}")
        self.cid = 1
        return self

    def say(self, packet):
        self.send(text(packet))

    async def hear(self):
        """The next message that is no ping, as (raw bytes)."""
        while True:
            data = (await self.message([]))[1]
            if data:
                return data
            self.send(frame(TEXT, b""))

    async def packet(self):
        return json.loads(await self.hear())

    async def ask(self, event, data):
        """Sends a request, returns its response; what comes before that is kept in .news."""
        self.cid += 1
        self.say({"event": event, "data": data, "cid": self.cid})
        return await self.answer(self.cid)

    news = None

    async def answer(self, cid):
        self.news = self.news or []
        while True:
            p = await self.packet()
            if p.get("rid") == cid:
                return p
            self.news.append(p)

    async def subscribe(self, channel):
        a = await self.ask("#subscribe", {"channel": channel})
        check("error" not in a, f"subscribe failed: {a}")

    async def closed(self, *codes, limit=None):
        """Reads on to the Close frame, whatever comes before, and to the end of TCP."""
        while True:
            f = await self.frame()
            if f is None:
                check(None in codes, f"TCP ended ({self.eof}) without Close {codes}")
                return
            if f.op == CLOSE:
                check(f.code in codes, f"Close {f.code} instead of {codes}")
                self.send(frame(CLOSE, f.data))
                await self.expect_end(limit=limit)
                return

    async def alive(self):
        """Shows that the connection serves on."""
        self.cid += 1
        cid = 700000000 + self.cid
        self.say({"event": "#publish", "data": {"channel": "alive"}, "cid": cid})
        await self.answer(cid)


def text(packet):
    return frame(TEXT, packet if isinstance(packet, bytes) else json.dumps(packet).encode())


class Context:
    def __init__(self, server, limit):
        self.server, self.limit, self.peers = server, limit, []

    async def tcp(self, rcvbuf=None, path=None, cls=Sock, source=None, to=None):
        """source: the address it comes from; all of 127/8 is this machine's. to: another place than the server's first."""
        p = await cls.connect(to or self.server, self.limit, rcvbuf=rcvbuf, source=source)
        if path:
            p.path = path
        self.peers.append(p)
        return p

    async def ws(self, **options):
        p = await self.tcp(**options)
        await p.upgrade()
        return p

    async def sc(self, **options):
        p = await self.tcp(**options)
        return await p.shake()

    async def many(self, n, make):
        return await asyncio.gather(*(make() for _ in range(n)))

    async def http(self, raw, *statuses, none=False):
        """Sends raw bytes, expects one of the statuses and the end of TCP."""
        p = await self.tcp()
        p.send(raw)
        r = await p.response()
        if r is None:
            check(none, f"no answer to {wire.short(raw)}; expected {statuses}")
            return None
        check(r.status in statuses, f"{r.status} instead of {statuses} to {wire.short(raw)}")
        if r.status >= 400:
            check(r.has_token("Connection", b"close"), "no Connection: close")
            check(raw[:20] not in r.body or len(raw) < 8, "the answer repeats the request")
            await p.expect_end()
        return r

    def end(self):
        for p in self.peers:
            p.end()
        self.peers = []

    async def until(self, what, condition, limit=5.0):
        """Waits for something the server comes to by itself."""
        end = time.monotonic() + limit
        while True:
            value = condition()
            if value:
                return value
            check(time.monotonic() < end, f"not within {limit:g} s: {what}")
            await asyncio.sleep(0.05)

    def bystander(self, seconds):
        return Bystander(self.server, seconds)


BYSTANDER = r"""
import asyncio, json, sys, time
sys.path[:0] = [%r, %r]
import harness
class Target: pass
async def main():
    t = Target(); t.host, t.port, t.path = sys.argv[1], int(sys.argv[2]), "/socketcluster/"
    t.authority = f"{t.host}:{t.port}"
    a, b = [await (await harness.Sock.connect(t, 30)).shake() for _ in "ab"]
    for c in range(4):
        await b.subscribe(f"by{c}")
    print("go", flush=True)
    times, end, n = [], time.monotonic() + float(sys.argv[3]), 0
    while time.monotonic() < end:
        n += 1
        begin = time.monotonic()
        a.say({"event": "#publish", "data": {"channel": f"by{n %% 4}", "data": n}})
        while True:
            p = await b.packet()
            if p.get("event") == "#publish":
                break
        assert p["data"]["data"] == n, p
        times.append(time.monotonic() - begin)
        await asyncio.sleep(0.005)
    times.sort()
    with open("/proc/self/schedstat") as f:
        held_up = int(f.read().split()[1]) / 1e9
    print(json.dumps({"n": len(times), "max": times[-1], "p99": times[len(times) * 99 // 100], "held_up": held_up}), flush=True)
asyncio.run(main())
"""


class Bystander:
    """A process of its own: a publisher and a subscriber that notice whether others are in their way."""

    def __init__(self, server, seconds):
        here = os.path.dirname(os.path.abspath(__file__))
        self.server, self.before = server, server.held_up()
        code = BYSTANDER % (here, os.path.join(here, "..", "conform"))
        self.proc = subprocess.Popen([sys.executable, "-c", code, server.host, str(server.port), str(seconds)],
                                     stdout=subprocess.PIPE, text=True)
        check(self.proc.stdout.readline() == "go\n", "the bystander did not come up")

    async def verdict(self, limit=0.1, worst=1.0):
        """No message later than `worst`, and for what it and the server waited for a processor: that is nobody's fault. With
        ATTACK_STRICT=1, for a quiet machine and a release build, p99 within `limit` too."""
        limit = limit if os.environ.get("ATTACK_STRICT") == "1" else worst
        out = await asyncio.get_running_loop().run_in_executor(None, self.proc.stdout.readline)
        self.proc.wait()
        check(out.startswith("{"), "the bystander was cut off")
        r = json.loads(out)
        busy = max(0.0, self.server.held_up() - self.before) + r["held_up"]
        check(r["n"] > (20 if busy < worst else 3) and r["max"] < worst + busy and r["p99"] < limit + busy,
              f"a bystander waited: p99 {r['p99'] * 1e3:.0f} ms, at most {r['max'] * 1e3:.0f} ms, {r['n']} messages; "
              f"{busy * 1e3:.0f} ms of it all for a processor")


async def books(ctx, zero=True):
    """Everything back at zero, everyone alive, nothing said that must not be said."""
    s = ctx.server
    check(s.proc.poll() is None, "the server ended by itself")
    left = {}

    def balanced():
        left.clear()
        pages = s.pages()
        for name in ZERO_RING:
            n = s.total(name, "worker", pages)
            if n:
                left[name] = n
        for name in ZERO_BROKER:
            n = s.total(name, "broker", pages)
            if n:
                left["broker " + name] = n
        return not left
    if zero:
        try:
            await ctx.until("the books balance", balanced, 8.0)
        except Violation:
            raise Violation(f"left behind: {left}") from None
    clean(s.log())


def clean(log, allow=""):
    for line in log.splitlines():
        if REPORTS.search(line) and not (allow and re.search(allow, line)):
            at = log.index(line)
            raise Violation("stderr: " + log[at: at + 1500])


async def idle(ctx, what, roles=(), seconds=1.0, limit=0.02):
    """Processor time over a quiet second. The limit leaves room for sanitizers; a spinning loop takes
    fifty times as much."""
    await asyncio.sleep(0.2)
    before = ctx.server.cpu(*roles)
    await asyncio.sleep(seconds)
    used = ctx.server.cpu(*roles) - before
    check(used < limit * seconds, f"{used * 1e3:.1f} ms of processor time in {seconds:g} s: {what}")
    return used
