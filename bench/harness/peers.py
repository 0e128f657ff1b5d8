"""Suite "peers": Ringcast beside socketcluster-server on the same work, pinned alike, in turn.

Fairness: both run on one core and have it for themselves; both speak SocketCluster's protocol to the same load
generator; the peer runs as its documentation starts it, in the version of peers/package.json. Rates that the peer
cannot reach are left at its own full speed. Where it wins, the table says so."""
import statistics
import subprocess
import sys

from . import machine, server as srv

TITLE = "Ringcast beside socketcluster-server"
PEERS = machine.ROOT / "bench" / "peers"
OURS, THEIRS = "ringcast", "socketcluster"


class Peer:
    """A Node program that prints its ports."""

    def __init__(self, a, program):
        if not (PEERS / "node_modules").is_dir():
            subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--loglevel=error"], cwd=PEERS, check=True, stdout=sys.stderr)
        self.child = subprocess.Popen(["taskset", "-c", str(a.server_cpu), "node", program], cwd=PEERS, stdout=subprocess.PIPE, text=True)
        words = self.child.stdout.readline().split()
        if not words or words[0] != "ready":
            sys.exit(f"{program} did not start")
        self.port = int(words[1])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.kill()
        self.child.wait()
        self.child.stdout.close()

    def url(self, mode):
        return f"ws://127.0.0.1:{self.port}/socketcluster/"

    def options(self, mode="ws"):
        return [f"--url={self.url(mode)}", f"--pid={self.child.pid}"]


class Both:
    """The two servers; a step's mode says which it is for. Only one has work at a time."""

    def __init__(self, a, bin_dir):
        self.ours, self.theirs = srv.Server(a, bin_dir), Peer(a, "socketcluster.mjs")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.theirs.__exit__()
        self.ours.__exit__()

    def settings(self):
        return self.ours.settings()

    def url(self, mode):
        return self.ours.url("ws")

    def options(self, mode):
        return (self.theirs if mode == THEIRS else self.ours).options()


def steps(a):
    t = [f"--duration={a.duration}", "--repeat=1"]
    n = f"--clients={a.subscribers}"
    work = [
        ("fixed", ["fanout", n, "--rate=50000", *t]),
        ("full", ["fanout", n, "--in-flight=16", *t]),
        ("pairs", ["pairs", "--clients=200", "--in-flight=16", *t]),
        ("rtt", ["rtt", "--clients=1", *t]),
        ("connect", ["connect", "--clients=64", *t]),
    ]
    return [(f"{name}-{who}", who, words) for name, words in work for who in (OURS, THEIRS)]


def open_server(a, bin_dir):
    srv.MODES.setdefault(OURS, [])
    srv.MODES.setdefault(THEIRS, [])
    return Both(a, bin_dir)


def apart(a, bin_dir):
    results = {}
    for who in (OURS, THEIRS):
        name = f"idle-{who}"
        if a.wants(name):
            with (srv.Server(a, bin_dir) if who == OURS else Peer(a, "socketcluster.mjs")) as server:
                results[name] = srv.measure(a, bin_dir, ["idle", f"--clients={a.idle}", f"--settle={a.settle}"], server)
                print(f"{name}: {results[name]['private_per_connection']:.0f} bytes per connection", file=sys.stderr)
    return results


def targets(runs, s, more, a):
    return []


def version():
    try:
        text = (PEERS / "node_modules" / "socketcluster-server" / "package.json").read_text()
        return text.split('"version": "', 1)[1].split('"', 1)[0]
    except (OSError, IndexError):
        return "?"


def extra(runs, s, more, a):
    node = subprocess.run(["node", "--version"], stdout=subprocess.PIPE, text=True, check=False).stdout.strip()
    out = [f"\n## Beside each other\n\nsocketcluster-server {version()} on Node {node}, one process. 128-byte strings. Ratios are medians of "
           "the rounds' own; above 1: Ringcast does more, sooner, or with less.\n",
           "| work | figure | Ringcast | socketcluster-server | ratio |", "| --- | --- | --- | --- | --- |"]
    rows = [("fixed", f"fan-out to {a.subscribers:,} at 50,000/s", (("cpu_us_per_unit", "CPU us a delivery", -1), ("p99_us", "p99, us", -1))),
            ("full", f"fan-out to {a.subscribers:,}, full speed", (("per_second", "deliveries/s", 1), ("cpu_us_per_unit", "CPU us a delivery", -1))),
            ("pairs", "100 pairs, full speed", (("per_second", "deliveries/s", 1), ("cpu_us_per_unit", "CPU us a delivery", -1))),
            ("rtt", "one round trip at a time", (("p50_us", "p50, us", -1), ("p99_us", "p99, us", -1))),
            ("connect", "connect, shake, subscribe", (("per_second", "connections/s", 1), ("cpu_us_per_unit", "CPU us each", -1)))]
    for name, what, figures in rows:
        x, y = runs.get(f"{name}-{OURS}"), runs.get(f"{name}-{THEIRS}")
        for key, label, sign in figures if x and y else ():
            ratio = statistics.median((p["median"][key] / q["median"][key]) ** sign for p, q in zip(x, y))
            a_, b_ = (statistics.median(r["median"][key] for r in side) for side in (x, y))
            out.append(f"| {what} | {label} | {a_:,.3g} | {b_:,.3g} | {ratio:.2f} |" if max(a_, b_) < 1000 else
                       f"| {what} | {label} | {a_:,.0f} | {b_:,.0f} | {ratio:.2f} |")
    if f"idle-{OURS}" in more and f"idle-{THEIRS}" in more:
        p, q = (more[f"idle-{w}"]["private_per_connection"] for w in (OURS, THEIRS))
        out.append(f"| {a.idle:,} idle connections | bytes each | {p:,.0f} | {q:,.0f} | {q / p:.1f} |")
    return out
