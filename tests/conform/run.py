#!/usr/bin/env python3
"""Conformance of a WebSocket echo server to RFC 6455 and RFC 7692: many small conversations, each named
for the sentence it checks.

  run.py --server build/release/bin     starts `ringcast run` with an echo path, three times: with
                                        compression, with short timeouts and small limits, and with
                                        compression contexts that are kept
  run.py --url ws://127.0.0.1:8000/echo talks to a server that runs (cases for the other two are
                                        skipped, unless their URLs follow)

With --tls, or a wss:// URL, all of it runs over TLS. --every N takes each Nth case only.

Options: --match REGEX, --jobs N, --limit SECONDS for any one answer, --json FILE, --list, --verbose.
One line per failure, a table of sections, and last: `N passed, N failed`. Exit status 1 on failures.
"""
import argparse
import asyncio
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse
from dataclasses import dataclass

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import certs
import suite
from wire import Peer, Violation
import s4_opening, s4_http, s5_framing, s5_fragments, s5_control  # noqa: E401,F401
import s7_closing, s8_utf8, chopped, limits  # noqa: E401,F401
import d_offers, d_messages, d_streams  # noqa: E401,F401

# Settings of the instances; the case modules rely on them.
MAIN = {"deflate.threshold": "64"}
SHORT = {
    "http.header_timeout": "2s", "ws.message_timeout": "600ms", "ws.close_timeout": "500ms",
    "ws.max_frames_per_message": "16", "ws.control_rate": "50", "echo.max_message": "1000", **MAIN,
}
TAKEOVER = {"deflate.threshold": "64", "deflate.server_takeover": "on", "deflate.client_takeover": "on", "deflate.memory": "1GiB"}


@dataclass
class Target:
    host: str
    port: int
    path: str
    tls: object = None  # ssl.SSLContext

    @property
    def authority(self):
        return f"{self.host}:{self.port}"


class Context:
    """What a case gets: connections to the server it is for, closed when it ends."""

    def __init__(self, target, limit, max_message):
        self.target, self.limit, self.max_message = target, limit, max_message
        self.peers = []

    async def tcp(self, **options):
        p = await Peer.connect(self.target, self.limit, **options)
        self.peers.append(p)
        return p

    async def ws(self, **options):
        p = await self.tcp(**options)
        await p.upgrade()
        return p

    def end(self):
        for p in self.peers:
            p.end()


class Server:
    """`ringcast run` on a free port, in a directory of its own."""

    def __init__(self, bin_dir, settings, certificate=None):
        self.dir = tempfile.mkdtemp(prefix="conform-")
        self.errors = open(os.path.join(self.dir, "stderr"), "w+b")
        flags = {"worker.listen": "tcp://127.0.0.1:0", "worker.count": 1, "worker.rings": 1,
                 "broker.count": 1, "run.dir": self.dir, "echo.path": "/echo",
                 "http.playground": "on", **settings}
        if certificate:
            flags |= {"worker.listen": "tls://127.0.0.1:0", "tls.certificate": certificate + ".pem", "tls.key": certificate + ".key"}
        argv = [os.path.join(bin_dir, "ringcast"), "run"] + [f"--{k}={v}" for k, v in flags.items()]
        self.proc = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=self.errors, text=True)
        signal.alarm(30)
        line = ""
        for line in self.proc.stdout:
            found = re.search(r"ready on .*?(?:tcp|tls)://([\d.]+):(\d+)", line)
            if found:
                break
        else:
            sys.exit(f"the server did not start: {line} {self.stop()[-2000:]}")
        signal.alarm(0)
        self.target = Target(found[1], int(found[2]), "/echo", certs.client(certificate) if certificate else None)

    def stop(self):
        self.proc.send_signal(signal.SIGTERM)
        try:
            self.proc.wait(5)
        except subprocess.TimeoutExpired:
            self.proc.kill()
            self.proc.wait()
        self.errors.seek(0)
        text = self.errors.read().decode(errors="replace")
        self.errors.close()
        shutil.rmtree(self.dir, ignore_errors=True)
        return text


async def run_case(c, targets, options):
    ctx = Context(targets[c.server], options.limit, options.max_message)
    begin = time.monotonic()
    try:
        async with asyncio.timeout(max(c.deadline, options.limit * 2)):
            await c.run(ctx, *c.args)
        c.outcome = "passed"
    except Violation as e:
        c.outcome, c.detail = "failed", str(e)
    except TimeoutError:
        c.outcome, c.detail = "failed", "the case's deadline passed"
    except Exception as e:  # a broken answer may break the client anywhere; that is a failure too
        c.outcome, c.detail = "failed", f"{type(e).__name__}: {e}"
    finally:
        ctx.end()
        c.seconds = time.monotonic() - begin


async def run_all(cases, targets, options):
    many, few = asyncio.Semaphore(options.jobs), asyncio.Semaphore(2)

    async def one(c):
        if c.server not in targets:
            c.outcome = "skipped"
            return
        async with few if c.alone else many:
            await run_case(c, targets, options)
        if c.outcome == "failed":
            print(f"FAILED {c.name}: {c.detail}", flush=True)
        elif options.verbose:
            print(f"passed {c.name} ({c.seconds:.2f} s)", flush=True)

    await asyncio.gather(*(one(c) for c in cases))


def section_key(s):
    return [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in s.split(".")]


def report(cases, options, seconds):
    sections = {}
    for c in cases:
        row = sections.setdefault(c.section, {"passed": 0, "failed": 0, "skipped": 0})
        row[c.outcome] += 1
    print(f"{'section':10} {'passed':>7} {'failed':>7} {'skipped':>7}")
    for name in sorted(sections, key=section_key):
        row = sections[name]
        print(f"{name:10} {row['passed']:7} {row['failed']:7} {row['skipped']:7}")
    total = {k: sum(r[k] for r in sections.values()) for k in ("passed", "failed", "skipped")}
    if options.json:
        rows = [{"section": c.section, "name": c.name, "outcome": c.outcome, "detail": c.detail,
                 "seconds": round(c.seconds, 4)} for c in cases]
        with open(options.json, "w") as f:
            json.dump({"seconds": round(seconds, 2), **total, "sections": sections, "cases": rows}, f,
                      indent=1)
    if total["skipped"]:
        print(f"{total['skipped']} skipped (they need --server, or more URLs)")
    print(f"{total['passed']} passed, {total['failed']} failed")
    return total["failed"] == 0 and total["passed"] > 0


def parse(argv):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--server", metavar="BIN_DIR")
    p.add_argument("--url", nargs="+", metavar="URL", help="up to three: main, short, takeover")
    p.add_argument("--tls", action="store_true", help="over wss; the test makes a certificate")
    p.add_argument("--ca", help="certificate that wss:// servers are trusted by, without .pem; none: not verified")
    p.add_argument("--every", type=int, default=1, metavar="N")
    p.add_argument("--match", default="", metavar="REGEX")
    p.add_argument("--jobs", type=int, default=32)
    p.add_argument("--limit", type=float, default=8.0, metavar="SECONDS")
    p.add_argument("--max-message", type=int, default=16 << 20, metavar="BYTES",
                   help="the server's echo.max_message")
    p.add_argument("--json", metavar="FILE")
    p.add_argument("--list", action="store_true")
    p.add_argument("--verbose", action="store_true")
    return p.parse_args(argv)


def main(argv=None):
    options = parse(argv)
    cases = [c for c in suite.CASES if re.search(options.match, c.name)][::options.every]
    if options.list:
        print("\n".join(c.name for c in cases))
        return 0
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    servers, targets, keys = [], {}, tempfile.mkdtemp(prefix="conform-")
    try:
        if options.server:
            certificate = certs.make(keys) if options.tls else None
            for name, settings in (("main", MAIN), ("short", SHORT), ("takeover", TAKEOVER)):
                servers.append(Server(options.server, settings, certificate))
                targets[name] = servers[-1].target
        elif options.url:
            for name, url in zip(("main", "short", "takeover"), options.url):
                u = urllib.parse.urlsplit(url)
                tls = certs.client(options.ca) if u.scheme == "wss" else None
                targets[name] = Target(u.hostname, u.port or (443 if tls else 80), u.path or "/", tls)
        else:
            sys.exit("give --server BIN_DIR or --url ws://host:port/path")
        begin = time.monotonic()
        asyncio.run(run_all(cases, targets, options))
        seconds = time.monotonic() - begin
        ended = [s.proc.returncode for s in servers if s.proc.poll() is not None]
        for status in ended:
            print(f"the server ended by itself with status {status}")
        good = report(cases, options, seconds) and not ended
    finally:
        for s in servers:
            s.stop()
        shutil.rmtree(keys, ignore_errors=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
