// What an outage may cost: memory while Redis is away, stopped or slow and clients publish as fast as they can; messages when all
// come back; time when a host is to stop meanwhile.
import { after } from 'node:test';
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { stopAll, sleep, until, slow } from '../lib/server.mjs';
import { hosts, scene } from './world.mjs';
import { throttled } from './redis.mjs';

after(stopAll);
const MiB = 1 << 20, queue = 1 * MiB;
// Of a broker, beside redis.out_queue: 1 MiB under way, for a moment thrice (docs/ops/redis.md), and what numbers, answers and
// the C library take. A worker has nothing that waits for Redis.
const margin = { broker: 3 * MiB, worker: 6 * MiB };
const settings = { 'redis.timeout': '1500ms', 'redis.connect_timeout': '1500ms', 'redis.ping_interval': '500ms', 'redis.backoff_max': '2s',
    'redis.out_queue': '1MiB', 'broker.dead_after': '10s', 'bus.stop_wait': '4s', 'run.drain_timeout': '20s' };
const channels = 4, flood = { count: 250, burst: true, pad: 24000 }; // on each channel: 24 MB of a host

/** Bytes that a process has for itself. */
const own = pid => [...readFileSync(`/proc/${pid}/smaps_rollup`, 'latin1').matchAll(/^Private_\w+: *(\d+) kB/gm)].reduce((n, m) => n + Number(m[1]), 0) * 1024;

/** How much more than before each process of ours had for itself at any time of `fn`, in MiB, the largest of each kind; too much fails. */
async function bounded(w, fn) {
    const all = [];
    for (const h of w.hosts) for (const kind of ['broker', 'worker']) for (const { pid } of await h.server.processes(kind)) all.push({ host: h.name, kind, pid, before: own(pid), most: 0 });
    const look = () => { for (const p of all) p.most = Math.max(p.most, own(p.pid) - p.before); };
    const timer = setInterval(look, 30);
    let said;
    try { said = await fn(); } finally { clearInterval(timer); }
    look();
    const grown = {};
    for (const p of all) {
        grown[p.kind] = Math.max(grown[p.kind] ?? 0, Math.round(p.most / MiB * 10) / 10);
        const most = margin[p.kind] + (p.kind === 'broker' ? queue : 0);
        if (slow === 1) assert.ok(p.most <= most, `the ${p.kind} of ${p.host} took ${p.most} bytes more, ${most} are expected at most`); // sanitizers keep what is freed
    }
    return { grown, ...said };
}
const sum = async (w, name) => (await Promise.all(w.hosts.map(h => h.counter(name)))).reduce((a, b) => a + b);

// The first host has the slow way, the second refuses what it can't give away.
hosts('outages of a Redis', throttled, settings, async (w, t) => {
    const [redis] = w.redis.servers, [one, two, three] = w.hosts;
    await w.crowd({ channels, subs: 1 });
    const much = list => Promise.all(list.flatMap(h => w.channels.map(ch => h.publish(h.pubs[0], ch, flood))));
    /** What waits is many times what may. */
    const outage = (hurt, refuses = 1) => bounded(w, () => w.through(async () => {
        const before = w.ledger.counts.refused, dropped = await sum(w, 'redis_dropped_total');
        await hurt();
        const said = { dropped: await sum(w, 'redis_dropped_total') - dropped, refused: w.ledger.counts.refused - before };
        assert.ok(said.dropped > 500, `${said.dropped} gave way`);
        assert.ok(said.refused >= refuses, `${said.refused} were refused`);
        return { gave_way: said.dropped };
    }));

    await scene(t, w, 'all come back, each in its time: what was published meanwhile is heard by all', async () => {
        await redis.kill();
        await until(async () => (await Promise.all(w.hosts.map(h => h.brokers('bus_state')))).every(l => l.every(s => s === 1)), 'all to notice');
        for (const h of [one, three]) for (const ch of w.channels) await h.publish(h.pubs[0], ch, { count: 30, pad: 200 });
        assert.equal(await one.counter('bus_waiting'), 30 * w.channels.length);
        await sleep(2000); // pauses between tries are up to a second by now
        await redis.start();
        await w.up();
        const said = await w.settle();
        assert.equal(said.told, 0, 'nobody was too late');
        assert.equal(await sum(w, 'bus_waiting'), 0);
        return { replays: w.hosts.map(h => [...h.server.stderr.matchAll(/redis-replay .*? (messages=\d+ others=\w+)/g)].map(m => m[1])), ...said };
    });
    await scene(t, w, 'Redis is stopped while clients publish as fast as they can', () => outage(async () => {
        redis.stop();
        await Promise.all([much(w.hosts), sleep(2000)]);
        redis.go();
    }));
    await scene(t, w, 'Redis is killed while clients publish as fast as they can', () => outage(async () => {
        await redis.kill();
        await much(w.hosts);
        await redis.start();
    }));
    await scene(t, w, 'Redis is slow for one host while its clients publish as fast as they can', () => outage(async () => {
        await w.redis.slow(30000);
        await Promise.all([much([one]), sleep(2000)]);
        await w.redis.slow(0);
    }, 0));
    // Who lost its connection, on a machine with much else to do, has begun its count anew.
    await scene(t, w, 'brokers, rings and clients agree on what was missed', () => w.ledger.counts.ended > 0 ? 'not compared' : w.counters());
    await scene(t, w, 'a host is stopped while Redis is away: it waits bus.stop_wait, and says what it gives up', async () => {
        const leave = async host => { const from = Date.now(); await w.leave(host); return Date.now() - from; };
        await redis.kill();
        await w.noticed([two, one]);
        for (const ch of w.channels) await one.publish(one.pubs[0], ch, { count: 5 });
        const waiting = (await one.brokers('bus_waiting')).filter(n => n > 0);
        assert.equal(waiting.reduce((a, b) => a + b), 5 * w.channels.length);
        const ms = { gives_up: await leave(one) };
        assert.deepEqual([...one.server.stderr.matchAll(/bus-given-up messages=(\d+) /g)].map(m => Number(m[1])).sort(), waiting.sort());
        assert.match(one.server.stderr, /stopped forced=no/);
        assert.ok(ms.gives_up >= 3900 && ms.gives_up < 10000 * slow, `${ms.gives_up} ms: bus.stop_wait, and not run.drain_timeout`);
        ms.has_nothing = await leave(two);
        assert.doesNotMatch(two.server.stderr, /bus-given-up/);
        assert.ok(ms.has_nothing < 3900, `${ms.has_nothing} ms: nothing waits there`);
        // Redis is back in time for the third, which asks it after a pause of at most two seconds.
        for (const ch of w.channels) await three.publish(three.pubs[0], ch, { count: 5 });
        const going = leave(three);
        await redis.start();
        ms.in_time = await going;
        assert.doesNotMatch(three.server.stderr, /bus-given-up/);
        return ms;
    });
}, { each: ({ slowUrl }) => [{ 'redis.url': slowUrl }, { 'redis.required': 'on' }, { 'bus.stop_wait': '15s' }] });
