// A WebSocket client of our own over a bare socket, for what a well-behaved client cannot do: send
// broken bytes, stop reading, leave pings unanswered, see the very frames.
import net from 'node:net';
import { randomBytes, createHash } from 'node:crypto';

export const TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10;

export function encodeFrame(op, payload, { fin = true, mask = true, rsv = 0 } = {}) {
    const body = Buffer.isBuffer(payload) ? Buffer.from(payload) : Buffer.from(payload ?? '', 'utf8');
    const n = body.length;
    const head = n < 126 ? Buffer.alloc(2) : n < 65536 ? Buffer.alloc(4) : Buffer.alloc(10);
    head[0] = (fin ? 0x80 : 0) | (rsv << 4) | op;
    head[1] = (mask ? 0x80 : 0) | (n < 126 ? n : n < 65536 ? 126 : 127);
    if (head.length === 4) head.writeUInt16BE(n, 2);
    else if (head.length === 10) head.writeBigUInt64BE(BigInt(n), 2);
    if (!mask) return Buffer.concat([head, body]);
    const key = randomBytes(4);
    for (let i = 0; i < n; i++) body[i] ^= key[i & 3];
    return Buffer.concat([head, key, body]);
}

/** One connection. Events are methods to overwrite: onText(text), onFrame(op, payload), onClose(). */
export class Raw {
    constructor() {
        this.frames = [];       // {op, payload} as they came, when `keep`
        this.keep = true;
        this.autoPong = true;   // answer SocketCluster's pings (empty texts)
        this.cid = 0;
        this.calls = new Map();
        this.messages = [];     // [channel, data] of deliveries, when `keep`
        this.closeCode = null;  // of the server's Close frame
        this.ended = false;     // TCP is over
        this.waiters = [];
    }

    /** TCP, and the upgrade unless `upgrade` is false. */
    async open(port, { host = '127.0.0.1', path = '/socketcluster/', upgrade = true, headers = [], timeout = 10000 } = {}) {
        this.socket = net.connect({ port, host, noDelay: true, allowHalfOpen: false });
        this.socket.on('error', e => { this.error = e; });
        this.closed = new Promise(r => this.socket.on('close', () => { this.ended = true; this.onClose?.(); this.fail('the connection ended'); this.wake(); r(); }));
        await new Promise((r, f) => {
            this.socket.once('connect', r);
            this.socket.once('error', f);
        });
        this.buffer = Buffer.alloc(0);
        if (!upgrade) return this;
        const key = randomBytes(16).toString('base64');
        const head = await new Promise((r, f) => {
            const timer = setTimeout(() => f(new Error('no answer to the upgrade')), timeout);
            this.socket.once('close', () => { clearTimeout(timer); f(new Error(`no answer to the upgrade: ${this.error?.message ?? 'TCP ended'}`)); });
            const more = d => {
                this.buffer = Buffer.concat([this.buffer, d]);
                const end = this.buffer.indexOf('\r\n\r\n');
                if (end < 0) return;
                clearTimeout(timer);
                this.socket.off('data', more);
                this.socket.on('data', c => this.input(c));
                const text = this.buffer.subarray(0, end).toString('latin1');
                const rest = this.buffer.subarray(end + 4);
                this.buffer = Buffer.alloc(0);
                r(text);
                if (rest.length) this.input(rest);
            };
            this.socket.on('data', more);
            this.socket.write(`GET ${path} HTTP/1.1\r\nHost: ${host}:${port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
                `Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${key}\r\n${headers.map(h => h + '\r\n').join('')}\r\n`);
        });
        this.head = head;
        this.httpStatus = Number(/^HTTP\/1\.1 (\d+)/.exec(head)?.[1]);
        if (this.httpStatus !== 101) throw Object.assign(new Error(`upgrade answered with ${head.split('\r\n')[0]}`), { status: this.httpStatus, head });
        const accept = createHash('sha1').update(key + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11').digest('base64');
        if (!head.includes(accept)) throw new Error('wrong Sec-WebSocket-Accept');
        return this;
    }

    input(chunk) {
        this.buffer = this.buffer.length ? Buffer.concat([this.buffer, chunk]) : chunk;
        let at = 0;
        const b = this.buffer;
        for (;;) {
            if (b.length - at < 2) break;
            let n = b[at + 1] & 0x7f, head = 2;
            if (n === 126) { if (b.length - at < 4) break; n = b.readUInt16BE(at + 2); head = 4; }
            else if (n === 127) { if (b.length - at < 10) break; n = Number(b.readBigUInt64BE(at + 2)); head = 10; }
            if (b.length - at < head + n) break;
            if (b[at + 1] & 0x80) throw new Error('the server masked a frame');
            if (!(b[at] & 0x80)) throw new Error('the server sent a fragment');
            this.frame(b[at] & 15, b.subarray(at + head, at + head + n));
            at += head + n;
        }
        this.buffer = b.subarray(at);
        this.wake();
    }

    frame(op, payload) {
        if (this.keep) this.frames.push({ op, payload: Buffer.from(payload) });
        this.onFrame?.(op, payload);
        if (op === TEXT) {
            const text = payload.toString('utf8');
            if (text === '') {
                this.pings = (this.pings ?? 0) + 1;
                if (this.autoPong) this.text('');
                return;
            }
            this.onText?.(text);
            this.packet(text);
        } else if (op === CLOSE) {
            this.closeCode = payload.length >= 2 ? payload.readUInt16BE(0) : 1005;
            if (!this.socket.destroyed && !this.sentClose) { this.sentClose = true; this.socket.write(encodeFrame(CLOSE, payload)); }
        } else if (op === PING) this.socket.write(encodeFrame(PONG, payload));
    }

    packet(text) {
        let all;
        try { all = JSON.parse(text); } catch { return; }
        for (const p of Array.isArray(all) ? all : [all]) {
            if (p?.event === '#publish') {
                if (this.keep) this.messages.push([p.data.channel, p.data.data]);
                this.onMessage?.(p.data.channel, p.data.data, p);
            } else if (p && 'rid' in p && this.calls.has(p.rid)) {
                const c = this.calls.get(p.rid);
                this.calls.delete(p.rid);
                if (p.error) c.fail(Object.assign(new Error(p.error.message ?? String(p.error)), { name: p.error.name ?? 'Error', refused: true }));
                else c.done(p.data);
            }
        }
    }
    fail(why) {
        for (const c of this.calls.values()) c.fail(Object.assign(new Error(why), { lost: true }));
        this.calls.clear();
    }
    wake() { for (const w of this.waiters.splice(0)) w(); }

    bytes(b) { if (!this.socket.destroyed) this.socket.write(b); }
    text(t, o) { this.bytes(encodeFrame(TEXT, t, o)); }
    packetOut(p) { this.text(JSON.stringify(p)); }
    /** A request; resolves with its data, rejects with its error, or when the connection ends. */
    call(event, data) {
        const cid = ++this.cid;
        return new Promise((done, fail) => {
            this.calls.set(cid, { done, fail });
            this.packetOut(data === undefined ? { event, cid } : { event, data, cid });
        });
    }
    async handshake() { const d = await this.call('#handshake', { authToken: null }); this.id = d.id; return d; }
    subscribe(channel) { return this.call('#subscribe', { channel }); }
    unsubscribe(channel) { return this.call('#unsubscribe', channel); }
    publish(channel, data) { return this.call('#publish', { channel, data }); }
    transmit(channel, data) { this.packetOut({ event: '#publish', data: { channel, data } }); }

    /** Until pred() holds, looked at after every input. */
    async until(pred, what, ms = 10000) {
        const end = Date.now() + ms;
        while (!pred()) {
            const left = end - Date.now();
            if (left <= 0) throw new Error(`not in ${ms} ms: ${what}`);
            let timer;
            await new Promise(r => { this.waiters.push(r); timer = setTimeout(r, left); });
            clearTimeout(timer);
        }
    }
    async end() { this.bytes(encodeFrame(CLOSE, Buffer.from([0x03, 0xe8]))); this.sentClose = true; await this.closed; }
    destroy() { this.socket?.destroy(); }
}

/** Connected, shaken. */
export async function dial(port, options = {}) {
    const c = new Raw();
    if (options.keep === false) c.keep = false;
    await c.open(port, options);
    await c.handshake();
    return c;
}

/** One plain HTTP exchange on a bare socket: {status, headers, body}; status 0 when nothing came. */
export async function http(port, text, { host = '127.0.0.1', timeout = 5000, end = false } = {}) {
    return new Promise((r, f) => {
        const s = net.connect(port, host);
        const chunks = [];
        const timer = setTimeout(() => { s.destroy(); f(new Error('no end of the answer')); }, timeout);
        s.on('connect', () => { s.write(text, 'latin1'); if (end) s.end(); });
        s.on('data', d => chunks.push(d));
        s.on('error', () => {});
        s.on('close', () => {
            clearTimeout(timer);
            const all = Buffer.concat(chunks).toString('latin1');
            const cut = all.indexOf('\r\n\r\n');
            const lines = all.slice(0, cut < 0 ? undefined : cut).split('\r\n');
            const headers = Object.fromEntries(lines.slice(1).map(l => [l.slice(0, l.indexOf(':')).toLowerCase(), l.slice(l.indexOf(':') + 1).trim()]));
            r({ status: Number(/^HTTP\/1\.[01] (\d+)/.exec(all)?.[1] ?? 0), headers, body: cut < 0 ? '' : all.slice(cut + 4), all });
        });
    });
}
