#!/usr/bin/env python3
"""ringcast-bench by a coordinator and two agents that were started on their own, as on other hosts: every scenario that can be
shared, its parts merged; and what ends a run.

    agents.py BENCH URL PID"""
import json
import re
import subprocess
import sys

bench, url, pid = sys.argv[1:4]
TIMES = ["--warmup=50ms", "--duration=200ms", "--repeat=2", "--settle=50ms"]
passed = failed = 0


def expect(what, is_so, more=""):
    global passed, failed
    passed += bool(is_so)
    failed += not is_so
    if not is_so:
        print("FAIL ", what, more)


def start(words, agents=2):
    """A coordinator on a port of the kernel's choice, which it names, and its agents."""
    coordinator = subprocess.Popen([bench, words[0], *TIMES, *words[1:], f"--url={url}", f"--pid={pid}", "--coordinate=127.0.0.1:0", f"--agents={agents}",
                                    "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    port = re.search(r"at port (\d+)", coordinator.stderr.readline())[1]
    return coordinator, [subprocess.Popen([bench, f"--agent=127.0.0.1:{port}"], stderr=subprocess.PIPE, text=True) for _ in range(agents)]


def run(*words):
    coordinator, agents = start(words)
    out, told = coordinator.communicate(timeout=60)
    for a in agents:
        a.communicate(timeout=20)
    ended = [a.returncode for a in agents]
    expect(f"{words[0]} ends well", coordinator.returncode == 0 and ended == [0, 0], told)
    return json.loads(out) if out else {}


for words in (["fanout", "--clients=20", "--rate=2000"], ["pairs", "--clients=20", "--in-flight=4"], ["rtt", "--clients=4"],
              ["connect", "--clients=8"], ["churn", "--clients=8", "--channels=20"], ["idle", "--clients=80"]):
    r = run(*words)
    name = words[0]
    expect(f"{name}: two agents", r.get("agents") == 2)
    expect(f"{name}: nothing lost, doubled, reordered", r.get("ok") is True, r)
    expect(f"{name}: the coordinator reads the server itself", {"ringcast-worker", "ringcast-broker"} <= {p["name"] for p in r.get("processes", ())})
    if name == "idle":
        expect("idle: all connections but the first two dozen", r.get("connections") == 56, r)
        continue
    expect(f"{name}: work was done", r["median"]["per_second"] > 0, r)
    expect(f"{name}: two windows with an interval", len(r["repeats"]) == 2 and "per_second" in r["half_width95"], r)
    if name in ("fanout", "pairs", "rtt"):
        expect(f"{name}: histograms are merged", all(w["recorded"] > 0 for w in r["repeats"]) and 0 < r["median"]["p50_us"] <= r["median"]["p99_us"], r)
    if name == "fanout":
        expect("fanout: published once, heard by the subscribers of both", r["delivered"] == 20 * r["published"], r)

coordinator, (one, two) = start(["fanout", "--clients=20", "--rate=2000", "--warmup=3"])
while "working" not in (line := two.stderr.readline()) and line:
    pass
two.kill()
coordinator.stderr.close()
coordinator.stdout.close()
expect("a coordinator that lost an agent ends", coordinator.wait(60) not in (0, 2))
said = one.communicate(timeout=60)[1]
expect("and so does the other agent, which says why", one.returncode != 0 and "the coordinator is gone" in said, said)
two.communicate()
print(f"{passed} passed, {failed} failed")
sys.exit(1 if failed else 0)
