"""A model of many hosts over Redis: who wants which channel, what is published, and what Redis has of it.

Events are drawn one after another from one seed: at first every client's subscriptions, then publishes and changes of
subscriptions as a Poisson stream. What each of them costs follows docs/adr/0011. plan() yields the events, so that a
real run can follow the very same ones; Tally counts what they should come to."""
import binascii
import collections
import itertools
import math
import random

DEFAULTS = {
    "hosts": (100, "hosts"),
    "brokers": (1, "brokers of each host: a channel is one broker's, control messages go to all"),
    "channels": (1_000_000, "channels there are to choose from"),
    "clients": (5_000, "clients of each host"),
    "subscriptions": (10, "channels that each client hears"),
    "sub_skew": (1.0, "channel k is subscribed to in proportion to 1 / k^this"),
    "pub_skew": (1.0, "... and published to: the ranks are the same, which is the dear case"),
    "publishes": (25_000.0, "publishes per second of all hosts together"),
    "stay": (300.0, "seconds that a client hears a channel before it takes another one, on average"),
    "payload": (128, "bytes of a message's data"),
    "heartbeat": (1.0, "bus.heartbeat, seconds"),
    "marks": (1, "bus.marks: 0 is off"),
    "ask_window": (0.05, "a broker that has asked collects names for so many seconds before it asks again"),
    "answer_within": (10.0, "bus.answer_within, seconds: who has been silent on a channel for longer does not answer"),
    "uptime": (86400.0, "seconds that brokers have been up, which is what they have published in"),
    "mark_window": (0.05, "seconds in which one mark serves all who asked"),
    "window": (5.0, "seconds that are simulated (after one heartbeat that is not counted)"),
    "seed": (1, "of the draws"),
}
# Bytes before the data in a message, and of what has none (proto/envelope.h).
ENVELOPE = {"data": 21, "base": 5, "mark": 20, "heartbeat": 96, "ask": 20, "ask_name": 1}
PREFIX = "ringcast:"


class Shape:
    """The parameters by name."""

    def __init__(self, **given):
        unknown = set(given) - set(DEFAULTS)
        if unknown:
            raise TypeError(f"no parameter {unknown}")
        for name, (value, _) in DEFAULTS.items():
            setattr(self, name, type(value)(given.get(name, value)))

    def as_dict(self):
        return {name: getattr(self, name) for name in DEFAULTS}


def channel_name(k):
    return f"ch-{k:06d}"


class Zipf:
    def __init__(self, n, skew, rnd):
        self.cum = list(itertools.accumulate(1.0 / k ** skew for k in range(1, n + 1)))
        self.all, self.rnd, self.ready = range(n), rnd, []

    def many(self, k):
        return self.rnd.choices(self.all, cum_weights=self.cum, k=k)

    def one(self):
        if not self.ready:
            self.ready = self.many(4096)
        return self.ready.pop()

    def chance(self, k):
        return (self.cum[k] - (self.cum[k - 1] if k else 0)) / self.cum[-1]


class Clients:
    """Who hears what. slots[host] has `subscriptions` channels of one client after another; refs[host] how many clients
    of a host hear a channel."""

    def __init__(self, s, zipf):
        self.s, self.zipf = s, zipf
        self.slots, self.refs = [], []
        for _ in range(s.hosts):
            row = zipf.many(s.clients * s.subscriptions)
            for at in range(0, len(row), s.subscriptions):
                mine = row[at:at + s.subscriptions]
                while len(set(mine)) < s.subscriptions:
                    mine = list(set(mine)) + zipf.many(s.subscriptions - len(set(mine)))
                    row[at:at + s.subscriptions] = mine
            self.slots.append(row)
            self.refs.append(collections.Counter(row))

    def hearing(self):
        """Channel -> hosts that want it."""
        out = collections.Counter()
        for refs in self.refs:
            out.update(refs.keys())
        return out

    def change(self, host, slot):
        """A client leaves a channel for another one: (left, its host wants it no more, joined, its host did not want it)."""
        row, refs, k = self.slots[host], self.refs[host], self.s.subscriptions
        first = slot - slot % k
        new = self.zipf.one()
        while new in row[first:first + k]:
            new = self.zipf.one()
        old, row[slot] = row[slot], new
        refs[old] -= 1
        if refs[old] == 0:
            del refs[old]
        refs[new] += 1
        return old, old not in refs, new, refs[new] == 1


def plan(s, rnd, clients, publishes):
    """Yields (seconds, "publish", host, channel) and (seconds, "change", host, slot, left, last, joined, first) without end."""
    changes = s.hosts * s.clients * s.subscriptions / s.stay if s.stay > 0 else 0.0
    rate, t = s.publishes + changes, 0.0
    share = s.publishes / rate
    while True:
        t += -math.log(1.0 - rnd.random()) / rate
        host = int(rnd.random() * s.hosts)
        if rnd.random() < share:
            yield t, "publish", host, publishes.one()
        else:
            slot = int(rnd.random() * s.clients * s.subscriptions)
            yield (t, "change", host, slot, *clients.change(host, slot))


class Tally:
    """What the bus carries, channel by channel; control topics apart."""

    KINDS = ("data", "mark_quiet", "mark_asked")

    def __init__(self, s, warm=True):
        self.s, self.warm = s, warm
        self.published = {k: collections.Counter() for k in self.KINDS}
        self.delivered = {k: collections.Counter() for k in self.KINDS}
        self.joined, self.left = collections.Counter(), collections.Counter()
        self.asks = self.ask_names = self.heartbeats = 0
        self.own_echoes = 0
        self.seconds = 0.0
        self.last = {}        # (channel, host) -> when it published there last, and no mark has followed
        self.said = {}        # channel -> host -> when it published there last
        self.silent = set()   # (channel, host) that left somebody's ask unanswered: its messages have a base from then on
        self.based = collections.Counter()  # messages with one
        self.quiet = collections.deque()
        self.asking = {}      # host -> when it asks, or has asked last
        self.marked = {}      # channel -> no asked mark before

    def count(self, kind, channel, hosts):
        if self.counting:
            self.published[kind][channel] += 1
            self.delivered[kind][channel] += hosts

    def publish(self, t, host, channel):
        self.count("data", channel, self.hearing[channel])
        if self.counting and channel in self.clients.refs[host]:
            self.own_echoes += 1
        self.last[channel, host] = t
        if self.counting and (self.warm or (channel, host) in self.silent):
            self.based[channel] += 1
        if not self.warm:
            self.said.setdefault(channel, {})[host] = t
        if self.s.marks:
            self.quiet.append((t + self.s.heartbeat, t, channel, host))

    def change(self, t, host, old, last, new, first):
        if last:
            self.hearing[old] -= 1
            self.left[old] += self.counting
        if first:
            self.hearing[new] += 1
            self.joined[new] += self.counting
            self.ask(t, host, new)

    def ask(self, t, host, channel):
        at = self.asking.get(host, -math.inf)
        if t > at:
            self.asking[host] = at = max(t, at + self.s.ask_window)
            self.asks += self.counting
        self.ask_names += self.counting
        if at < self.marked.get(channel, 0):
            return
        self.marked[channel] = at + self.s.mark_window
        for _ in range(self.answering(at, channel, host)):
            self.count("mark_asked", channel, self.hearing[channel])
        for origin in range(self.s.hosts if self.s.marks else 0):
            if origin != host:
                self.last.pop((channel, origin), None)  # this mark serves as that after a quiet heartbeat, too

    def answering(self, t, channel, host):
        """How many origins answer: those that have published there lately."""
        if not self.warm:
            others = {h: t - at for h, at in self.said.get(channel, {}).items() if h != host}
            self.silent |= {(channel, h) for h, ago in others.items() if ago >= self.s.answer_within}
            return sum(ago < self.s.answer_within for ago in others.values())
        rate = self.s.publishes * self.pubs.chance(channel) / self.s.hosts
        tau = min(self.s.uptime, self.s.answer_within)
        p = -math.expm1(-rate * tau)
        if p > 0.999:
            return self.s.hosts - 1
        return sum(self.rnd.random() < p for _ in range(self.s.hosts - 1))

    def quieten(self, t):
        """Marks of channels that have been quiet for a heartbeat by now."""
        while self.quiet and self.quiet[0][0] <= t:
            _, was, channel, host = self.quiet.popleft()
            if self.last.get((channel, host)) == was:
                self.count("mark_quiet", channel, self.hearing[channel])

    def run(self, events, clients, pubs, rnd):
        s = self.s
        self.clients, self.pubs, self.rnd = clients, pubs, rnd
        self.hearing = clients.hearing()
        start = s.heartbeat if self.warm and s.marks else 0.0
        self.counting, end = start == 0.0, start + s.window
        for e in events:
            t = e[0]
            self.quieten(t)
            if t >= end:
                break
            if not self.counting and t >= start:
                self.counting = True
            if e[1] == "publish":
                self.publish(*e[:1], *e[2:])
            else:
                self.change(t, e[2], *e[4:])
        self.seconds = s.window
        self.heartbeats = s.hosts * s.brokers * s.window / s.heartbeat
        return self


# ---- bytes: RESP as it is on the wire ----

def bulk(n):
    return len(str(n)) + 5 + n


def key_bytes(channel):
    return len(PREFIX) + len(channel_name(channel))


def sizes(key, body, shard=False):
    """Bytes of a publish, of its answer with so many receivers, and of the message that each receiver gets."""
    return 4 + bulk(8 if shard else 7) + bulk(key) + bulk(body), 4 + bulk(8 if shard else 7) + bulk(key) + bulk(body)


class Load:
    """What one Redis server has per second."""

    FIELDS = ("publish", "data", "marks", "control", "out", "joins", "leaves", "bytes_in", "bytes_out", "forwarded", "bus_bytes")

    def __init__(self):
        for f in self.FIELDS:
            setattr(self, f, 0.0)

    def as_dict(self):
        return {f: getattr(self, f) for f in self.FIELDS}


def slot_of(name):
    """Redis Cluster's: CRC16 (XMODEM) of the name, which here has no {tag}, modulo 16384."""
    return binascii.crc_hqx(name.encode(), 0) % 16384


def mixed(k):
    """A stand-in for the rendezvous hash of the names: as even, and quicker here."""
    k = (k + 0x9e3779b97f4a7c15) & (1 << 64) - 1
    k = (k ^ k >> 30) * 0xbf58476d1ce4e5b9 & (1 << 64) - 1
    k = (k ^ k >> 27) * 0x94d049bb133111eb & (1 << 64) - 1
    return k ^ k >> 31


def owner(topology, servers):
    if topology == "sharded":
        return lambda c: slot_of(PREFIX + channel_name(c)) * servers // 16384
    return lambda c: mixed(c) % servers


# A cluster node sends a plain PUBLISH on to every other one behind this header (Redis 7.0: sizeof(clusterMsg)).
CLUSTER_HEADER = 2256


def spread(t, topology, servers):
    """Loads of the servers. Topologies: "servers" (independent ones, channels by rendezvous; 1 is a standalone one),
    "sharded" (cluster, SPUBLISH at the owner), "plain" (cluster, PUBLISH at any node, heard at any node)."""
    s, loads = t.s, [Load() for _ in range(servers)]
    of = owner(topology, servers)
    cache = {}
    shard = topology == "sharded"
    for kind in t.KINDS:
        for c, n in t.published[kind].items():
            body = ENVELOPE["data"] + s.payload + ENVELOPE["base"] * t.based[c] // n if kind == "data" else ENVELOPE["mark"]
            at = cache.get(c)
            if at is None:
                at = cache[c] = of(c)
            d = t.delivered[kind][c]
            put(loads, at, topology, kind, n, d, *sizes(key_bytes(c), body, shard), body)
    for counter, field in ((t.joined, "joins"), (t.left, "leaves")):
        for c, n in counter.items():
            at = cache.get(c)
            if at is None:
                at = cache[c] = of(c)
            add_subscribe(loads, at, field, n, key_bytes(c))
    control(t, loads, topology)
    for load in loads:
        for f in Load.FIELDS:
            setattr(load, f, getattr(load, f) / t.seconds)
    return loads


def put(loads, at, topology, kind, n, delivered, command, message, body):
    """n publishes that reached `delivered` links. With plain cluster PUBLISH publishers and subscribers are at any node,
    so both are spread evenly, and every node handles every message."""
    field = "data" if kind == "data" else "control" if kind == "control" else "marks"
    everywhere = range(len(loads)) if topology == "plain" else (at,)
    k = len(everywhere)
    for i in everywhere:
        load = loads[i]
        load.publish += n / k
        setattr(load, field, getattr(load, field) + n / k)
        load.out += delivered / k
        load.bytes_in += n * command / k
        load.bytes_out += (n * 4 + delivered * message) / k
        if topology == "plain":
            load.forwarded += n * (k - 1) / k
            load.bus_bytes += n * (k - 1) / k * (CLUSTER_HEADER + 8 + body)


def add_subscribe(loads, at, field, n, key):
    """One name of a SUBSCRIBE or UNSUBSCRIBE, whose words before the names are shared by many."""
    load = loads[at]
    setattr(load, field, getattr(load, field) + n)
    load.bytes_in += n * bulk(key)
    load.bytes_out += n * (4 + bulk(9 if field == "joins" else 11) + bulk(key) + 5)


def control(t, loads, topology):
    """Asks and heartbeats: by every server, to every broker. In a cluster with plain PUBLISH by one node to all."""
    s = t.s
    hears = s.hosts * s.brokers
    names = t.ask_names / t.asks if t.asks else 0
    ask = int(ENVELOPE["ask"] + names * (ENVELOPE["ask_name"] + len(channel_name(0))))
    for n, body in ((t.asks, ask), (t.heartbeats, ENVELOPE["heartbeat"])):
        for at in range(1 if topology == "plain" else len(loads)):
            put(loads, at, topology, "control", n, n * hears, *sizes(len(PREFIX) + 5, body, topology == "sharded"), body)


def simulate(s):
    rnd = random.Random(s.seed)
    subs, pubs = Zipf(s.channels, s.sub_skew, rnd), Zipf(s.channels, s.pub_skew, rnd)
    clients = Clients(s, subs)
    t = Tally(s)
    wanted = sum(len(r) for r in clients.refs)
    t.wanted_channels = len(clients.hearing())
    t.topics = wanted
    return t.run(plan(s, rnd, clients, pubs), clients, pubs, rnd)
