// permessage-deflate as clients use it: the ws library with every choice of parameters, unmodified
// socketcluster-client on top of it, and bare sockets for what no client does.
import test, { before, after } from 'node:test';
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { deflateRawSync, constants, inflateRawSync } from 'node:zlib';
import { randomBytes } from 'node:crypto';
import { startServer, stopAll, until, isReference, slow } from '../lib/server.mjs';
import { Raw, dial, encodeFrame, TEXT, BINARY } from '../lib/raw.mjs';
import { majors, connected, subscribed, arrived, hangUp } from './lib.mjs';

const WebSocket = createRequire(import.meta.url)('ws');
const limit = { timeout: 60000 * slow, skip: isReference && 'the reference does not compress' };
const OFFER = 'Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits';
const settings = { 'echo.path': '/echo', 'ws.max_message': '256KiB', 'deflate.inflate_budget': '4MiB' };
let plain, keeping;
before(async () => {
    if (isReference) return;
    plain = await startServer({ rings: 2, settings });
    keeping = await startServer({ settings: { ...settings, 'deflate.server_takeover': 'on', 'deflate.client_takeover': 'on',
        'deflate.threshold': '64', 'deflate.client_window_bits': '12', 'deflate.level': '6', 'deflate.mem_level': '9' } });
}, { timeout: 60000 * slow });
after(async () => {
    await hangUp();
    try { await plain?.stop(); await keeping?.stop(); } finally { await stopAll(); }
});

const opened = (url, perMessageDeflate) => new Promise((done, failed) => {
    const ws = new WebSocket(url, { perMessageDeflate });
    ws.once('open', () => done(ws));
    ws.once('error', failed);
});
const json = n => JSON.stringify(Array.from({ length: Math.ceil(n / 40) }, (_, i) => ({ id: i * 7919, name: `somebody ${i}`, ok: i % 3 === 0 }))).slice(0, n);
const packed = (data, options = {}) => deflateRawSync(data, { finishFlush: constants.Z_SYNC_FLUSH, ...options }).subarray(0, -4);
const unpacked = data => inflateRawSync(Buffer.concat([data, Buffer.from([0, 0, 0xff, 0xff])]), { finishFlush: constants.Z_SYNC_FLUSH });

const choices = {
    'the usual': true, 'no compression': false, 'everything compressed': { threshold: 0 },
    'small windows of the server': { threshold: 0, serverMaxWindowBits: 9 }, 'small windows of the client': { threshold: 0, clientMaxWindowBits: 9 },
    'no context': { threshold: 0, serverNoContextTakeover: true, clientNoContextTakeover: true },
    'no context of the server': { threshold: 0, serverNoContextTakeover: true }, 'no context of the client': { threshold: 0, clientNoContextTakeover: true },
};
for (const [what, choice] of Object.entries(choices))
    test(`ws: ${what}`, limit, async () => {
        for (const server of [plain, keeping]) {
            const ws = await opened(`ws://127.0.0.1:${server.port}/echo`, choice);
            assert.equal(ws.extensions, choice === false ? '' : 'permessage-deflate');
            for (let round = 0; round < 2; round++)
                for (const n of [0, 1, 63, 64, 1023, 1024, 5000, 65535, 65536, 1 << 20])
                    for (const data of [Buffer.from(json(n)), randomBytes(Math.min(n, 100000))]) {
                        const came = new Promise(r => ws.once('message', (m, binary) => r([m, binary])));
                        ws.send(data, { binary: round === 1 || data.length !== n || !data.equals(Buffer.from(json(n))) });
                        assert.ok((await came)[0].equals(data), `${data.length} bytes`);
                    }
            // a message in fragments
            const came = new Promise(r => ws.once('message', r));
            for (let i = 0; i < 10; i++) ws.send(json(3000), { fin: i === 9 });
            assert.equal(String(await came), json(3000).repeat(10));
            ws.close(1000);
            assert.equal(await new Promise(r => ws.once('close', r)), 1000);
        }
    });

for (const major of majors)
    test(`socketcluster-client ${major}: publications come compressed, once for all`, limit, async () => {
        for (const server of [plain, keeping]) {
            const wsOptions = { perMessageDeflate: { threshold: 0 } };
            const sockets = [];
            for (let i = 0; i < 6; i++) sockets.push(await connected(major, server, i < 4 ? { wsOptions } : { wsOptions: { perMessageDeflate: false } }));
            const gots = await Promise.all(sockets.map(s => subscribed(s, 'news')));
            const before = await server.counter('deflate_out_messages_total');
            const data = { text: json(4000) };
            await sockets[0].invokePublish('news', data);
            await sockets[0].invokePublish('news', 'short');
            await Promise.all(gots.map(g => arrived(g, 2)));
            for (const g of gots) { assert.deepEqual(g[0], data); assert.equal(g[1], 'short'); }
            const made = await server.counter('deflate_out_messages_total') - before;
            if (server === plain) assert.ok(made >= 1 && made <= 2, `compressed ${made} times: once on each ring that has subscribers`);
            await hangUp(...sockets);
            await until(async () => await server.counter('deflate_connections') === 0, 'the connections to be gone');
        }
    });

test('the ratio and the memory can be read', limit, async () => {
    const ws = await opened(`ws://127.0.0.1:${plain.port}/echo`, { threshold: 0 });
    const came = new Promise(r => ws.once('message', r));
    ws.send(json(20000));
    await came;
    ws.terminate();
    for (const way of ['in', 'out']) {
        const inside = await plain.counter(`deflate_${way}_plain_bytes_total`), outside = await plain.counter(`deflate_${way}_packed_bytes_total`);
        assert.ok(outside > 0 && outside < inside / 2, `${inside} bytes are ${outside}`);
    }
    assert.ok(await plain.counter('deflate_bytes') > 260000);
});

test('a publication is compressed alone: tokens and answers stay as they are', limit, async () => {
    const c = await new Raw().open(plain.port, { headers: [OFFER] });
    const firsts = [];
    const frame = c.frame.bind(c);
    c.frame = (op, payload) => { firsts.push(payload); frame(op, payload); };
    c.bytes(encodeFrame(TEXT, packed(`{"event":"#handshake","data":{"authToken":"${'x'.repeat(5000)}"},"cid":1}`), { rsv: 4 }));
    await c.until(() => firsts.length === 2, 'the answer, and #removeAuthToken');
    for (const f of firsts) JSON.parse(String(f));
    c.destroy();
});

// ---- what no client does ----
const closes = async (c, code, counter) => {
    await c.closed;
    assert.equal(c.closeCode, code);
    assert.ok(await plain.counter(counter) > 0);
};
const raw = (path = '/echo') => new Raw().open(plain.port, { path, headers: [OFFER] });
test('bombs: 1009 at the limit, before the handshake at the smaller one, whatever would have come out', limit, async () => {
    const bomb = packed(Buffer.alloc(64 << 20), { level: 9 });
    for (const shaken of [false, true]) {
        const c = shaken ? await dial(plain.port, { headers: [OFFER] }) : await raw('/socketcluster/');
        c.bytes(encodeFrame(TEXT, bomb, { rsv: 4 }));
        await closes(c, 1009, 'close_too_big');
    }
    const c = await raw('/socketcluster/'); // within ws.max_message, but not within ws.max_message_unshaken
    c.bytes(encodeFrame(TEXT, packed(Buffer.alloc(100000, 32)), { rsv: 4 }));
    await closes(c, 1009, 'close_too_big');
});
test('many bombs, each within the limit: 1008', limit, async () => {
    const c = await dial(plain.port, { headers: [OFFER] });
    const bomb = encodeFrame(BINARY, packed(Buffer.alloc(256 << 10)), { rsv: 4 });
    for (let i = 0; i < 40 && !c.ended; i++) c.bytes(bomb);
    await closes(c, 1008, 'close_inflate_budget');
});
test('broken streams: 1007', limit, async () => {
    for (const body of ['Hello', Buffer.from('f248cdc9', 'hex'), Buffer.from('f200110000', 'hex'), packed(json(9000)).subarray(0, 500)]) {
        const c = await raw();
        c.bytes(encodeFrame(TEXT, body, { rsv: 4 }));
        await closes(c, 1007, 'close_bad_deflate');
    }
});
test('text that is not UTF-8 once it is inflated: 1007', limit, async () => {
    const c = await raw();
    c.bytes(encodeFrame(TEXT, packed(Buffer.from('caf\xe9', 'latin1')), { rsv: 4 }));
    await closes(c, 1007, 'close_bad_utf8');
});
test('RSV1 without agreement, and where it may not be: 1002', limit, async () => {
    const c = await new Raw().open(plain.port, { path: '/echo' });
    assert.doesNotMatch(c.head, /Extensions/i);
    c.bytes(encodeFrame(TEXT, packed('x'), { rsv: 4 }));
    await closes(c, 1002, 'close_protocol');
    const d = await raw();
    d.bytes(Buffer.concat([encodeFrame(TEXT, '', { rsv: 4, fin: false }), encodeFrame(0, packed('x'), { rsv: 4 })]));
    await closes(d, 1002, 'close_protocol');
});
test('odd messages are valid: stored, final, several and empty blocks, and the next one is no worse for it', limit, async () => {
    const c = await raw();
    for (const hex of ['f248cdc9c90700', '000500faff48656c6c6f00', 'f348cdc9c9070000', 'f248050000 00ffffcac9c90700', 'f348cdc9c90700']) {
        c.bytes(encodeFrame(TEXT, Buffer.from(hex.replace(' ', ''), 'hex'), { rsv: 4 }));
        c.bytes(encodeFrame(BINARY, Buffer.from([0]), { rsv: 4 }));
        c.bytes(encodeFrame(TEXT, packed('!'), { rsv: 4 }));
        await c.until(() => c.frames.length === 3, 'all echoes');
        assert.deepEqual(c.frames.splice(0).map(f => String(f.payload)), ['Hello', '', '!']);
    }
    c.bytes(encodeFrame(TEXT, packed(json(5000)), { rsv: 4 }));
    await c.until(() => c.frames.length === 1, 'the echo');
    assert.equal(String(unpacked(c.frames[0].payload)), json(5000));
    c.destroy();
});
test('an agreement can be refused altogether', limit, async () => {
    const s = await startServer({ settings: { 'deflate.enabled': 'off' } });
    const ws = await opened(`ws://127.0.0.1:${s.port}/socketcluster/`, true);
    assert.equal(ws.extensions, '');
    ws.terminate();
    await s.stop();
});
test('deflate.memory: who comes too late is compressed without context', limit, async () => {
    const s = await startServer({ settings: { 'echo.path': '/echo', 'deflate.server_takeover': 'on', 'deflate.memory': '600KiB' } });
    const kept = [];
    for (let i = 0; i < 4; i++) {
        const c = await new Raw().open(s.port, { path: '/echo', headers: [OFFER] });
        kept.push(!/server_no_context_takeover/.test(c.head));
    }
    assert.deepEqual(kept, [true, true, false, false]);
    assert.equal(await s.counter('deflate_refused_total'), 2);
    assert.ok(await s.counter('deflate_reserved_bytes') <= 600 << 10);
    await s.stop();
});
