#!/bin/sh
# The public Autobahn test suite against a running echo server, if `wstest` is on PATH (the suite
# needs Python 2.7: pip install autobahntestsuite==0.8.2 in a virtualenv of it).
#
#   tests/conform/autobahn.sh ws://127.0.0.1:8000/echo [CASES ...]     default: all of them
#
# The server should run with ws.control_rate and limits at their defaults. Prints every case that is
# FAILED or NON-STRICT and a count; exit status 1 if there is one. AUTOBAHN_OUT keeps the report.
set -eu
if ! command -v wstest >/dev/null 2>&1; then
    echo "autobahn: skipped, wstest is not on PATH"
    exit 0
fi
url=${1:?usage: autobahn.sh ws://host:port/path [CASES ...]}
shift
[ $# -gt 0 ] || set -- '*'
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
out=${AUTOBAHN_OUT:-$dir/report}
python3 - "$url" "$out" "$@" >"$dir/spec.json" <<'PY'
import json, sys
url, out, *cases = sys.argv[1:]
print(json.dumps({"outdir": out, "servers": [{"agent": "ringcast", "url": url}], "cases": cases,
                  "exclude-cases": [], "exclude-agent-cases": {}}))
PY
wstest -m fuzzingclient -s "$dir/spec.json" >"$dir/log" 2>&1 || {
    tail -20 "$dir/log"
    echo "autobahn: wstest failed"
    exit 1
}
python3 - "$out" <<'PY'
import collections, json, sys
out = sys.argv[1]
try:
    cases = json.load(open(out + "/index.json"))["ringcast"]
except (OSError, KeyError):
    sys.exit("autobahn: no report, is the server running?")
counts, bad = collections.Counter(), 0
for name in sorted(cases, key=lambda n: [int(p) for p in n.split(".")]):
    case = cases[name]
    counts[case["behavior"]] += 1
    # UNCLEAN of behaviorClose is a failure as well: TCP ended without a closing handshake
    if {case["behavior"], case["behaviorClose"]} - {"OK", "INFORMATIONAL"}:
        bad += 1
        detail = json.load(open(out + "/" + case["reportfile"]))
        print(f"{case['behavior']}/{case['behaviorClose']} {name}: {detail['result']} {detail['resultClose']} "
              f"expected {detail.get('expectation')} received {str(detail.get('received'))[:200]}")
print("autobahn:", ", ".join(f"{n} {k}" for k, n in sorted(counts.items())), f"of {len(cases)}; {bad} to look at")
sys.exit(bad > 0)
PY
