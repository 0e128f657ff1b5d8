// Traffic that keeps its own books: publishers that wait for acks, subscribers that write down what came.
// What the server owes: a message whose ack was seen reaches every subscriber that was there all the
// time, exactly once and in its publisher's order; a message that failed may have arrived, but once.
import assert from 'node:assert/strict';
import { dial } from '../lib/raw.mjs';
import { sleep, until, slow } from '../lib/server.mjs';

export class Load {
    /** `channels` names, `subscribers` and `publishers` connections; each subscriber hears all channels. With `ahead`,
        no more than so many messages are published before every subscriber has them: none of them can be slow. */
    constructor(server, { channels = 12, subscribers = 12, publishers = 6, window = 4, pause = 4, pad = 100, ahead = Infinity } = {}) {
        Object.assign(this, { server, window, pause, ahead, pad: 'p'.repeat(pad) });
        this.channels = Array.from({ length: channels }, (_, i) => `chaos ${i}`);
        this.counts = { subscribers, publishers };
        this.subs = [];
        this.pubs = [];
        this.messages = []; // {id, pub, channel, seq, state: 'open' 'acked' 'refused' 'lost', at, acked}
        this.refusals = new Map();
        this.running = false;
    }
    async open() {
        for (let i = 0; i < this.counts.subscribers; i++) await this.addSubscriber();
        for (let i = 0; i < this.counts.publishers; i++) await this.addPublisher();
        return this;
    }
    async addSubscriber() {
        const c = await dial(this.server.port, { keep: false });
        const s = { c, got: new Map(), since: 0, problems: [], last: new Map() };
        c.onMessage = (channel, d) => {
            if (s.got.has(d.id)) s.problems.push(`message ${d.id} came twice`);
            s.got.set(d.id, Date.now());
            const key = `${d.pub} ${channel}`;
            if (d.seq <= (s.last.get(key) ?? -1)) s.problems.push(`${d.seq} of publisher ${d.pub} on ${channel} came after ${s.last.get(key)}`);
            s.last.set(key, d.seq);
        };
        await Promise.all(this.channels.map(ch => c.subscribe(ch)));
        s.since = this.messages.length;
        this.subs.push(s);
        return s;
    }
    async addPublisher() {
        const p = { c: await dial(this.server.port, { keep: false }), index: this.pubs.length, seq: 0, open: 0 };
        this.pubs.push(p);
        if (this.running) this.drive(p);
        return p;
    }
    async drive(p) {
        while (this.running && !p.c.ended) {
            if (p.open < this.window && this.lag() < this.ahead) this.publish(p, this.channels[(p.seq * 7 + p.index) % this.channels.length]);
            await sleep(this.pause);
        }
    }
    /** Messages that the last of the subscribers does not have yet. */
    lag() { return this.messages.length - Math.min(...this.livingSubs().map(s => s.since + s.got.size)); }
    publish(p, channel) {
        const m = { id: this.messages.length, pub: p.index, channel, seq: p.seq++, state: 'open', at: Date.now() };
        this.messages.push(m);
        p.open++;
        return p.c.publish(channel, { id: m.id, pub: m.pub, seq: m.seq, pad: this.pad }).then(
            () => { m.state = 'acked'; m.acked = Date.now(); },
            e => {
                m.state = e.lost ? 'lost' : 'refused';
                m.acked = Date.now();
                if (!e.lost) this.refusals.set(`${e.name}: ${e.message}`, (this.refusals.get(`${e.name}: ${e.message}`) ?? 0) + 1);
            }).finally(() => { p.open--; });
    }
    start() { this.running = true; for (const p of this.pubs) this.drive(p); }
    async stop() {
        this.running = false;
        await until(() => this.pubs.every(p => p.open === 0 || p.c.ended), () => `answers (${this.pubs.filter(p => p.open && !p.c.ended).length} publishers wait)`, 15000);
        await sleep(300 * slow); // what is on its way to subscribers
    }
    /** Waits until every channel had a message sent after now and acked. */
    async flows(what, ms = 5000) {
        const from = this.messages.length;
        await until(() => { const ok = new Set(); for (let i = from; i < this.messages.length; i++) if (this.messages[i].state === 'acked') ok.add(this.messages[i].channel); return ok.size === this.channels.length; },
            `an acked message on every channel ${what}`, ms, 10);
    }
    livingSubs() { return this.subs.filter(s => !s.c.ended); }
    /** The books. Subscribers that were ended are not owed anything more, but were never told twice. */
    check({ owed = this.livingSubs() } = {}) {
        for (const [i, s] of this.subs.entries()) assert.deepEqual(s.problems.slice(0, 5), [], `subscriber ${i}`);
        for (const s of owed) {
            const missing = this.messages.filter(m => m.id >= s.since && m.state === 'acked' && !s.got.has(m.id));
            const deaf = missing.length && owed.filter(o => !o.got.has(missing[0].id)).length;
            assert.equal(missing.length, 0, `${missing.length} acked messages never came, the first: ${JSON.stringify(missing[0])} of ${this.messages.length}, which ${deaf} of ${owed.length} missed`);
        }
        const silent = this.messages.filter(m => m.state === 'open' && !this.pubs[m.pub].c.ended);
        assert.equal(silent.length, 0, `${silent.length} publishes were never answered`);
        for (const r of this.refusals.keys()) assert.match(r, /^BrokerError: /);
        const n = this.messages.reduce((o, m) => ({ ...o, [m.state]: (o[m.state] ?? 0) + 1 }), {});
        return n;
    }
    /** The longest time an acked message took to its ack, of those sent from a time on. */
    slowest(from = 0, channels = this.channels) { return Math.max(0, ...this.messages.filter(m => m.at >= from && m.state === 'acked' && channels.includes(m.channel)).map(m => m.acked - m.at)); }
    end() { for (const x of [...this.subs, ...this.pubs]) x.c.destroy(); }
}
