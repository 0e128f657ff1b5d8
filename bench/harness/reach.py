"""Suite "reach": what Ringcast means to reach, line by line, each beside its floor or itself in the same round. Lines that
stand beside other servers are the work of bench/compare; here is only what Ringcast itself does there."""
import statistics
import sys

from . import crowd, server as srv

TITLE = "What is to be reached"
SUBSCRIBERS = (1, 10, 100, 1000, 10000)
FULL = (100, 1000, 10000)  # of them at full speed
CHANNELS = (1, 10, 100, 1000, 10000, 100000, 1000000)
BUSY = (1000, 100)  # channels with a pair of clients each; the others are held
IN_FLIGHT = (16, 64, 128, 1024)
GROWTH = 1.2
IDLE_ONE, IDLE_MANY = 15000, 50000


def steps(a):
    n, t = f"--clients={a.subscribers}", [f"--duration={a.duration}", "--repeat=1", "--warmup=500ms"]
    fixed, million = ["fanout", n, "--rate=100000", *t], ["fanout", n, f"--rate={1000 * a.subscribers}", *t]
    pairs = ["--clients=200", "--in-flight=16", *t]
    rows = [("floor-single", None, ["floor", "--kind=single", n, "--rate=100000", *t]),
            ("fanout-fixed", "ws", fixed),
            ("million-0ms", "ws", million),
            ("million-2ms", "paced", million),
            ("floor-batch16", None, ["floor", "--kind=batch16", n, "--in-flight=16", *t])]
    rows += [(f"fanout-full-{k}", "ws", ["fanout", n, f"--in-flight={k}", *t]) for k in IN_FLIGHT]
    rows += [("floor-relay", None, ["floor", "--kind=relay", *pairs]), ("pairs-full", "ws", ["pairs", *pairs])]
    for what, words in (("fixed", fixed), ("full", ["fanout", n, "--in-flight=16", *t]), ("pairs", ["pairs", *pairs])):
        rows += [(f"rings-1-{what}", "one", [*words, "anywhere"]), (f"rings-2-{what}", "two", [*words, "anywhere"])]
    for k in SUBSCRIBERS:
        t = [f"--duration={a.duration * (3 if k >= 10000 else 1)}", "--repeat=1", "--warmup=500ms"]
        rows += [(f"subscribers-{k}", "ws", ["fanout", f"--clients={k}", "--rate=50000", *t])]
        if k > 1:
            rows += [(f"floor-{k}", None, ["floor", "--kind=single", f"--clients={k}", "--rate=50000", *t])]
    for k in FULL:
        t = [f"--duration={a.duration * (3 if k >= 10000 else 1)}", "--repeat=1", "--warmup=500ms"]
        rows += [(f"subscribers-full-{k}", "ws", ["fanout", f"--clients={k}", "--in-flight=16", *t]),
                 (f"floor-full-{k}", None, ["floor", "--kind=batch16", f"--clients={k}", "--in-flight=16", *t])]
    return [*rows, ("connect", "ws", ["connect", "--clients=64", *t])]


class Several:
    """One server for each way of running it; only one has work at a time."""

    def __init__(self, a, bin_dir):
        cores = ",".join(str(c) for c in sorted({a.server_cpu, a.cpu}))
        for mode in ("paced", "one", "two"):
            srv.MODES.setdefault(mode, [])
        self.by_mode = {"ws": srv.Server(a, bin_dir), "paced": srv.Server(a, bin_dir, more=["--out.pacing=2ms"]),
                        "one": srv.Server(a, bin_dir, cpus=cores), "two": srv.Server(a, bin_dir, cpus=cores, rings=2)}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for s in self.by_mode.values():
            s.__exit__()

    def settings(self):
        return self.by_mode["ws"].settings()

    def url(self, mode):
        return self.by_mode["ws"].url("ws")

    def options(self, mode):
        return self.by_mode[mode].options()


def open_server(a, bin_dir):
    return Several(a, bin_dir)


def with_channels(a, bin_dir, results):
    """The same pairs while so many channels are held, their own among them."""
    with srv.Server(a, bin_dir, more=[f"--sc.max_channels={crowd.Channels.EACH}"]) as server:
        for count in CHANNELS:
            held, done = [], 0
            for busy in (b for b in BUSY if b <= count or b == BUSY[-1]):
                held.append(crowd.Channels(server.port, done, max(done, count - busy)))
                done = max(done, count - busy)
                runs = [srv.measure(a, bin_dir, ["pairs", f"--clients={2 * min(busy, count)}", "--rate=50000", f"--duration={a.duration}", "--repeat=1",
                                                 "--warmup=500ms"], server) for _ in range(a.repeat)]
                cpu = statistics.median(r["median"]["cpu_us_per_unit"] for r in runs)
                results[f"channels-{count}-{busy}"] = {"ok": all(r["ok"] for r in runs), "cpu_us_per_unit": cpu, "runs": runs}
                print(f"channels-{count}, {min(busy, count)} of them busy: {cpu:.2f} us", file=sys.stderr)
            for h in held:
                h.close()


def with_crowd(a, bin_dir, results):
    """50,000 subscribers of one channel: four load processes, three workers, all workers on the server's core. The floor: four bare programs there."""
    words = [f"--duration={max(8, a.duration)}", "--repeat=1", "--warmup=10"]
    with srv.Server(a, bin_dir, workers=3) as server:
        runs = [srv.measure(a, bin_dir, ["fanout", "--clients=50000", "--processes=4", "--concurrency=200", "--rate=50000", *words], server)
                for _ in range(min(3, a.repeat))]
        cpu = statistics.median(r["median"]["cpu_us_per_unit"] for r in runs)
        results["subscribers-50000"] = {"ok": all(r["ok"] for r in runs), "cpu_us_per_unit": cpu, "runs": runs}
        print(f"subscribers-50000: {cpu:.2f} us", file=sys.stderr)
    done = crowd.floor_in_parts(a, bin_dir, 50000, 4, [f"--rate={50000 / 4:.0f}", *words])
    # Each saw its own time, and all of the kernel's helper thread.
    cpu = statistics.median(w["cpu_us_per_unit"] - w["softirq_us"] * (1 - 1 / len(done)) / w["units"] for r in done for w in r["repeats"])
    results["floor-50000"] = {"ok": all(r["ok"] for r in done), "cpu_us_per_unit": cpu, "runs": done}
    print(f"floor-50000: {cpu:.2f} us", file=sys.stderr)


def apart(a, bin_dir):
    results = {}
    if a.wants("idle-15000"):
        with srv.Server(a, bin_dir, more=["--sc.ping_interval=20s"]) as server:
            results["idle-15000"] = crowd.idle(a, bin_dir, server, IDLE_ONE, 1, a.settle / 2, a.settle)
    if a.wants("idle-50000"):
        with srv.Server(a, bin_dir, more=["--sc.ping_interval=20s"], workers=4, addresses=4) as server:
            results["idle-50000"] = crowd.idle(a, bin_dir, server, IDLE_MANY, 4, a.settle / 2, a.settle)
    for name in results:
        print(f"{name}: {results[name]['private_per_connection']:.0f} bytes, "
              f"{results[name]['cpu_us_per_connection_second']:.3f} us a second each", file=sys.stderr)
    if a.wants("channels"):
        with_channels(a, bin_dir, results)
    if a.wants("subscribers-50000"):
        with_crowd(a, bin_dir, results)
    return results


class Table:
    def __init__(self, runs, s, more):
        self.runs, self.s, self.more, self.rows = runs, s, more, []

    def ratio(self, x, y, key="cpu_us_per_unit"):
        """Median of the rounds' own ratios; None where one was not taken."""
        if not {x, y} <= self.runs.keys():
            return None
        return statistics.median(p["median"][key] / q["median"][key] for p, q in zip(self.runs[x], self.runs[y]))

    def at(self, name, key="cpu_us_per_unit"):
        return self.s[name][key]["median"]

    def most(self, what, target, ratio, limit, words):
        if ratio is not None:
            self.rows.append((what, target, ratio <= limit, f"{words()}: {ratio:.2f} x"))

    def least(self, what, target, ratio, limit, words):
        if ratio is not None:
            self.rows.append((what, target, ratio >= limit, f"{words()}: {ratio:.2f} x"))


def fan_rows(t):
    t.most("Fan-out 1,000, 100,000 deliveries/s, no pacing: CPU per delivery", "at most 1.15 x the floor of single sends",
           t.ratio("fanout-fixed", "floor-single"), 1.15, lambda: f"{t.at('fanout-fixed'):.2f} us, floor {t.at('floor-single'):.2f} us")
    t.most("Fan-out 1,000, 1,000 messages/s, pacing 2 ms: CPU per delivery", "at most 0.6 x the floor of single sends",
           t.ratio("million-2ms", "floor-single"), 0.6, lambda: f"{t.at('million-2ms'):.2f} us, unpaced {t.at('million-0ms'):.2f}")
    if {"million-2ms", "million-0ms"} <= t.runs.keys():
        more = statistics.median(p["median"]["p99_us"] - q["median"]["p99_us"] for p, q in zip(t.runs["million-2ms"], t.runs["million-0ms"]))
        t.rows.append(("The same: p99 beside unpaced", "at most 2 ms more", more <= 2000,
                       f"{t.at('million-2ms', 'p99_us') / 1e3:.1f} ms, unpaced {t.at('million-0ms', 'p99_us') / 1e3:.1f}: {more / 1e3:+.1f} ms"))
    t.least("Fan-out 1,000, full speed, 16 in flight: deliveries/s", "at least 0.7 x the floor of 16 frames per send",
            t.ratio("fanout-full-16", "floor-batch16", "per_second"), 0.7,
            lambda: f"{t.at('fanout-full-16', 'per_second'):,.0f}/s, floor {t.at('floor-batch16', 'per_second'):,.0f}/s")
    t.least("100 pairs, full speed, 16 in flight: deliveries/s", "at least 0.6 x the bare relay through two processes",
            t.ratio("pairs-full", "floor-relay", "per_second"), 0.6,
            lambda: f"{t.at('pairs-full', 'per_second'):,.0f}/s, floor {t.at('floor-relay', 'per_second'):,.0f}/s")
    for k in IN_FLIGHT[1:]:
        t.least(f"Fan-out 1,000, full speed, {k:,} in flight: deliveries/s", "no less than at 16",
                t.ratio(f"fanout-full-{k}", "fanout-full-16", "per_second"), 1.0, lambda k=k: f"{t.at(f'fanout-full-{k}', 'per_second'):,.0f}/s")
    for what, words in (("fixed", "fan-out 1,000, 100,000/s"), ("full", "fan-out 1,000, full speed"), ("pairs", "100 pairs, full speed")):
        t.most(f"2 rings beside 1, both cores shared with the load, {words}: CPU per delivery", "at most 1.15 x",
               t.ratio(f"rings-2-{what}", f"rings-1-{what}"), 1.15,
               lambda what=what: f"{t.at(f'rings-2-{what}'):.2f} us, 1 ring {t.at(f'rings-1-{what}'):.2f} us")


def growth_rows(t):
    seen = {k: t.at(f"subscribers-{k}") for k in SUBSCRIBERS if f"subscribers-{k}" in t.s}
    if "subscribers-50000" in t.more:
        seen[50000] = t.more["subscribers-50000"]["cpu_us_per_unit"]
    big = [v for k, v in seen.items() if k >= 100]
    if len(big) > 1:
        floors = [f"{t.at(f'floor-{k}'):.2f}" for k in SUBSCRIBERS if f"floor-{k}" in t.s and k >= 100]
        if "floor-50000" in t.more:
            floors.append(f"{t.more['floor-50000']['cpu_us_per_unit']:.2f}")
        t.rows.append((f"Cost growth, {min(seen):,} to {max(seen):,} subscribers: CPU per delivery at 50,000/s", "within 20 % past 100",
                       max(big) <= GROWTH * big[0], ", ".join(f"{k:,}: {v:.2f}" for k, v in seen.items()) +
                       f" us; floors past 100: {', '.join(floors)}"))
    seen = {k: t.at(f"subscribers-full-{k}") for k in FULL if f"subscribers-full-{k}" in t.s}
    if len(seen) > 1:
        floors = ", ".join(f"{t.at(f'floor-full-{k}'):.3f}" for k in seen if f"floor-full-{k}" in t.s)
        t.rows.append((f"The same at full speed, 16 in flight, {min(seen):,} to {max(seen):,} subscribers", "within 20 %",
                       max(seen.values()) <= GROWTH * seen[min(seen)], ", ".join(f"{k:,}: {v:.3f}" for k, v in seen.items()) + f" us; floors: {floors}"))
    for busy in BUSY:
        seen = {k: t.more[f"channels-{k}-{busy}"]["cpu_us_per_unit"] for k in CHANNELS if f"channels-{k}-{busy}" in t.more}
        big = [v for k, v in seen.items() if k >= 100]
        if len(big) > 1:
            t.rows.append((f"Cost growth, {min(seen):,} to {max(seen):,} channels held, {busy:,} of them busy: CPU per delivery", "within 20 % past 100",
                           max(big) <= GROWTH * big[0], ", ".join(f"{k:,}: {v:.2f}" for k, v in seen.items()) + " us"))


def idle_rows(t):
    for name, what in (("idle-15000", "one worker, one load process"), ("idle-50000", "four workers, four load processes")):
        if name not in t.more:
            continue
        r = t.more[name]
        t.rows.append((f"{r['connections']:,} idle connections, one subscription each, {what}: process memory", "at most 300 bytes each",
                       r["private_per_connection"] <= 300, f"{r['private_per_connection']:.0f} bytes"))
        t.rows.append((f"The same, pings of 20 s: CPU", "at most 1 us a second each", r["cpu_us_per_connection_second"] <= 1,
                       f"{r['cpu_us_per_connection_second']:.2f} us"))


def targets(runs, s, more, a):
    t = Table(runs, s, more)
    fan_rows(t)
    idle_rows(t)
    growth_rows(t)
    return t.rows


def extra(runs, s, more, a):
    out = ["\nNot here, because they stand beside other servers (`bench/compare`): p99 at half of the own maximum, CPU per delivery beside the "
           "best peer, storms of connections beside the best peer."]
    if "connect" in s:
        out.append(f"\nConnections opened, shaken, subscribed and dropped: {s['connect']['per_second']['median']:,.0f}/s, "
                   f"{s['connect']['cpu_us_per_unit']['median']:.1f} us each.")
    out.append("\nAt a fixed rate the floor of many subscribers rises as well: what a socket needs leaves the caches. 50,000 subscribers hear one "
               "channel, by four load processes, over three workers on one core; their floor is four bare programs of 12,500 sockets.")
    return out
