// Unmodified clients inside a host's namespace. Reads commands as lines of JSON, {id, op, ...}, answers {id, ok} or
// {id, error}, and tells what happens as {log: [...]}, each entry with the time of the machine's monotonic clock (ms):
//
//   [t, 'p', client, channel, n]          asked to publish number n of this client on this channel
//   [t, 'a', client, channel, n]          it was acknowledged
//   [t, 'r', client, channel, n, why]     it was refused, or the connection ended
//   [t, 's', client, channel]             subscribed: the server said so
//   [t, 'u', client, channel]             no longer
//   [t, 'e', client]                      its connection ended; it comes back by itself
//   [t, 'm', client, channel, pub, n]     a message
//   [t, 'f', client, channel, data]       a message of somebody foreign
//   [t, 'g', client, channel, count]      #gap
//
// Order is that of the wire: events are read where the library emits them. What the application's streams gave is
// counted beside it, and told by the command `counts`.
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { join, dirname } from 'node:path';
import { fileURLToPath } from 'node:url';

const require = createRequire(join(dirname(fileURLToPath(import.meta.url)), '../e2e/package.json'));
const now = () => Number(process.hrtime.bigint() / 1000n) / 1000;
const clients = new Map();
let entries = [];
const log = (...e) => { entries.push([now(), ...e]); };
setInterval(flush, 15);
function flush() { if (entries.length) { process.stdout.write(JSON.stringify({ log: entries }) + '\n'); entries = []; } }

class Client {
    constructor({ name, major, port }) {
        this.name = name;
        this.major = major;
        this.numbers = new Map();
        this.open = 0;
        this.streams = { messages: 0, gaps: 0 }; // as the application got them
        this.wire = { messages: 0, gaps: 0 };
        const socket = this.socket = require(`socketcluster-client-${major}`).create({
            hostname: '127.0.0.1', port, path: '/socketcluster/', secure: false, ackTimeout: 60000, connectTimeout: 20000,
            autoReconnectOptions: { initialDelay: 50, randomness: 50, multiplier: 1.5, maxDelay: 500 },
        });
        const emit = socket.emit, self = this;
        socket.emit = function (event, e) { self.event(event, e); return emit.apply(this, arguments); };
        (async () => { for await (const e of socket.listener('error')) this.error = e.error.message; })();
        (async () => { for await (const g of socket.receiver('#gap')) this.streams.gaps += g.count ?? 0; })();
    }
    event(event, e) {
        if (event === 'message') this.frame(e.message);
        else if (event === 'close') log('e', this.name);
        else if (event === 'subscribe') log('s', this.name, e.channel);
        else if (event === 'unsubscribe') log('u', this.name, e.channel);
        else if (event === 'subscribeFail') { log('x', this.name, e.channel, e.error.message); this.failed = e.error; }
    }
    frame(text) {
        if (text === '' || typeof text !== 'string') return;
        const all = JSON.parse(text);
        for (const p of Array.isArray(all) ? all : [all]) {
            if (p?.event === '#publish') {
                const { channel, data } = p.data;
                this.wire.messages++;
                if (data && data.p !== undefined) log('m', this.name, channel, data.p, data.n);
                else log('f', this.name, channel, data);
            } else if (p?.event === '#gap') {
                this.wire.gaps += p.data.count ?? 0;
                log('g', this.name, p.data.channel, p.data.count);
            }
        }
    }
    async connected() {
        while (this.socket.state !== 'open') await new Promise(r => setTimeout(r, 5));
    }
    async subscribe(channel) {
        const c = this.socket.subscribe(channel);
        (async () => { for await (const d of c) { this.streams.messages++; void d; } })();
        while (c.state !== 'subscribed') {
            if (this.failed) throw this.failed;
            await new Promise(r => setTimeout(r, 2));
        }
    }
    async unsubscribe(channel) { await this.socket.unsubscribe(channel); }
    // The number is used whatever becomes of it.
    async publish(channel, { ack = true, pad = 0, quiet = true } = {}) {
        const n = (this.numbers.get(channel) ?? 0) + 1, data = { p: this.name, n, ...(pad ? { pad: 'x'.repeat(pad) } : {}) };
        this.numbers.set(channel, n);
        log('p', this.name, channel, n);
        if (!ack) { this.socket.transmitPublish(channel, data); log('a', this.name, channel, n); return n; }
        this.open++;
        try {
            await this.socket.invokePublish(channel, data);
            log('a', this.name, channel, n);
        } catch (e) {
            log('r', this.name, channel, n, `${e.name}: ${e.message}`);
            if (!quiet) throw e;
        } finally { this.open--; }
        return n;
    }
    async drive({ channels, pause = 5, window = 8, ack = true, pad = 0, burst = 1 }) {
        this.driving = true;
        for (let i = 0; this.driving;) {
            for (let k = 0; k < burst; k++, i++)
                if (this.open < window && this.socket.state === 'open') this.publish(channels[i % channels.length], { ack, pad });
            await new Promise(r => setTimeout(r, pause));
        }
    }
    async still() {
        this.driving = false;
        while (this.open > 0) await new Promise(r => setTimeout(r, 5));
    }
}

const ops = {
    client: o => { const c = new Client(o); clients.set(o.name, c); return c.connected(); },
    subscribe: o => clients.get(o.name).subscribe(o.channel),
    unsubscribe: o => clients.get(o.name).unsubscribe(o.channel),
    publish: async o => {
        const c = clients.get(o.name);
        let last;
        for (let i = 0; i < (o.count ?? 1); i++) { last = c.publish(o.channel, o); if (!o.burst) await last; }
        return last;
    },
    raw: o => clients.get(o.name).socket.invokePublish(o.channel, o.data).then(() => true),
    drive: o => { clients.get(o.name).drive(o); },
    still: async () => { await Promise.all([...clients.values()].map(c => c.still())); },
    leave: o => { const c = clients.get(o.name); c.socket.disconnect(); clients.delete(o.name); },
    counts: () => [...clients.values()].map(c => ({ name: c.name, major: c.major, state: c.socket.state, wire: c.wire, streams: c.streams, error: c.error })),
};
createInterface({ input: process.stdin }).on('line', async line => {
    const o = JSON.parse(line);
    let answer;
    try { answer = { id: o.id, ok: (await ops[o.op](o)) ?? true }; } catch (e) { answer = { id: o.id, error: { name: e.name, message: e.message } }; }
    flush();
    process.stdout.write(JSON.stringify(answer) + '\n');
}).on('close', () => process.exit(0));
