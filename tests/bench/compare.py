#!/usr/bin/env python3
"""Looks at what bench/compare --quick wrote: every server took every step it can, nothing was lost, and the report shows it."""
import json
import pathlib
import sys
import xml.dom.minidom

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent / "bench"))
sys.dont_write_bytecode = True

from harness import peers, rivals  # noqa: E402

folder = pathlib.Path(sys.argv[1])
doc = json.loads((folder / "quick.json").read_text())
page = (folder / "quick.html").read_text()
text = (folder / "quick.md").read_text()
passed = failed = 0


def expect(what, is_so):
    global passed, failed
    passed += bool(is_so)
    failed += not is_so
    if not is_so:
        print("FAIL ", what)


classes = {c.name: c for c in peers.ALL}
servers = [s for s in doc["titles"] if s != "floor"]
expect("servers", {"ringcast", *(c.name for c in peers.NPM)} <= set(servers) <= classes.keys())
expect("steps", {"fixed", "full", "full128", "pairs", "rtt", "connect", "upgrade", "wss", "deflate", "half", *rivals.YARDSTICK} == {s["name"] for s in doc["steps"]})
for step in doc["steps"]:
    for name in servers:
        if not rivals.takes(classes[name], [step["name"], step["title"], step["mode"], step["words"]], doc["curve"]):
            continue
        runs = doc["runs"].get(step["name"], {}).get(name, [])
        expect(f"{step['name']} of {name} is there", len(runs) == doc["rounds"])
        expect(f"{step['name']} of {name} is clean", all(r["ok"] for r in runs))
        if name == "mosquitto" and step["name"] in ("connect", "upgrade"):
            continue  # its queue is short: who finds it full tries again after a second, and a window is a fifth of one
        expect(f"{step['name']} of {name} did something", all(r["median"]["per_second"] > 0 and r["median"]["cpu_us_per_unit"] > 0 for r in runs))
for name in rivals.FLOORS:
    expect(f"floor of {name}", len(doc["runs"][name].get("floor", [])) == doc["rounds"])
for name in servers:
    expect(f"curve of {name}", doc["curve"].get(name))
    expect(f"memory of {name}", doc["idle"].get(name, {}).get("private_per_connection", 0) > 0)
    expect(f"{name} is in the report", doc["titles"][name] in page and doc["titles"][name] in text)
for picture in ("latency", "throughput", "cpu-fixed", "cpu-full", "cpu-pairs", "memory", "connect"):
    at = folder / "quick" / f"{picture}.svg"
    expect(f"{picture}.svg", at.exists() and xml.dom.minidom.parse(str(at)).documentElement.tagName == "svg")
expect("rules", "Rules" in page and "pinned" in page)
print(f"{passed} passed, {failed} failed")
sys.exit(1 if failed else 0)
