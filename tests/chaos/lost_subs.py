#!/usr/bin/env python3
"""What once took everybody else along: one client's bad luck while a broker is away, and one client's
bytes behind its upgrade. A worker and a broker run alone here, so that the broker stays away for as
long as the test wants.

    lost_subs.py [--bin build/dev/bin]"""

import base64
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time

DEADLINE = 20  # seconds; only a failure reaches it
KEY = base64.b64encode(b"sixteen bytes ok")


def upgrade(path):
    return (b"GET " + path + b" HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + KEY + b"\r\n\r\n")


def frame(opcode, payload):
    """A client's frame (RFC 6455, 5.2); the mask is zero, which leaves the payload as it is."""
    n = len(payload)
    length = bytes([0x80 | n]) if n < 126 else struct.pack(">BH" if n < 65536 else ">BQ", 0xFE if n < 65536 else 0xFF, n)
    return bytes([0x80 | opcode]) + length + b"\0\0\0\0" + payload


class Client:
    """SocketCluster, protocol version 2, as far as it is needed here."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), DEADLINE)
        self.socket.sendall(upgrade(b"/socketcluster/"))
        self.bytes, self.cid, self.messages = b"", 0, []
        while b"\r\n\r\n" not in self.bytes:
            self.more()
        self.bytes = self.bytes.split(b"\r\n\r\n", 1)[1]
        self.call("#handshake", {"authToken": None})

    def more(self):
        got = self.socket.recv(65536)
        if not got:
            raise AssertionError("the server ended the connection")
        self.bytes += got

    def need(self, n):
        while len(self.bytes) < n:
            self.more()

    def packet(self):
        """The next packet; pings are answered on the way, messages kept."""
        by = time.monotonic() + DEADLINE
        while True:
            assert time.monotonic() < by, "nothing but pings came"
            self.need(2)
            n, head = self.bytes[1], 2
            if n >= 126:
                head = 4 if n == 126 else 10
                self.need(head)
                n = int.from_bytes(self.bytes[2:head], "big")
            self.need(head + n)
            opcode, text = self.bytes[0] & 15, self.bytes[head:head + n]
            self.bytes = self.bytes[head + n:]
            if opcode != 1:
                raise AssertionError(f"a frame of opcode {opcode}: {text!r}")
            if text == b"":
                self.socket.sendall(frame(1, b""))
                continue
            packet = json.loads(text)
            if packet.get("event") == "#publish":
                self.messages.append((packet["data"]["channel"], packet["data"]["data"]))
            return packet

    def call(self, event, data):
        """The answer to a call, None for a success, else the error."""
        self.cid += 1
        self.socket.sendall(frame(1, json.dumps({"event": event, "data": data, "cid": self.cid}).encode()))
        while True:
            packet = self.packet()
            if packet.get("rid") == self.cid:
                return packet.get("error")

    def until_message(self):
        while not self.messages:
            self.packet()
        return self.messages.pop(0)

    def close(self):
        self.socket.close()


class Pair:
    """One worker with one ring, and one broker, each alone."""

    def __init__(self, bin_dir):
        self.bin, self.dir = bin_dir, tempfile.mkdtemp(prefix="ringcast-lost-")
        with socket.create_server(("127.0.0.1", 0)) as s:
            self.port = s.getsockname()[1]
        self.log = open(os.path.join(self.dir, "log"), "w+b")
        self.processes = {}

    def start(self, what):
        self.processes[what] = subprocess.Popen(
            [os.path.join(self.bin, "ringcast-" + what), f"--{what}.index=0", f"--run.dir={self.dir}/run",
             f"--worker.listen=tcp://127.0.0.1:{self.port}", "--worker.count=1", "--worker.rings=1", "--broker.count=1",
             "--lane.hold_time=400ms", "--echo.path=/echo", "--sc.path=/socketcluster/", "--run.drain_timeout=500ms"],
            stdout=self.log, stderr=self.log)

    def end(self, what, kill=False):
        """The exit status; a process that does not end in time is killed, and that is no success."""
        p = self.processes.pop(what)
        p.kill() if kill else p.terminate()
        try:
            return p.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            p.kill()
            p.wait()
            return "hung"

    def until_served(self):
        """A publish with an answer goes through the broker."""
        by = time.monotonic() + DEADLINE
        while True:
            try:
                c = Client(self.port)
                error = c.call("#publish", {"channel": "nobody", "data": 0})
                c.close()
                if error is None:
                    return
            except ConnectionRefusedError:
                error = "nobody listens"
            if time.monotonic() > by:
                raise AssertionError(f"not served: {error}")
            time.sleep(0.02)

    def words(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")


def a_newcomer_refused_while_the_broker_is_away_takes_no_standing_subscriber_along(pair):
    standing = [Client(pair.port) for _ in range(3)]
    for c in standing:
        assert c.call("#subscribe", {"channel": "chat"}) is None
    newcomer = Client(pair.port)
    pair.end("broker", kill=True)
    # The worker has noticed when this has failed.
    assert newcomer.call("#publish", {"channel": "nobody", "data": 0}) is not None
    error = newcomer.call("#subscribe", {"channel": "chat"})
    assert error is not None, "there is no broker that could have taken the subscription"
    pair.start("broker")
    pair.until_served()
    publisher = Client(pair.port)
    assert publisher.call("#publish", {"channel": "chat", "data": "after"}) is None
    for c in standing:
        assert c.until_message() == ("chat", "after")
    # The one who was refused may ask again, and hears with the others from then on.
    assert newcomer.call("#subscribe", {"channel": "chat"}) is None
    assert publisher.call("#publish", {"channel": "chat", "data": "again"}) is None
    for c in [*standing, newcomer]:
        assert c.until_message() == ("chat", "again")
    for c in [*standing, newcomer, publisher]:
        c.close()


# As the head of a server's frame: 10 bytes of head and 0xfffffff6 of payload, which is 0 in 32 bits.
EVIL = b"\x00\x7f\x00\x00\x00\x00\xff\xff\xff\xf6"


def echo_to_a_tiny_buffer(port, payload):
    """Sends a message right behind the upgrade, with room for a few hundred bytes of the answer."""
    s = socket.socket()
    s.settimeout(DEADLINE)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2304)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
    s.connect(("127.0.0.1", port))
    s.sendall(upgrade(b"/echo") + frame(2, payload))
    return s


def expect_echo(s, payload):
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    got = b""
    while b"\r\n\r\n" not in got:
        got += s.recv(65536)
    head, got = got.split(b"\r\n\r\n", 1)
    assert head.startswith(b"HTTP/1.1 101 "), head
    wanted = b"\x82\x7e" + struct.pack(">H", len(payload)) + payload
    while len(got) < len(wanted):
        more = s.recv(65536)
        assert more, f"ended after {len(got)} of {len(wanted)} bytes"
        got += more
    assert got == wanted, "the echo is not what was sent"
    s.close()


def an_echo_behind_the_upgrade_to_a_tiny_buffer_does_not_hang_the_ring(pair):
    # Aimed at byte 204 of the stream, where a walk over the answer to the upgrade leads. All has to arrive in
    # one turn and to leave in more than one, so one try is not enough.
    payloads = [b"\x11" * 71 + EVIL + b"\x22" * 59000] * 16
    payloads += [(EVIL[k:] + EVIL * 6000)[:60000] for k in range(len(EVIL))]  # wherever it is looked at
    slow = [(echo_to_a_tiny_buffer(pair.port, p), p) for p in payloads]
    time.sleep(0.3)  # the first sends come up short; a ring that hangs does so by now or at the reads below
    for s, p in slow:
        other = socket.create_connection(("127.0.0.1", pair.port), DEADLINE)
        other.sendall(b"GET /nothere HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = other.recv(100)
        assert re.match(rb"HTTP/1\.1 404 ", answer), answer
        other.close()
        expect_echo(s, p)


TESTS = [a_newcomer_refused_while_the_broker_is_away_takes_no_standing_subscriber_along,
         an_echo_behind_the_upgrade_to_a_tiny_buffer_does_not_hang_the_ring]


def run(test, bin_dir):
    pair, why = Pair(bin_dir), None
    try:
        pair.start("broker")
        pair.start("worker")
        pair.until_served()
        test(pair)
    except (AssertionError, OSError) as e:
        why = f"{type(e).__name__}: {e}"
    for what in list(pair.processes):
        status = pair.end(what)
        if status != 0:
            why = why or f"the {what} ended with {status}"
    if why:
        print(f"FAIL  {test.__name__.replace('_', ' ')}: {why}\n{pair.words()[-3000:]}")
    else:
        print(f"ok    {test.__name__.replace('_', ' ')}")
    pair.log.close()
    shutil.rmtree(pair.dir, ignore_errors=True)
    return why is None


def main():
    bin_dir = sys.argv[sys.argv.index("--bin") + 1] if "--bin" in sys.argv else "build/dev/bin"
    sys.stdout.reconfigure(line_buffering=True)
    results = [run(test, bin_dir) for test in TESTS]
    print(f"{results.count(True)} passed, {results.count(False)} failed")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
