// Random operations of many connections against a running server, checked against the reference in
// pubsub.mjs.
//
//   node tests/model/model.mjs [--seed N] [--ops N] [--runs N] [--clients N]
//
// The seed gives the number of processes, rings and brokers and all operations; what the machine makes of their
// timing it cannot give. A failing run prints its seed.
import { startServer, preset, sleep } from '../lib/server.mjs';
import { Raw } from '../lib/raw.mjs';
import { Model } from './pubsub.mjs';

const option = (name, dflt) => { const i = process.argv.indexOf('--' + name); return i < 0 ? dflt : Number(process.argv[i + 1]); };
const seed0 = option('seed', Number(process.hrtime.bigint() % 1000000n)), ops = option('ops', 4000), runs = option('runs', 1), clients = option('clients', 24);

// mulberry32: small, good enough to choose operations with.
function random(seed) {
    return () => {
        seed = (seed + 0x6d2b79f5) | 0;
        let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
        t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
        return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
}

class Run {
    constructor(seed) {
        this.seed = seed;
        this.rnd = random(seed);
        this.model = new Model();
        this.alive = [];
        this.nextConn = 0;
        this.open = 0; // requests without an answer
        this.channels = Array.from({ length: 4 + this.int(12) }, (_, i) => `m${seed}/${i}`);
    }
    int(n) { return Math.floor(this.rnd() * n); }
    pick(list) { return list[this.int(list.length)]; }

    async connect() {
        const conn = this.nextConn++, c = new Raw();
        c.keep = false;
        c.conn = conn;
        await c.open(this.server.port);
        this.model.connected(conn);
        c.onMessage = (channel, data) => this.model.delivered(conn, channel, data.id);
        c.onClose = () => { if (!c.leaving) this.model.complain(`connection ${conn} was ended by the server with ${c.closeCode}`); };
        await c.handshake();
        this.alive.push(c);
    }
    // An answer is worth what the model makes of it; that the connection ended first is no fault here.
    request(promise, yes, no) {
        this.open++;
        promise.then(yes, e => {
            if (e.lost) return;
            no ? no(e) : this.model.complain(`unexpected refusal: ${e.message}`);
        }).finally(() => { this.open--; });
    }
    subscribe(c, channel) {
        const span = this.model.subscribeAsked(c.conn, channel);
        this.request(c.subscribe(channel), () => this.model.subscribeAcked(span));
    }
    unsubscribe(c, channel) {
        const held = this.model.isWanted(c.conn, channel), span = this.model.unsubscribeAsked(c.conn, channel);
        this.request(c.unsubscribe(channel), () => {
            if (!held) this.model.complain(`connection ${c.conn} could unsubscribe from ${channel}, which it did not hold`);
            else this.model.unsubscribeAnswered(span);
        }, e => { if (held) this.model.complain(`connection ${c.conn} could not unsubscribe: ${e.message}`); });
    }
    publish(c, channel) {
        const m = this.model.publishAsked(c.conn, channel);
        const size = this.rnd() < 0.02 ? this.int(50000) : this.int(200);
        this.request(c.publish(channel, { id: m.id, pad: 'p'.repeat(size) }), () => this.model.publishAcked(m), () => this.model.publishRefused(m));
    }
    transmit(c, channel) { c.transmit(channel, { id: this.model.publishAsked(c.conn, channel).id }); }
    burst(c, channel) { for (let i = this.int(30); i >= 0; i--) this.transmit(c, channel); }
    async leave(c) {
        this.alive.splice(this.alive.indexOf(c), 1);
        c.leaving = true;
        this.model.ended(c.conn);
        if (this.rnd() < 0.5) c.destroy();
        else await c.end();
    }
    async step() {
        const c = this.pick(this.alive), channel = this.pick(this.channels), dice = this.rnd();
        if (dice < 0.28) this.subscribe(c, channel);
        else if (dice < 0.43) this.unsubscribe(c, channel);
        else if (dice < 0.70) this.publish(c, channel);
        else if (dice < 0.90) this.transmit(c, channel);
        else if (dice < 0.94) this.burst(c, channel);
        else if (dice < 0.955 && this.alive.length > 4) await this.leave(c);
        else if (dice < 0.98 && this.alive.length < clients) await this.connect();
        else await sleep(this.int(4));
        while (this.open > 200) await sleep(1);
        if (this.rnd() < 0.2) await new Promise(setImmediate);
    }
    // Every publisher's last word on every channel is acked, and after it everybody's own ping-pong.
    async quiet() {
        for (const c of this.alive) for (const ch of this.channels) this.publish(c, ch);
        const end = Date.now() + 20000;
        while (this.open > 0 && Date.now() < end) await sleep(5);
        if (this.open > 0) this.model.complain(`${this.open} requests were never answered`);
        for (let round = 0; round < 2; round++) {
            await Promise.all(this.alive.map(c => this.channels.reduce((p, ch) => p.then(() => c.call('#unsubscribe', `${ch} not held`).catch(() => {})), Promise.resolve())));
            await sleep(50);
        }
    }
    async go() {
        const shape = { workers: 1 + this.int(2), rings: 1 + this.int(3), brokers: 1 + this.int(3) };
        this.name = `model: seed ${this.seed}, ${shape.workers} workers x ${shape.rings} rings, ${shape.brokers} brokers, ${this.channels.length} channels`;
        this.server = await startServer({ ...shape, settings: { 'log.level': 'warn', 'lane.bytes': this.pick(['64KiB', '1MiB']) } });
        for (let i = 0; i < 8; i++) await this.connect();
        for (let i = 0; i < ops; i++) await this.step();
        await this.quiet();
        for (const c of this.alive) c.leaving = true;
        for (const c of this.alive) c.destroy();
        await this.server.stop();
        return this.model.finish();
    }
}

let passed = 0, failed = 0;
for (let i = 0; i < runs; i++) {
    const r = new Run(seed0 + i), began = Date.now();
    let complaints;
    try { complaints = await r.go(); } catch (e) { complaints = [e.stack, ...r.model.complaints]; await r.server?.stop({ check: false }).catch(() => {}); }
    const told = [...r.model.byConn.values()].reduce((n, c) => n + c.seen.size, 0);
    console.log(`${complaints.length ? 'FAIL ' : 'ok   '} ${r.name} (${preset}; ${r.model.nextId} messages, ${told} deliveries, ${Date.now() - began} ms)`);
    for (const c of complaints) console.log(`      ${c}`);
    if (complaints.length) console.log(`      again: node tests/model/model.mjs --seed ${r.seed} --ops ${ops}`);
    complaints.length ? failed++ : passed++;
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
