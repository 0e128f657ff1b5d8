#!/usr/bin/env python3
"""Attacks on a running server: each case is named for the hazard, and fails when the server dies, hangs,
grows, disturbs others, answers other than it should, or is left with something that should be gone.

  run.py --server build/asan/bin        (best with a build that has address and undefined sanitizers)

Options: --match REGEX (of "scene: case"), --list, --verbose. Prints failures, and last
`N passed, N failed`; exit status 1 on failures.
"""
import argparse
import asyncio
import os
import re
import resource
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness  # noqa: E402
from harness import Context, Violation, books, clean  # noqa: E402
import http_heads, frames, packets, slow, many, ends, lanes, liars, mixed  # noqa: E401,F401
import address, fair, rates, tls, bombs, faults  # noqa: E401,F401


async def run_case(server, name, run, options, limit):
    ctx = Context(server, limit)
    try:
        async with asyncio.timeout(options.get("deadline", 20)):
            await run(ctx)
            ctx.end()
            if options.get("books", True):
                await books(ctx)
        return None
    except Violation as e:
        return str(e)
    except TimeoutError:
        return "the case's deadline passed"
    except Exception as e:  # a broken answer may break the client anywhere; that is a failure too
        return f"{type(e).__name__}: {e}"
    finally:
        ctx.end()


def run_scene(scene, wanted, options):
    """Yields (name, failure or None, seconds)."""
    server, died = None, False
    for name, run, opts in scene.cases:
        full = f"{scene.name}: {name}"
        if full not in wanted:
            continue
        begin = time.monotonic()
        try:
            if server is None or server.proc.poll() is not None:
                server = scene.server(options.server, scene.settings, scene.nofile)
            failure = asyncio.run(run_case(server, name, run, opts, options.limit))
        except Violation as e:
            failure = str(e)
        yield full, failure, time.monotonic() - begin
        died = died or failure is not None
    if server is not None:
        status, log = server.end()
        failure = None
        turns = re.findall(r"slow-turn ms=(\d+)", log)
        if turns:  # a busy machine makes them, too: told, not judged
            print(f"{scene.name}: {len(turns)} slow turns, the longest {max(map(int, turns))} ms")
        try:
            clean(log, "" if not died else "child-died")
            if status not in (0, None):
                failure = f"status {status} at the end: {log[-600:]}"
        except Violation as e:
            failure = str(e)
        yield f"{scene.name}: the server ends in order", failure, 0.0


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--server", metavar="BIN_DIR", required=True)
    p.add_argument("--match", default="", metavar="REGEX")
    p.add_argument("--limit", type=float, default=8.0, metavar="SECONDS", help="for any one answer")
    p.add_argument("--list", action="store_true")
    p.add_argument("--verbose", action="store_true")
    options = p.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 8192)), hard))
    names = [f"{s.name}: {n}" for s in harness.SCENES for n, _, _ in s.cases]
    wanted = {n for n in names if re.search(options.match, n)}
    if options.list:
        print("\n".join(n for n in names if n in wanted))
        return 0
    passed = failed = 0
    for scene in harness.SCENES:
        for name, failure, seconds in run_scene(scene, wanted, options):
            if failure:
                failed += 1
                print(f"FAILED {name}: {failure}", flush=True)
            else:
                passed += 1
                if options.verbose:
                    print(f"passed {name} ({seconds:.2f} s)", flush=True)
    print(f"{passed} passed, {failed} failed")
    return 0 if failed == 0 and passed else 1


if __name__ == "__main__":
    sys.exit(main())
