// Bounds and bad manners over a bare socket: the close codes and errors that clients know.
import test, { before, after } from 'node:test';
import assert from 'node:assert/strict';
import { startServer, stopAll, until, sleep, isReference, slow } from '../lib/server.mjs';
import { Raw, dial, encodeFrame, TEXT, BINARY } from '../lib/raw.mjs';
import { connected, subscribed, hangUp } from './lib.mjs';

const limit = { timeout: 60000 * slow };
const ours = { ...limit, skip: isReference && 'the reference has no such bound' };
let server;
before(async () => { server = await startServer({ rings: 2, brokers: 2, settings: { 'ws.max_message': '256KiB' } }); }, { timeout: 60000 * slow });
after(async () => { await hangUp(); try { await server?.stop(); } finally { await stopAll(); } });

const refused = (promise, name, message) => assert.rejects(promise, e => {
    assert.equal(e.message, message);
    assert.equal(e.name, name);
    return true;
});
const closes = async (c, code) => { await c.closed; assert.equal(c.closeCode, code); };

// ---- before the handshake ----
for (const [what, frame] of Object.entries({
    'an event': encodeFrame(TEXT, '{"event":"echo","data":1}'), 'a call': encodeFrame(TEXT, '{"event":"echo","data":1,"cid":1}'),
    'a pong': encodeFrame(TEXT, ''), 'noise': encodeFrame(TEXT, 'hello'), 'a subscribe': encodeFrame(TEXT, '{"event":"#subscribe","data":{"channel":"a"},"cid":1}'),
    'an answer': encodeFrame(TEXT, '{"rid":1}'), 'a batch that begins with something else': encodeFrame(TEXT, '[{"event":"x"},{"event":"#handshake","data":{},"cid":1}]'),
}))
    test(`4009: ${what} before the handshake`, limit, async () => {
        const c = await new Raw().open(server.port);
        c.bytes(frame);
        await closes(c, 4009);
        assert.equal(c.frames.filter(f => f.op === TEXT).length, 0);
    });
test('4008: a handshake without a numeric cid', limit, async () => {
    for (const packet of ['{"event":"#handshake","data":{}}', '{"event":"#handshake","data":{},"cid":"1"}', '{"event":"#handshake","data":{},"cid":null}']) {
        const c = await new Raw().open(server.port);
        c.text(packet);
        await closes(c, 4008);
    }
});
test('4008: #authenticate without a cid', limit, async () => {
    const c = await dial(server.port);
    c.text('{"event":"#authenticate","data":"x"}');
    await closes(c, 4008);
});
test('4005: no handshake in time; a batch with nothing in it changes nothing', limit, async () => {
    const s = await startServer({ settings: { 'sc.handshake_timeout': '400ms' } });
    const c = await new Raw().open(s.port), d = await new Raw().open(s.port);
    const began = Date.now();
    d.text('[]');
    await Promise.all([closes(c, 4005), closes(d, 4005)]);
    assert.ok(Date.now() - began >= 300);
    const e = await dial(s.port);
    await sleep(800);
    assert.equal(e.ended, false);
    await e.end();
    await s.stop();
});
test('4001: a client that says nothing; one that talks stays', limit, async () => {
    const s = await startServer({ settings: { 'sc.ping_interval': '500ms', 'sc.ping_timeout': '2s' } });
    const mute = await dial(s.port), talker = await dial(s.port);
    mute.autoPong = talker.autoPong = false;
    const timer = setInterval(() => talker.text('{"event":"x"}'), 100);
    await closes(mute, 4001);
    await sleep(2500); // longer than the ping timeout again
    assert.equal(talker.ended, isReference ? talker.ended : false);
    clearInterval(timer);
    talker.destroy();
    await s.stop();
});
test('handshake: any cid is echoed, a second one gets the same id, cids do not begin at 1', limit, async () => {
    for (const cid of [0, -1, 8, 1.5, 4294967296]) {
        const c = await new Raw().open(server.port);
        c.text(`{"event":"#handshake","data":{"authToken":null},"cid":${cid}}`);
        await c.until(() => c.frames.length, 'the answer');
        const answer = JSON.parse(c.frames[0].payload);
        assert.equal(answer.rid, cid);
        assert.deepEqual(Object.keys(answer.data).sort(), ['id', 'isAuthenticated', 'pingTimeout']);
        c.cid = 100;
        assert.equal((await c.handshake()).id, answer.data.id);
        c.destroy();
    }
});
test('handshake: a token nobody can check is refused softly, and told to be forgotten', ours, async () => {
    const c = await new Raw().open(server.port);
    c.text('{"event":"#handshake","data":{"authToken":"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJ1c2VybmFtZSI6ImFsaWNlIn0.AAAA"},"cid":1}');
    await c.until(() => c.frames.length === 2, 'both packets');
    const { data } = JSON.parse(c.frames[0].payload);
    assert.equal(data.isAuthenticated, false);
    assert.equal(data.authError.name, 'AuthTokenInvalidError');
    assert.equal(data.authError.isBadToken, true);
    assert.equal(String(c.frames[1].payload), '{"event":"#removeAuthToken"}');
    assert.equal(await c.subscribe('a'), undefined);
    c.destroy();
});

// ---- errors with their words ----
test('errors: malformed channel names', limit, async () => {
    const c = await dial(server.port);
    for (const data of [{}, { channel: 5 }, { channel: null }, { channel: ['a'] }, 'bare', 7, null])
        await refused(c.call('#subscribe', data), 'InvalidActionError', 'Subscribe channel name was malformatted');
    for (const data of [{}, { channel: 5 }, { channel: {} }, 'bare', 7])
        await refused(c.call('#publish', data), 'InvalidActionError', 'Publish channel name was malformatted');
    for (const data of [5, true, ['a']])
        await refused(c.call('#unsubscribe', data), 'InvalidActionError', 'Unsubscribe channel name was malformatted');
    await c.subscribe('still works');
    c.destroy();
});
test('errors: channel names over sc.max_channel_name, in bytes of UTF-8', ours, async () => {
    const c = await dial(server.port);
    await c.subscribe('n'.repeat(1024));
    await c.subscribe('é'.repeat(512));
    await refused(c.subscribe('n'.repeat(1025)), 'InvalidActionError', 'Subscribe channel name was malformatted');
    await refused(c.subscribe('é'.repeat(513)), 'InvalidActionError', 'Subscribe channel name was malformatted');
    await refused(c.publish('n'.repeat(1025), 1), 'InvalidActionError', 'Publish channel name was malformatted');
    await refused(c.unsubscribe('n'.repeat(1025)), 'InvalidActionError', 'Unsubscribe channel name was malformatted');
    c.text('{"event":"#subscribe","data":{"channel":"\\ud800"},"cid":900}');
    await c.until(() => c.frames.some(f => String(f.payload).startsWith('{"rid":900,"error":{"message":"Subscribe channel name')), 'the error');
    c.destroy();
});
test('errors: unsubscribing from what one does not hear', limit, async () => {
    const c = await dial(server.port);
    for (const name of ['nope', '', 'quote " \\', '日本'])
        await refused(c.unsubscribe(name), 'BrokerError',
            `Failed to unsubscribe socket from the ${name} channel - InvalidActionError: Socket ${c.id} tried to unsubscribe from a channel which it is not subscribed to`);
    c.destroy();
});
test('errors: sc.unserved=error, sc.client_publish=off', ours, async () => {
    const s = await startServer({ settings: { 'sc.unserved': 'error', 'sc.client_publish': 'off' } });
    const c = await dial(s.port);
    await refused(c.call('login', {}), 'InvalidActionError', 'No procedure of that name is served');
    await refused(c.publish('a', 1), 'InvalidActionError', 'Client publish feature is disabled');
    c.destroy();
    await s.stop();
});
test('errors: JSON nested too deeply', ours, async () => {
    const c = await dial(server.port);
    const deep = n => '['.repeat(n) + ']'.repeat(n);
    await c.subscribe('deep');
    c.text(`{"event":"#publish","data":{"channel":"deep","data":${deep(120)}},"cid":50}`);
    c.text(`{"event":"#publish","data":{"channel":"deep","data":${deep(200)}},"cid":51}`);
    await c.until(() => c.frames.some(f => String(f.payload).startsWith('{"rid":51')), 'the answer');
    assert.match(String(c.frames.find(f => String(f.payload).startsWith('{"rid":51')).payload), /"name":"InvalidActionError"/);
    await c.until(() => c.messages.length === 1, 'the shallower one');
    c.text(deep(100000));
    await c.subscribe('alive');
    c.destroy();
});

test('errors: sc.max_depth and sc.max_event_name are what the settings say', ours, async () => {
    const s = await startServer({ settings: { 'sc.max_depth': 5, 'sc.max_event_name': 10 } });
    const c = await dial(s.port);
    await c.publish('a', [[1]]);
    await refused(c.publish('a', [[[[[1]]]]]), 'InvalidActionError', 'Packet was nested too deeply');
    await refused(c.call('elevenchars', 1), 'InvalidActionError', 'Event name was malformatted');
    await c.publish('a', 1);
    c.destroy();
    await s.stop();
});
test('sc.strict_handshake=off: what comes before the handshake is served, but no subscribe', ours, async () => {
    const s = await startServer({ settings: { 'sc.strict_handshake': 'off' } });
    const c = await new Raw().open(s.port), d = await dial(s.port);
    await d.subscribe('early');
    await c.publish('early', 1);
    await d.until(() => d.messages.length === 1, 'the message');
    await refused(c.subscribe('early'), 'InvalidActionError', 'Cannot subscribe socket to a channel before it has completed the handshake');
    await c.handshake();
    await c.subscribe('early');
    c.destroy();
    d.destroy();
    await s.stop();
});

// ---- names and data ----
test('names: __proto__ and its like are plain names, spelled any way', limit, async () => {
    const c = await dial(server.port);
    for (const name of ['__proto__', 'constructor', 'hasOwnProperty', 'toString', '', '\u0000', 'a\u0000', '"', '\\', '\u{1F600}']) {
        await c.subscribe(name);
        const escaped = [...name].flatMap(ch => ch.split('')).map(u => '\\u' + u.charCodeAt(0).toString(16).padStart(4, '0')).join('');
        c.text(`{"event":"\\u0023publish","data":{"channel":"${escaped}","data":"x"}}`);
        await c.until(() => c.messages.length === 1, name);
        assert.deepEqual(c.messages, [[name, 'x']]);
        c.messages.length = 0;
        await c.unsubscribe(name);
    }
    c.destroy();
});
test('data: what is forwarded is the bytes that were sent', ours, async () => {
    const c = await dial(server.port);
    await c.subscribe('bytes');
    for (const data of ['1.0', '12345678901234567890123', '"\\u00e9\\/"', '{"a":1,"a":2}', '[ 1 ,\t2 ]', '"\\ud800"', '-0', '1E5']) {
        const n = c.frames.length;
        c.text(`{"event":"#publish","data":{"channel":"bytes","data":${data},"more":1},"other":2}`);
        await c.until(() => c.frames.length > n, data);
        assert.equal(String(c.frames[n].payload), `{"event":"#publish","data":{"channel":"bytes","data":${data}}}`);
    }
    c.destroy();
});
test('data: what is not JSON never leaves', limit, async () => {
    const c = await dial(server.port), d = await dial(server.port);
    await c.subscribe('noise');
    for (const bad of ['01', '1.', '+1', "'a'", '{a:1}', '[1,]', '"\\x"', 'NaN', '1e', '"\t"', 'tru', '{"a"}', '']) d.text(`{"event":"#publish","data":{"channel":"noise","data":${bad}}}`);
    d.text('{"event":"#publish","data":{"channel":"noise","data":1}} {}');
    await d.publish('noise', 'good');
    await c.until(() => c.messages.length, 'the good one');
    assert.deepEqual(c.messages, [['noise', 'good']]);
    assert.equal(d.ended, false);
    c.destroy();
    d.destroy();
});
test('subscribe without a cid subscribes to nothing; twice is once', limit, async () => {
    const c = await dial(server.port);
    c.packetOut({ event: '#subscribe', data: { channel: 'quiet' } });
    await c.subscribe('loud');
    await c.subscribe('loud');
    await c.publish('quiet', 1);
    await c.publish('loud', 2);
    await c.until(() => c.messages.length >= 1, 'the message');
    await sleep(100);
    assert.deepEqual(c.messages, [['loud', 2]]);
    c.destroy();
});
test('subscribe and publish in one write deliver to the sender', limit, async () => {
    const c = await dial(server.port);
    c.bytes(Buffer.concat([encodeFrame(TEXT, '{"event":"#subscribe","data":{"channel":"pipe"},"cid":10}'),
        encodeFrame(TEXT, '{"event":"#publish","data":{"channel":"pipe","data":1}}'), encodeFrame(TEXT, '{"event":"#unsubscribe","data":"pipe","cid":11}'),
        encodeFrame(TEXT, '{"event":"#publish","data":{"channel":"pipe","data":2},"cid":12}')]));
    await c.until(() => c.frames.some(f => String(f.payload) === '{"rid":12}'), 'the last answer');
    await sleep(50);
    assert.deepEqual(c.messages, [['pipe', 1]]);
    c.destroy();
});
test('batches: handled in order, nested ones ignored, no arrays to who sent none', limit, async () => {
    const c = await dial(server.port), d = await dial(server.port);
    await c.subscribe('b');
    d.text(JSON.stringify([...Array.from({ length: 100 }, (_, i) => ({ event: '#publish', data: { channel: 'b', data: i } })), [{ event: '#publish', data: { channel: 'b', data: 'nested' } }], 5, null,
        { event: '#publish', data: { channel: 'b', data: 'last' }, cid: 40 }]));
    await c.until(() => c.messages.length >= 101, 'the messages');
    assert.deepEqual(c.messages.map(m => m[1]), [...Array(100).keys(), 'last']);
    assert.ok(c.frames.every(f => !String(f.payload).startsWith('[')));
    c.destroy();
    d.destroy();
});

// ---- bounds of messages and connections ----
test('1008: a batch over sc.max_batch', ours, async () => {
    const c = await dial(server.port);
    c.text(JSON.stringify(Array(8193).fill(0)));
    await closes(c, 1008);
    assert.equal(await server.counter('close_batch_too_long'), 1);
});
test('1009: announced is enough', limit, async () => {
    const c = await dial(server.port);
    c.bytes(Buffer.from([0x81, 0xff, 0, 0, 0, 0, 0x40, 0, 0, 0, 1, 2, 3, 4]));
    await closes(c, 1009);
});
test('1009: sooner before the handshake', ours, async () => {
    const c = await new Raw().open(server.port);
    c.bytes(encodeFrame(TEXT, ' '.repeat(65537)).subarray(0, 100));
    await closes(c, 1009);
});
test('1007: text that is not UTF-8', limit, async () => {
    const c = await dial(server.port);
    c.bytes(encodeFrame(TEXT, Buffer.from([0x22, 0xff, 0xfe, 0x22])));
    await closes(c, 1007);
});
test('1002: a frame that is not masked', limit, async () => {
    const c = await dial(server.port);
    c.bytes(encodeFrame(TEXT, '{}', { mask: false }));
    await closes(c, 1002);
});
test('a close is answered with its code, then TCP ends', limit, async () => {
    const c = await dial(server.port);
    c.sentClose = true;
    c.bytes(encodeFrame(8, Buffer.concat([Buffer.from([0x11, 0x94]), Buffer.from('tschüß')])));
    await closes(c, 4500);
});
test('1013: a reader that does not keep up is ended; the others get everything', ours, async () => {
    const s = await startServer({ settings: { 'out.queue_bytes': '256KiB', 'out.stall': '20s' } });
    const stuck = await dial(s.port, { keep: false }), good = await dial(s.port, { keep: false }), from = await dial(s.port);
    await stuck.subscribe('flood');
    await good.subscribe('flood');
    let got = 0;
    good.onMessage = (_, d) => { assert.equal(d.n, got++); };
    stuck.socket.pause();
    const pad = 'x'.repeat(8000);
    let sent = 0;
    while (await s.counter('close_slow_queue') === 0) {
        assert.ok(sent < 20000, 'it ends some time');
        for (let i = 0; i < 100; i++) await from.publish('flood', { n: sent++, pad });
    }
    assert.equal(await s.counter('close_slow_queue'), 1);
    await good.until(() => got === sent, 'everything');
    assert.ok(await s.counter('dropped_slow_total') > 0);
    stuck.socket.resume();
    await stuck.closed;
    assert.ok([1013, null].includes(stuck.closeCode), `1013 or cut off, not ${stuck.closeCode}`);
    good.destroy();
    from.destroy();
    await s.stop();
});
test('1013: a reader that takes nothing for out.stall', ours, async () => {
    const s = await startServer({ settings: { 'out.queue_bytes': '64MiB', 'out.stall': '500ms', 'lane.bytes': '4MiB' } });
    const stuck = await dial(s.port, { keep: false }), from = await dial(s.port);
    await stuck.subscribe('flood');
    stuck.socket.pause();
    const pad = 'x'.repeat(100000);
    for (let i = 0; i < 120; i++) await from.publish('flood', pad);
    await until(async () => await s.counter('close_slow_stall') === 1, 'the end of the stuck one', 10000);
    assert.equal(from.ended, false);
    stuck.destroy();
    from.destroy();
    await s.stop();
});
test('503: above conn.max; those who are in stay, and room is given again', ours, async () => {
    const s = await startServer({ settings: { 'conn.max': 20 } });
    const held = [];
    for (let i = 0; i < 20; i++) held.push(await dial(s.port));
    await assert.rejects(new Raw().open(s.port), e => e.status === 503 && /Retry-After/i.test(e.head));
    assert.ok(await s.counter('refused_connections_total') >= 1);
    assert.equal(await s.counter('close_conn_limit'), await s.counter('refused_connections_total'));
    await held[0].subscribe('a');
    await held[1].publish('a', 1);
    await held[0].until(() => held[0].messages.length === 1, 'a message');
    await held.pop().end();
    await until(async () => { try { held.push(await dial(s.port)); return true; } catch { return false; } }, 'room');
    for (const c of held) c.destroy();
    await s.stop();
});
test('the oldest unshaken connection gives way above conn.max_unshaken', ours, async () => {
    const s = await startServer({ settings: { 'conn.max_unshaken': 5 } });
    const good = await dial(s.port);
    const idle = [];
    for (let i = 0; i < 6; i++) { idle.push(await new Raw().open(s.port)); await sleep(20); }
    await until(() => idle[0].ended, 'the end of the oldest');
    assert.equal(await s.counter('close_unshaken'), 1);
    assert.equal(idle[5].ended, false);
    await idle[5].handshake();
    assert.equal(good.ended, false);
    for (const c of [...idle, good]) c.destroy();
    await s.stop();
});
test('sc.max_channels: the limit, again after an unsubscribe, and for a thousand', limit, async () => {
    const s = await startServer({ settings: { 'sc.max_channels': 1000 } });
    const c = await dial(s.port);
    await Promise.all(Array.from({ length: 1000 }, (_, i) => c.subscribe(`c${i}`)));
    await refused(c.subscribe('one more'), 'BrokerError', `Failed to subscribe socket to the one more channel - InvalidActionError: Socket ${c.id} tried to exceed the channel subscription limit of 1000`);
    await c.unsubscribe('c500');
    await c.subscribe('one more');
    await c.publish('one more', 1);
    await c.until(() => c.messages.length === 1, 'the message');
    c.destroy();
    if (!isReference) {
        await until(async () => (await s.counter('subscriptions')) === 0, 'all to be forgotten');
        await until(async () => (await s.pages('broker')).every(p => p.counters.channels === 0), 'the broker to forget');
    }
    await s.stop();
});
test('SIGTERM: clients hear 1001, and the exit status is 0', ours, async () => {
    const s = await startServer({ workers: 2, rings: 2, settings: { 'run.drain_timeout': '1s' } });
    const all = [];
    for (let i = 0; i < 10; i++) all.push(await dial(s.port));
    await s.stop();
    for (const c of all) { await c.closed; assert.equal(c.closeCode, 1001); }
});
