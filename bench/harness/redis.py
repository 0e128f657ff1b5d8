"""Redis servers of our own, and what they do alone."""
import binascii
import csv
import io
import json
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

from . import server as srv


def version():
    return " ".join(subprocess.run(["redis-server", "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout.split()[:3])


def ask(port, *words):
    """One command, one simple answer (status, number or bulk), as text."""
    with socket.create_connection(("127.0.0.1", port), 5) as s:
        s.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w.encode()) for w in words))
        f = s.makefile("rb")
        line = f.readline().decode().strip()
        if line.startswith("-"):
            raise RuntimeError(f"redis: {' '.join(words)}: {line}")
        return f.read(int(line[1:])).decode() if line.startswith("$") and line != "$-1" else line[1:]


def info(port, section):
    """INFO of a section as a dict of texts."""
    rows = (line.split(":", 1) for line in ask(port, "INFO", section).splitlines() if ":" in line)
    return {k: v for k, v in rows}


class Server:
    """A redis-server that keeps nothing on disk, on a free port of loopback."""

    def __init__(self, a=None, more=()):
        self.dir = tempfile.TemporaryDirectory(prefix="ringcast-redis-")
        self.port = srv.free_port()
        pin = ["taskset", "-c", str(a.redis_cpu)] if a else []
        self.log = open(pathlib.Path(self.dir.name) / "log", "w+")
        self.child = subprocess.Popen([*pin, "redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.dir.name,
                                       "--save", "", "--appendonly", "no", *more], stdout=self.log, stderr=self.log)
        for _ in range(200):
            try:
                ask(self.port, "PING")
                return
            except OSError:
                time.sleep(0.02)
        self.close()
        sys.exit("redis-server did not start")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.child.kill()
        self.child.wait()
        self.log.close()
        self.dir.cleanup()


def slot_of(name):
    return binascii.crc_hqx(name.encode(), 0) % 16384


class Cluster:
    """Three nodes, a third of the slots each."""

    def __init__(self, a):
        buses = [str(srv.free_port()) for _ in range(3)]
        self.nodes = [Server(a, ("--cluster-enabled", "yes", "--cluster-port", bus)) for bus in buses]
        edges = [0, 5461, 10922, 16384]
        for i, n in enumerate(self.nodes):
            ask(n.port, "CLUSTER", "ADDSLOTSRANGE", str(edges[i]), str(edges[i + 1] - 1))
            ask(n.port, "CLUSTER", "MEET", "127.0.0.1", str(self.nodes[0].port), buses[0])
        for n in self.nodes:
            for _ in range(500):
                text = ask(n.port, "CLUSTER", "INFO")
                if "cluster_state:ok" in text and "cluster_known_nodes:3" in text:
                    break
                time.sleep(0.02)
        self.edges = edges

    def floor(self, a, bin_dir, sharded, across=False):
        """All load at the first node; `across`: heard at the second. CPU is that of all three."""
        channel = next(c for k in range(1000) if slot_of(c := f"bench-{k}") < self.edges[1])
        words = [f"--channel={channel}", "--subscribers=1", f"--subscribe-port={self.nodes[1 if across else 0].port}"]
        words += [f"--pid={n.child.pid}" for n in self.nodes[1:]] + (["--sharded"] if sharded else [])
        return floor(a, bin_dir, "flow", self.nodes[0], *words)

    def close(self):
        for n in self.nodes:
            n.close()


def floor(a, bin_dir, mode, server, *words):
    cmd = [str(bin_dir / "ringcast-redis-floor"), mode, f"--port={server.port}", f"--pid={server.child.pid}", f"--cpu={a.cpu}",
           f"--duration={a.duration}", f"--payload={a.payload}", f"--pipeline={a.pipeline}", *words]
    return json.loads(subprocess.run(cmd, stdout=subprocess.PIPE, text=True, check=True, timeout=300).stdout)


def benchmark(a, server, pipeline):
    """redis-benchmark's own rate of PUBLISH to a channel that nobody hears, one connection."""
    n = max(10000, int(400000 * a.duration))
    out = subprocess.run(["taskset", "-c", str(a.cpu), "redis-benchmark", "-p", str(server.port), "-c", "1", "-P", str(pipeline), "-n",
                          str(n), "--csv", "PUBLISH", "bench", "x" * a.payload], stdout=subprocess.PIPE, text=True, check=True).stdout
    row = list(csv.DictReader(io.StringIO(out)))[-1]
    return {"per_second": float(row["rps"]), "messages": n}
