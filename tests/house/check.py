#!/usr/bin/env python3
"""The rules of the house (docs/STYLE.md, docs/ARCHITECTURE.md) as a program: a line and a remedy for each
rule that is broken.

    tests/house/check.py [--build build/dev] [--long N] [--only WORD]

--long N lists the N longest functions and stops. Needs nothing but python3 and a C compiler."""

import argparse
import collections
import os
import pathlib
import re
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROOMS = ("common", "proto", "broker", "worker", "deploy", "bench")
LONGEST = 70  # lines of a function, with its braces

# Who may include whom. deploy and bench are programs beside the server.
MAY_SEE = {
    "common": {"common"},
    "proto": {"proto", "common"},
    "worker": {"worker", "proto", "common"},
    "broker": {"broker", "proto", "common"},
    "deploy": {"deploy", "proto", "common"},
    "bench": {"bench", "worker", "broker", "proto", "common"},
}
# What proto may take from common: values and memory, no clock that runs, no process, no log.
PROTO_SEES = {"base", "banned", "bug", "view", "buf", "mono"}
EXCEPTIONS = {("proto/ipc.c", "common/lane.h")}  # what a segment of lanes looks like
# A dependency has a door: header, the files that may include it.
DOORS = {
    r"liburing": r"common/ring\.[ch]|bench/.*",
    r"zlib\.h": r"proto/deflate\.[ch]",
    r"msgpack": r"proto/msgpack\.[ch]",
    r"hiredis": r"broker/(redis_io|bus_r\w+)\.[ch]",
    r"openssl/": r"proto/crypt\.c|worker/tls\.c",
    r"ini\.h$": r"common/conf\.c",
    r"cmocka\.h": r"tests/unit/.*|tests/.*",
}
BANNED = ("strcpy", "strcat", "sprintf", "vsprintf", "gets", "strtok", "atoi", "atol", "atof", "gmtime", "localtime",
          "ctime", "rand", "srand", "alloca", "system", "popen", "strncpy", "tmpnam", "mktemp")


def read(path):
    return path.read_text(encoding="utf-8", errors="replace")


def rel(path):
    return str(path.relative_to(ROOT))


def sources(pattern="*.[ch]", rooms=ROOMS):
    return sorted(p for room in rooms for p in (ROOT / room).rglob(pattern))


def blank(text):
    """The text without comments and the insides of strings; lines stay where they are."""
    def one(m):
        s = m.group(0)
        return re.sub(r"[^\n]", " ", s) if s.startswith("/") else '"' + " " * (len(s) - 2) + '"' if s[0] == '"' else "' '"
    return re.sub(r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])+'", one, text, flags=re.S)


CHECKS = []


def check(fn):
    CHECKS.append(fn)
    return fn


@check
def rooms_see_only_what_they_may(_):
    for path in sources():
        room = path.relative_to(ROOT).parts[0]
        for n, name in enumerate(re.findall(r'^[ \t]*#[ \t]*include[ \t]+"([^"]+)"', read(path), re.M), 1):
            other = name.split("/")[0]
            if other not in MAY_SEE:
                if "/" in name or not (path.parent / name).exists():
                    yield f"{rel(path)}: \"{name}\" does not begin with a room: write the folder"
            elif other not in MAY_SEE[room]:
                yield f"{rel(path)}: {room} may not include {other} (\"{name}\"): what both must know belongs to proto or common"
            elif room == "proto" and other == "common" and pathlib.Path(name).stem not in PROTO_SEES and (rel(path), name) not in EXCEPTIONS:
                yield f"{rel(path)}: proto is pure and may not include \"{name}\""
            elif rel(path).startswith("proto/dialect/") and name.startswith("proto/dialect/"):
                yield f"{rel(path)}: a dialect may not include another: \"{name}\""


@check
def dependencies_have_one_door(_):
    for path in sources() + sorted((ROOT / "tests").rglob("*.[ch]")):
        for name in re.findall(r"^[ \t]*#[ \t]*include[ \t]+<([^>]+)>", read(path), re.M):
            for what, door in DOORS.items():
                if re.search(what, name) and not re.fullmatch(door, rel(path)):
                    yield f"{rel(path)}: <{name}> may only be included by {door}"


@check
def own_header_comes_first(_):
    for path in sources("*.c"):
        own = path.with_suffix(".h")
        first = re.search(r'^[ \t]*#[ \t]*include[ \t]+(\S+)', read(path), re.M)
        if own.exists() and not re.search(r"^main\(", read(path), re.M) and first and first.group(1) != f'"{rel(own)}"':
            yield f"{rel(path)}: its first include is {first.group(1)}, not \"{rel(own)}\""


@check
def each_header_stands_alone(args):
    def compiles(path):
        r = subprocess.run([os.environ.get("CC", "gcc"), "-std=gnu11", "-D_GNU_SOURCE", '-DRINGCAST_VERSION="0"', "-fsyntax-only",
                            "-Wall", "-Wextra", "-Wno-unused-function", "-Wno-unused-variable", f"-I{ROOT}", "-x", "c", "-"],
                           input=f'#include "{rel(path)}"\n#include "{rel(path)}"\n', text=True, capture_output=True)
        return None if r.returncode == 0 else f"{rel(path)} does not compile alone: {r.stderr.splitlines()[0] if r.stderr else ''}"
    headers = [p for p in sources("*.h") if p.name != "banned.h"]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from filter(None, pool.map(compiles, headers))


@check
def banned_calls(_):
    words = re.compile(r"\b(" + "|".join(BANNED) + r")\s*\(")
    for path in sources():
        if path.name == "banned.h":
            continue
        for n, line in enumerate(blank(read(path)).splitlines(), 1):
            for m in words.finditer(line):
                yield f"{rel(path)}:{n}: {m.group(1)}() is banned: see common/banned.h"


@check
def no_typedef_of_structs(_):
    for path in sources():
        for m in re.finditer(r"^typedef\s+(struct|union|enum)\b", blank(read(path)), re.M):
            yield f"{rel(path)}: typedef of a {m.group(1)}: write struct name"


@check
def every_file_says_what_it_is_for(_):
    for path in sources():
        if not re.match(r"\s*/\*", read(path)) and path.suffix == ".h":
            yield f"{rel(path)}: opens without a comment that says what it is for"


@check
def lines_are_at_most_140_columns(_):
    # .clang-format wraps at 100; what it leaves alone has an end too
    for path in sources("*.c") + sources("*.h"):
        for n, line in enumerate(read(path).splitlines(), 1):
            if len(line.expandtabs(4)) > 140 and "http" not in line:
                yield f"{rel(path)}:{n}: {len(line)} columns"


@check
def no_fixme_and_no_tabs(_):
    for path in sources():
        for n, line in enumerate(read(path).splitlines(), 1):
            if re.search(r"\b(FIXME|XXX)\b", line):
                yield f"{rel(path)}:{n}: FIXME may not be merged; NEEDSWORK with a reason may stay"
            if "\t" in line or line != line.rstrip():
                yield f"{rel(path)}:{n}: a tab, or white space at the end"


def functions():
    """(file, line, name, lines) of each function defined in the house, by its column-0 name and brace."""
    for path in sources("*.c"):
        lines = blank(read(path)).splitlines()
        name, start = None, 0
        for n, line in enumerate(lines, 1):
            m = re.match(r"(?:[\w\s\*]*?\b)?(\w+)\(", line)
            if line[:1].isalpha() and m and not line.rstrip().endswith(";"):
                name, start = m.group(1), n
            elif line.startswith("}") and name and line.rstrip() == "}":
                yield path, start, name, n - start + 1
                name = None


@check
def functions_fit_a_screen(_):
    allowed = {}
    listing = ROOT / "tests/house/long-functions.txt"
    for line in read(listing).splitlines():
        if line.strip() and not line.startswith("#"):
            file, name, n = line.split()
            allowed[file, name] = int(n)
    seen = set()
    for path, line, name, n in functions():
        most = allowed.get((rel(path), name), LONGEST)
        if n > LONGEST:
            seen.add((rel(path), name))
        if n > most:
            yield f"{rel(path)}:{line}: {name}() has {n} lines, more than {most}: split it"
    for file, name in sorted(set(allowed) - seen):
        yield f"{rel(listing)}: {name} of {file} is short now: take it off the list"


@check
def every_parser_has_a_fuzz_target(_):
    parsers = {"proto/http.c": "http", "proto/ws.c": "ws", "proto/json.c": "json", "proto/dialect/socketcluster.c": "socketcluster",
               "common/conf.c": "conf", "common/lane.c": "lane", "proto/deflate.c": "deflate", "proto/msgpack.c": "msgpack",
               "proto/jwt.c": "jwt", "proto/envelope.c": "envelope"}
    for file, name in parsers.items():
        if not (ROOT / file).exists():
            continue
        if not (ROOT / f"tests/fuzz/fuzz_{name}.c").exists():
            yield f"{file}: reads what strangers write, and has no tests/fuzz/fuzz_{name}.c"
        elif not any((ROOT / f"tests/fuzz/corpus/{name}").glob("*")):
            yield f"tests/fuzz/corpus/{name} is empty: commit a corpus"


@check
def every_module_has_a_unit_test(_):
    tests = {p.stem.removeprefix("test_") for p in (ROOT / "tests/unit").glob("test_*.c")}
    text = "\n".join(read(p) for p in (ROOT / "tests/unit").glob("test_*.c"))
    listing = ROOT / "tests/house/without-unit-test.txt"
    allowed = {line for line in read(listing).splitlines() if line.strip() and not line.startswith("#")}
    for path in sources("*.c", ("common", "proto", "worker", "broker")):
        if path.stem in ("main", "metrics"):
            continue
        if rel(path) in allowed:
            if path.stem in tests:
                yield f"{rel(listing)}: {rel(path)} has a unit test now: take it off the list"
        elif path.stem not in tests and f'"{rel(path.with_suffix(".h"))}"' not in text and f'"{rel(path)}"' not in text:
            yield f"{rel(path)}: no tests/unit/test_{path.stem}.c, and no unit test includes it"


def pages():
    return sorted(p for p in ROOT.rglob("*.md") if not {"build", "node_modules", ".git"} & set(p.relative_to(ROOT).parts))


@check
def links_in_pages_resolve(_):
    for page in pages():
        text = re.sub(r"```.*?```", "", read(page), flags=re.S)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"[a-z]+:", target):
                continue
            file, _, anchor = target.partition("#")
            to = (page.parent / file).resolve() if file else page
            if not to.exists():
                yield f"{rel(page)}: link to {target}, which does not exist"
            elif anchor and to.suffix == ".md":
                heads = {re.sub(r"[^\w\- ]", "", h.strip().lower()).replace(" ", "-") for h in re.findall(r"^#+ (.*)$", read(to), re.M)}
                if anchor.lower() not in heads:
                    yield f"{rel(page)}: link to {target}: no such heading"


@check
def names_in_tour_and_architecture_exist(_):
    code = "\n".join(read(p) for p in sources() + sources("*.def") + sorted((ROOT / "tests").rglob("*.[ch]")))
    for name in ("TOUR.md", "ARCHITECTURE.md", "HACKING.md"):
        page = ROOT / "docs" / name
        if not page.exists():
            yield f"docs/{name} is missing"
            continue
        text = read(page)
        for fn in sorted(set(re.findall(r"`(\w+)\(\)`", text))):
            if not re.search(rf"\b{fn}\s*\(", code):
                yield f"docs/{name}: {fn}() does not exist"
        for fn in sorted(set(re.findall(r"`struct (\w+)`", text))):
            if not re.search(rf"\bstruct {fn}\b", code):
                yield f"docs/{name}: struct {fn} does not exist"
        for file in sorted(set(re.findall(r"`((?:common|proto|worker|broker|deploy|bench|tests|docs)/[\w./-]+\.\w+)`", text))):
            if not (ROOT / file).exists():
                yield f"docs/{name}: there is no {file}"


@check
def generated_pages_are_fresh(args):
    build = ROOT / args.build
    if not (build / "CTestTestfile.cmake").exists():
        return
    r = subprocess.run(["ctest", "--test-dir", str(build), "-R", r"^docs\.", "--output-on-failure"], text=True, capture_output=True)
    if r.returncode != 0:
        for name in re.findall(r"- (docs\.\w+) \(Failed\)", r.stdout):
            yield f"{name}: a generated page is stale: cmake --build {args.build} --target reference, and commit"


@check
def rows_of_tables_are_unique(_):
    for table in sorted(ROOT.glob("*/tbl/*.def")):
        text = blank(read(table))
        rows = collections.Counter(re.findall(r"^(\w+\(\s*\w+\s*,\s*\w+)", text, re.M))
        for row, n in rows.items():
            if n > 1 and table.name in ("config.def", "metrics.def"):
                yield f"{rel(table)}: {row} stands {n} times"
    numbers = collections.Counter(re.findall(r"^IPC\(\w+,\s*(\d+)", blank(read(ROOT / "proto/tbl/ipc.def")), re.M))
    for number, n in numbers.items():
        if n > 1:
            yield f"proto/tbl/ipc.def: number {number} is used {n} times; numbers on a wire are never reused"


@check
def settings_are_met_by_some_test_or_page(_):
    rows = re.findall(r"^CONF\((\w+),\s*(\w+)", read(ROOT / "common/tbl/config.def"), re.M)
    text = "\n".join(read(p) for folder in ("tests", "bench", "docs/ops") for p in (ROOT / folder).rglob("*")
                     if p.is_file() and "node_modules" not in p.parts and "corpus" not in p.parts and p.suffix in (".c", ".py", ".mjs", ".md", ".h", ".txt", ""))
    for section, key in rows:
        if f"{section}.{key}" not in text and f"{section}_{key}" not in text:
            yield f"common/tbl/config.def: {section}.{key} is met by no test"


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--build", default="build/dev")
    ap.add_argument("--long", type=int, default=0)
    ap.add_argument("--only", default="")
    args = ap.parse_args()
    every = sorted(functions(), key=lambda f: -f[3])
    if args.long:
        for path, line, name, n in every[:args.long]:
            print(f"{n:4} {rel(path)}:{line} {name}")
        return 0
    passed = failed = 0
    for fn in CHECKS:
        if args.only not in fn.__name__:
            continue
        complaints = list(fn(args))
        words = fn.__name__.replace("_", " ")
        print(f"{'FAIL ' if complaints else 'ok   '} {words}")
        for c in complaints[:25]:
            print(f"      {c}")
        if len(complaints) > 25:
            print(f"      ... and {len(complaints) - 25} more")
        failed += bool(complaints)
        passed += not complaints
    lengths = [f[3] for f in every]
    print(f"{len(lengths)} functions: median {statistics.median(lengths):.0f} lines, nine in ten under "
          f"{sorted(lengths)[len(lengths) * 9 // 10]}, {sum(n > LONGEST for n in lengths)} above {LONGEST}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
