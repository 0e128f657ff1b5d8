// What happens when processes die, hang, fall behind or are overrun, under load, with real processes.
import test, { after } from 'node:test';
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { startServer, stopAll, sleep, until, slow, procStat, root } from '../lib/server.mjs';
import { Raw, dial, encodeFrame, TEXT } from '../lib/raw.mjs';
import { Load } from './load.mjs';

after(stopAll);
const limit = { timeout: 90000 * slow };
const alive = pid => { try { process.kill(pid, 0); return procStat(pid).state !== 'Z'; } catch { return false; } };
const chaos = (name, shape, fn, options) => test(`chaos: ${name}`, { ...limit, ...options }, async t => {
    const server = await startServer(shape), cleanup = [];
    try {
        await fn(server, t, cleanup);
    } catch (e) {
        e.stack += `\n---- the server's last words ----\n${server.stderr.slice(-2500)}`;
        await server.stop({ signal: 'SIGKILL', check: false });
        throw e;
    } finally {
        for (const f of cleanup) f();
    }
    await server.stop();
});
const note = (t, n) => t.diagnostic(JSON.stringify(n));

chaos('kill -9 of a worker: it is back, the others did not notice, brokers forget it', { workers: 2, rings: 1, brokers: 2 }, async (server, t) => {
    const load = await new Load(server, { subscribers: 16, publishers: 8 }).open();
    const [victim] = await server.processes('worker');
    const before = (await server.pages('worker')).find(p => p.pid === victim.pid).counters.connections_open;
    const peers = await server.counter('peers');
    load.start();
    await load.flows('before');
    process.kill(victim.pid, 'SIGKILL');
    const all = [...load.subs, ...load.pubs];
    await until(() => all.filter(x => x.c.ended).length === before, () => `the end of the victim's ${before} connections, not of ${all.filter(x => x.c.ended).length}`, 8000);
    assert.ok(before > 0 && before < all.length, 'both workers had clients');
    await until(async () => (await server.processes('worker')).some(w => w.index === victim.index && w.pid !== victim.pid), 'its successor', 8000);
    await until(async () => (await server.counter('peers')) === peers, 'the brokers to know the successor', 8000);
    const fresh = [];
    await until(async () => {
        fresh.push(await load.addSubscriber(), await load.addPublisher());
        return (await server.pages('worker')).every(p => p.counters.connections_open > before / 4 || p.counters.connections_open > 1);
    }, 'new connections on the successor', 5000);
    await load.flows('after');
    await load.stop();
    assert.equal(all.filter(x => x.c.ended).length, before, 'nobody else was ended');
    note(t, load.check());
    assert.equal(load.refusals.size, 0, 'nothing was refused');
    load.end();
    await until(async () => (await server.pages('broker')).every(p => p.counters.interests === 0), 'the brokers to forget what nobody wants', 5000);
});

chaos('kill -9 of a broker: no client is ended, subscriptions are restored, nothing is lost in silence', { workers: 2, rings: 1, brokers: 2 }, async (server, t) => {
    const load = await new Load(server).open();
    load.start();
    await load.flows('before');
    const [victim] = await server.processes('broker');
    process.kill(victim.pid, 'SIGKILL');
    const at = Date.now();
    await sleep(10);
    await load.flows('after the kill', 5000);
    t.diagnostic(`flowing again after ${Date.now() - at} ms`);
    await sleep(500);
    const s = await load.addSubscriber();
    await load.flows('with a new subscriber');
    await load.stop();
    assert.ok(s.got.size > 0);
    assert.ok([...load.subs, ...load.pubs].every(x => !x.c.ended), 'no client was ended');
    note(t, { ...load.check(), refusals: [...load.refusals] });
    load.end();
});

chaos('SIGTERM of a broker alone, as a service manager restarts it: no client is ended either', { workers: 2, rings: 1, brokers: 2 }, async (server, t) => {
    const load = await new Load(server).open();
    load.start();
    await load.flows('before');
    const [victim] = await server.processes('broker');
    process.kill(victim.pid, 'SIGTERM');
    await until(() => !alive(victim.pid), 'its end', 3000);
    await load.flows('after its end', 3000);
    await load.stop();
    assert.ok([...load.subs, ...load.pubs].every(x => !x.c.ended), 'no client was ended');
    note(t, { ...load.check(), refusals: [...load.refusals] });
    load.end();
});

chaos('kill -9 of a broker with nothing going on: its channels are heard again', { workers: 1, rings: 2, brokers: 2 }, async server => {
    const c = await dial(server.port), d = await dial(server.port), names = Array.from({ length: 40 }, (_, i) => `quiet ${i}`);
    await Promise.all(names.map(n => c.subscribe(n)));
    for (const b of await server.processes('broker')) process.kill(b.pid, 'SIGKILL');
    // Counters of the killed stay readable: what counts is that both rings have lost both and found two again.
    await until(async () => (await server.counter('lost_broker_total')) >= 4 && (await server.counter('interests').catch(() => 0)) === names.length && (await server.pages('worker')).every(p => p.counters.brokers_up === 2), 'the restored interests', 5000);
    await Promise.all(names.map(n => d.publish(n, n)));
    await c.until(() => c.messages.length === names.length, 'all of them');
    assert.deepEqual(c.messages.map(m => m[0]).sort(), [...names].sort());
    assert.equal(c.ended || d.ended, false);
    c.destroy();
    d.destroy();
});

chaos('kill -9 of a broker again and again: publishes are answered, one way or the other', { workers: 1, rings: 2, brokers: 2, settings: { 'run.backoff_max': '1s' } }, async (server, t) => {
    const load = await new Load(server, { window: 8 }).open();
    load.start();
    for (let i = 0; i < 3; i++) {
        await load.flows(`before kill ${i}`, 8000);
        const brokers = await server.processes('broker');
        process.kill(brokers[i % brokers.length].pid, 'SIGKILL');
    }
    await load.flows('after the last', 8000);
    await load.stop();
    assert.ok([...load.subs, ...load.pubs].every(x => !x.c.ended), 'no client was ended');
    note(t, { ...load.check(), refusals: [...load.refusals] });
    load.end();
});

chaos('a broker is stopped for 5 s: the other goes on, nobody is ended, then all flows again', { workers: 2, rings: 1, brokers: 2 }, async (server, t, cleanup) => {
    const load = await new Load(server).open();
    const [victim] = await server.processes('broker');
    load.start();
    await load.flows('before');
    cleanup.push(() => { try { process.kill(victim.pid, 'SIGCONT'); } catch { /* gone */ } });
    process.kill(victim.pid, 'SIGSTOP');
    const at = Date.now();
    // Publishers wait for the stopped broker one after another; one of their own asks the other broker.
    const probe = await dial(server.port), answered = new Map();
    const ask = load.channels.map(async (ch, i) => { const t0 = Date.now(); await probe.publish(ch, { id: -1 - i, pub: 'probe', seq: i }).then(() => answered.set(ch, Date.now() - t0), () => {}); });
    // Who waited for the stopped one would wait until it is given up, broker.dead_after (3 s).
    await until(() => answered.size > 0, 'an answer of the other broker', 2500 / slow);
    const [other] = answered.keys(), had = new Map(load.subs.map(s => [s, s.got.size]));
    let more = 0;
    for (; Date.now() - at < 5000; more++) {
        const t0 = Date.now();
        await probe.publish(other, { id: -t0, pub: 'probe', seq: t0 });
        assert.ok(Date.now() - t0 < 2500, 'the other broker goes on');
        await sleep(100);
    }
    assert.ok(more >= 3, `${more} messages`);
    await until(() => [...had].every(([s, n]) => s.got.size >= n + more), 'subscribers to hear the other broker', 2000);
    process.kill(victim.pid, 'SIGCONT');
    await load.flows('after it goes on', 4000);
    await Promise.all(ask);
    await load.stop();
    assert.ok([...load.subs, ...load.pubs].every(x => !x.c.ended), 'no client was ended');
    note(t, { ...load.check(), refusals: [...load.refusals] });
    load.end();
    probe.destroy();
});

for (const [ms, what] of [[1500, 'not long enough to be given up'], [5000, 'given up, and taken back']])
    chaos(`a worker is stopped for ${ms} ms (${what}): the others go on, its clients have no silent gap`,
        { workers: 2, rings: 1, brokers: 2, settings: { 'broker.dead_after': ms > 3000 ? '2s' : '10s' } }, async (server, t, cleanup) => {
        const load = await new Load(server, { subscribers: 16, publishers: 8 }).open();
        const [victim] = await server.processes('worker');
        load.start();
        await load.flows('before');
        cleanup.push(() => { try { process.kill(victim.pid, 'SIGCONT'); } catch { /* gone */ } });
        process.kill(victim.pid, 'SIGSTOP');
        const at = Date.now();
        await sleep(ms); // how long it stands still is the scene
        const latest = s => Math.max(...s.got.values()); // when it came
        const going = load.subs.filter(s => latest(s) > at + ms / 2);
        assert.ok(going.length > 0 && going.length < load.subs.length, `${going.length} of ${load.subs.length} hear more: those of the other worker`);
        assert.ok(load.livingSubs().length === load.subs.length, 'nobody was ended meanwhile');
        process.kill(victim.pid, 'SIGCONT');
        await load.flows('after it goes on', 5000);
        await sleep(500);
        await load.stop();
        assert.ok(going.every(s => !s.c.ended), 'clients of the other worker stay');
        // A worker that was given up missed messages: those it held hear so, by their end (CLOSE_MISSED).
        const ended = load.subs.filter(s => s.c.ended).map(s => s.c.closeCode);
        assert.deepEqual(ended, ms > 3000 ? ended.map(() => 1013) : []);
        assert.equal(ended.length > 0, ms > 3000);
        note(t, { ...load.check(), ended });
        load.end();
    });

chaos('a client process is stopped: it is closed with 1013, its worker stays small, the others get all', { workers: 1, rings: 1, brokers: 1, settings: { 'out.queue_bytes': '512KiB' } }, async (server, t, cleanup) => {
    const child = spawn(process.execPath, ['--input-type=module', '-e', `
        import { dial } from '${root}/tests/lib/raw.mjs';
        const c = await dial(${server.port}, { keep: false });
        for (let i = 0; i < 12; i++) await c.subscribe('chaos ' + i);
        c.onClose = () => { console.log('closed', c.closeCode); process.exit(0); };
        console.log('ready');`], { stdio: ['ignore', 'pipe', 'inherit'] });
    cleanup.push(() => child.kill('SIGKILL'));
    let out = '';
    child.stdout.on('data', d => { out += d; });
    await until(() => out.includes('ready'), 'the client process');
    const load = await new Load(server, { pad: 20000, window: 16, pause: 1, ahead: 20 }).open();
    const [worker] = await server.processes('worker');
    child.kill('SIGSTOP');
    load.start();
    await until(async () => (await server.counter('close_slow_queue')) >= 1, 'the end of the slow one', 20000);
    await load.flows('after');
    await load.stop();
    const { rss } = procStat(worker.pid);
    const grown = procStat(worker.pid).rss;
    assert.ok(slow > 1 || grown < 200 << 20, `the worker holds ${rss >> 20} MiB`);
    child.kill('SIGCONT');
    await once(child, 'exit');
    note(t, { ...load.check(), slowClient: out.trim().split('\n').pop(), dropped: await server.counter('dropped_slow_total') });
    assert.match(out, /closed (1013|null)/);
    assert.equal(await server.counter('close_slow_queue'), 1);
    assert.equal(load.livingSubs().length, load.subs.length, 'nobody else was ended');
    load.end();
});

chaos('a storm of connections at conn.max: 503, those inside stay, all is given back', { workers: 1, rings: 2, brokers: 1, settings: { 'conn.max': 120, 'conn.max_unshaken': 120 } }, async (server, t) => {
    const load = await new Load(server, { subscribers: 6, publishers: 3 }).open();
    const [worker] = await server.processes('worker');
    const fds = procStat(worker.pid).fds;
    load.start();
    const seen = {};
    for (let round = 0; round < 4; round++) {
        const storm = await Promise.allSettled(Array.from({ length: 250 }, async (_, i) => {
            const c = new Raw();
            try {
                await c.open(server.port);
                if (i % 3 === 0) await c.handshake();
                if (i % 6 === 0) await c.subscribe('storm');
                return c;
            } catch (e) { c.destroy(); throw e; }
        }));
        for (const s of storm) { const k = s.status === 'fulfilled' ? 'in' : s.reason.status ?? 'reset'; seen[k] = (seen[k] ?? 0) + 1; }
        for (const s of storm) if (s.status === 'fulfilled') s.value.destroy();
        await until(async () => (await server.counter('connections')) <= 9 + 2, 'the storm to be over', 5000);
    }
    assert.ok(seen.in > 100 && seen[503] > 100, JSON.stringify(seen));
    await load.flows('after');
    await load.stop();
    assert.equal([...load.subs, ...load.pubs].filter(x => x.c.ended).length, 0, 'those inside stay');
    await until(() => procStat(worker.pid).fds <= fds, () => `descriptors: ${procStat(worker.pid).fds}, before ${fds}`, 3000);
    note(t, { ...load.check(), seen });
    load.end();
});

chaos('a flood of broken frames and hang-ups beside the load costs nobody else anything', { workers: 1, rings: 1, brokers: 1 }, async (server, t) => {
    const load = await new Load(server, { subscribers: 6, publishers: 3 }).open();
    load.start();
    const rnd = n => Math.floor(Math.random() * n);
    for (let i = 0; i < 400; i++) {
        const c = new Raw();
        c.input = () => {};
        await c.open(server.port, { upgrade: i % 3 !== 0 }).catch(() => {});
        const noise = Buffer.from(Array.from({ length: rnd(200) }, () => rnd(256)));
        c.bytes(i % 3 === 1 ? noise : i % 3 === 2 ? encodeFrame(TEXT, `{"event":"#handshake","data":{},"cid":1}`) : 'GET /socketcluster/ HTTP/1.1\r\nHost: x\r\n');
        if (i % 3 === 2) c.bytes(encodeFrame(1 + rnd(15), noise, { fin: rnd(2) === 1, rsv: rnd(4) === 0 ? rnd(8) : 0 }));
        if (rnd(2)) c.socket.resetAndDestroy(); else setTimeout(() => c.destroy(), rnd(50));
    }
    await load.flows('after');
    await load.stop();
    assert.ok(load.slowest() < 3000 * slow, `no ack took longer than 3 s: ${load.slowest()} ms`);
    assert.equal([...load.subs, ...load.pubs].filter(x => x.c.ended).length, 0);
    note(t, { ...load.check(), slowest: load.slowest() });
    load.end();
    await until(async () => (await server.counter('connections')) === 0, 'all to be gone', 5000);
});

test('chaos: SIGTERM under load: everybody hears 1001, nothing stays behind', limit, async t => {
    const server = await startServer({ workers: 2, rings: 1, brokers: 2, settings: { 'run.drain_timeout': '2s' } });
    const load = await new Load(server).open();
    load.start();
    await load.flows('before');
    const pids = [...await server.processes('worker'), ...await server.processes('broker')].map(p => p.pid);
    const at = Date.now();
    await server.stop({ ms: 6000 });
    load.running = false;
    await until(() => [...load.subs, ...load.pubs].every(x => x.c.ended), 'the end of all');
    const codes = [...load.subs, ...load.pubs].map(x => x.c.closeCode);
    assert.deepEqual([...new Set(codes)], [1001]);
    assert.deepEqual(pids.filter(alive), []);
    note(t, { ms: Date.now() - at });
});

test('chaos: kill -9 of `ringcast run`: its children leave, and a new one can begin', limit, async () => {
    const server = await startServer({ workers: 2, rings: 1, brokers: 2, settings: { 'run.drain_timeout': '500ms' } });
    const c = await dial(server.port);
    const pids = [...await server.processes('worker'), ...await server.processes('broker')].map(p => p.pid);
    process.kill(server.pid, 'SIGKILL');
    await until(() => pids.every(p => !alive(p)), () => `the end of ${pids.filter(alive)}`, 8000);
    await c.closed;
    assert.ok([1001, null].includes(c.closeCode));
    const again = await startServer({ port: server.port, runDir: server.runDir });
    await (await dial(again.port)).end();
    await again.stop();
    await server.stop({ signal: 'SIGKILL' });
});

test('chaos: kill -9 of `ringcast run` whose clients take their time to go: a new one begins beside what is left, and takes over', limit, async () => {
    const settings = { 'run.drain_timeout': '6s', 'ws.close_timeout': '20s' };
    const server = await startServer({ workers: 2, rings: 1, brokers: 2, settings });
    const mute = await dial(server.port);
    await mute.subscribe('left');
    mute.socket.pause(); // it hears no Close
    const left = (await server.processes('broker')).map(p => p.pid);
    process.kill(server.pid, 'SIGKILL');
    const began = startServer({ workers: 2, rings: 1, brokers: 2, settings, port: server.port, runDir: server.runDir });
    // The old brokers serve the new workers' clients until they go; nobody is ended by that.
    const c = await until(() => dial(server.port).catch(() => null), 'a new worker', 3000), d = await dial(server.port);
    const names = Array.from({ length: 8 }, (_, i) => `early ${i}`);
    await Promise.all(names.map(n => c.subscribe(n)));
    await Promise.all(names.map(n => d.publish(n, 1)));
    assert.ok(left.every(alive), 'beside what is left');
    const again = await began;
    assert.match(again.stderr, /broker\.[01] place-taken socket=/);
    assert.doesNotMatch(again.stderr, /child-died/);
    await until(() => !left.some(alive), () => `the end of ${left.filter(alive)}`, 8000);
    await until(() => Promise.all(names.map(n => d.publish(n, 2))).then(() => true, () => false), 'its own brokers', 3000);
    await until(() => c.messages.filter(m => m[1] === 2).length >= names.length, 'what they carry');
    assert.equal(c.ended || d.ended, false);
    mute.destroy();
    c.destroy();
    d.destroy();
    await again.stop();
    await server.stop({ signal: 'SIGKILL' });
});
