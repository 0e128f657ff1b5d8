// Hosts, clients on them and the books, put together. A test makes one World per topology of Redis and hurts it.
import test from 'node:test';
import assert from 'node:assert/strict';
import { createInterface } from 'node:readline';
import { join, dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { startServer, sleep, until, slow, root } from '../lib/server.mjs';
import { Net, forbidden } from './net.mjs';
import { Ledger } from './ledger.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const majors = [20, 15, 19, 16, 17, 18];
export const now = () => Number(process.hrtime.bigint() / 1000n) / 1000;

/** One host: a namespace, `ringcast run` in it, and the process that has its clients. */
export class Host {
    constructor(world, name, address) { Object.assign(this, { world, name, address, clients: 0, calls: new Map(), lastId: 0 }); }
    async start(settings) {
        const { net } = this.world;
        await net.join(this.name, this.address);
        this.server = await startServer({ workers: 1, rings: 2, brokers: 2, wrap: net.wrap(this.name), settings: { 'host.name': this.name, ...settings } });
        this.runner = net.spawn(this.name, process.execPath, [join(here, 'runner.mjs')]);
        createInterface({ input: this.runner.stdout }).on('line', l => {
            const m = JSON.parse(l);
            if (m.log) for (const e of m.log) this.world.read(e);
            else { const c = this.calls.get(m.id); this.calls.delete(m.id); if (m.error) c.fail(Object.assign(new Error(m.error.message), { name: m.error.name })); else c.done(m.ok); }
        });
        return this;
    }
    call(op, more = {}) {
        const id = ++this.lastId;
        return new Promise((done, fail) => {
            this.calls.set(id, { done, fail });
            if (this.runner.over) return fail(new Error(`the clients of ${this.name} are gone: ${this.runner.said}`));
            this.runner.stdin.write(JSON.stringify({ id, op, ...more }) + '\n');
        });
    }
    /** A client, of each major in turn. Its name is the host's and a number. */
    async client() {
        const name = `${this.name}/${this.clients++}`;
        await this.call('client', { name, major: majors[this.world.clients++ % majors.length], port: this.server.port });
        return name;
    }
    subscribe(client, channel) { return this.call('subscribe', { name: client, channel }); }
    publish(client, channel, more) { return this.call('publish', { name: client, channel, ...more }); }
    status() { return this.server.status(); }
    counter(name) { return this.server.counter(name); }
    /** A counter of each broker, as of those alive. */
    async brokers(name) { return (await this.server.pages('broker')).filter(p => !['dead', 'gone'].includes(p.state)).map(p => p.counters[name]); }
    async stop(options) {
        this.runner?.stdin.end();
        this.runner?.kill('SIGKILL');
        await this.server?.stop(options);
    }
}

export class World {
    constructor() { Object.assign(this, { hosts: [], ledger: new Ledger(), clients: 0, away: [] }); }
    /** `redis` makes the servers in the net's namespace and gives {servers, settings}. */
    static async make(redis, settings = {}, { count = 3, each = [] } = {}) {
        const w = new World();
        w.net = await new Net().make();
        try {
            w.redis = await redis?.(w.net);
            if (typeof each === 'function') each = each(w.redis);
            w.settings = { 'redis.backoff_max': '500ms', 'bus.heartbeat': '500ms', 'log.level': 'info', ...w.redis?.settings, ...settings };
            const starts = await Promise.allSettled(Array.from({ length: count }, (_, i) => w.addHost(each[i])));
            for (const s of starts) if (s.status === 'rejected') throw s.reason;
            if (w.redis) await w.up();
            return w;
        } catch (e) {
            e.stack += `\n${w.words()}`;
            await w.end({ check: false }).catch(() => {}); // or its processes would keep this one alive
            throw e;
        }
    }
    async addHost(settings = {}) {
        const i = this.hosts.length, h = new Host(this, `host${i + 1}`, `10.77.0.${i + 1}`);
        this.hosts.push(h);
        return h.start({ ...this.settings, ...settings });
    }
    read(e) { this.ledger.read(e); }

    /** Until the bus is up in every broker of every host. */
    up(what = 'the bus to be up everywhere', ms = 15000, hosts = this.hosts) {
        let seen;
        return until(async () => (seen = await Promise.all(hosts.map(h => h.brokers('bus_state')))).every(l => l.length === 2 && l.every(s => s === BUS_UP)), () => `${what}: ${JSON.stringify(seen)}`, ms, 25);
    }
    /** Until a broker somewhere says that it is not. */
    down(what = 'the bus to be down', ms = 10000, hosts = this.hosts) {
        return until(async () => (await Promise.all(hosts.map(h => h.brokers('bus_state')))).some(l => l.some(s => s !== BUS_UP)), what, ms, 25);
    }
    /** Until each broker of these hosts says so: what is published there waits, or is refused, from now on. */
    noticed(hosts, what = 'each broker to notice', ms = 10000) {
        return until(async () => (await Promise.all(hosts.map(h => h.brokers('bus_state')))).every(l => l.length === 2 && l.every(s => s !== BUS_UP)), what, ms, 25);
    }

    /** `subs` subscribers and `pubs` publishers on each host, all of them on all channels. */
    async crowd({ channels = 6, subs = 2, pubs = 1, prefix = 'c' } = {}) {
        this.channels = Array.from({ length: channels }, (_, i) => `${prefix}${i}`);
        await Promise.all(this.hosts.map(async h => {
            h.pubs = [];
            for (let i = 0; i < subs; i++) { const c = await h.client(); await Promise.all(this.channels.map(ch => h.subscribe(c, ch))); }
            for (let i = 0; i < pubs; i++) h.pubs.push(await h.client());
        }));
        // Who loses its link within a second of its beginning is told of a gap of unknown size (ADR 0011, 4).
        if (this.redis) await sleep(1500 * slow);
    }
    load(options = {}, hosts = this.hosts) { for (const h of hosts) for (const name of h.pubs ?? []) h.call('drive', { name, channels: this.channels, ...options }); }
    still() { return Promise.all(this.hosts.map(h => h.call('still'))); }
    /** Until messages flow between all hosts again: each subscriber has got one of each publisher that was published after now. */
    flows(what, ms = 8000, hosts = this.hosts) {
        const from = now(), l = this.ledger, names = new Set(hosts.map(h => h.name));
        const lacking = () => {
            const out = [];
            const publishers = hosts.flatMap(h => h.pubs ?? []);
            for (const b of l.living()) if (names.has(b.client.split('/')[0]) && this.channels.includes(b.channel)) for (const p of publishers)
                if (!(l.line(b.channel, p)[(b.got.get(p)?.last ?? 0) - 1]?.asked > from)) out.push(`${b.client} on ${b.channel} of ${p}`);
            return out;
        };
        return until(() => lacking().length === 0, () => `messages to flow ${what}: ${lacking().slice(0, 4).join(', ')}, ${lacking().length} in all`, ms);
    }
    /** Stops the load, waits until the books balance and says what they say. One last message of each publisher shows that
     *  what was there is not too much either. */
    async settle({ ms = 12000, unknown = false, except } = {}) {
        const l = this.ledger;
        await this.still();
        await until(() => l.open() === 0, () => `${l.open()} publishes to be answered`, ms);
        for (const h of this.hosts) for (const name of h.pubs ?? []) await Promise.all(this.channels.map(ch => h.publish(name, ch)));
        await until(() => l.complaints.length > 0 || l.unbalanced().length === 0, () => `the books to balance:\n${l.unbalanced().slice(0, 8).join('\n')}\n(${l.unbalanced().length} in all)`, ms);
        if (except) l.orders(except);
        assert.deepEqual(l.complaints, []);
        if (!unknown) assert.equal(l.counts.unknown, 0, 'no gap of unknown size');
        await this.applications();
        const was = this.said ?? {}, said = this.said = { ...l.counts };
        for (const k of Object.keys(was)) said[k] -= was[k];
        this.said = { ...l.counts };
        return { ...said, ...(said.refused ? { refusals: Object.fromEntries(l.refusals) } : {}) };
    }
    /** Load, what hurts, messages between all again, balanced books. What `hurt` returns is told beside them. */
    async through(hurt, { load = {}, settle = {}, flows = 15000 } = {}) {
        this.load(load);
        await this.flows('before', flows);
        const more = await hurt();
        await this.flows('after', flows);
        return { ...more, ...await this.settle(settle) };
    }
    /** What the libraries handed to the application is what came over the wire. Major 18 loses events of its streams. */
    async applications() {
        for (const h of this.hosts) {
            if (h.runner.over) continue;
            let all;
            await until(async () => (all = await h.call('counts')).every(c => c.major === 18 || (c.wire.messages === c.streams.messages && c.wire.gaps === c.streams.gaps)),
                () => `streams to have what the wire had: ${JSON.stringify(all)}`, 3000);
        }
    }
    /** What the brokers and rings have counted is what the clients were told. */
    async counters() {
        const told = new Map();
        for (const h of this.hosts) told.set(h, { subscribers: 0, channels: new Map() });
        for (const b of [...this.ledger.books.values()].flatMap(m => [...m.values()])) {
            const of = told.get(this.hosts.find(h => h.name === b.client.split('/')[0]));
            of.subscribers += b.told;
            of.channels.set(b.channel, [...(of.channels.get(b.channel) ?? []), b.told]);
        }
        for (const [h, t] of told) {
            if (!h.server.exit) {
                for (const [ch, l] of t.channels) assert.equal(Math.min(...l), Math.max(...l), `all subscribers of ${h.name} to ${ch} were told the same`);
                const sum = [...t.channels.values()].reduce((n, l) => n + l[0], 0);
                assert.equal(await h.counter('gap_messages_total'), sum, `gap_messages_total of ${h.name}`);
                assert.equal(await h.counter('missed_remote_total'), t.subscribers, `missed_remote_total of ${h.name}`);
            }
        }
    }
    /** A host stops in good order; nobody is owed its messages any more, and it none. */
    async leave(host) {
        this.ledger.left(host.name);
        await host.stop();
        this.hosts.splice(this.hosts.indexOf(host), 1);
    }
    words() {
        const net = this.hosts.map(h => `---- ${h.name} said last ----\n${(h.server?.stderr ?? '').slice(-2500)}${h.runner?.said ?? ''}`);
        return net.join('\n');
    }
    async end({ check = true } = {}) {
        try { await Promise.all(this.hosts.map(h => h.stop({ check }))); } finally { this.net.removeNow(); }
    }
}
export const BUS_UP = 3; // enum bus_state of broker/bus.h

const why = forbidden();
/** A test with a world of its own. Where there can be no namespaces it says so; HOSTS_REQUIRED=1 makes that a failure. */
export function hosts(name, redis, settings, fn, { count = 3, each = [], timeout = 240000 } = {}) {
    test(`hosts: ${name}`, { timeout: timeout * slow, skip: why && !process.env.HOSTS_REQUIRED ? why : false }, async t => {
        assert.equal(why, null);
        let world;
        try {
            world = await World.make(redis, settings, { count, each });
            await fn(world, t);
        } catch (e) {
            if (world) {
                e.stack += `\n${world.words()}`;
                await world.end({ check: false }).catch(() => {});
            }
            throw e;
        }
        await world.end({ check: !world.broken });
    });
}
/** A case in a world: a name, and what it says when it is over. */
export async function scene(t, w, name, fn) {
    const began = Date.now(), only = process.env.SCENE; // words, any of them: a|b
    if (only && !only.split('|').some(word => name.includes(word))) return;
    await t.test(name, async () => {
        if (w.broken) throw new Error(`not tried: ${w.broken} failed in the same world`);
        try {
            const said = await fn();
            console.error(`      ${name}: ${Date.now() - began} ms${said === undefined ? '' : ' ' + JSON.stringify(said)}`);
        } catch (e) {
            w.broken = name;
            e.stack += `\n${w.words()}`;
            throw e;
        }
    });
}
export { root, until };
