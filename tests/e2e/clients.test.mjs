// Unmodified socketcluster-client, majors 15 to 20, does what its applications do with it.
import test, { before, after } from 'node:test';
import assert from 'node:assert/strict';
import { startServer, stopAll, until, sleep, isReference, slow } from '../lib/server.mjs';
import { majors, topologies, client, connected, subscribed, arrived, settled, hangUp } from './lib.mjs';

const limit = { timeout: 60000 * slow };
let shared; // of tests that want nothing special
before(async () => { shared = await startServer({ rings: 2, brokers: 2 }); }, { timeout: 60000 * slow });
after(async () => { await hangUp(); try { await shared?.stop(); } finally { await stopAll(); } });

for (const major of majors) {
    const it = (name, fn) => test(`client ${major}: ${name}`, limit, fn);
    const name = s => `${s} of ${major}`;

    it('connects, and learns its id and the ping timeout', async () => {
        const a = await connected(major, shared);
        const b = await connected(major, shared);
        assert.equal(a.state, 'open');
        assert.ok(typeof a.id === 'string' && a.id.length > 0);
        assert.notEqual(a.id, b.id);
        assert.equal(a.pingTimeout, 30000);
        assert.equal(a.authState, 'unauthenticated');
        assert.deepEqual(a.seen.errors, []);
        await hangUp(a, b);
    });

    it('a transmitted publish reaches every subscriber, the publisher too', async () => {
        const a = await connected(major, shared), b = await connected(major, shared);
        const ga = await subscribed(a, name('transmit')), gb = await subscribed(b, name('transmit'));
        await a.transmitPublish(name('transmit'), { hello: 'wörld', n: [1, -1, 1.5, null, true, []], e: {} });
        await arrived(ga, 1);
        await arrived(gb, 1);
        for (const g of [ga, gb]) assert.deepEqual([...g], [{ hello: 'wörld', n: [1, -1, 1.5, null, true, []], e: {} }]);
        await hangUp(a, b);
    });

    it('an invoked publish is acknowledged, and delivered once', async () => {
        const a = await connected(major, shared), b = await connected(major, shared);
        const gb = await subscribed(b, name('invoke'));
        await a.invokePublish(name('invoke'), 'one');
        await settled(a, name('invoke'), [gb]);
        assert.deepEqual([...gb], ['one']);
        await hangUp(a, b);
    });

    it('every kind of JSON value arrives as it was sent', async () => {
        const values = [0, -1, 1.5, 1e21, 9007199254740991, true, false, null, '', 'text', 'q"\\/\b\f\n\r\t\u0000\u2028', '😀 é \ud7ff', [], {},
            [[[]]], { '': 1, a: { b: [1, { c: null }] } }, { __proto__x: 1, constructor: 'x', toString: 1 }];
        const a = await connected(major, shared);
        const g = await subscribed(a, name('values'));
        for (const v of values) await a.invokePublish(name('values'), v);
        await arrived(g, values.length);
        assert.deepEqual([...g], values);
        await a.transmitPublish(name('values'));
        await arrived(g, values.length + 1);
        assert.equal(g[values.length], undefined);
        await hangUp(a);
    });

    it('nothing comes after unsubscribing, and subscribing again works', async () => {
        const a = await connected(major, shared), b = await connected(major, shared);
        const ga = await subscribed(a, name('leave')), gb = await subscribed(b, name('leave'));
        await b.invokePublish(name('leave'), 1);
        await arrived(ga, 1);
        a.unsubscribe(name('leave'));
        await a.invokePublish(name('other'), 'behind the unsubscribe');
        await b.invokePublish(name('leave'), 2);
        await settled(b, name('leave'), [gb]);
        assert.deepEqual([...ga], [1]);
        assert.deepEqual([...gb], [1, 2]);
        const again = await subscribed(a, name('leave'));
        await b.invokePublish(name('leave'), 3);
        await arrived(again, 1);
        assert.deepEqual([...again], [3]);
        await hangUp(a, b);
    });

    it('1000 messages arrive in order, each once', async () => {
        const a = await connected(major, shared), b = await connected(major, shared);
        const ga = await subscribed(a, name('order')), gb = await subscribed(b, name('order'));
        for (let i = 0; i < 1000; i++) a.transmitPublish(name('order'), i);
        await arrived(gb, 1000, 15000);
        await settled(a, name('order'), [ga, gb]);
        const all = Array.from({ length: 1000 }, (_, i) => i);
        assert.deepEqual([...ga], all);
        assert.deepEqual([...gb], all);
        await hangUp(a, b);
    });

    it('batches in both directions', async () => {
        const a = client(major, shared, { batchOnHandshake: true, batchOnHandshakeDuration: 300, batchInterval: 50 });
        const gots = await Promise.all(Array.from({ length: 20 }, (_, i) => subscribed(a, name(`batch ${i}`))));
        a.startBatch?.();
        for (let k = 0; k < 20; k++) for (let i = 0; i < 20; i++) a.transmitPublish(name(`batch ${i}`), k);
        a.flushBatch?.();
        await Promise.all(gots.map(g => arrived(g, 20)));
        for (const g of gots) assert.deepEqual([...g], Array.from({ length: 20 }, (_, i) => i));
        assert.deepEqual(a.seen.raws, []);
        await hangUp(a);
    });

    it('messages of 1 byte to 1 MiB', async () => {
        const a = await connected(major, shared), b = await connected(major, shared);
        const g = await subscribed(b, name('big'));
        const sizes = [1, 100, 125, 126, 127, 65000, 65535, 65536, 65537, 300000, 1048000 - 100];
        for (const n of sizes) await a.invokePublish(name('big'), 'x'.repeat(n));
        await arrived(g, sizes.length, 15000);
        assert.deepEqual(g.map(s => s.length), sizes);
        assert.ok(g.every(s => /^x+$/.test(s)));
        await hangUp(a, b);
    });

    it('channel names are any text', async () => {
        const names = ['', ' ', 'a/b:c', '#publish', '*', 'quote " back \\ slash', "it's", '日本語', '😀🎉', 'é', 'e\u0301', '\u0000', 'a\u0000b', 'tab\tline\n',
            'constructor', 'toString', 'n'.repeat(1024), '\u2028'];
        const a = await connected(major, shared), b = await connected(major, shared);
        // The client's own tables can't hold the very names its objects inherit before 20.
        for (const n of names.filter(x => !['constructor', 'toString'].includes(x))) {
            const g = await subscribed(b, n);
            await a.invokePublish(n, major);
            await arrived(g, 1);
            assert.deepEqual([...g], [major], JSON.stringify(n));
            b.unsubscribe(n);
        }
        assert.deepEqual(a.seen.errors.concat(b.seen.errors), []);
        await hangUp(a, b);
    });

    it('a call nobody serves ends by the caller\'s own timeout', async () => {
        const a = await connected(major, shared, { ackTimeout: 400 });
        await assert.rejects(a.invoke('no such procedure', { x: 1 }), e => e.name === 'TimeoutError');
        assert.equal(a.state, 'open');
        await a.transmit('no such event', 1);
        await subscribed(a, name('afterwards'));
        await hangUp(a);
    });

    it('closing says 1000 and does not come back', async () => {
        const a = await connected(major, shared);
        a.disconnect(1000, 'bye');
        await until(() => a.seen.closes.length, 'the close');
        assert.equal(a.seen.closes[0].code, 1000);
        await sleep(400);
        assert.equal(a.state, 'closed');
        await hangUp(a);
    });
}

// Tests that want a server of their own are shared by the majors: they run side by side.
const each = fn => Promise.all(majors.map(fn));

for (const [shape, [workers, of_a_worker, brokers]] of Object.entries(topologies)) {
    test(`${shape}: everybody on every ring hears everything, in order`, { ...limit, skip: isReference && 'one process' }, async () => {
        const server = await startServer({ workers, rings: of_a_worker, brokers });
        const sockets = [], rings = workers * of_a_worker;
        const busy = async () => (await server.pages('worker')).filter(p => p.counters.connections_open > 0).length;
        // The kernel draws a ring for each: that one of four gets none happens once in 250 times.
        for (let tries = 0; tries < 3 && await busy() < rings; tries++) {
            await hangUp(...sockets.splice(0));
            for (let i = 0; i < 24; i++) sockets.push(await connected(majors[i % majors.length], server));
        }
        assert.equal(await busy(), rings, 'the connections are spread over all rings');
        const names = Array.from({ length: 12 }, (_, i) => `room ${i}`);
        const gots = await Promise.all(sockets.map(s => Promise.all(names.map(n => subscribed(s, n)))));
        for (let k = 0; k < 10; k++)
            for (const [i, s] of sockets.entries()) s.transmitPublish(names[(i + k) % names.length], [i, k]);
        await Promise.all(sockets.map(s => s.invokePublish('end', 0)));
        for (const per of gots)
            for (const g of per) await arrived(g, 20, 15000);
        await sleep(100);
        for (const [c, n] of names.entries()) {
            const all = gots.map(per => JSON.stringify([...per[c]]));
            assert.equal(new Set(all).size, 1, `all subscribers of ${n} see one order`);
            const list = gots[0][c];
            assert.equal(list.length, 20);
            const last = new Map();
            for (const [i, k] of list) { assert.ok(k > (last.get(i) ?? -1), 'per publisher in order'); last.set(i, k); }
        }
        const published = await server.counter('publishes_total');
        assert.equal(published, 240 + 24);
        await hangUp(...sockets);
        await server.stop();
    });
}

test('pings: clients stay through many intervals and see no raw messages', limit, async () => {
    const server = await startServer({ settings: { 'sc.ping_interval': '200ms', 'sc.ping_timeout': `${2 * slow}s` } });
    const sockets = await each(m => connected(m, server));
    assert.ok(sockets.every(s => s.pingTimeout === 2000 * slow));
    await sleep(4500 * slow); // the ping timeout twice: that nothing happens takes that long
    for (const s of sockets) {
        assert.equal(s.state, 'open');
        assert.deepEqual(s.seen.raws, []);
        assert.deepEqual(s.seen.closes, []);
        assert.equal(s.seen.connects, 1);
    }
    await hangUp(...sockets);
    await server.stop();
});

test('pings come on busy connections too', limit, async () => {
    const server = await startServer({ settings: { 'sc.ping_interval': '200ms', 'sc.ping_timeout': `${2 * slow}s` } });
    const sockets = await each(m => connected(m, server));
    const gots = await Promise.all(sockets.map(s => subscribed(s, 'busy')));
    const end = Date.now() + 4500 * slow;
    for (let i = 0; Date.now() < end; i++) { sockets[i % 6].transmitPublish('busy', i); await sleep(5); }
    for (const s of sockets) assert.deepEqual(s.seen.closes, []);
    assert.ok(gots.every(g => g.length > 50));
    await hangUp(...sockets);
    await server.stop();
});

test('a client that does not answer pings is closed with 4001, and comes back at once', limit, async () => {
    const server = await startServer({ settings: { 'sc.ping_interval': '300ms', 'sc.ping_timeout': '1500ms' } });
    const sockets = await each(async m => {
        const s = await connected(m, server);
        // The library's pong is the only empty text it sends: it gets lost on the way.
        const ws = s.transport.socket, send = ws.send.bind(ws);
        ws.send = (d, ...rest) => { if (d !== '' && d?.length !== 0) send(d, ...rest); };
        return s;
    });
    await Promise.all(sockets.map(s => until(() => s.seen.closes.length, 'the close', 8000)));
    for (const s of sockets) assert.equal(s.seen.closes[0].code, 4001);
    await Promise.all(sockets.map(s => until(() => s.seen.connects >= 2, 'the way back', 5000)));
    await hangUp(...sockets);
    await server.stop();
});

test('after a restart of the server clients come back and hear their channels again', limit, async () => {
    const first = await startServer({ settings: { 'run.drain_timeout': '500ms' } });
    const sockets = await each(m => connected(m, first));
    const gots = await Promise.all(sockets.map(s => subscribed(s, 'again')));
    await sockets[0].invokePublish('again', 'before');
    await Promise.all(gots.map(g => arrived(g, 1)));
    await first.stop();
    await Promise.all(sockets.map(s => until(() => s.seen.closes.length, 'the close')));
    if (!isReference) for (const s of sockets) assert.equal(s.seen.closes[0].code, 1001);
    const second = await startServer({ port: first.port });
    await Promise.all(sockets.map((s, i) => until(() => s.state === 'open' && gots[i].channel.state === 'subscribed', 'the way back', 10000)));
    await sockets[5].invokePublish('again', 'after');
    await Promise.all(gots.map(g => arrived(g, 2)));
    for (const g of gots) assert.deepEqual([...g], ['before', 'after']);
    await hangUp(...sockets);
    await second.stop();
});

test('a subscription over sc.max_channels fails with the words clients know', limit, async () => {
    const server = await startServer({ settings: { 'sc.max_channels': 2 } });
    await each(async m => {
        const s = await connected(m, server);
        await subscribed(s, 'a');
        await subscribed(s, 'b');
        await assert.rejects(subscribed(s, 'c'), e => {
            assert.equal(e.name, 'BrokerError');
            assert.equal(e.message, `Failed to subscribe socket to the c channel - InvalidActionError: Socket ${s.id} tried to exceed the channel subscription limit of 2`);
            return true;
        });
        s.unsubscribe('a');
        await subscribed(s, 'c');
        await hangUp(s);
    });
    await server.stop();
});

test('a message above ws.max_message closes with 1009', limit, async () => {
    const server = await startServer({ settings: { 'ws.max_message': '64KiB' } });
    await each(async m => {
        const s = await connected(m, server);
        s.transmitPublish('x', 'y'.repeat(70000));
        await until(() => s.seen.closes.length, 'the close');
        assert.equal(s.seen.closes[0].code, 1009);
        await hangUp(s);
    });
    await server.stop();
});

test('a channel prefix and a query change nothing else', limit, async () => {
    for (const m of majors) {
        const s = await connected(m, shared, { query: { a: '1', b: ['x', 'y'], 'ü': '&=?' }, timestampRequests: true, channelPrefix: 'pre.' });
        const plain = await connected(m, shared);
        const g = await subscribed(s, `fix ${m}`), gp = await subscribed(plain, `pre.fix ${m}`);
        await s.invokePublish(`fix ${m}`, 1);
        await arrived(g, 1);
        await arrived(gp, 1);
        await hangUp(s, plain);
    }
});
