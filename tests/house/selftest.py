#!/usr/bin/env python3
"""Breaks each rule of check.py in a copy of the tree and sees that it is found: a rule that cannot fail
proves nothing.

    tests/house/selftest.py

A case is a rule, a file, a change of its text, and a piece of the violation that must follow. Violations
that the tree has without the change do not count."""
import os
import shutil
import sys
import tempfile

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import check  # noqa: E402

CASES = []


def case(rule, file, change, piece, **more):
    CASES.append((rule, file, change, piece, more))


def append(s):
    return lambda text: text + s


def swap(old, new):
    def change(text):
        assert old in text, f"the case is stale: there is no {old!r}"
        return text.replace(old, new, 1)
    return change


def whole(s):
    return lambda text: s


def gone(text):
    return None


# Words and paths that may not stand in this file either.
MACHINE = "/ro" + "ot/x.c"
WHO = "sub" + "agent"
HOST = "packages.corp.inter" + "nal"

case("include-direction", "common/buf.c", append('#include "proto/ws.h"\n'), "common includes proto/ws.h")
case("include-direction", "worker/subs.c", append('#include "broker/chan.h"\n'), "worker includes broker/chan.h")
case("include-direction", "broker/chan.c", append('#include "worker/subs.h"\n'), "broker includes worker/subs.h")
case("include-direction", "broker/chan.c", append('#include "proto/ws.h"\n'), "broker includes proto/ws.h")
case("include-direction", "proto/ws.c", append('#include "common/log.h"\n'), "proto includes common/log.h")
case("include-direction", "proto/dialect/echo.c", append('#include "proto/dialect/socketcluster.c"\n'), "never include its file")
case("include-direction", "proto/ws.c", append('#include "tests/unit/naive_json.h"\n'), "nothing depends on tests")
case("include-direction", "proto/ipc.c", swap('#include "common/lane.h"', ""), "no longer includes common/lane.h")
case("dependency-doors", "worker/conn.c", append("#include <liburing.h>\n"), "includes <liburing.h>")
case("dependency-doors", "worker/conn.c", append("#include <openssl/evp.h>\n"), "includes <openssl/evp.h>")
case("dependency-doors", "broker/peer.c", append("#include <ini.h>\n"), "includes <ini.h>")
case("dependency-doors", "proto/ws.c", append("#include <zlib.h>\n"), "includes <zlib.h>")
case("include-names", "worker/subs.c", append('#include "subs.h"\n'), 'there is no "subs.h"')
case("include-names", "worker/subs.c", lambda text: "#include <stdio.h>\n" + text, "comes first")
case("include-names", "common/base.h", append('#include "common/buf.h"\n'), "includes itself")
# The first wants an include, the second a guard.
case("headers-alone", "common/lone.h", whole("/* x */\nstruct lone { size_t n; };\n"), "does not compile alone", only=["common/lone.h"])
case("headers-alone", "common/lone.h", whole("/* x */\nstruct lone { int n; };\n"), "does not compile alone", only=["common/lone.h"])
case("banned-calls", "worker/subs.c", append("int\nsubs_x(const char *s)\n{\n    return atoi(s);\n}\n"), "calls atoi")
case("file-is-prefix", "worker/subs.c", append("int\nother_x(void)\n{\n    return 1;\n}\n"), "other_x is exported")
case("file-is-prefix", "tests/house/prefix-exceptions.txt", append("never_was  no reason\n"), "never_was needs no exception")
case("function-length", "worker/subs.c", append("int\nsubs_x(void)\n{\n" + "    ;\n" * 80 + "}\n"), "subs_x has 83 lines")
case("function-length", "tests/house/long-functions.txt", append("worker/subs.c subs_add 90\n"), "subs_add needs no exception")
case("files-say-what-they-are-for", "common/lone.h", whole("struct lone;\n"), "opens without a comment")
case("plain-text", "worker/subs.c", append("\tint x;\n"), "has a tab")
case("plain-text", "worker/subs.c", append("int x; \n"), "blanks at its end")
case("plain-text", "worker/subs.c", append("/* " + "x" * 140 + " */\n"), "columns")
case("plain-text", "worker/subs.c", append("typedef struct x x_t;\n"), "typedef of a struct")
case("plain-text", "worker/subs.c", append("/* FIX" + "ME */\n"), "NEEDSWORK with a reason")
case("rows-are-unique", "proto/tbl/verbs.def", append('VERB(ECHO, S_OPEN, "x")\n'), "ECHO is there already")
case("rows-are-unique", "proto/tbl/verbs.def", append('VERB(HUM, S_OPEN, "")\n'), "HUM has no sentence")
case("rows-are-unique", "proto/tbl/more.def", whole('/* x */\nX(a, "b")\n'), "is a table not known here")
case("wire-numbers", "proto/tbl/ipc.def", append('IPC(HUM, 4, W2B, "", "x")\n'), "share number 4")
case("wire-numbers", "proto/tbl/ipc.def", append('IPC(HUM, 40, B2W, "", "x")\n'), "HUM is 40, B2W")
case("close-codes", "proto/tbl/close.def", append('CLOSE(HUM, 1005, PEER, NEVER, "x")\n'), "HUM has code 1005")
case("close-codes", "proto/tbl/close.def", append('CLOSE(HUM, 4100, PEER, SOON, "x")\n'), "HUM is PEER, SOON")
case("settings-are-everywhere", "common/tbl/config.def", append('CONF(run, hum, INT, "1", 0, 9, RELOAD, "x")\n'), "run.hum is not in docs")
case("settings-are-everywhere", "common/tbl/config.def", append('CONF(run, hum, INT, "1", 0, 9, RELOAD, "x")\n'), "run.hum is met by no test")
case("settings-are-everywhere", "deploy/ringcast.conf", append("#hum = 1\n"), "is no setting any more")
case("pages-are-fresh", "docs/reference/errors.md", append("one more line\n"), "docs/reference/errors.md: is stale")
case("parsers-are-fuzzed", "tests/fuzz/fuzz_ws.c", gone, "proto/ws.c: reads what strangers write")
case("parsers-are-fuzzed", "proto/dialect/hum.c", whole("/* x */\n"), "proto/dialect/hum.c: has no corpus")
case("modules-are-tested", "worker/hum.c", whole("/* x */\n"), "worker/hum.c: no unit test includes it")
case("rows-are-met", "proto/tbl/close.def", append('CLOSE(HUM, 1008, PEER, NEVER, "x")\n'), "no test names CLOSE_HUM")
case("rows-are-met", "proto/tbl/close.def", append('CLOSE(HUM, 1008, PEER, NEVER, "x")\n'), "nothing makes CLOSE_HUM")
case("rows-are-met", "proto/tbl/verbs.def", append('VERB(HUM, S_OPEN, "x")\n'), "no test names VERB_HUM")
case("rows-are-met", "proto/tbl/ipc.def", append('IPC(HUM, 40, W2B, "", "x")\n'), "no test names IPC_HUM")
case("rows-are-met", "proto/tbl/errors.def", append('ERROR(HUM, "E", "Nobody hums", "x")\n'), "no test names ERR_HUM")
case("links-resolve", "docs/README.md", append("[x](nowhere.md)\n"), "there is no nowhere.md")
case("links-resolve", "docs/README.md", append("[x](TOUR.md#nowhere)\n"), "no heading #nowhere")
case("names-exist", "docs/TOUR.md", append("`no_such_call()`\n"), "there is no no_such_call()")
case("names-exist", "docs/ARCHITECTURE.md", append("`struct no_such`\n"), "there is no struct no_such")
case("names-exist", "docs/TOUR.md", append("`worker/nowhere.c`\n"), "there is no worker/nowhere.c")
case("hazards-are-tested", "docs/hardening.md", append("| a | b | c |\n"), "names no test")
case("hazards-are-tested", "docs/hardening.md", append('| a | b | `tests/attack/slow.py`: "nobody hums" |\n'), 'no test "nobody hums"')
case("speaks-of-itself-alone", "docs/TOUR.md", append(f"see {MACHINE}\n"), "names " + MACHINE)
case("speaks-of-itself-alone", "docs/TOUR.md", append(f"by a {WHO}\n"), WHO)
case("speaks-of-itself-alone", "tests/e2e/package-lock.json", append(f'"https://{HOST}/x"\n'), "names the host " + HOST)


def copy_of_the_tree(to):
    for name in check.House(check.ROOT).files:
        place = os.path.join(to, name)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        shutil.copyfile(os.path.join(check.ROOT, name), place)


def broken(root, rule, file, change, more):
    """What the rule says with the file changed; the file is as before afterwards."""
    path = os.path.join(root, file)
    before = None
    if os.path.exists(path):
        with open(path, "rb") as f:
            before = f.read()
    after = change((before or b"").decode("utf-8", "surrogateescape"))
    try:
        if after is None:
            os.unlink(path)
        else:
            with open(path, "wb") as f:
                f.write(after.encode("utf-8", "surrogateescape"))
        return check.check(check.House(root), rule, **more)
    finally:
        if before is None:
            os.unlink(path)
        else:
            with open(path, "wb") as f:
                f.write(before)


def main():
    passed = failed = 0
    clean = {}
    with tempfile.TemporaryDirectory() as root:
        copy_of_the_tree(root)
        for rule, file, change, piece, more in CASES:
            if rule not in clean and not more:
                clean[rule] = check.check(check.House(root), rule)
            found = broken(root, rule, file, change, more)
            hit = any(piece in v for v in found) and not any(piece in v for v in clean.get(rule, ()))
            passed, failed = passed + hit, failed + (not hit)
            if not hit:
                print(f"FAIL  {rule}: {file} was broken, and nobody said {piece!r}: {found[:3]}")
    for rule in check.RULES:
        if rule not in [c[0] for c in CASES]:
            failed += 1
            print(f"FAIL  {rule}: no case here breaks it; add one")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
