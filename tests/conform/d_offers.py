"""Negotiation of permessage-deflate: RFC 7692 sections 5 and 7.1, and the grammar of RFC 6455 section 9.1."""
import itertools
import random

from flate import NAME, RSV1, Offer, agreement, packed, upgrade
from suite import add, case
from wire import BINARY, TEXT, check, frame

SN, CN, SB, CB = (b"server_no_context_takeover", b"client_no_context_takeover", b"server_max_window_bits",
                  b"client_max_window_bits")
GOOD = NAME + b"; " + SB + b"=12"
GOOD_OFFER = Offer(server_bits=12)
SAMPLE = b"a text that is said twice, " * 60


async def speak(p):
    """Both ways, as agreed: what was confirmed is what is then used."""
    if p.codec:
        for data in (SAMPLE, b"short", SAMPLE):
            p.send(packed(TEXT, p.codec.deflate(data)))
            await p.expect(TEXT, data)
        p.send(frame(BINARY, b"plain"))
        await p.expect(BINARY, b"plain")
        await p.leave()
    else:
        p.send(frame(TEXT, SAMPLE))
        await p.expect(TEXT, SAMPLE)
        p.send(frame(TEXT, b"x", rsv=RSV1))
        await p.expect_failed(1002)


async def t_accepted(ctx, headers, offers):
    """One of the offers is taken, and the answer is an answer to it."""
    p = await ctx.tcp()
    a = await upgrade(p, *headers)
    check(a is not None, "a valid offer was declined")
    check(any(o.admits(a) for o in offers), f"the answer {a} fits none of {offers}")
    await speak(p)


async def t_either(ctx, headers, offers):
    """Taken properly, or declined."""
    p = await ctx.tcp()
    a = await upgrade(p, *headers)
    check(a is None or any(o.admits(a) for o in offers), f"the answer {a} fits none of {offers}")
    await speak(p)


async def t_declined(ctx, headers):
    p = await ctx.tcp()
    a = await upgrade(p, *headers)
    check(a is None, f"an unusable offer was taken: {a}")
    await speak(p)


async def t_malformed(ctx, headers, offers=()):
    """Not the grammar: 400, or as if it were not there."""
    p = await ctx.tcp()
    p.send(p.request(extra=b"".join(b"Sec-WebSocket-Extensions: " + h + b"\r\n" for h in headers)))
    r = await p.response()
    check(r is not None and r.status in (101, 400), f"{r and r.status} to a malformed list of extensions")
    if r.status == 400:
        await p.expect_end()
        return
    a = agreement(r)
    check(a is None or any(o.admits(a) for o in offers), f"the answer {a} fits no offer")


def show(*headers):
    return " | ".join(h.decode() for h in headers)


# ---- what must be taken ----

def with_params(params):
    return b"; ".join([NAME, *params])


for mask in range(16):
    chosen = [p for i, p in enumerate((SN, CN, SB + b"=10", CB + b"=12")) if mask >> i & 1]
    offer = Offer(SN in chosen, 10 if mask & 4 else 0, 12 if mask & 8 else 0)
    header = with_params(chosen)
    add("D7.1", f"a valid offer is taken, and the answer fits it [{show(header)}]", t_accepted, [header], [offer])
for order in itertools.permutations((SN, CN, SB + b"=11", CB)):
    header = with_params(order)
    add("D7.1", f"parameters come in any order [{show(header)}]", t_accepted, [header], [Offer(True, 11, 15)])
for n in range(8, 16):
    header = with_params([SB + b"=%d" % n])
    # zlib has no raw stream with a window of 256 bytes; who cannot have it declines
    add("D7.1.2.1", f"server_max_window_bits of an offer is confirmed or lowered [{n}]",
        t_either if n == 8 else t_accepted, [header], [Offer(server_bits=n)])
    header = with_params([CB + b"=%d" % n])
    add("D7.1.2.2", f"client_max_window_bits in the answer is at most the offer's [{n}]",
        t_accepted, [header], [Offer(client_bits=n)])
    header = with_params([SB + b"=%d" % n, CB + b"=%d" % n])
    add("D7.1.2", f"both windows limited [{n}]", t_either if n == 8 else t_accepted, [header],
        [Offer(server_bits=n, client_bits=n)])
add("D7.1.2.2", "client_max_window_bits may come without a value", t_accepted, [with_params([CB])],
    [Offer(client_bits=15)])
add("D7.1.2.2", "an answer brings client_max_window_bits only if the offer had it", t_accepted, [NAME], [Offer()])

for header, offer in ((NAME + b";" + SN, Offer(True)), (NAME + b" ;\t" + SN + b"  ", Offer(True)),
                      (NAME + b";" + SB + b'="10"', Offer(server_bits=10)),
                      (NAME + b"; " + CB + b'="9" ;' + SN, Offer(True, 0, 9))):
    add("D5", f"white space and quoted values do not matter [{show(header)}]", t_accepted, [header], [offer])
for header, offer in ((NAME + b"; " + SB + b" = 10", Offer(server_bits=10)),
                      (NAME + b"; " + SB + b'="1\\0"', Offer(server_bits=10)),
                      (b"Permessage-Deflate", Offer()), (NAME + b"; " + SN.upper(), Offer(True)),
                      (b", " + NAME, Offer()), (NAME + b", ,", Offer())):
    add("D5", f"what two readings of the grammar allow is taken or not, nothing else [{show(header)}]", t_malformed,
        [header], [offer])

# ---- what must be declined, by itself and with something behind it ----

BITS = [b"=7", b"=0", b"=16", b"=-1", b"=08", b"=09", b"=010", b"=0012", b"=8.0", b"=1e1", b"=+10", b"=0xa", b"=10a", b"=a",
        b"=true", b"=1", b"=100", b"=256", b"=264", b"=4294967306", b"=18446744073709551626", b"=" + b"9" * 400, b"=" + b"0" * 400 + b"10",
        b'="16"', b'="08"', b"=*", b"='10'"]
UNUSABLE = [p + v for p in (SB, CB) for v in BITS] + [SB]
UNUSABLE += [p + v for p in (SN, CN) for v in (b"=1", b"=true", b"=15", b"=0", b'="x"')]
UNUSABLE += [p + b"; " + q for p, q in (
    (SN, SN), (CN, CN), (SB + b"=10", SB + b"=10"), (SB + b"=10", SB + b"=11"), (CB, CB), (CB, CB + b"=10"),
    (CB + b"=10", CB), (SB + b"=10; " + SN, SB + b"=10"), (SN + b"; " + CN, SN))]
UNUSABLE += [b"x", b"x=1", b"server_max_window_bit=10", b"server_max_window_bits_=10", b"max_window_bits", b"no_context_takeover",
             b"server_no_context_takeove", b"server_no_context_takeovers", b"client_max_window_bits10", b"s2c_max_window_bits=10",
             b"mode=9", CB + b"; x", SN + b"; " + CN + b"; " + SB + b"=10; " + CB + b"=10; x=y"]
for bad in UNUSABLE:
    text = show(bad) if len(bad) < 60 else f"{show(bad)[:40]}... {len(bad)} bytes"
    header = NAME + b"; " + bad
    add("D7.1", f"an offer with an invalid parameter is declined [{text}]", t_declined, [header])
    add("D5.1", f"behind a declined offer the next is tried [{text}]", t_accepted, [header + b", " + GOOD], [GOOD_OFFER])
    add("D5.1", f"behind a declined offer the next header is tried [{text}]", t_accepted, [header, GOOD], [GOOD_OFFER])
for bad in (SB + b"=16", CB + b"=08", SN + b"=1", b"x"):
    for where in range(3):
        params = [SN, CN]
        params.insert(where, bad)
        add("D7.1", f"an invalid parameter counts at any place [{show(with_params(params))}]", t_declined, [with_params(params)])
for name in (b"foo", b"x-webkit-deflate-frame", b"deflate-stream", b"permessage-deflat", b"permessage-deflate2", b"permessage-bzip2",
             b"permessage-compress; method=deflate", b"mux; max-channels=4", b"foo; " + SN, b"foo; x=\"a, b; c\""):
    add("D5.1", f"an unknown extension is declined [{show(name)}]", t_declined, [name])
    add("D5.1", f"an unknown extension does not hide the next offer [{show(name)}]", t_accepted, [name + b", " + GOOD], [GOOD_OFFER])
    add("D5.1", f"an offer in front of an unknown extension is taken [{show(name)}]", t_accepted, [GOOD + b", " + name], [GOOD_OFFER])
    add("D5.1", f"an unknown extension in a header of its own [{show(name)}]", t_accepted, [name, GOOD, name], [GOOD_OFFER])

# ---- several offers ----

for headers, offers in (
        ([NAME + b", " + GOOD], [Offer(), GOOD_OFFER]), ([NAME, GOOD], [Offer(), GOOD_OFFER]),
        ([GOOD + b", " + NAME], [Offer(), GOOD_OFFER]), ([NAME + b"," + NAME + b"," + NAME], [Offer()]),
        ([NAME + b"; " + CB + b"; " + SB + b"=9, " + NAME + b"; " + CB + b", " + NAME],
         [Offer(server_bits=9, client_bits=15), Offer(client_bits=15), Offer()]),
        ([NAME + b"; " + SN + b"; " + SB + b"=10, " + NAME + b"; " + SN], [Offer(True, 10), Offer(True)])):
    add("D5.1", f"of several valid offers one is taken, whole [{show(*headers)}]", t_accepted, headers, offers)
for n in (2, 10, 90):
    bad = NAME + b"; " + SB + b"=77"
    add("D5.1", f"{n} unusable offers in front of a good one, in one header", t_accepted,
        [b", ".join([bad] * n + [GOOD])], [GOOD_OFFER])
    add("D5.1", f"{n} unusable offers in front of a good one, each in its own header", t_accepted,
        [bad] * min(n, 80) + [GOOD], [GOOD_OFFER])
    add("D5.1", f"{n} unusable offers and none that is good", t_declined, [b", ".join([bad] * n)])


@case("D5.1", "the answer takes one extension once, however many offers were valid")
async def t_once(ctx):
    p = await ctx.tcp()
    p.send(p.request(extra=(b"Sec-WebSocket-Extensions: " + b", ".join([NAME] * 20) + b"\r\n") * 5))
    r = await p.expect_upgrade()
    value = r.get("Sec-WebSocket-Extensions")
    check(value is not None and value.count(NAME) == 1, f"{value}")


@case("D5.1", "no offer, no extension in the answer")
async def t_none(ctx):
    p = await ctx.tcp()
    check(await upgrade(p) is None, "an extension nobody asked for")
    await speak(p)


# ---- what is no list of extensions ----

MALFORMED = [b";", b"=", b"=10", NAME + b";", NAME + b";;" + SN, NAME + b"; =10", NAME + b"; " + SB + b"=", NAME + b"; " + CB + b"=",
             NAME + b"; " + SN + b"=", NAME + b"; " + SB + b'="10', NAME + b"; " + SB + b'=10"', NAME + b"; " + SB + b'="10"x',
             NAME + b"; " + SB + b'=""', NAME + b"; " + SB + b'=" 10"', NAME + b"; " + SB + b"=10=10", NAME + b"; " + SB + b"==10",
             NAME + b"; " + SB + b"=1 0", NAME + b" " + SN, NAME + b"; " + SN + b" " + CN, NAME + b"\\", b"\"" + NAME + b"\"",
             NAME + b"; " + SB + b"=\xc2\xb9\xb0", NAME + b"; (" + SN + b")", b"[" + NAME + b"]", NAME + b"; " + SB + b":10", NAME + b"/1.0",
             NAME + b"; " + SB + b'="\\', NAME + b"; " + SB + b'="10\\"', NAME + b"; \xff\xfe", b"@", b"permessage deflate"]
for bad in MALFORMED:
    shown = bad.decode("latin-1")
    add("D5", f"a list that is none is refused or nothing [{shown}]", t_malformed, [bad])
    add("D5", f"a list that is none in front of an offer [{shown}]", t_malformed, [bad + b", " + GOOD], [GOOD_OFFER])
    add("D5", f"a list that is none behind an offer [{shown}]", t_malformed, [GOOD + b", " + bad], [GOOD_OFFER])
for bad in (b"", b" ", b",", b", ,\t,"):
    add("D5", f"an empty list is no offer [{bad.decode()!r}]", t_malformed, [bad])
    add("D5", f"an empty header in front of an offer [{bad.decode()!r}]", t_malformed, [bad, GOOD], [GOOD_OFFER])


for n, what in ((7000, b","), (7000, b";"), (7000, b"="), (7000, b'"'), (7000, b"\\"), (1700, b"a, "), (1700, b"a; "), (900, b'a="\\",'),
                (200, NAME + b"; " + SB + b"=16,"[:40 - len(NAME)]), (3500, b' "')):
    async def t_long(ctx, header):
        """No verdict on it, but an answer, and the server lives."""
        p = await ctx.tcp()
        p.send(p.request(extra=b"Sec-WebSocket-Extensions: " + header + b"\r\n"))
        r = await p.response()
        check(r is not None and r.status in (101, 400, 431), f"{r and r.status}")
    add("H6", f"a long and strange list is read in linear time [{n} x {what.decode()[:12]}]", t_long, (what * n)[:8000])


@case("H6", "random lists of extensions: an answer that fits, or 400", deadline=60)
async def t_random(ctx):
    r = random.Random(7692)
    words = [NAME, SN, CN, SB, CB, b"=", b"=10", b'="9"', b"=8", b"; ", b";", b", ", b",", b" ", b"x", b'"', b"=16"]
    for _ in range(300):
        header = b"".join(r.choice(words) for _ in range(r.randrange(1, 14))).strip()
        await t_malformed(ctx, [header] if header else [], [Offer(s, b, c) for s in (False, True) for b in (0, 8, 9, 10, 15)
                                                           for c in (0, 8, 9, 10, 15)])
        ctx.end()
        ctx.peers.clear()
