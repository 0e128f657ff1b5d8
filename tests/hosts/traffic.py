#!/usr/bin/env python3
"""Three real hosts over a real Redis beside bench/sim: the same clients do the very same things in the same order, and
Redis must have carried what the model says.

    traffic.py [--bin build/dev/bin] [--seed N]

Three times `ringcast run` on loopback, each with its own run.dir. Every subscribe, unsubscribe and publish waits for its
answer, so what a publish meets is certain: those figures must agree exactly. Marks and asks hang on time and
may be off by what is said at the edges of the window; bytes by what Redis adds (INFO, PING)."""
import argparse
import json
import pathlib
import random
import re
import socket
import struct
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "bench"))
sys.dont_write_bytecode = True

from harness import redis, traffic  # noqa: E402

DEADLINE = 20  # seconds; only a failure reaches it
SHAPE = dict(hosts=3, clients=12, subscriptions=4, channels=300, publishes=250, stay=6, payload=128, heartbeat=1.0, answer_within=1.0,
             window=5)


def frame(payload):
    """A client's text frame (RFC 6455, 5.2); the mask is zero, which leaves the payload as it is."""
    n = len(payload)
    return bytes([0x81]) + (bytes([0x80 | n]) if n < 126 else struct.pack(">BH", 0xFE, n)) + b"\0\0\0\0" + payload


class Client:
    """SocketCluster, protocol version 2, as far as it is needed here: one call at a time."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), DEADLINE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(b"GET /socketcluster/ HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: c2l4dGVlbiBieXRlcyBvaw==\r\n\r\n")
        self.file = self.socket.makefile("rb")
        while self.file.readline() not in (b"\r\n", b""):
            pass
        self.cid, self.heard, self.gaps = 0, 0, 0
        self.call("#handshake", {"authToken": None})

    def packet(self):
        head = self.file.read(2)
        if len(head) < 2:
            raise AssertionError("the server ended the connection")
        n = head[1]
        if n >= 126:
            n = int.from_bytes(self.file.read(2 if n == 126 else 8), "big")
        text = self.file.read(n)
        if text == b"":
            self.socket.sendall(frame(b""))
        return json.loads(text) if text else {}

    def call(self, event, data):
        self.cid += 1
        self.socket.sendall(frame(json.dumps({"event": event, "data": data, "cid": self.cid}).encode()))
        while True:
            p = self.packet()
            self.heard += p.get("event") == "#publish"
            self.gaps += p.get("event") == "#gap"
            if p.get("rid") == self.cid:
                if "error" in p:
                    raise AssertionError(f"{event} {data}: {p['error']}")
                return


class Host:
    def __init__(self, bin_dir, url, s, folder, number):
        self.folder = folder / f"host{number}"
        self.folder.mkdir()
        self.log = open(self.folder / "log", "w")
        self.bin = bin_dir
        self.child = subprocess.Popen(
            [bin_dir / "ringcast", "run", f"--run.dir={self.folder}", "--worker.listen=tcp://127.0.0.1:0", "--worker.rings=1",
             f"--redis.url={url}", f"--host.name=host{number}", f"--bus.heartbeat={int(s.heartbeat * 1000)}ms",
             f"--bus.answer_within={int(s.answer_within * 1000)}ms", "--bus.subscribe_wait=10s",
             "--bus.unconfirmed=error", "--bus.ack=bus", "--log.level=warn", "--sc.ping_interval=30s", "--sc.ping_timeout=60s"],
            stdout=subprocess.PIPE, stderr=self.log, text=True)
        line = self.child.stdout.readline()
        self.port = int(re.search(r":(\d+)", line).group(1)) if "ready" in line else sys.exit(
            "FAIL  a host does not start: " + (self.folder / "log").read_text())
        self.clients = [Client(self.port) for _ in range(s.clients)]
        self.publisher = Client(self.port)

    def counters(self):
        out = subprocess.run([self.bin / "ringcast", "status", "--json", f"--run.dir={self.folder}"], stdout=subprocess.PIPE, check=True).stdout
        return json.loads(out)

    def close(self):
        self.child.terminate()
        try:
            self.child.wait(10)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        self.child.stdout.close()
        self.log.close()


class Reading:
    """What Redis and the brokers have counted so far."""

    def __init__(self, server, hosts):
        began = time.monotonic()
        commands, stats = redis.ask(server.port, "INFO", "commandstats"), redis.info(server.port, "stats")
        self.info_bytes = len(commands) + 3000
        self.calls = {m.group(1): int(m.group(2)) for m in re.finditer(r"cmdstat_(\w+):calls=(\d+)", commands)}
        self.bytes_in, self.bytes_out = int(stats["total_net_input_bytes"]), int(stats["total_net_output_bytes"])
        self.brokers = {}
        for h in hosts:
            for page in h.counters()["pages"]:
                for k, v in page["counters"].items() if page["process"].startswith("broker") else ():
                    self.brokers[k] = self.brokers.get(k, 0) + v
        self.took = time.monotonic() - began


def play(events, s, hosts, tally):
    """Does what the plan says when it says so; the tally hears of the same."""
    start = time.monotonic()
    data = "x" * (s.payload - 2)
    for e in events:
        t, kind, host = e[:3]
        time.sleep(max(0, start + min(t, s.window) - time.monotonic()))
        if t >= s.window:
            return time.monotonic() - start
        h = hosts[host]
        if kind == "publish":
            h.publisher.call("#publish", {"channel": traffic.channel_name(e[3]), "data": data})
        else:
            slot, left, _, joined, _ = e[3:]
            client = h.clients[slot // s.subscriptions]
            client.call("#unsubscribe", traffic.channel_name(left))
            client.call("#subscribe", {"channel": traffic.channel_name(joined)})
        tally.append(e)


class Books:
    def __init__(self):
        self.passed = self.failed = 0

    def check(self, what, predicted, counted, tolerance=0.0, slack=0):
        ok = abs(predicted - counted) <= predicted * tolerance + slack
        self.passed, self.failed = self.passed + ok, self.failed + (not ok)
        print(f"{'ok   ' if ok else 'FAIL '} {what}: predicted {predicted:,.0f}, counted {counted:,.0f}"
              + (f" (within {tolerance:.0%}{f' and {slack}' if slack else ''})" if tolerance or slack else ""))


def replay(events, clients):
    """The same events, with what they change about the clients."""
    for e in events:
        if e[1] == "change":
            refs, left, joined = clients.refs[e[2]], e[4], e[6]
            refs[left] -= 1
            if refs[left] == 0:
                del refs[left]
            refs[joined] += 1
        yield e


def predict(s, events):
    """What the model makes of these events."""
    rnd = random.Random(s.seed)
    clients = traffic.Clients(s, traffic.Zipf(s.channels, s.sub_skew, rnd))
    t = traffic.Tally(s, warm=False)
    return t.run(replay([*events, (s.window, "end")], clients), clients, traffic.Zipf(s.channels, s.pub_skew, rnd), rnd)


def compare(books, s, t, a, b, seconds):
    def redis_calls(name):
        return b.calls.get(name, 0) - a.calls.get(name, 0)

    def of(counter):
        return b.brokers[counter] - a.brokers[counter]

    kinds = {k: sum(t.published[k].values()) for k in t.KINDS}
    heartbeats = s.hosts * seconds / s.heartbeat
    publishes = sum(kinds.values()) + t.asks + heartbeats
    load = traffic.spread(t, "servers", 1)[0]
    books.check("messages published", kinds["data"], of("bus_published_total"))
    books.check("messages of others delivered", sum(t.delivered["data"].values()) - t.own_echoes, of("bus_received_total"))
    books.check("marks", kinds["mark_quiet"] + kinds["mark_asked"], of("bus_marks_total"), 0.1, 20)
    books.check("names asked for", t.ask_names, of("bus_asks_total"), 0, 3)
    books.check("messages with asks", t.asks, of("bus_ask_messages_total"), 0.1, 10)
    books.check("PUBLISH commands", publishes, redis_calls("publish"), 0.03, 20)
    books.check("bytes into Redis", load.bytes_in * s.window, b.bytes_in - a.bytes_in, 0.05, 2000)
    books.check("bytes out of Redis", load.bytes_out * s.window, b.bytes_out - a.bytes_out - a.info_bytes, 0.05, 2000)


def run(args, folder):
    s = traffic.Shape(seed=args.seed, **SHAPE)
    rnd = random.Random(s.seed)
    clients = traffic.Clients(s, traffic.Zipf(s.channels, s.sub_skew, rnd))
    books, hosts = Books(), []
    with redis.Server() as server:
        try:
            for i in range(s.hosts):
                hosts.append(Host(args.bin, f"redis://127.0.0.1:{server.port}", s, folder, i))
            for host, row in zip(hosts, clients.slots):
                for slot, channel in enumerate(row):
                    host.clients[slot // s.subscriptions].call("#subscribe", {"channel": traffic.channel_name(channel)})
            time.sleep(1.5)  # asks of the beginning are answered, and nobody expects anything of them any more
            a, done = Reading(server, hosts), []
            began = time.monotonic()
            took = play(traffic.plan(s, rnd, clients, traffic.Zipf(s.channels, s.pub_skew, rnd)), s, hosts, done)
            b = Reading(server, hosts)
            print(f"{len(done)} events in {took:.2f} s of {s.window:.0f} s")
            compare(books, s, predict(s, done), a, b, time.monotonic() - began)
        finally:
            for h in hosts:
                h.close()
    print(f"{books.passed} passed, {books.failed} failed")
    return books.failed


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--bin", type=pathlib.Path, default=ROOT / "build" / "dev" / "bin")
    p.add_argument("--seed", type=int, default=1)
    args = p.parse_args()
    args.bin = args.bin.resolve()
    with tempfile.TemporaryDirectory(prefix="ringcast-traffic-") as folder:
        sys.exit(1 if run(args, pathlib.Path(folder)) else 0)


if __name__ == "__main__":
    main()
