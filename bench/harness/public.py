"""Suite "public": TLS, compression, storms and slow readers, each beside plain WebSocket in the same run."""
import statistics
import sys

from . import server as srv

TITLE = "TLS, compression, storms and slow readers: beside plain WebSocket"
WS, WSS, DEFLATE, BOTH = "ws", "wss", "deflate", "both"
NAMES = {WS: "ws", WSS: "wss", DEFLATE: "ws, deflated", BOTH: "wss, deflated"}


def steps(a):
    t = [f"--duration={a.duration}", "--repeat=1"]
    json = ["--payload=1024", "--payload-as=json"]
    fan = ["fanout", f"--clients={a.subscribers}", *json, *t]
    rows = [("pack", None, ["pack", *json, "--repeat=5"])]
    for mode in srv.MODES:
        rows.append((f"fixed-{mode}", mode, [*fan, "--rate=50000"]))
    for mode in srv.MODES:
        rows.append((f"full-{mode}", mode, [*fan, "--in-flight=16"]))
    for mode in srv.MODES:
        rows.append((f"pairs-{mode}", mode, ["pairs", "--clients=400", "--in-flight=16", *json, *t]))
    for mode in (WS, WSS):
        rows.append((f"small-{mode}", mode, ["fanout", f"--clients={a.subscribers}", "--rate=100000", *t]))
    rows += [
        ("connect-ws", WS, ["connect", "--clients=64", *t]),
        ("connect-wss", WSS, ["connect", "--clients=64", *t]),
        ("connect-wss-ticket", WSS, ["connect", "--clients=64", "--resume", *t]),
        # Others: many on one channel (a round of deliveries takes milliseconds), and few.
        ("storm-wss-many", WS, ["storm", "--clients=1000", "--rate=50000", "--storm-url={storm:wss}", *t]),
        ("storm-wss-few", WS, ["storm", "--clients=100", "--rate=10000", "--storm-url={storm:wss}", *t]),
        ("storm-wss-few-wss", WSS, ["storm", "--clients=100", "--rate=10000", "--storm-url={storm:wss}", *t]),
        ("storm-hello-few", WS, ["storm", "--clients=100", "--rate=10000", "--storm-url={storm:wss}", "--depth=hello", *t]),
        ("storm-ws-few", WS, ["storm", "--clients=100", "--rate=10000", "--storm-url={storm:ws}", *t]),
    ]
    if a.realtime:
        rows = [(n, m, [*w, "--storm-rate=500"] if w[0] == "storm" else w) for n, m, w in rows]
    return rows


def open_server(a, bin_dir):
    return srv.Server(a, bin_dir, tls=True, more=["--deflate.enabled=on"])


# What a namespace does about readers that are behind.
POLICIES = ("close", "drop-oldest", "conflate")


def policy_conf(policy):
    return f"[namespace bench]\nprefix = bench-\nslow = {policy}\n"


def apart(a, bin_dir):
    results = {}
    for mode in srv.MODES:
        name = f"idle-{mode}"
        if a.wants(name):
            with open_server(a, bin_dir) as server:
                results[name] = srv.measure(a, bin_dir, ["idle", f"--clients={a.idle}", f"--settle={a.settle}"], server, mode)
                print(f"{name}: {results[name]['private_per_connection']:.0f} bytes per connection", file=sys.stderr)
    for policy in POLICIES:
        name = f"slow-{policy}"
        if a.wants(name):
            with srv.Server(a, bin_dir, conf=policy_conf(policy), more=["--out.stall=60s", "--sc.ping_timeout=120s"]) as server:
                words = ["slow", "--clients=10", "--slow=1000", "--rate=10000", "--payload=1024", "--payload-as=json",
                         f"--duration={a.duration if a.quick else max(2, a.duration)}", "--repeat=6", f"--settle={min(5, a.settle * 5)}"]
                r = results[name] = srv.measure(a, bin_dir, words, server, may_end=True)
                print(f"{name}: {r['private_before'] / 1048576:.1f} MiB before, {r['private_most'] / 1048576:.1f} most, "
                      f"{r['slow_ended']} ended", file=sys.stderr)
    return results


def each(runs, name, key):
    return [r["median"][key] for r in runs[name]]


def ratio(runs, name, base, key="cpu_us_per_unit", less=0.0):
    """Median of the rounds' own ratios. less: taken off the numerator."""
    return statistics.median((x - less) / y for x, y in zip(each(runs, name, key), each(runs, base, key)) if y > 0)


def pack_cost(runs):
    """CPU us to inflate the publish and to compress the message: once per message."""
    return statistics.median(r["pack_us"] + r["unpack_us"] for r in runs["pack"])


def targets(runs, s, more, a):
    rows = []
    for kind, what in (("fixed", "50 messages/s of 1 KiB"), ("full", "full speed, 16 in flight")):
        if {f"{kind}-ws", f"{kind}-deflate", "pack"} <= runs.keys():
            once = pack_cost(runs) / a.subscribers
            with_it, without = ratio(runs, f"{kind}-deflate", f"{kind}-ws"), ratio(runs, f"{kind}-deflate", f"{kind}-ws", less=once)
            rows.append((f"Compress-once fan-out to {a.subscribers:,}, {what}: CPU per message beside plain",
                         "at most 1.3 x, compression itself aside", without <= 1.3,
                         f"{without:.2f} x ({with_it:.2f} x with the {once * a.subscribers:.0f} us of zlib)"))
    if "idle-wss" in more:
        b = more["idle-wss"]["private_per_connection"]
        rows.append((f"Idle wss, {a.idle:,} connections: process memory", "at most 16 KiB per connection", b <= 16384,
                     f"{b:,.0f} bytes"))
    for name, what in (("storm-wss-many", "1,000 subscribers, 50,000 deliveries/s"), ("storm-wss-few", "100 subscribers, 10,000/s"),
                       ("storm-wss-few-wss", "100 wss subscribers, 10,000/s"),
                       ("storm-hello-few", "100 subscribers, 10,000/s, unfinished handshakes")):
        if name in runs:
            r = statistics.median(x["p99_ratio"] for x in runs[name])
            rate = statistics.median(x["storm"]["per_second"] for x in runs[name])
            quiet, during = (statistics.median(x["p99_us"] for x in side) for side in (
                [y["median"] for y in runs[name]], [y["during"]["median"] for y in runs[name]]))
            rows.append((f"p99 of others' delivery during a TLS storm ({what})", "at most 3 x the quiet one", r <= 3,
                         f"{r:.2f} x ({quiet:,.0f} us quiet, {during:,.0f} us beside {rate:,.0f} handshakes/s)"))
    for policy in POLICIES:
        name = f"slow-{policy}"
        if name in more:
            m = more[name]
            grown = m["private_most"] - m["private_before"]
            per = grown / m["slow"]
            late = flatness(m)
            rows.append((f"1,000 paused readers, {policy}: process memory", "flat: at most 5 % more in the last third", late <= 0.05,
                         f"{m['private_before'] / 2**20:.1f} MiB before, {m['private_most'] / 2**20:.1f} at most "
                         f"({per:,.0f} bytes a reader); {late * 100:+.1f} % in the last third"))
    return rows


def flatness(m):
    """Growth of memory over the last third of the readings, as a part of what it was: at first the kernel's buffers take
    what the readers do not."""
    values = [x[1] for x in m["readings"]]
    from_here = len(values) * 2 // 3
    return (max(values[from_here:]) - values[from_here]) / values[from_here] if from_here else 0.0


def extra(runs, s, more, a):
    out = []
    kinds = [k for k in ("fixed", "full", "pairs") if any(f"{k}-{m}" in runs for m in srv.MODES)]
    if kinds:
        out.append("\n## CPU per delivered message, 1 KiB of JSON\n\nMicroseconds, and in brackets the ratio to plain ws of the "
                   "same round.\n")
        out.append("| | " + " | ".join({"fixed": f"{a.subscribers:,} subscribers, 50,000/s", "full":
                   f"{a.subscribers:,} subscribers, full speed", "pairs": "200 pairs, full speed"}[k] for k in kinds) + " |")
        out.append("| --- |" + " --- |" * len(kinds))
        for mode in srv.MODES:
            cells = []
            for k in kinds:
                if f"{k}-{mode}" in s and f"{k}-ws" in s:
                    cells.append(f"{s[f'{k}-{mode}']['cpu_us_per_unit']['median']:.3f} ({ratio(runs, f'{k}-{mode}', f'{k}-ws'):.2f} x)")
                else:
                    cells.append("")
            out.append(f"| {NAMES[mode]} | " + " | ".join(cells) + " |")
    if "pack" in runs:
        p = runs["pack"][0]
        out.append(f"\nzlib brings the {p['from_bytes']} bytes of a message to {p['to_bytes']}, level 1: "
                   f"{statistics.median(r['pack_us'] for r in runs['pack']):.1f} us, and {statistics.median(r['unpack_us'] for r in runs['pack']):.1f} us "
                   "to inflate one.")
    idles = [m for m in srv.MODES if f"idle-{m}" in more]
    if idles:
        out.append("\n## Memory per idle connection\n\n| | process memory, bytes | connections |\n| --- | --- | --- |")
        for m in idles:
            r = more[f"idle-{m}"]
            out.append(f"| {NAMES[m]} | {r['private_per_connection']:,.0f} | {r['connections']:,} |")
    out += storms(runs)
    out += slows(more)
    return out


def storms(runs):
    names = [n for n in runs if n.startswith("storm-")]
    if not names:
        return []
    out = ["\n## Storms\n\nLatency of those who have nothing to do with it, us; medians of the rounds.\n",
           "| step | storm, connections/s | p50 quiet | p50 in the storm | p99 quiet | p99 in the storm | p99 ratio | server cores in the storm |",
           "| --- |" + " --- |" * 7]
    for n in names:
        def mid(f):
            return statistics.median(f(x) for x in runs[n])
        cells = [mid(lambda x: x["storm"]["per_second"]), mid(lambda x: x["median"]["p50_us"]),
                 mid(lambda x: x["during"]["median"]["p50_us"]), mid(lambda x: x["median"]["p99_us"]),
                 mid(lambda x: x["during"]["median"]["p99_us"])]
        out.append(f"| {n} | " + " | ".join(f"{c:,.0f}" for c in cells) + f" | {mid(lambda x: x['p99_ratio']):.2f} | "
                   f"{mid(lambda x: x['during']['median']['server_core']):.2f} |")
    return out


def slows(more):
    names = [n for n in more if n.startswith("slow-")]
    if not names:
        return []
    out = ["\n## 1,000 paused readers on a busy channel\n",
           "| policy | MiB before | MiB at most | bytes a reader at most | ended by the server | level once they read again "
           "| messages missed | notices |", "| --- |" + " --- |" * 7]
    for n in names:
        m = more[n]
        out.append(f"| {n[5:]} | {m['private_before'] / 2**20:.1f} | {m['private_most'] / 2**20:.1f} | "
                   f"{(m['private_most'] - m['private_before']) / m['slow']:,.0f} | {m['slow_ended']} | {m['slow_level']} | "
                   f"{m['slow_missed']:,} | {m['notices']} |")
    return out
