// The reference: what a pub/sub on one host may and must do, told from outside. It is fed with what was
// asked and what came, in the order one observer saw it, and complains of what cannot be right:
//
//   - a delivery of something never published, or to another channel than it was published on
//   - a delivery twice to one connection
//   - a delivery outside of a subscription: before it was asked for, or after the answer to its end
//   - messages of one publisher to one channel out of order
//   - two connections that see one channel's messages in different orders
//   - (at the end) a missing delivery: published after the subscription's ack was seen, taken by the
//     server before its end was asked for
//
// Time is a count of events. A message is taken for certain when its ack came, or that of a later
// message of the same connection to the same channel, since packets of one connection take effect in order.
export class Model {
    constructor() {
        this.now = 0;
        this.messages = new Map(); // id -> {id, from, channel, seq, sent, taken}
        this.byConn = new Map();   // conn -> {subs: Map channel -> [spans], got: [ids], per: Map, last: Map, out: Map channel -> [messages]}
        this.nextId = 0;
        this.complaints = [];
    }
    tick() { return ++this.now; }
    complain(text) { if (this.complaints.length < 20) this.complaints.push(`at event ${this.now}: ${text}`); }

    connected(conn) { this.byConn.set(conn, { subs: new Map(), seen: new Set(), order: new Map(), last: new Map(), out: new Map(), ended: null }); }
    ended(conn) { this.byConn.get(conn).ended = this.tick(); }

    // A span is one life of a subscription; asking again while it lives changes nothing.
    span(conn, channel) { const s = this.byConn.get(conn).subs.get(channel); return s?.[s.length - 1]; }
    isWanted(conn, channel) { const s = this.span(conn, channel); return !!s && s.left === Infinity; }
    subscribeAsked(conn, channel) {
        const subs = this.byConn.get(conn).subs;
        if (!subs.has(channel)) subs.set(channel, []);
        if (this.isWanted(conn, channel)) return this.span(conn, channel);
        const span = { asked: this.tick(), acked: Infinity, left: Infinity, gone: Infinity };
        subs.get(channel).push(span);
        return span;
    }
    subscribeAcked(span) { if (span.acked === Infinity) span.acked = this.tick(); }
    subscribeRefused(span) { span.acked = Infinity; span.left = span.gone = this.tick(); }
    unsubscribeAsked(conn, channel) { const s = this.span(conn, channel); if (s && s.left === Infinity) s.left = this.tick(); return s; }
    unsubscribeAnswered(span) { if (span) span.gone = this.tick(); }

    publishAsked(conn, channel) {
        const c = this.byConn.get(conn);
        if (!c.out.has(channel)) c.out.set(channel, []);
        const line = c.out.get(channel);
        const m = { id: this.nextId++, from: conn, channel, seq: line.length, sent: this.tick(), taken: Infinity, refused: false };
        line.push(m);
        this.messages.set(m.id, m);
        return m;
    }
    publishAcked(m) {
        const at = this.tick(), line = this.byConn.get(m.from).out.get(m.channel);
        for (let i = m.seq; i >= 0 && line[i].taken === Infinity; i--) line[i].taken = at;
    }
    publishRefused(m) { m.refused = true; }

    delivered(conn, channel, id) {
        this.tick();
        const c = this.byConn.get(conn), m = this.messages.get(id), who = `connection ${conn}, message ${id} on ${channel}`;
        if (!m) return this.complain(`${who}: nobody published it`);
        if (m.channel !== channel) this.complain(`${who}: it was published on ${m.channel}`);
        if (m.refused) this.complain(`${who}: its publisher was told that it failed`);
        if (c.seen.has(id)) return this.complain(`${who}: delivered twice`);
        c.seen.add(id);
        if (!(c.subs.get(channel) ?? []).some(s => s.asked < this.now && this.now < s.gone)) this.complain(`${who}: not subscribed`);
        const key = `${m.from} ${channel}`, last = c.last.get(key) ?? -1;
        if (m.seq <= last) this.complain(`${who}: number ${m.seq} of connection ${m.from} came after ${last}`);
        c.last.set(key, m.seq);
        if (!c.order.has(channel)) c.order.set(channel, []);
        c.order.get(channel).push(id);
    }

    // When all is quiet.
    finish() {
        for (const [conn, c] of this.byConn) this.missing(conn, c);
        const channels = new Set([...this.messages.values()].map(m => m.channel));
        for (const channel of channels) this.orders(channel);
        return this.complaints;
    }
    missing(conn, c) {
        const end = c.ended ?? Infinity;
        for (const [channel, spans] of c.subs)
            for (const m of this.messages.values()) {
                if (m.channel !== channel || m.refused || c.seen.has(m.id)) continue;
                if (spans.some(s => s.acked < m.sent && m.taken < s.left && m.taken < end) && c.ended === null)
                    this.complain(`connection ${conn} never got message ${m.id} of connection ${m.from} on ${channel}, sent at ${m.sent}, taken at ${m.taken}`);
            }
    }
    orders(channel) {
        const lists = [...this.byConn].map(([conn, c]) => [conn, c.order.get(channel) ?? []]).filter(([, l]) => l.length > 1);
        for (let i = 1; i < lists.length; i++) {
            const [a, first] = lists[i - 1], [b, second] = lists[i];
            const at = new Map(first.map((id, k) => [id, k]));
            const common = second.filter(id => at.has(id)).map(id => at.get(id));
            const bad = common.findIndex((k, n) => n > 0 && k < common[n - 1]);
            if (bad > 0) this.complain(`connections ${a} and ${b} see ${channel} in different orders, around message ${first[common[bad]]}`);
        }
    }
}
