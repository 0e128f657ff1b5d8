#!/usr/bin/env python3
"""Plays transcripts (see wire.c for how they are written) against a live server.

    live.py ws://127.0.0.1:8000 [--sc-path /socketcluster/] [--echo-path /echo]
            [--timers] [--only WORD] FILE...

The server runs with its default limits. Sections marked `pure` are left out; those marked `timers`
are played with --timers, against a server with short ones, for example --sc.ping_interval=300ms
--sc.ping_timeout=1s --sc.handshake_timeout=1s. An empty path leaves its dialect out.
In place of the URL may stand the path of the `ringcast` program: it is started with those settings on a
free port, and stopped at the end.

Answers (with a "rid") must come in their order, and everything else in its; between an answer and a
publication no order is promised. After each step a ping and its pong show that nothing more came.
Only the standard library is used. The status is 1 if something differed."""

import argparse
import base64
import os
import re
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.parse

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
PATIENCE = 10.0  # seconds for an answer
KEY = bytes((0x37, 0xFA, 0x21, 0x3D))


class Differs(Exception):
    pass


def expand(text):
    """The @ forms of a line spelled out; the same as put_expanded in wire.c."""
    def one(m):
        if m.group(1) is not None:
            return m.group(1) * int(m.group(2))
        return {"n": "\n", "r": "\r", "t": "\t"}[m.group(3)]
    return re.sub(r"@\(([^*)]*)\*(\d+)\)|@([nrt])", one, text)


def pattern(text):
    """What an expected message may look like."""
    p = re.escape(expand(text)).replace(r"\$id", "[A-Za-z0-9_-]+").replace(r"\$n", "[0-9]+")
    return re.compile(p + r"\Z", re.S)


class Step:
    def __init__(self, line):
        self.line, self.sends, self.wants = line, [], []


class Section:
    def __init__(self, title):
        self.title, self.flags, self.steps = title, {"dialect": "socketcluster"}, [Step(0)]


def read_transcript(path):
    sections = []
    with open(path, encoding="utf-8", newline="\n") as f:
        for number, line in enumerate(f, 1):
            line = line.rstrip("\n")
            if line.startswith("== "):
                sections.append(Section(line[3:]))
                continue
            if not line or line[0] in "#=":
                continue
            section = sections[-1]
            if line[0] == ":":
                word, _, rest = line[2:].partition(" ")
                section.flags[word] = rest
            elif line[0] in ">~":
                if section.steps[-1].wants or line[0] == "~":
                    section.steps.append(Step(number))
                section.steps[-1].line = section.steps[-1].line or number
                section.steps[-1].sends.append(line)
            elif line[0] == "<":
                section.steps[-1].wants.append(line)
            else:
                sys.exit("%s:%d: what is this line?" % (path, number))
    return sections


class Client:
    def __init__(self, host, port, path):
        self.sock = socket.create_connection((host, port), PATIENCE)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buf = b""
        key = base64.b64encode(os.urandom(16)).decode()
        self.sock.sendall(("GET %s HTTP/1.1\r\nHost: %s:%d\r\nUpgrade: websocket\r\n"
                           "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                           "Sec-WebSocket-Key: %s\r\n\r\n" % (path, host, port, key)).encode())
        self.deadline = time.monotonic() + PATIENCE
        while b"\r\n\r\n" not in self.buf:
            self.more()
        head, self.buf = self.buf.split(b"\r\n\r\n", 1)
        if not head.startswith(b"HTTP/1.1 101 "):
            raise Differs("the upgrade was refused: " + head.split(b"\r\n")[0].decode("latin-1"))

    def more(self):
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.sock.settimeout(left)
        data = self.sock.recv(65536)
        if not data:
            raise EOFError
        self.buf += data

    def take(self, n):
        while len(self.buf) < n:
            self.more()
        data, self.buf = self.buf[:n], self.buf[n:]
        return data

    def frame(self):
        """The next frame of the server, which never fragments: opcode and payload."""
        a, b = self.take(2)
        if a & 0xF0 != 0x80 or b & 0x80:
            raise Differs("a frame with header %02x%02x" % (a, b))
        n = b
        if n == 126:
            n = struct.unpack(">H", self.take(2))[0]
        elif n == 127:
            n = struct.unpack(">Q", self.take(8))[0]
        return a & 15, self.take(n)

    def send(self, opcode, payload):
        n = len(payload)
        head = bytes([0x80 | opcode])
        if n < 126:
            head += bytes([0x80 | n])
        elif n < 65536:
            head += b"\xfe" + struct.pack(">H", n)
        else:
            head += b"\xff" + struct.pack(">Q", n)
        mask = (KEY * (n // 4 + 1))[:n]
        body = (int.from_bytes(payload, "big") ^ int.from_bytes(mask, "big")).to_bytes(n, "big")
        self.sock.sendall(head + KEY + body)

    def say(self, line):
        """A line of a transcript that begins with '>'."""
        kind, rest = (line[1:2], line[2:]) if line[1:2] in tuple("bx!") else (" ", line[2:])
        if kind == "b":
            self.send(BINARY, bytes.fromhex(rest))
        elif kind == "x":
            code, _, reason = rest.strip().partition(" ")
            self.send(CLOSE, (struct.pack(">H", int(code)) if code else b"") + reason.encode())
        elif kind == "!":
            self.sock.sendall(bytes.fromhex(rest))
        else:
            self.send(TEXT, expand(rest).encode())

    def ended(self, by_us):
        """TCP ends behind a Close, which is answered if it was not itself an answer."""
        if not by_us:
            try:
                self.send(CLOSE, b"")
            except OSError:
                return
        try:
            while True:
                self.more()
        except (EOFError, ConnectionError):
            return


def as_line(opcode, payload):
    """A frame the way transcripts write it."""
    if opcode == TEXT:
        return "< " + payload.decode("utf-8")
    if opcode == BINARY:
        return "<b " + payload.hex()
    if opcode == PONG:
        return "<p " + payload.hex()
    if opcode == CLOSE:
        code = struct.unpack(">H", payload[:2])[0] if payload else 0
        reason = payload[2:].decode("utf-8")
        return "<x %d" % code + (" " + reason if reason else "")
    return "frame with opcode %d" % opcode


def want_line(line):
    return "< " if line == "<" else line


def play_step(client, step, waits):
    answers = [w for w in step.wants if w.startswith('< {"rid"')]
    others = [want_line(w) for w in step.wants if not w.startswith('< {"rid"')]
    closes = bool(others) and others[-1].startswith("<x")
    by_us = any(s.startswith(">x") for s in step.sends)
    try:
        for line in step.sends:
            if line[0] == ">":
                client.say(line)
    except ConnectionError:
        pass  # the server may hang up before it has heard all of it
    client.deadline = time.monotonic() + PATIENCE * (5 if waits else 1)
    barrier = None
    while True:
        if not answers and not others and barrier is None:
            if closes:
                client.ended(by_us)
                return False
            barrier = os.urandom(8)
            client.send(PING, barrier)
        opcode, payload = client.frame()
        if barrier is not None and (opcode, payload) == (PONG, barrier):
            return True
        got = as_line(opcode, payload)
        queue = answers if got.startswith('< {"rid"') else others
        if got == "< " and (not queue or queue[0] != "< "):
            continue  # a ping of the server
        if not queue or not pattern(queue[0]).match(got):
            raise Differs("wanted %s\n    got    %s" % ((queue or ["nothing"])[0][:300], got[:300]))
        queue.pop(0)
        if opcode == CLOSE and (answers or others):
            raise Differs("closed before %s" % (answers + others)[0][:300])


def play_section(section, where, path):
    client = Client(where.hostname, where.port or 80, path)
    waits = "timers" in section.flags
    try:
        for step in section.steps:
            try:
                if not play_step(client, step, waits):
                    return
            except Differs as e:
                raise Differs("line %d: %s" % (step.line, e))
            except TimeoutError:
                raise Differs("line %d: no answer in time, wanted %s"
                              % (step.line, [w[:200] for w in step.wants]))
            except (EOFError, ConnectionError):
                raise Differs("line %d: TCP ended, wanted %s"
                              % (step.line, [w[:200] for w in step.wants]))
    finally:
        client.sock.close()


def start(program, args, run_dir):
    """A server on a free port; returns the process and its URL."""
    command = [program, "run", "--worker.listen=tcp://127.0.0.1:0", "--worker.count=1",
               "--worker.rings=1", "--broker.count=2", "--run.dir=" + run_dir, "--log.level=warn",
               "--sc.path=" + args.sc_path, "--echo.path=" + args.echo_path]
    if args.timers:
        command += ["--sc.ping_interval=300ms", "--sc.ping_timeout=1s", "--sc.handshake_timeout=1s"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for line in server.stdout:
        m = re.match(r"ringcast: ready on tcp://(\S+)", line)
        if m:
            return server, "ws://" + m.group(1)
    sys.exit("%s ended before it was ready" % program)


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("url")
    ap.add_argument("files", nargs="+")
    ap.add_argument("--sc-path", default="/socketcluster/")
    ap.add_argument("--echo-path", default="/echo")
    ap.add_argument("--timers", action="store_true", help="play only what waits for timers")
    ap.add_argument("--only", default="", help="only sections with this in their title")
    args = ap.parse_args()
    if not os.access(args.url, os.X_OK):
        return play(args, args.url)
    with tempfile.TemporaryDirectory(prefix="rc-wire-") as run_dir:
        server, url = start(args.url, args, run_dir)
        try:
            return play(args, url)
        finally:
            server.terminate()
            server.wait()


def play(args, url):
    where = urllib.parse.urlsplit(url if "//" in url else "ws://" + url)
    paths = {"socketcluster": args.sc_path, "echo": args.echo_path}
    played = failed = left_out = 0
    for name in args.files:
        if os.path.basename(name) == "CMakeLists.txt":
            continue  # *.txt was meant
        for section in read_transcript(name):
            path = paths[section.flags["dialect"]]
            if ("pure" in section.flags or ("timers" in section.flags) != args.timers
                    or not path or args.only not in section.title):
                left_out += 1
                continue
            played += 1
            try:
                play_section(section, where, path)
            except (Differs, OSError) as e:
                failed += 1
                print("FAILED %s: %s: %s" % (os.path.basename(name), section.title, e))
    print("%d sections played, %d failed, %d left out" % (played, failed, left_out))
    return 1 if failed or not played else 0


if __name__ == "__main__":
    sys.exit(main())
