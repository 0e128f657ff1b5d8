// Three hosts over one plain Redis, with the bus's order and its word for each publish; and what is not ours on it.
import { after } from 'node:test';
import assert from 'node:assert/strict';
import { stopAll, until } from '../lib/server.mjs';
import { hosts, scene, now } from './world.mjs';
import { plain } from './redis.mjs';
import { killRedis, stopRedis, killLinks, cutHost } from './faults.mjs';

after(stopAll);
const quick = { 'redis.timeout': '1500ms', 'redis.connect_timeout': '1500ms', 'redis.ping_interval': '500ms' };

hosts('bus.order = bus, bus.ack = bus', plain, { ...quick, 'bus.order': 'bus', 'bus.ack': 'bus' }, async (w, t) => {
    const [redis] = w.redis.servers, away = [];
    await w.crowd();
    const hurt = f => async () => { const from = now(); const said = await f(); await w.up(); away.push([from - 500, now() + 1500]); return said; };

    await scene(t, w, 'all hosts see one order', async () => {
        w.load({ pause: 2, window: 32 });
        const from = w.ledger.counts.received;
        await until(() => w.ledger.counts.received > from + 10000, '10000 messages', 20000);
        const said = await w.settle({ except: [] });
        assert.equal(said.told + said.refused, 0);
        return said;
    });
    await scene(t, w, 'Redis is killed and starts empty', () => w.through(hurt(() => killRedis(w, redis)), { settle: { except: away } }));
    await scene(t, w, 'Redis is stopped for 3 s', () => w.through(hurt(() => stopRedis(redis, 3000)), { settle: { except: away } }));
    await scene(t, w, 'CLIENT KILL TYPE pubsub', () => w.through(hurt(() => killLinks(redis)), { settle: { except: away } }));
    await scene(t, w, 'a host is cut off and healed', () => w.through(hurt(() => cutHost(w, w.hosts[1], 4000)), { settle: { except: away } }));
    await scene(t, w, 'brokers, rings and clients agree on what was missed', () => w.counters());
});

hosts('redis.plain = on', plain, { ...quick, 'redis.plain': 'on' }, async (w, t) => {
    const [redis] = w.redis.servers;
    await w.crowd();
    await scene(t, w, 'what back ends publish with redis-cli reaches browsers', async () => {
        const l = w.ledger, subs = w.hosts.length * 2, from = l.foreign.length;
        await redis.cli('publish', `ringcast:${w.channels[0]}`, '{"a":1}');
        await redis.cli('publish', `ringcast:${w.channels[0]}`, '/o:{"old":[1,2]}');
        await redis.cli('publish', `ringcast:${w.channels[0]}`, '/s:hello');
        await until(() => l.foreign.length - from >= 3 * subs, () => `foreign messages, not ${JSON.stringify(l.foreign.slice(from))}`);
        for (const client of new Set(l.foreign.map(f => f.client)))
            assert.deepEqual(l.foreign.slice(from).filter(f => f.client === client).map(f => f.data), [{ a: 1 }, { old: [1, 2] }, 'hello']);
        assert.equal(l.foreign.length - from, 3 * subs);
        await redis.cli('publish', `ringcast:${w.channels[0]}`, 'no JSON at all " \\ ');
        return w.settle();
    });
});

// The first host holds no more than 64 KiB, the second refuses what it can't give away.
hosts('redis.out_queue is reached, redis.required = on', plain, quick, async (w, t) => {
    const [redis] = w.redis.servers, [small, strict, third] = w.hosts;
    await w.crowd({ channels: 4 });
    await scene(t, w, 'an outage longer than the queue: what gave way is told, exactly', async () => {
        w.load();
        await w.flows('before');
        await w.still();
        await redis.kill();
        await w.noticed(w.hosts);
        const before = { ...w.ledger.counts };
        for (const ch of w.channels) await small.publish(small.pubs[0], ch, { count: 200, burst: true, pad: 1000 });
        await third.publish(third.pubs[0], w.channels[0], { count: 50, pad: 100 });
        assert.equal(w.ledger.counts.refused, before.refused, 'nobody was refused');
        const dropped = await until(() => small.counter('bus_dropped_total'), 'messages to give way');
        await redis.start();
        await w.up();
        const said = await w.settle();
        assert.equal(await small.counter('bus_dropped_total'), dropped);
        // Two subscribers on each of the two other hosts miss each that gave way. Who comes back later than another may miss more.
        assert.ok(said.told >= dropped * 4, `${said.told} told of ${dropped} that gave way`);
        return { dropped, ...said };
    });
    await scene(t, w, 'redis.required: refused with BrokerError, then taken again', async () => {
        await redis.kill();
        await w.noticed([strict]);
        const before = { ...w.ledger.counts };
        await strict.publish(strict.pubs[0], w.channels[0], { count: 5 });
        await until(() => w.ledger.counts.refused >= before.refused + 5, 'five refusals');
        assert.equal([...w.ledger.refusals.keys()].filter(k => !/^BrokerError: /.test(k)).length, 0, JSON.stringify([...w.ledger.refusals]));
        await small.publish(small.pubs[0], w.channels[1]);
        assert.equal(w.ledger.counts.refused, before.refused + 5, 'the others are not so strict');
        await redis.start();
        await w.up();
        await strict.publish(strict.pubs[0], w.channels[0], { count: 5, quiet: false });
        return w.settle();
    });
    await scene(t, w, 'brokers, rings and clients agree on what was missed', () => w.counters());
}, { each: [{ 'redis.out_queue': '64KiB' }, { 'redis.required': 'on' }, {}] });
