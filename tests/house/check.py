#!/usr/bin/env python3
"""The rules of the house (docs/STYLE.md, docs/ARCHITECTURE.md) as a program: for each rule that is broken a
line that names the place and the remedy.

    tests/house/check.py [RULE...]     all rules, or only these
    tests/house/check.py --list        the rules, a line each
    tests/house/check.py --long N      the N longest functions

The last line counts rules, not violations. Needs python3 and a C compiler, and no build: headers and the
generators of docs/gen are compiled here, in a temporary directory. selftest.py breaks each rule once, to
show that it can be broken.

Where a rule has exceptions they stand in a list, each with its reason: here, or in a .txt file beside this
one. An exception that nothing needs any more is a violation too, so the lists only shrink."""
import argparse
import concurrent.futures
import functools
import os
import re
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ROOMS = ("common", "proto", "worker", "broker", "deploy", "bench")
HERE = "tests/house"
REFRESH = "run cmake --build --preset dev --target reference, and commit the page with the table"

# ---- the tree ----


class House:
    """A tree to look at, and what was found in it by the rule of the moment."""

    def __init__(self, root):
        self.root = root
        self.found = []
        self.notes = []
        self.texts = {}
        self.files = self.list_files()
        self.known = set(self.files)

    def list_files(self):
        """What is committed or could be; without git everything but what a build leaves behind."""
        if os.path.isdir(os.path.join(self.root, ".git")):
            out = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=self.root,
                stdout=subprocess.PIPE, check=True).stdout.decode()
            names = out.splitlines()
        else:
            names = []
            for folder, folders, here in os.walk(self.root):
                folders[:] = [f for f in folders if f not in ("build", "node_modules", "__pycache__")]
                names += [os.path.relpath(os.path.join(folder, f), self.root) for f in here]
        return sorted({n for n in names if os.path.isfile(os.path.join(self.root, n))})

    def text(self, name):
        if name not in self.texts:
            with open(os.path.join(self.root, name), "rb") as f:
                self.texts[name] = f.read().decode("utf-8", "replace")
        return self.texts[name]

    def has(self, name):
        return name in self.known

    def fail(self, where, what, remedy):
        self.found.append(f"{where}: {what}; {remedy}")

    def sources(self, rooms=ROOMS, ends=(".c", ".h")):
        return [n for n in self.files if n.split("/")[0] in rooms and n.endswith(ends)]

    def listed(self, name, words=1):
        """Rows of a list of exceptions: {its first words: (the rest, line number)}."""
        rows, path = {}, f"{HERE}/{name}"
        for number, line in enumerate(self.text(path).splitlines() if self.has(path) else (), 1):
            parts = line.split(None, words)
            if parts and not line.startswith("#"):
                rows[" ".join(parts[:words])] = (parts[words] if len(parts) > words else "", number)
        return rows

    def unused(self, name, rows, used):
        for row, (_, number) in rows.items():
            if row not in used:
                self.fail(f"{HERE}/{name}:{number}", f"{row} needs no exception any more", "take it off the list")


def blanked(text, texts_too):
    """C without its comments, and without the insides of texts if asked; all stays in its place."""
    def blank(m):
        s = m.group(0)
        if s[0] == "/":
            return re.sub(r"[^\n]", " ", s)
        return s[0] + " " * (len(s) - 2) + s[0] if texts_too else s
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', blank, text, flags=re.S)


@functools.lru_cache(maxsize=None)
def code_only(text):
    return blanked(text, True)


@functools.lru_cache(maxsize=None)
def without_comments(text):
    return blanked(text, False)


def includes(text):
    """(line number, name, whether in quotes) of each #include."""
    for number, line in enumerate(without_comments(text).split("\n"), 1):
        m = re.match(r'\s*#\s*include\s+(["<])([^">]+)[">]', line)
        if m:
            yield number, m.group(2), m.group(1) == '"'


class Function:
    def __init__(self, file, line, name, static, lines):
        self.file, self.line, self.name, self.static, self.lines = file, line, name, static, lines


def functions(house, rooms=ROOMS):
    """Definitions: the return type on a line of its own, the name in the first column, and down to a brace
    in the first column. Their lines count from the name to that brace."""
    for file in house.sources(rooms):
        lines = code_only(house.text(file)).split("\n")
        for i, line in enumerate(lines):
            m = re.match(r"([A-Za-z_]\w*)\(", line)
            if not m or i == 0 or not re.match(r"[A-Za-z_][\w\s*(),\"]*$", lines[i - 1]):
                continue
            opening = i
            while opening < len(lines) and lines[opening] != "{" and not lines[opening].rstrip().endswith(";"):
                opening += 1
            if opening == len(lines) or lines[opening] != "{":
                continue
            end = lines.index("}", opening) if "}" in lines[opening:] else len(lines) - 1
            yield Function(file, i + 1, m.group(1), re.search(r"\bstatic\b", lines[i - 1]) is not None, end - i + 1)


def table(house, name, macro):
    """Rows of a table: (line number, [arguments]), texts without their quotes."""
    text = without_comments(house.text(name))
    for m in re.finditer(rf"^{macro}\(", text, flags=re.M):
        args, here, depth, quoted, i = [], "", 1, False, m.end()
        while depth and i < len(text):
            c = text[i]
            if quoted and c == "\\":
                here += text[i:i + 2]
                i += 2
                continue
            quoted ^= c == '"'
            depth += 0 if quoted else (c == "(") - (c == ")")
            if depth == 0 or (c == "," and depth == 1 and not quoted):
                args.append(here.strip().strip('"'))
                here = ""
            else:
                here += c
            i += 1
        yield text.count("\n", 0, m.start()) + 1, args


def in_parallel(f, what):
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 2) as pool:
        return list(pool.map(f, what))


def compile_with(house):
    """The compiler with the flags that CMakeLists.txt gives to our files."""
    block = re.search(r"target_compile_options\(ringcast_flags INTERFACE\s+(-Wall.*?)\)", house.text("CMakeLists.txt"), re.S)
    return [os.environ.get("CC", "gcc"), *block.group(1).split(), "-std=gnu11", "-D_GNU_SOURCE", '-DRINGCAST_VERSION="0"',
        "-I", house.root]


RULES = {}


def rule(f):
    RULES[f.__name__.replace("_", "-")] = f
    return f


# ---- who may include whom ----

# What a room may include besides itself and the system.
MAY_INCLUDE = {
    "common": (),
    "proto": ("common",),
    "worker": ("common", "proto"),
    "broker": ("common", "proto"),
    "deploy": ("common", "proto"),
    "bench": ("common", "proto", "worker", "broker"),
    "docs": ("common", "proto", "worker", "broker", "deploy"),
}
# proto is pure: a span in, a result out. Values and memory; no running clock, socket, log, setting.
PROTO_MAY = ("addr", "banned", "base", "buf", "bug", "mono", "view")
# The broker has no opinion about clients: nothing that reads their bytes.
CLIENTS_BYTES = ("proto/dialect.h", "proto/ws.h", "proto/http.h", "proto/json.h")
# (file, include): why.
DIRECTION_EXCEPTIONS = {
    ("proto/ipc.c", "common/lane.h"): "the layout of a segment, which both ends must know, is made of lane sizes",
    ("broker/across.h", "proto/dialect.h"): "enum error_id: a broker answers with rows of errors.def",
    ("broker/across_hear.c", "proto/json.h"): "what other hosts say is judged like what a client says",
    ("broker/across_hear.c", "proto/ws.h"): "the same: utf8_valid",
    ("broker/peer.h", "proto/dialect.h"): "enum error_id: a broker answers with rows of errors.def",
}


@rule
def include_direction(house):
    """common < proto < worker, broker; worker and broker never see each other; nothing sees tests"""
    used = set()
    for name in house.sources(ROOMS + ("docs",), (".c", ".h", ".def")):
        room = name.split("/")[0]
        for line, what, quoted in includes(house.text(name)):
            if not quoted or "/" not in what:
                continue
            where, other = f"{name}:{line}", what.split("/")[0]
            if (name, what) in DIRECTION_EXCEPTIONS:
                used.add((name, what))
            elif other == "tests":
                house.fail(where, f"includes {what}", "nothing depends on tests: move it to where both may look")
            elif what.startswith("proto/dialect/"):
                house.fail(where, f"includes {what}", "a dialect is reached through proto/dialect.h; hold its state, "
                    "never include its file")
            elif other != room and other not in MAY_INCLUDE[room]:
                house.fail(where, f"{room} includes {what}", "what two rooms must both know goes to proto or common")
            elif room == "proto" and re.fullmatch(r"common/\w+\.h", what) and what[7:-2] not in PROTO_MAY:
                house.fail(where, f"proto includes {what}", "proto is pure and uses common/{" + ",".join(PROTO_MAY) +
                    "}.h alone: have it handed in")
            elif room == "broker" and what in CLIENTS_BYTES:
                house.fail(where, f"broker includes {what}", "a broker does not look at clients' bytes: what it needs "
                    "goes to proto/ipc.h")
    for name, what in DIRECTION_EXCEPTIONS:
        if (name, what) not in used:
            house.fail(name, f"no longer includes {what}", f"take it out of DIRECTION_EXCEPTIONS in {HERE}/check.py")


# A dependency has a door: the files that may include it.
DOORS = {
    r"liburing(/.*)?\.h|linux/io_uring.*": r"common/ring\.[ch]|bench/.*|tests/attack/faults\.c",  # which stands in front of it
    # What measures a thing is not built from it: the load generator has its own TLS and deflate. The command line is a
    # client, and worker/ a server.
    r"openssl/.*": r"proto/crypt\.c|worker/tls\.c|deploy/ringcast/secure\.c|bench/tls\.c|tests/fuzz/fuzz_tls\.c|common/tlsc\.c",
    r"ini\.h": r"common/conf\.c",
    r"zlib\.h": r"proto/deflate\.c|bench/pmd\.c",
    r"msgpack.*": r"proto/msgpack\.c",
    r"hiredis.*": r"broker/redis_(reply|command)\.c|tests/unit/t_redis\.c",
    # One function of it: in the maps that hash names from clients, and over the text of ipc.def.
    # And the floor that finding a channel is measured beside.
    r"xxhash\.h": r"proto/ipc\.c|worker/(addrs|link|subs)\.c|broker/(across|bus_redis|chan|origins|rtopic)\.c|bench/micro_cases\.c",
    r"seccomp\.h": r"common/calls\.c",
    r"cmocka\.h": r"tests/.*",
}


@rule
def dependency_doors(house):
    """each library is included behind its door"""
    for name in house.sources(ROOMS + ("docs", "tests")):
        for line, what, _ in includes(house.text(name)):
            for library, door in DOORS.items():
                in_test = name.startswith("tests/unit/") and not what.startswith("liburing")
                if re.fullmatch(library, what) and not re.fullmatch(door, name) and not in_test:
                    house.fail(f"{name}:{line}", f"includes <{what}>", "its door is " + door.replace("\\", "") + ": call that")


@rule
def include_names(house):
    """includes name the folder, exist, have the own header first, and make no circle"""
    graph, done = {}, set()

    def walk(name, path):
        if name in path:
            house.fail(name, "includes itself: " + " > ".join(path[path.index(name):] + [name]),
                "move the types that both need to a header of their own")
        elif name not in done:
            done.add(name)
            for n in graph.get(name, ()):
                walk(n, path + [name])
    for name in house.sources(ROOMS + ("docs", "tests")):
        all_of_it = list(includes(house.text(name)))
        for line, what, quoted in all_of_it:
            if quoted and not house.has(what) and not (name.startswith("tests/") and
                    house.has(os.path.normpath(os.path.join(os.path.dirname(name), what)))):
                house.fail(f"{name}:{line}", f'there is no "{what}"', 'includes name the file from the top: "proto/ws.h"')
        graph[name] = [what for _, what, quoted in all_of_it if quoted and what.endswith(".h")]
        own = name[:-2] + ".h"
        if name.endswith(".c") and house.has(own) and not name.startswith("tests/") and all_of_it[0][1] != own:
            house.fail(name, f"includes {all_of_it[0][1]} first", f'"{own}" comes first, which proves that it stands alone')
    for name in sorted(graph):
        walk(name, [])


@rule
def headers_alone(house, only=None):
    """each header compiles by itself, twice over"""
    def attempt(name):
        return subprocess.run([*compile_with(house), "-fsyntax-only", "-x", "c", "-"],
            input=f'#include "{name}"\n#include "{name}"\n'.encode(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    names = only or house.sources(ROOMS + ("docs",), (".h",))
    for name, result in zip(names, in_parallel(attempt, names)):
        if result.returncode != 0:
            lines = result.stdout.decode("utf-8", "replace").splitlines() or ["no word from the compiler"]
            first = next((s for s in lines if "error" in s), lines[0])
            house.fail(name, "does not compile alone: " + first.replace(house.root + "/", ""), "let it include what it uses")


# ---- what is written, and how ----

MORE_BANNED = ("system", "popen", "strncpy", "tmpnam", "mktemp")  # no compiler error, since others' headers call them


@rule
def banned_calls(house):
    """the calls of common/banned.h, and a few more, stand nowhere"""
    words = re.search(r"#pragma GCC poison (.*)", house.text("common/banned.h")).group(1).split()
    pattern = re.compile(r"(?<![\w.>])(" + "|".join((*words, *MORE_BANNED)) + r")\s*\(")
    for name in house.sources(ROOMS + ("docs",)):
        for number, line in enumerate(code_only(house.text(name)).split("\n"), 1):
            for m in pattern.finditer(line) if name != "common/banned.h" else ():
                house.fail(f"{name}:{number}", f"calls {m.group(1)}", "use the bounded, reentrant or seeded one, as "
                    "snprintf, strtoull, gmtime_r, getrandom")


@rule
def file_is_prefix(house):
    """what a file exports begins with the file's name: outq.c, outq_push"""
    listed, used = house.listed("prefix-exceptions.txt"), set()
    for f in functions(house):
        stem = os.path.splitext(os.path.basename(f.file))[0]
        if f.static or f.name in ("main", stem) or f.name.startswith((stem + "_", stem + "s_")):
            continue
        if f.name in listed:
            used.add(f.name)
        else:
            house.fail(f"{f.file}:{f.line}", f"{f.name} is exported", f"call it {stem}_..., make it static, or move it to "
                "the file it is named after")
    house.unused("prefix-exceptions.txt", listed, used)


LONGEST = 70


@rule
def function_length(house):
    """functions fit a screen"""
    listed, used, found = house.listed("long-functions.txt", 2), set(), list(functions(house))
    for f in found:
        most, row = LONGEST, f"{f.file} {f.name}"
        if row in listed and f.lines > LONGEST:
            used.add(row)
            most = int(listed[row][0].split()[0])
        if f.lines > most:
            house.fail(f"{f.file}:{f.line}", f"{f.name} has {f.lines} lines, more than {most}",
                "take the parts out of it that have a name")
    house.unused("long-functions.txt", listed, used)
    n = sorted(f.lines for f in found)
    if len(n) < 2:
        house.fail("the rooms", "no functions found", f"functions() in {HERE}/check.py no longer reads how they are written")
        return
    longest = max(found, key=lambda f: f.lines)
    house.notes.append(f"{len(n)} functions: median {n[len(n) // 2]} lines, nine in ten at most {n[len(n) * 9 // 10]}, "
        f"longest {longest.name} of {longest.file} with {longest.lines}")


@rule
def files_say_what_they_are_for(house):
    """a file, or its header, opens with what it is for"""
    for name in house.sources(ROOMS + ("docs",), (".c", ".h", ".def")):
        if not house.text(name).startswith("/*") and not (name.endswith(".c") and house.has(name[:-2] + ".h")):
            house.fail(name, "opens without a comment", "say in a sentence or two what it is for")


@rule
def plain_text(house):
    """no tabs, no trailing blanks, no line above 140 columns, no typedef of a struct, nothing left to fix"""
    marks = re.compile(r"\b(FIX" + r"ME|XX" + r"X)\b")
    for name in house.sources():
        for number, line in enumerate(house.text(name).split("\n"), 1):
            where = f"{name}:{number}"
            if "\t" in line or line != line.rstrip():
                house.fail(where, "has a tab, or blanks at its end", "run the format target")
            if len(line) > 140 and "http" not in line:
                house.fail(where, f"has {len(line)} columns", "wrap it: 100 is the width, 140 the end")
            if marks.search(line):
                house.fail(where, "says " + marks.search(line).group(1), "do it; NEEDSWORK with a reason may stay")
        for m in re.finditer(r"^typedef\s+(struct|union|enum)\b", code_only(house.text(name)), flags=re.M):
            house.fail(f"{name}:{house.text(name).count(chr(10), 0, m.start()) + 1}", f"typedef of a {m.group(1)}",
                f"write {m.group(1)} name wherever it is meant")


# ---- tables ----

# Tables, their macros, and the arguments that together name a row.
TABLES = (
    ("common/tbl/config.def", "CONF", (0, 1)),
    ("common/tbl/namespace.def", "NAMESPACE", (0,)),
    ("common/tbl/metrics.def", "METRIC", (0, 1)),
    ("common/tbl/calls.def", "CALL", (1,)),
    ("proto/tbl/ipc.def", "IPC", (0,)),
    ("proto/tbl/verbs.def", "VERB", (0,)),
    ("proto/tbl/close.def", "CLOSE", (0,)),
    ("proto/tbl/errors.def", "ERROR", (0,)),
    ("proto/tbl/dialects.def", "DIALECT", (0,)),
    ("worker/ops.def", "OP", (0,)),
    ("broker/ops.def", "OP", (0,)),
    ("broker/tbl/bus.def", "BUS", (0,)),
    ("deploy/ringcast/run.def", "RUN_METRIC", (0,)),
)


@rule
def rows_are_unique(house):
    """names are unique in each table, rows have sentences, and this program knows every table"""
    for name in house.files:
        if name.endswith(".def") and name not in [t[0] for t in TABLES]:
            house.fail(name, "is a table not known here", f"add it to TABLES in {HERE}/check.py")
    for name, macro, key in TABLES:
        seen = {}
        for line, args in table(house, name, macro):
            row = ".".join(args[k] for k in key)
            if row in seen:
                house.fail(f"{name}:{line}", f"{row} is there already, in line {seen[row]}", "give it another name")
            seen[row] = line
            if not args[1 if macro == "OP" else -1]:
                house.fail(f"{name}:{line}", f"{row} has no sentence", "say what it is: people read it in the reference")
        if not seen:
            house.fail(name, f"has no row {macro}(...)", f"table() in {HERE}/check.py must be able to read it")


@rule
def wire_numbers(house):
    """lane messages: even to the broker, odd back, each number for one name for ever"""
    name, seen = "proto/tbl/ipc.def", {}
    for line, args in table(house, name, "IPC"):
        row, number, direction = args[0], int(args[1]), args[2]
        if number in seen:
            house.fail(f"{name}:{line}", f"{row} and {seen[number]} share number {number}", "take the next free one")
        seen[number] = row
        if direction not in ("W2B", "B2W") or (number % 2 == 0) != (direction == "W2B") or not 1 <= number <= 255:
            house.fail(f"{name}:{line}", f"{row} is {number}, {direction}", "even numbers are W2B, odd ones B2W, up to 255")
    if not os.path.isdir(os.path.join(house.root, ".git")):
        return
    log = subprocess.run(["git", "log", "-p", "--format=", "--", name], cwd=house.root, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL).stdout.decode("utf-8", "replace")
    for old, number in re.findall(r"^-IPC\((\w+),\s*(\d+)", log, flags=re.M):
        now = seen.get(int(number), "nothing")
        if now != old:
            house.fail(name, f"number {number} was {old} once and is {now} now", "numbers are not used again, and retired rows stay")


@rule
def close_codes(house):
    """close codes may be on the wire (RFC 6455 section 7.4), kinds and retries are words of the table"""
    name = "proto/tbl/close.def"
    for line, (row, code, kind, retry, *_) in table(house, name, "CLOSE"):
        c = int(code)
        if not (c == 0 or 1000 <= c <= 1003 or 1007 <= c <= 1014 or 3000 <= c <= 4999):
            house.fail(f"{name}:{line}", f"{row} has code {c}", "take 1000 to 1003, 1007 to 1014, 3000 to 4999; 0 for no frame")
        if kind not in ("NORMAL", "PEER", "LIMIT", "SERVER") or retry not in ("AT_ONCE", "BACKOFF", "NEVER"):
            house.fail(f"{name}:{line}", f"{row} is {kind}, {retry}", "the head of the table says which words there are")


@rule
def settings_are_everywhere(house):
    """each setting stands in the sample file and the reference, and a test or a runbook names it"""
    sample, reference = "deploy/ringcast.conf", "docs/reference/settings.md"
    keys, section = set(), ""
    for line in house.text(sample).splitlines():
        m = re.match(r"\[(?:(\w+)|namespace \w+)\]", line)
        section = (m.group(1) or "namespace.NAME") if m else section
        m = re.match(r"#?(\w+) =", line)
        if m:
            keys.add(f"{section}.{m.group(1)}")
    rows = {f"{a[0]}.{a[1]}": f"common/tbl/config.def:{line}" for line, a in table(house, "common/tbl/config.def", "CONF")}
    for line, a in table(house, "common/tbl/namespace.def", "NAMESPACE"):
        rows[f"namespace.NAME.{a[0]}"] = f"common/tbl/namespace.def:{line}"
    met = "\n".join(house.text(n) for n in house.files if n.startswith(("tests/", "bench/", "docs/ops/")) and
        not n.startswith((HERE, "tests/fuzz/corpus/")) and not n.endswith((".png", "package-lock.json")))
    for key, where in rows.items():
        if key not in keys:
            house.fail(where, f"{key} is not in {sample}", REFRESH)
        if not re.search(rf"\b{re.escape(key)}\b", house.text(reference)):
            house.fail(where, f"{key} is not in {reference}", REFRESH)
        named = re.escape(key).replace("NAME", r"\w+")
        if not re.search(rf"\b{named}\b|\b{key.replace('.', '_')}\b", met):
            house.fail(where, f"{key} is met by no test", "write one that shows what it changes")
    for key in sorted(keys - set(rows)):
        house.fail(sample, f"{key} is no setting any more", REFRESH)


@rule
def pages_are_fresh(house):
    """generated pages say what the tables say"""
    pages = re.findall(r"\b(\w+):((?:docs|deploy)/[\w./]+)", house.text("docs/CMakeLists.txt"))
    for name in house.files:
        m = re.fullmatch(r"docs/gen/gen_(\w+)\.c", name)
        if m and m.group(1) not in [g for g, _ in pages]:
            house.fail(name, "prints no page", "name it and its page in docs/CMakeLists.txt")
    with tempfile.TemporaryDirectory() as out:
        def generate(page):
            program = os.path.join(out, page[0])
            source = os.path.join(house.root, f"docs/gen/gen_{page[0]}.c")
            made = subprocess.run([*compile_with(house), source, "-o", program], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            if made.returncode == 0:
                return subprocess.run([program], stdout=subprocess.PIPE).stdout.decode()
            return None
        for (generator, page), text in zip(pages, in_parallel(generate, pages)):
            if text is None:
                house.fail(f"docs/gen/gen_{generator}.c", "does not compile", "see what the compiler says")
            elif not house.has(page) or house.text(page) != text:
                house.fail(page, "is stale", REFRESH)


# ---- what is tested ----

# What reads bytes that strangers wrote. Dialects are taken from their table.
PARSERS = {
    "proxyline": "proto/proxyline.c", "forwarded": "proto/forwarded.c", "http": "proto/http.c", "ws": "proto/ws.c", "json": "proto/json.c", "lane": "common/lane.c", "conf": "common/conf.c",
    "deflate": "proto/deflate.c", "tls": "worker/tls.c", "redisurl": "proto/redisurl.c", "plain": "proto/plain.c", "redis_reply": "broker/redis_reply.c",
    "slotmap": "broker/slotmap.c",
}
LATER = {"msgpack": "proto/msgpack.c", "jwt": "proto/jwt.c", "envelope": "proto/envelope.c"}


@rule
def parsers_are_fuzzed(house):
    """every parser and dialect has a fuzz target and a corpus"""
    wanted = dict(PARSERS)
    wanted.update({p: source for p, source in LATER.items() if house.has(source)})
    wanted.update({a[0]: f"proto/dialect/{a[0]}.c" for _, a in table(house, "proto/tbl/dialects.def", "DIALECT")})
    wanted.update({os.path.basename(n)[:-2]: n for n in house.files if re.fullmatch(r"proto/dialect/\w+\.c", n)})
    for parser, source in sorted(wanted.items()):
        if not house.has(source):
            house.fail(source, "is not there", f"PARSERS in {HERE}/check.py, or dialects.def, names it")
        if not house.has(f"tests/fuzz/fuzz_{parser}.c"):
            house.fail(source, "reads what strangers write and has no fuzz target", f"write tests/fuzz/fuzz_{parser}.c")
        if not any(n.startswith(f"tests/fuzz/corpus/{parser}/") for n in house.files):
            house.fail(source, "has no corpus", f"put a few inputs into tests/fuzz/corpus/{parser}/")


@rule
def modules_are_tested(house):
    """every module has a unit test"""
    units = [n for n in house.files if re.fullmatch(r"tests/unit/test_\w+\.c", n)]
    included = {what for n in units for _, what, _ in includes(house.text(n))}
    for name in house.sources(("common", "proto", "worker", "broker"), (".c",)):
        stem = os.path.basename(name)[:-2]
        whole = stem.split("_")[0]  # files that share a state are parts of one module
        if stem in ("main", "metrics") or f'"{os.path.dirname(name)}/{whole}_state.h"' in house.text(name) and f"tests/unit/test_{whole}.c" in units:
            continue
        if f"tests/unit/test_{stem}.c" not in units and not {name, name[:-2] + ".h"} & included:
            house.fail(name, "no unit test includes it", f"write tests/unit/test_{stem}.c")


def words_of(house, names):
    return set(re.findall(r"\w+", "\n".join(without_comments(house.text(n)) if n.endswith((".c", ".h")) else house.text(n)
        for n in names)))


@rule
def rows_are_met(house):
    """each verb, lane message, close reason and error is made by the code and named by a test"""
    tests = [n for n in house.files if n.startswith("tests/") and n.endswith((".c", ".h", ".py", ".mjs", ".txt")) and
        not n.startswith((HERE, "tests/fuzz/corpus/")) and n != "tests/unit/test_tables.c"]
    text = "\n".join(house.text(n) for n in tests)
    words, made = words_of(house, tests), words_of(house, house.sources(("proto", "worker", "broker")))

    def row(file, line, key, met):
        where = f"proto/tbl/{file}:{line}"
        if key not in made:
            house.fail(where, f"nothing makes {key}", "use it, or take the row out if it was never released")
        if not met and not {key, key.lower()} & words:
            house.fail(where, f"no test names {key}", "write one that makes it happen and tells it by its name, its "
                "counter or its text")
    closes = list(table(house, "proto/tbl/close.def", "CLOSE"))
    for line, (name, code, *_) in closes:
        # A code that one row has to itself speaks for the row; so does close_str() of it in a unit test.
        alone = code != "0" and [a[1] for _, a in closes].count(code) == 1 and code in words
        row("close.def", line, f"CLOSE_{name}", alone or f"bad:{name.lower()}" in text)
    for line, (name, *_) in table(house, "proto/tbl/verbs.def", "VERB"):
        row("verbs.def", line, f"VERB_{name}", re.search(rf"^= {name}\b", text, flags=re.M) is not None)
    for line, (name, *_) in table(house, "proto/tbl/ipc.def", "IPC"):
        row("ipc.def", line, f"IPC_{name}", False)
    for line, (name, _, message, *_) in table(house, "proto/tbl/errors.def", "ERROR"):
        row("errors.def", line, f"ERR_{name}", max(re.split(r"\{\w+\}", message), key=len).strip() in text)


# ---- pages people read ----


def prose(text):
    """A page without its blocks of code."""
    return re.sub(r"^(```|~~~).*?^\1", lambda m: "\n" * m.group(0).count("\n"), text, flags=re.S | re.M)


@functools.lru_cache(maxsize=None)
def anchors(text):
    """What GitHub makes of the headings."""
    found, count = set(re.findall(r'<a (?:id|name)="([^"]+)"', text)), {}
    for heading in re.findall(r"^#{1,6} +(.*?)\s*#*$", prose(text), flags=re.M):
        s = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        s = re.sub(r"[^\w\- ]", "", s).replace(" ", "-")
        found.add(f"{s}-{count[s]}" if s in count else s)
        count[s] = count.get(s, 0) + 1
    return found


@rule
def links_resolve(house):
    """relative links in pages and their anchors lead somewhere"""
    folders = {n[:i] for n in house.files for i, c in enumerate(n) if c == "/"} | {"."}
    link = re.compile(r"\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)|^\[[^\]]+\]:\s+(\S+)|(?:src|href)=\"([^\"]+)\"", re.M)
    for name in house.files:
        if not name.endswith(".md"):
            continue
        text = re.sub(r"`[^`\n]*`(?!\])", lambda m: " " * len(m.group(0)), prose(house.text(name)))
        for m in link.finditer(text):
            to = m.group(1) or m.group(2) or m.group(3)
            if re.match(r"[a-z]+:", to):
                continue
            where = f"{name}:{text.count(chr(10), 0, m.start()) + 1}"
            path, _, anchor = to.partition("#")
            target = os.path.normpath(os.path.join(os.path.dirname(name), path)) if path else name
            if not house.has(target) and target not in folders:
                house.fail(where, f"there is no {to}", "correct the link or write the page")
            elif anchor and target.endswith(".md") and anchor not in anchors(house.text(target)):
                house.fail(where, f"{target} has no heading #{anchor}", "correct the anchor")


FOREIGN = {"main", "fork", "execve", "setsockopt", "send", "recv", "poll", "malloc", "free"}  # spoken of, not ours


@rule
def names_exist(house):
    """functions, structs and files that pages speak of exist"""
    code = "\n".join(code_only(house.text(n)) for n in house.sources(ROOMS + ("docs", "tests"), (".c", ".h", ".def")))
    calls = set(re.findall(r"\b([A-Za-z_]\w*)\s*\(", code + "\n".join(house.text(n) for n in house.files
        if n.startswith("tests/") and not n.startswith(HERE) and n.endswith((".py", ".mjs")))))
    structs = set(re.findall(r"\bstruct (\w+)", code))
    for page in ("docs/TOUR.md", "docs/ARCHITECTURE.md", "docs/HACKING.md"):
        if not house.has(page):
            house.fail(page, "is missing", "it is the way in")
    for name in house.files:
        if not re.fullmatch(r"(README|docs/\w+|docs/(adr|ops|protocol)/[\w-]+)\.md", name):
            continue
        for number, line in enumerate(prose(house.text(name)).split("\n"), 1):
            gone = [f + "()" for f in re.findall(r"`([A-Za-z_]\w*)\(\)`", line) if f not in calls and f not in FOREIGN]
            gone += ["struct " + s for s in re.findall(r"`struct (\w+)`", line) if s not in structs]
            gone += [p for p in re.findall(r"`((?:common|proto|worker|broker|deploy|bench|tests|docs)/[\w./-]+\.\w+)`", line)
                if not house.has(p)]
            for what in gone:
                house.fail(f"{name}:{number}", f"there is no {what}", "tell it as it is now")


@rule
def hazards_are_tested(house):
    """each hazard of docs/hardening.md has a test, and the tests it names exist"""
    page, rows = "docs/hardening.md", 0
    if not house.has(page):
        return house.fail(page, "is missing", "write it: a row for each hazard, with its tests")
    for number, line in enumerate(house.text(page).split("\n"), 1):
        if not line.startswith("| ") or line.startswith(("| ---", "| Hazard")):
            continue
        rows += 1
        named = re.findall(r'`(tests/[\w./-]+)`: ((?:"[^"]+"(?:, )?)+)', line.rstrip("| ").rsplit("|", 1)[-1])
        if not named:
            house.fail(f"{page}:{number}", "names no test", 'write `tests/FILE`: "part of the name of a test"')
        for file, names in named:
            for name in re.findall(r'"([^"]+)"', names):
                if not house.has(file) or name not in house.text(file):
                    house.fail(f"{page}:{number}", f"{file} has no test \"{name}\"", "write the test, or name it as it is")
    if rows == 0:
        house.fail(page, "has no rows", "a row for each hazard")


# Hosts that a file may name: public pages for people, and examples.
HOSTS = re.compile(r"[\d.]+|example\.(com|org|net)|([\w-]+\.)*(github\.com|rfc-editor\.org|ietf\.org|iana\.org|w3\.org|kernel\.org|"
    r"keepachangelog\.com|semver\.org|socketcluster\.io|npmjs\.(com|org)|patreon\.com|feross\.org|opencollective\.com)")


@rule
def speaks_of_itself_alone(house):
    """no paths of one machine, no hosts of one network, no word on who typed it"""
    paths = re.compile(r"(?<![\w./-])/(?:wo" + r"rk|ro" + r"ot|home/[a-z]\w*|Users/\w+|tmp/br" + r"ief)/[\w.-]*")
    who = re.compile(r"\b(?:sub-?" + r"agents?|langu" + r"age models?|chat" + r"bots?|co-auth" + r"ored-by|(?:AI|LLM)[- ](?:assist|gener|writ)\w*|"
        r"(?:help" + r"er|ag" + r"ent)'?s? (?:session|brief)s?|(?:my|the|common) br" + r"ief\b(?! (?:moment|time|pause)))", re.I)
    url = re.compile(r"https?://(?:[\w.-]+@)?([A-Za-z0-9][\w.-]*\.[A-Za-z]{2,})(?=[/:\"'\s)>]|$)")
    for name in house.files:
        if name.startswith("tests/fuzz/corpus/") or name.endswith((".png", ".ico", ".jpg", ".gz")):
            continue
        for number, line in enumerate(house.text(name).split("\n"), 1):
            where = f"{name}:{number}"
            for m in paths.finditer(line):
                house.fail(where, f"names {m.group(0)}", "paths are relative to the top, or settings")
            for m in who.finditer(line):
                house.fail(where, f"says {m.group(0)!r}", "the project speaks of the project alone")
            for host in url.findall(line):
                if not HOSTS.fullmatch(host):
                    house.fail(where, f"names the host {host}", f"name a public page or example.com; HOSTS in {HERE}/check.py")


# ---- the whole ----


def check(house, name, **more):
    """Violations of one rule."""
    house.found = []
    RULES[name](house, **more)
    return house.found


def main():
    args = argparse.ArgumentParser(description="Do the rules of the house hold?")
    args.add_argument("rules", nargs="*", metavar="RULE")
    args.add_argument("--list", action="store_true", help="the rules, a line each")
    args.add_argument("--long", type=int, metavar="N", help="the N longest functions")
    args.add_argument("--root", default=ROOT, help="the tree to look at")
    args.add_argument("--build", help="taken and not used: nothing here needs a build")
    args = args.parse_args()
    if args.list:
        print("\n".join(f"{name:28} {f.__doc__}" for name, f in RULES.items()))
        return 0
    house = House(args.root)
    if args.long:
        for f in sorted(functions(house), key=lambda f: -f.lines)[:args.long]:
            print(f"{f.lines:4} {f.file}:{f.line} {f.name}")
        return 0
    unknown = [r for r in args.rules if r not in RULES]
    if unknown:
        sys.exit(f"there is no rule {unknown[0]}; --list names them")
    passed = failed = 0
    for name in args.rules or RULES:
        found = check(house, name)
        passed, failed = passed + (not found), failed + bool(found)
        print(f"{'FAIL ' if found else 'ok   '} {name}: {RULES[name].__doc__}")
        for violation in found:
            print(f"      {violation}")
    for note in house.notes:
        print(note)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
