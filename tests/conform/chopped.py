"""One conversation with everything in it, sent in every kind of pieces: the answers are the same."""
import random

from suite import add
from wire import BINARY, CLOSE, PING, PONG, TEXT, check, chop, close_body, frame, fragments

TEXT_A = "Zwölf Boxkämpfer jagen Viktor 🥊 quer über den großen Sylter Deich".encode()


def script():
    """Bytes to send, and what must come back in this order (Pongs are matched on their own)."""
    blob = random.Random(7).randbytes(700)
    out = [
        (frame(TEXT, TEXT_A), (TEXT, TEXT_A)), (frame(BINARY, blob), (BINARY, blob)),
        (frame(TEXT, b""), (TEXT, b"")), (frame(PONG, b"ignored"), None),
        (fragments(TEXT, chop(TEXT_A, 3), frame(PONG, b"")), (TEXT, TEXT_A)),
        (frame(PING, b"one"), (PONG, b"one")),
        (fragments(BINARY, [b"", blob[:125], b"", blob[125:]]), (BINARY, blob)),
        (frame(BINARY, blob[:126], key=b"\0\0\0\0"), (BINARY, blob[:126])),
        (frame(PING, b"two" * 41), (PONG, b"two" * 41)),
        (frame(TEXT, "😀".encode() * 50), (TEXT, "😀".encode() * 50)),
    ]
    return b"".join(raw for raw, _ in out), [want for _, want in out if want]


async def t_script(ctx, cut, end):
    raw, wants = script()
    p = await ctx.tcp()
    tail = {"close": frame(CLOSE, close_body(1000, b"done")), "bad": frame(TEXT, b"\xff"),
            "rsv": frame(TEXT, b"x", rsv=2)}[end]
    p.send(*cut(p.request() + raw + tail))
    await p.expect_upgrade()
    for op, data in wants:
        if op == PONG:
            await p.expect_pong(data)
        else:
            await p.expect(op, data)
    if end == "close":
        await p.expect_close([1000])
        await p.expect_end(clean=True)
    else:
        await p.expect_failed(1007 if end == "bad" else 1002)


def cut_random(seed):
    def cut(data):
        r = random.Random(seed)
        top = r.choice((3, 20, 200, 2000))
        out, at = [], 0
        while at < len(data):
            n = r.randrange(1, top + 1)
            out.append(data[at : at + n])
            at += n
        return out
    return cut


for end in ("close", "bad", "rsv"):
    for n in (1, 2, 7, 13, 64, 126, 1000):
        add("5", f"a conversation in pieces of {n} bytes, ending in {end}", t_script, lambda d, n=n: chop(d, n), end)
    add("5", f"a conversation in one piece, ending in {end}", t_script, lambda d: [d], end)
    for seed in range(12):
        add("5", f"a conversation in random pieces, seed {seed}, ending in {end}", t_script, cut_random(seed), end)


async def t_storm(ctx, seed):
    """Random messages, fragments, controls and cuts; a model of what an echo must answer."""
    r = random.Random(1000 + seed)
    raw, wants, pings = [], [], 0
    for _ in range(60):
        op = r.choice((TEXT, BINARY))
        n = r.choice((0, 1, 5, 124, 125, 126, 127, 500, 5000))
        data = r.randbytes(n) if op == BINARY else "".join(r.choice("aé€😀") for _ in range(n)).encode()
        cuts = sorted(r.randrange(len(data) + 1) for _ in range(r.choice((0, 0, 1, 5))))
        parts = [data[a:b] for a, b in zip([0] + cuts, cuts + [len(data)])]
        between = b""
        if r.random() < 0.2 and len(parts) > 1:
            between = frame(PONG, r.randbytes(r.randrange(126)))
        raw.append(fragments(op, parts, between, key=r.randbytes(4)))
        wants.append((op, data))
        if r.random() < 0.2:
            raw.append(frame(PING, b"p%d" % pings))
            wants.append((PONG, b"p%d" % pings))
            pings += 1
    p = await ctx.ws()
    p.send(*cut_random(seed)(b"".join(raw)))
    seen = []
    for op, data in [w for w in wants if w[0] != PONG]:
        await p.expect(op, data, seen)
    while len(seen) < pings:
        f = await p.frame()
        check(f is not None and f.op == PONG, f"{f} instead of the Pongs that miss")
        seen.append(f.data)
    check(seen == [d for op, d in wants if op == PONG], "Pongs out of order")
    await p.leave()


for seed in range(20):
    add("5", f"random messages, fragments, controls and cuts, seed {seed}", t_storm, seed)
