// The books. Every message carries who published it and its number there, every subscriber's log has the messages and
// notices in the order of the wire. What is owed, per subscription:
//
//   - nothing twice, nothing that nobody published, and each publisher's messages in their order
//   - a hole in a publisher's numbers has been told (#gap) by the time that the first message behind it comes
//   - at the end, published == received + told, exactly
//
// "Published" is what was asked for after the subscription's ack was seen; of what was asked for before, the server may
// give some. A publish that was refused may have been given a number or none, so each makes the sum uncertain by one, as
// long as it did not arrive.
export class Ledger {
    constructor() {
        this.published = new Map(); // channel -> Map publisher -> [{asked, state}], by number - 1
        this.books = new Map();     // client -> Map channel -> book
        this.complaints = [];
        this.counts = { published: 0, acked: 0, refused: 0, received: 0, told: 0, unknown: 0, ended: 0 };
        this.refusals = new Map();
        this.foreign = [];
        this.died = null;           // a host of which a broker died: what it had numbered and not sent nobody knows
    }
    complain(text) { if (this.complaints.length < 10) this.complaints.push(text); }
    line(channel, publisher) {
        if (!this.published.has(channel)) this.published.set(channel, new Map());
        const of = this.published.get(channel);
        if (!of.has(publisher)) of.set(publisher, []);
        return of.get(publisher);
    }
    book(client, channel) { return this.books.get(client)?.get(channel); }

    read(e) { this[`on_${e[1]}`]?.(e[0], ...e.slice(2)); }
    on_p(t, client, channel, n) { this.line(channel, client)[n - 1] = { asked: t, state: 'open' }; this.counts.published++; }
    on_a(t, client, channel, n) { Object.assign(this.line(channel, client)[n - 1], { state: 'acked', answered: t }); this.counts.acked++; }
    on_r(t, client, channel, n, why) {
        Object.assign(this.line(channel, client)[n - 1], { state: 'refused', answered: t });
        this.counts.refused++;
        this.refusals.set(why, (this.refusals.get(why) ?? 0) + 1);
    }
    /** A life of a subscription begins with its ack, or with the first message that overtakes the ack. */
    begin(client, channel, since) {
        if (!this.books.has(client)) this.books.set(client, new Map());
        const b = { client, channel, since, got: new Map(), order: [], received: 0, told: 0, unknown: 0, skipped: 0, before: this.book(client, channel) };
        this.books.get(client).set(channel, b);
        return b;
    }
    current(client, channel) { const b = this.book(client, channel); return b && !b.over ? b : this.begin(client, channel, Infinity); }
    on_s(t, client, channel) { const b = this.book(client, channel); if (b && b.since === Infinity && !b.over) b.since = t; else this.begin(client, channel, t); }
    on_u(t, client, channel) { const b = this.book(client, channel); if (b) b.over = t; }
    /** The connection ended: what comes meanwhile is lost to the client, and it knows. */
    on_e(t, client) { this.counts.ended++; for (const b of this.books.get(client)?.values() ?? []) b.over = t; }
    left(host) { for (const [client, books] of this.books) if (client.startsWith(`${host}/`)) for (const b of books.values()) b.over ??= 1; }
    on_x(t, client, channel, why) { this.complain(`${client} could not subscribe to ${channel}: ${why}`); }
    on_f(t, client, channel, data) { this.foreign.push({ client, channel, data }); }
    on_g(t, client, channel, count) {
        const b = this.current(client, channel);
        if (count === null) { b.unknown++; this.counts.unknown++; } else { b.told += count; this.counts.told += count; }
        b.order.push(`gap ${count}`);
    }
    on_m(t, client, channel, publisher, n) {
        const b = this.current(client, channel), who = `${client} on ${channel}: ${publisher} ${n}`;
        let g = b.got.get(publisher);
        if (!g) b.got.set(publisher, g = { first: n, last: n - 1, all: new Set() });
        this.counts.received++;
        b.order.push(`${publisher} ${n}`);
        if (g.all.has(n)) return this.complain(`${who}: came twice (the last was ${g.last}, ${b.told} told; ${b.order.slice(-6).join(', ')})`);
        if (n <= g.last) this.complain(`${who}: came after ${g.last}`);
        // Logs of hosts come a little apart: what was not acked, as far as we have read, may have been refused. The sum in the end says.
        for (let k = g.last + 1; k < n; k++) if (this.line(channel, publisher)[k - 1]?.state === 'acked') b.skipped++;
        if (b.skipped > b.told && !b.unknown) this.complain(`${who}: the one before was ${g.last}; ${b.skipped} missing so far, ${b.told} told`);
        g.all.add(n);
        g.last = n;
        b.received++;
    }

    /** Of a book: {least, most, have}: what received and told may add up to, and what they do. */
    balance(b) {
        let least = 0, most = 0, have = b.told;
        for (const [publisher, line] of this.published.get(b.channel) ?? []) {
            const g = b.got.get(publisher);
            line.forEach((m, i) => {
                const n = i + 1, came = g?.all.has(n);
                if (came) { least++; most++; have++; }
                else if (m.asked >= b.since) { if (m.state === 'refused') most++; else { least++; most++; } }
                else if (g && n > g.first) most++;
            });
        }
        return { least, most, have };
    }
    living() { return [...this.books.values()].flatMap(m => [...m.values()]).filter(b => !b.over); }
    /** Books that don't balance yet, told in a line each. */
    unbalanced() {
        const out = [];
        for (const b of this.living()) {
            const s = this.balance(b);
            const excused = b.unknown > 0 || (this.died && this.missing(b).every(m => m.startsWith(`${this.died}/`)));
            if (s.have > s.most || (s.have < s.least && !excused))
                out.push(`${b.client} on ${b.channel}: published ${s.least}${s.most > s.least ? `..${s.most}` : ''}, received ${b.received} + told ${b.told}${b.unknown ? ` and ${b.unknown} of unknown size` : ''}; missing ${this.missing(b).slice(0, 6).map(m => m.replace(/\d+$/, n => `${n} (${this.state(b.channel, m)})`)).join(', ')}`);
        }
        return out;
    }
    state(channel, key) { const [p, n] = key.split(' '); return this.line(channel, p)[n - 1].state; }
    missing(b) {
        const out = [];
        for (const [publisher, line] of this.published.get(b.channel) ?? [])
            line.forEach((m, i) => { if (m.asked >= b.since && m.state !== 'refused' && !b.got.get(publisher)?.all.has(i + 1)) out.push(`${publisher} ${i + 1}`); });
        return out;
    }
    open() { let n = 0; for (const of of this.published.values()) for (const l of of.values()) for (const m of l) if (m.state === 'open') n++; return n; }
    /** Whether all who heard a channel saw the same order, looking at what was published outside of the given times. */
    orders(except = []) {
        const free = (channel, key) => { const [p, n] = key.split(' '), m = this.line(channel, p)[n - 1]; return m && !except.some(([a, z]) => (m.answered ?? m.asked) >= a && m.asked <= z); };
        for (const channel of this.published.keys()) {
            const lists = this.living().filter(b => b.channel === channel).map(b => [b.client, b.order.filter(k => !k.startsWith('gap') && free(channel, k))]);
            for (let i = 1; i < lists.length; i++) {
                const at = new Map(lists[i - 1][1].map((k, j) => [k, j]));
                const common = lists[i][1].filter(k => at.has(k)), bad = common.findIndex((k, j) => j > 0 && at.get(k) < at.get(common[j - 1]));
                if (bad > 0) this.complain(`${lists[i - 1][0]} and ${lists[i][0]} see ${channel} in different orders around ${common[bad]}`);
            }
        }
    }
}
