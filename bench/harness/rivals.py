"""Steps of bench/compare, and its report: Ringcast beside servers of others on the same work."""
import statistics

from . import peers, stats, svg

RULES = """
- One machine, loopback. Each server has one core for itself, the load generator another; both are pinned, the kernel's helper thread of the server's
  core is charged to the server. All servers are up all the time and only one has work.
- The same program loads all of them: one connection per subscriber, the same payload, the same timetable, and every delivery is checked:
  a message that is lost, doubled or reordered, or a connection that ends, makes a figure "not clean", and it is marked.
- In turn: round after round, in each round step after step, in each step server after server, beginning with another one each round. What the
  machine does to one round it does to all. Every server is warmed up before the first round, so that its code is compiled.
- Settings are those of the documentation, but for what is named below. Nobody writes to disk, nobody logs messages, nobody acknowledges
  deliveries. Memory is read from a fresh server.
- They do not do the same work. Ringcast and socketcluster-server parse and check JSON and speak SocketCluster's protocol; Ringcast carries every
  message to a second process and back, on the same core. Ringcast compresses a message once for all; the servers on Node and NATS compress it
  for each connection, as is their way. ws and uWebSockets pass plain texts on unread, NATS and Mosquitto carry bytes by short headers, nchan
  keeps messages in shared memory. NATS on TCP has no WebSocket framing at all. CPU time is that of all processes of a server.
- To connect and subscribe takes one round trip with nchan (the path says what is wanted), two with ws and uWebSockets, three with SocketCluster's protocol,
  MQTT and Socket.IO, and two with NATS on TCP. The upgrade alone is one for all of them; nchan has subscribed by then.
- Floors are bare programs that send the same frames to the same sockets and do nothing else (docs/benchmarks.md): one io_uring send for each frame at a
  rate, one for 16 frames at full speed, a relay over two processes for pairs. They are no servers and are never called ahead.
- A rate that a server cannot reach is shown as what it reached. At half of Ringcast's own maximum, who never delivered a quarter of that rate is not
  offered it; what it came to is said instead.
- A server is called ahead only where the 95 % interval of the ratio, taken round by round, does not include 1; what was taken once is
  compared as it is. Where another one is ahead of
  Ringcast, the table says so, in bold.
"""

LATENCY = (("p50_us", "p50, µs", -1), ("p99_us", "p99, µs", -1))
CPU = ("cpu_us_per_unit", "CPU µs each", -1)
RATE = ("per_second", "per second", 1)


def steps(a):
    """(name, title, mode, words, figures)"""
    n, t = f"--clients={a.subscribers}", [f"--duration={a.duration}", f"--warmup={a.warmup}", "--repeat=1"]
    kib = ["--payload=1024", "--payload-as=json"]
    fixed = 50 * a.subscribers
    rows = [
        ("fixed", f"Fan-out to {a.subscribers:,}, {fixed:,} deliveries/s", "ws", ["fanout", n, f"--rate={fixed}"], (CPU, *LATENCY)),
        ("full", f"Fan-out to {a.subscribers:,}, full speed, 16 in flight", "ws", ["fanout", n, "--in-flight=16"], (RATE, CPU)),
        *((f"full{k}", f"Fan-out to {a.subscribers:,}, full speed, {k} in flight", "ws", ["fanout", n, f"--in-flight={k}"], (RATE, CPU)) for k in (1, 32, 64, 128)),
        ("pairs", f"{a.pairs} pairs, full speed, 16 in flight", "ws", ["pairs", f"--clients={2 * a.pairs}", "--in-flight=16"], (RATE, CPU)),
        ("pairs1", f"{a.pairs} pairs, full speed, 1 in flight", "ws", ["pairs", f"--clients={2 * a.pairs}", "--in-flight=1"], (RATE, CPU)),
        ("rtt", "One client, one round trip at a time", "ws", ["rtt", "--clients=1"], (*LATENCY, CPU)),
        ("connect", "Connect, open, subscribe, leave: 64 at a time", "ws", ["connect", "--clients=64"], (RATE, CPU)),
        ("upgrade", "Connect and upgrade, no more, leave: 64 at a time", "ws", ["connect", "--clients=64", "--depth=upgrade"], (RATE, CPU)),
        ("wss", f"Fan-out of 1 KiB to {a.subscribers:,} by TLS, {10 * a.subscribers:,}/s", "wss",
         ["fanout", n, f"--rate={10 * a.subscribers}", *kib], (CPU, *LATENCY)),
        ("deflate", f"Fan-out of 1 KiB to {a.subscribers:,}, compressed, {5 * a.subscribers:,}/s", "deflate",
         ["fanout", n, f"--rate={5 * a.subscribers}", *kib], (CPU, *LATENCY)),
    ]
    return [(name, title, mode, [*words, *t], figures) for name, title, mode, words, figures in rows if a.wants(name)]


# Steps of the two that are compared line by line (docs/benchmarks.md, "Beside uWebSockets"); the others have their share of time in the rest.
YARDSTICK = ("full1", "full32", "full64", "pairs1")
# Who never delivered this share of a rate is not offered it: it would answer for minutes what it was offered in a second.
HOPELESS = 0.25


def most(curve, name):
    """The most deliveries per second that one had in the curve."""
    return max((r["per_second"] for r in curve.get(name, ())), default=0)


def takes(peer, step, curve):
    """Has it that mode, can its protocol do it, and is there anything to be learned?"""
    if peer is peers.MinBin and "--payload-as=json" in step[3] or peer is peers.Nats and "--depth=upgrade" in step[3]:
        return False
    if step[0] in YARDSTICK and peer not in (peers.Ours, peers.Uws):
        return False
    if step[0] == "half" and peer.name in curve and most(curve, peer.name) < HOPELESS * half_rate(curve):
        return False
    return step[2] in peer.modes


# What a bare program does in place of the server: the floor under a step.
FLOORS = {"fixed": "single", "full": "batch16", "pairs": "relay"}


def floor_words(step):
    """The words of a floor's run, None where there is none."""
    kind = FLOORS.get(step[0])
    return ["floor", f"--kind={kind}", *step[3][1:]] if kind else None


def half_rate(curve):
    """Half of Ringcast's own maximum, which is the most it delivered in the curve; 0 without one."""
    best = most(curve, "ringcast")
    return best and (round(best / 2, -3) or 1000)


def half_step(a, curve):
    rate = half_rate(curve)
    if not rate or not a.wants("half"):
        return None
    return ("half", f"Fan-out to {a.subscribers:,} at half of Ringcast's own maximum, {rate:,.0f} deliveries/s", "ws",
            ["fanout", f"--clients={a.subscribers}", f"--rate={rate:.0f}", f"--duration={a.duration}", f"--warmup={a.warmup}", "--repeat=1"], (*LATENCY, CPU))


def described(step):
    return dict(zip(("name", "title", "mode", "words", "figures"), step))


def curve_rates(a):
    return [r * a.subscribers for r in ((10, 50) if a.quick else (10, 25, 50, 100, 200, 400, 800, 1600, 3200, 6400, 12800))]


def values(runs, figure):
    return [r["median"][figure] for r in runs]


def number(v):
    return f"{v:,.0f}" if abs(v) >= 1000 else f"{v:.3g}"


def with_interval(s):
    """Median, and the interval as plus or minus."""
    text = number(s["median"])
    return f"{text} ± {number((s['ci95'][1] - s['ci95'][0]) / 2)}" if s["ci95"] else text


def judge(doc, without=()):
    """(title, figure, ours, best rival's title, theirs, ratio or None, verdict) for each step's figures. The rival is whoever has
    the best median, whichever it is, but for those that are left out."""
    out = {"ringcast", "floor", *without}
    rows = []
    for step in doc["steps"]:
        runs = doc["runs"].get(step["name"], {})
        ours = runs.get("ringcast")
        rivals = {k: v for k, v in runs.items() if k not in out and v}
        for key, label, sign in step["figures"] if ours and rivals else ():
            best = max(rivals, key=lambda k: sign * statistics.median(values(rivals[k], key)))
            r = stats.ratio(values(ours, key), values(rivals[best], key), sign)
            rows.append((step["title"], label, values(ours, key), best, values(rivals[best], key), r, stats.verdict(r) if r else None))
    idle = doc["idle"]
    if "ringcast" in idle and len(idle) > 1:
        x = {k: v["private_per_connection"] for k, v in idle.items()}
        best = min((k for k in x if k not in out), key=x.get, default=None)
    if "ringcast" in idle and len(idle) > 1 and best:
        r = stats.ratio([x["ringcast"]], [x[best]], -1)
        rows.append(("Idle connections with one subscription", "bytes of process memory each", [x["ringcast"]], best, [x[best]], r,
                     stats.verdict(r) if r else None))
    return rows


def cell(runs, key):
    """A figure of a table, with what is to be said against it."""
    marks = [] if all(r["ok"] for r in runs) else ["not clean"]
    if runs[0]["deflate"] and not all(r["packed"] for r in runs):
        marks.append("nothing came compressed")
    return with_interval(stats.summary(values(runs, key))) + (f" ({', '.join(marks)})" if marks else "")


def tables(doc):
    """(title, head, rows) for each step, rows best first."""
    out = []
    names = doc["titles"]
    for step in doc["steps"]:
        runs = {k: v for k, v in doc["runs"].get(step["name"], {}).items() if v}
        if not runs:
            continue
        key, _, sign = step["figures"][0]
        order = sorted(runs, key=lambda k: -sign * statistics.median(values(runs[k], key)))
        shown = list(step["figures"]) + ([RATE] if RATE not in step["figures"] else [])
        head = ["server", *(label for _, label, _ in shown), "server's cores", "load's cores"]
        rows = [[names[k], *(cell(runs[k], f[0]) for f in shown), *(f"{statistics.median(values(runs[k], c)):.2f}" for c in ("server_core", "load_core"))]
                for k in order]
        if step["name"] == "half":
            rows += [[names[k], f"ends at {number(most(doc['curve'], k))}/s", *["" for _ in head[2:]]] for k in doc["curve"] if k not in runs]
        out.append((step["title"], head, rows))
    if doc["idle"]:
        order = sorted(doc["idle"], key=lambda k: doc["idle"][k]["private_per_connection"])
        out.append((f"{doc['idle_connections']:,} idle connections with one subscription", ["server", "bytes of process memory each"],
                    [[names[k], f"{doc['idle'][k]['private_per_connection']:,.0f}"] for k in order]))
    return out


def middle(runs):
    """Quantiles of latency: medians over the rounds."""
    windows = [w for r in runs for w in r["repeats"]]
    qs = runs[0]["quantiles"]
    return qs, [statistics.median(w["at_us"][i] for w in windows) for i in range(len(qs))]


def bars(doc, step, key):
    runs = doc["runs"].get(step, {})
    rows = []
    for k, v in runs.items():
        if v:
            s = stats.summary(values(v, key))
            rows.append((doc["titles"][k], s["median"], s["min"], s["max"]))
    return sorted(rows, key=lambda r: r[1])


def plots(doc):
    """name -> (title, SVG)"""
    out, names = {}, doc["titles"]
    fixed = {k: v for k, v in doc["runs"].get("fixed", {}).items() if v}
    rate = next((s["title"] for s in doc["steps"] if s["name"] == "fixed"), "")
    if fixed:
        out["latency"] = (f"Latency of delivery. {rate}", svg.latency([(names[k], *middle(v)) for k, v in fixed.items()]))
    if doc["curve"]:
        out["throughput"] = ("Throughput against latency: fan-out at growing rates, p99, until it is no longer kept",
                             svg.lines([(names[k], [(r["per_second"], r["p99_us"]) for r in v if r["p99_us"] > 0]) for k, v in doc["curve"].items()],
                                       "deliveries per second", "p99, microseconds", x_log=True, y_log=True))
    for name, step, title in (("cpu-fixed", "fixed", f"CPU time per delivery. {rate}"), ("cpu-full", "full", "CPU time per delivery, fan-out at full speed"),
                              ("cpu-pairs", "pairs", "CPU time per delivery, pairs at full speed")):
        if doc["runs"].get(step):
            out[name] = (title, svg.bars(bars(doc, step, "cpu_us_per_unit"), "microseconds; the line spans the rounds", " µs"))
    if doc["idle"]:
        rows = sorted((r["private_per_connection"], names[k]) for k, r in doc["idle"].items())
        out["memory"] = ("Process memory of an idle connection with one subscription", svg.bars([(n, v, None, None) for v, n in rows], "bytes"))
    if doc["runs"].get("connect"):
        out["connect"] = ("Connections opened and subscribed per second", svg.bars(bars(doc, "connect", "per_second")[::-1], "per second"))
    return {k: v for k, v in out.items() if v[1]}


def ahead(doc, verdict, best):
    return {stats.OURS: "Ringcast", stats.THEIRS: doc["titles"][best], stats.EVEN: "neither, as far as the rounds tell", None: "?"}[verdict]


def ahead_rows(doc, without=()):
    rows = []
    for title, label, ours, best, theirs, r, v in judge(doc, without):
        told = f"{r[0]:.2f} ×" + (f" ({r[1]:.2f} to {r[2]:.2f})" if len(ours) > 1 else " (taken once)") if r else "?"
        rows.append((title, label, number(statistics.median(ours)), f"{number(statistics.median(theirs))} ({doc['titles'][best]})", told, ahead(doc, v, best), v))
    return rows


def about(doc):
    m, q = doc["machine"], doc["others_cores"]
    told = (f" Before each step others kept {statistics.median(q):.2f} cores busy (median; at most {max(q):.2f})." if q else "")
    if q and statistics.median(q) > 0.1:
        told += " That is not quiet: absolute figures are too high and rates too low, latencies most of all."
    if doc.get("ended"):
        told += f" Ended by {doc['ended']} before it was done: rounds or steps are missing."
    if doc.get("weight"):
        told += " All of this ran in a scheduling group of the highest weight."
    return (f"{m['date']}. {m['cpu']}, {m['cores']} cores, {m['memory_kib'] // 1048576} GiB, kernel {m['kernel']}, {m['openssl']}; servers on core {doc['server_cpu']}, "
            f"load on core {doc['cpu']}. {doc['rounds']} rounds of {doc['duration_s']} s; medians, ± half the 95 % interval of the mean (Student's t)." + told)


HEAD = ("work", "figure", "Ringcast", "best of the others", "Ringcast is better by", "ahead")


def comparisons(doc):
    """(title, rows): beside all others, and beside those that come as servers or are measured as applications have them."""
    rows = [("Who is ahead", ahead_rows(doc))]
    if "uws" in doc["titles"] and len(doc["peers"]) > 2:
        rows.append(("The same without uWebSockets, which is a library and has no package of its own", ahead_rows(doc, ("uws",))))
    return rows


def markdown(doc, pictures):
    out = ["# Ringcast beside other servers\n", about(doc) + "\n"]
    for title, rows in comparisons(doc):
        out += [f"## {title}\n", "| " + " | ".join(HEAD) + " |", "|" + " --- |" * len(HEAD)]
        for *row, v in rows:
            row[-1] = f"**{row[-1]}**" if v == stats.THEIRS else row[-1]
            out.append("| " + " | ".join(row) + " |")
        out.append("")
    out += ["## Rules", RULES, "## Servers\n", "| server | version | settings |", "| --- | --- | --- |"]
    out += [f"| {doc['titles'][k]} | {v['version']} | {v['settings']} |" for k, v in doc["peers"].items()]
    out.append("\n## All figures\n")
    for title, head, rows in tables(doc):
        out += [f"### {title}\n", "| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
        out += ["| " + " | ".join(row) + " |" for row in rows]
        out.append("")
    out += [f"### {title}\n\n![{title}]({pictures[k]})\n" for k, (title, _) in plots(doc).items() if k in pictures]
    return "\n".join(out) + "\n"


def page_table(head, rows):
    return ("<table><tr>" + "".join(f"<th>{svg.esc(h)}</th>" for h in head) + "</tr>"
            + "".join("<tr>" + "".join(f"<td>{svg.esc(c)}</td>" for c in row) + "</tr>" for row in rows) + "</table>")


def page(doc):
    ahead = ""
    for title, rows in comparisons(doc):
        cells = "".join("<tr>" + "".join(f"<td>{svg.esc(c)}</td>" for c in row[:-1])
                        + f"<td class=\"{'no' if v == stats.THEIRS else 'yes' if v == stats.OURS else ''}\">{svg.esc(row[-1])}</td></tr>" for *row, v in rows)
        ahead += f"<h2>{svg.esc(title)}</h2><table><tr>" + "".join(f"<th>{svg.esc(h)}</th>" for h in HEAD) + f"</tr>{cells}</table>"
    rules = "".join(f"<li>{svg.esc(' '.join(r.split()))}</li>" for r in RULES.split("\n- ") if r.strip())
    return ("<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">"
            f"<title>Ringcast beside other servers</title><style>{svg.CSS}</style><body><h1>Ringcast beside other servers</h1><p class=meta>{svg.esc(about(doc))}</p>"
            + ahead + "".join(f"<h2>{svg.esc(title)}</h2>{drawn}" for title, drawn in plots(doc).values())
            + f"<h2>Rules</h2><ul>{rules}</ul><h2>Servers</h2>"
            + page_table(("server", "version", "settings"), [(doc["titles"][k], v["version"], v["settings"]) for k, v in doc["peers"].items()])
            + "<h2>All figures</h2>" + "".join(f"<h3>{svg.esc(title)}</h3>{page_table(head, r)}" for title, head, r in tables(doc)) + "</body></html>\n")
