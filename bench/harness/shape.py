"""Suite "shape": arrivals, popularity, churn and restarts as they are outside of laboratories."""
import sys

from . import server as srv

TITLE = "Poisson arrivals, many channels, churn, restarts"
# Channels of the growth of cost.
MANY = (1, 100, 10000, 100000)


def steps(a):
    t = [f"--duration={a.duration}", "--repeat=1"]
    fan = ["fanout", f"--clients={a.subscribers}", "--rate=50000", *t]
    rows = [
        ("constant", "ws", fan),
        ("poisson", "ws", [*fan, "--schedule=poisson"]),
        ("churn-one", "ws", ["churn", "--clients=100", "--channels=1", *t]),
        ("churn-many", "ws", ["churn", "--clients=100", "--channels=100000", "--zipf=1", *t]),
    ]
    for n in MANY:
        rows.append((f"channels-{n}", "ws", ["channels", "--clients=2000", f"--channels={n}", "--zipf=1", "--rate=50000",
                                             "--schedule=poisson", *t]))
    return rows


def open_server(a, bin_dir):
    return srv.Server(a, bin_dir)


def apart(a, bin_dir):
    results = {}
    for name, kill in (("reconnect-worker", "ringcast-worker"),):
        if a.wants(name):
            with srv.Server(a, bin_dir) as server:
                r = results[name] = srv.measure(a, bin_dir, ["reconnect", f"--clients={a.subscribers}", f"--kill={kill}", "--repeat=1",
                                                             "--settle=0.5"], server, may_end=True)
                print(f"{name}: all {r['clients']} back after {r['repeats'][0]['seconds']:.3f} s", file=sys.stderr)
    return results


def targets(runs, s, more, a):
    rows = []
    if {"constant", "poisson"} <= s.keys():
        x = s["poisson"]["cpu_us_per_unit"]["median"] / s["constant"]["cpu_us_per_unit"]["median"]
        rows.append(("CPU per delivery with Poisson arrivals beside an even timetable", "no more than 1.2 x", x <= 1.2, f"{x:.2f} x"))
    return rows


def extra(runs, s, more, a):
    out = []
    for name, r in more.items():
        w = r["repeats"][0]
        out.append(f"\n{name}: killed with {r['clients']:,} connections; all were back after {w['seconds']:.3f} s, half of them after "
                   f"{w['p50_us'] / 1e6:.3f} s. A new process is started at once; clients look every 5 ms, 64 at a time.")
    return out
