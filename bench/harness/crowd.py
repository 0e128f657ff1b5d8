"""What stands around a measurement: very many channels that are subscribed and silent, and crowds of idle connections over
several load processes, whose server's memory and time are read from /proc."""
import json
import os
import pathlib
import socket
import struct
import subprocess
import sys
import time

from . import machine


def family(pid):
    """A process and its children."""
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], stdout=subprocess.PIPE, text=True, check=False).stdout
    return [pid, *(int(x) for x in listed.split())]


def private_bytes(pids):
    return sum(int(line.split()[1]) * 1024 for p in pids for line in machine.read(f"/proc/{p}/smaps_rollup").splitlines()
               if line.startswith("Private_Dirty"))


def cpu_ns(pids):
    return sum(int(machine.read(t / "schedstat", "0").split()[0]) for p in pids for t in pathlib.Path(f"/proc/{p}/task").glob("*"))


def descriptors(pids):
    return sum(len(os.listdir(f"/proc/{p}/fd")) for p in pids)


class Channels:
    """The channels from a number to another, held by connections that never hear anything. Frames go masked with a key of zeroes, which the
    RFC does not forbid and which saves the work."""
    EACH = 50000

    def __init__(self, port, begin, end):
        self.socks = []
        for first in range(begin, end, self.EACH):
            self.socks.append(self.hold(port, first, min(end, first + self.EACH)))

    @staticmethod
    def frame(text):
        n = len(text)
        head = struct.pack("!BB", 0x81, 0x80 | n) if n < 126 else struct.pack("!BBH", 0x81, 0xfe, n)
        return head + b"\0\0\0\0" + text

    def hold(self, port, first, end):
        s = socket.create_connection(("127.0.0.1", port))
        s.sendall(b"GET /socketcluster/ HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                  b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
        seen = b""
        while b"\r\n\r\n" not in seen:
            seen += s.recv(4096)
        s.sendall(self.frame(b'{"event":"#handshake","data":{},"cid":1}'))
        for at in range(first, end, 500):
            last = min(end, at + 500)
            s.sendall(b"".join(self.frame(b'{"event":"#subscribe","data":{"channel":"crowd-%08d"},"cid":%d}' % (i, i + 2))
                               for i in range(at, last)))
            want = b'"rid":%d}' % (last + 1)
            tail = b""
            while want not in tail:
                got = s.recv(1 << 18)
                if not got:
                    sys.exit("a holder of channels was disconnected")
                tail = tail[-64:] + got
        return s

    def close(self):
        for s in self.socks:
            s.close()


def url_of(server, part):
    """Each load process has an address of the server for itself."""
    return "--url=" + server.url("ws").replace("127.0.0.1", f"127.0.0.{part + 1}")


def floor_in_parts(a, bin_dir, total, parts, words):
    """A fan-out by several bare programs at once, each of which has a load process and counts its own time."""
    cmd = [str(bin_dir / "ringcast-bench"), "floor", "--kind=single", f"--clients={total // parts}", *words, f"--server-cpu={a.server_cpu}", f"--cpu={a.cpu}",
           "--json", "--quiet"]
    running = [subprocess.Popen(cmd, stdout=subprocess.PIPE, text=True) for _ in range(parts)]
    return [json.loads(p.communicate(timeout=600)[0]) for p in running]


def idle(a, bin_dir, server, total, parts, settle, window):
    """Memory of each idle connection, and the server's time for it."""
    pids = family(server.child.pid)

    def bench(clients, seconds, part=0):
        return subprocess.Popen([str(bin_dir / "ringcast-bench"), "idle", f"--clients={clients}", f"--settle={seconds}", f"--cpu={a.cpu}",
                                 "--quiet", url_of(server, part), f"--pid={server.child.pid}"], stdout=subprocess.DEVNULL)
    bench(24 * parts, 0.2).wait(60)  # what is allocated once
    time.sleep(1)  # until the last of them is closed
    before, fds = private_bytes(pids), descriptors(pids)
    load = [bench(total // parts, 3600, i) for i in range(parts)]
    try:
        end = time.monotonic() + 120
        while descriptors(pids) - fds < total // parts * parts:
            if time.monotonic() > end or any(p.poll() is not None for p in load):
                sys.exit(f"idle: {descriptors(pids) - fds} of {total} connections could be opened")
            time.sleep(0.2)
        time.sleep(settle)
        after, t0, c0 = private_bytes(pids), time.monotonic(), cpu_ns(pids)
        time.sleep(window)
        c1, t1 = cpu_ns(pids), time.monotonic()
    finally:
        for p in load:
            p.terminate()
            p.wait()
    n = total // parts * parts
    return {"ok": True, "connections": n, "processes": parts, "private_before": before, "private_after": after,
            "private_per_connection": (after - before) / n, "cpu_us_per_connection_second": (c1 - c0) / 1e3 / n / (t1 - t0)}
