"""Suite "core": plain WebSocket beside the floors of the same machine."""
import statistics
import sys

from . import server as srv

TITLE = "Fan-out, pairs, round trips, memory: beside floors"


def steps(a):
    """name, mode (None: no server), words"""
    n, t = f"--clients={a.subscribers}", [f"--duration={a.duration}", "--repeat=1"]
    fixed = "--rate=100000"
    return [
        # At full speed: what a bare send() costs, for comparing machines.
        ("floor-send", None, ["floor", "--kind=send", n, "--in-flight=16", *t]),
        ("floor-single", None, ["floor", "--kind=single", n, fixed, *t]),
        ("fanout-fixed", "ws", ["fanout", n, fixed, *t]),
        ("floor-batch16", None, ["floor", "--kind=batch16", n, "--in-flight=16", *t]),
        ("fanout-full", "ws", ["fanout", n, "--in-flight=16", *t]),
        ("pairs-full", "ws", ["pairs", "--clients=400", "--in-flight=16", *t]),
        ("pairs-fixed", "ws", ["pairs", "--clients=400", "--rate=20000", *t]),
        ("rtt", "ws", ["rtt", "--clients=1", *t]),
        ("connect", "ws", ["connect", "--clients=64", *t]),
    ]


def open_server(a, bin_dir):
    return srv.Server(a, bin_dir)


def apart(a, bin_dir):
    """A fresh server each: what one frees the next would find."""
    results = {}
    for name, channels in (("idle-one-channel", 1), ("idle-own-channels", 0)):
        if not a.wants(name):
            continue
        with srv.Server(a, bin_dir) as server:
            results[name] = srv.measure(a, bin_dir, ["idle", f"--clients={a.idle}", f"--channels={channels}",
                                                     f"--settle={a.settle}"], server)
            print(f"{name}: {results[name]['private_per_connection']:.0f} bytes per connection", file=sys.stderr)
    return results


def targets(runs, s, more, a):
    """(what, target, reached, measured) rows; a target whose figures were not taken is left out."""
    rows = []

    def cpu(name):
        return s[name]["cpu_us_per_unit"]["median"]

    def paired(name, floor):
        return statistics.median(x["median"]["cpu_us_per_unit"] / y["median"]["cpu_us_per_unit"]
                                 for x, y in zip(runs[name], runs[floor]))

    if {"fanout-fixed", "floor-single"} <= s.keys():
        ratio = paired("fanout-fixed", "floor-single")
        rows.append(("Fan-out at 100,000 deliveries/s: CPU per delivery",
                     "at most 1.5 x the one-by-one io_uring floor", ratio <= 1.5,
                     f"{cpu('fanout-fixed'):.2f} us, floor {cpu('floor-single'):.2f} us: {ratio:.2f} x"))
    if {"fanout-full", "floor-batch16"} <= s.keys():
        ratio = paired("fanout-full", "floor-batch16")
        rows.append(("Fan-out at full speed, 16 in flight: CPU per delivery",
                     "at most 2 x the 16-per-send floor", ratio <= 2,
                     f"{cpu('fanout-full'):.3f} us, floor {cpu('floor-batch16'):.3f} us: {ratio:.2f} x"))
    # The other two are given for a machine where a bare send() costs 4 us: scaled to this one.
    scale = 4.0 / cpu("floor-send") if "floor-send" in s else 1.0
    if "fanout-full" in s:
        rate = s["fanout-full"]["per_second"]["median"]
        rows.append(("Fan-out at full speed, 16 in flight: rate",
                     f"2,500,000/s where send() costs 4 us: {2.5e6 * scale:,.0f}/s here",
                     rate >= 2.5e6 * scale, f"{rate:,.0f}/s"))
    if "pairs-full" in s:
        rate = s["pairs-full"]["per_second"]["median"]
        rows.append(("200 one-to-one channels at full speed: rate",
                     f"500,000/s where send() costs 4 us: {5e5 * scale:,.0f}/s here",
                     rate >= 5e5 * scale, f"{rate:,.0f}/s"))
    for name, what in (("idle-one-channel", "one channel"), ("idle-own-channels", "a channel each")):
        if name in more:
            b = more[name]["private_per_connection"]
            rows.append((f"Idle, {a.idle:,} connections, {what}: process memory",
                         "at most 600 bytes per connection", b <= 600, f"{b:.0f} bytes"))
    return rows


def extra(runs, s, more, a):
    """More of markdown, behind the table of all figures."""
    return [f"\n{name}: {r['connections']:,} connections, private memory {r['private_before'] // 1024:,} KiB "
            f"before, {r['private_after'] // 1024:,} KiB after: **{r['private_per_connection']:.0f} bytes "
            f"each** (Pss {r['pss_per_connection']:.0f})." for name, r in more.items()]
