// Three hosts over one Redis that speaks TLS and has a user who may no more than needed.
import { after } from 'node:test';
import assert from 'node:assert/strict';
import { stopAll, until, run, bin } from '../lib/server.mjs';
import { join } from 'node:path';
import { hosts, scene } from './world.mjs';
import { guarded } from './redis.mjs';
import { killRedis, stopRedis, killLinks, smallBuffers, cutHost, deafHost, badCable } from './faults.mjs';

after(stopAll);

hosts('one Redis with TLS and a user of its own', guarded, { 'redis.timeout': '1500ms', 'redis.connect_timeout': '1500ms', 'redis.ping_interval': '500ms' }, async (w, t) => {
    const [redis] = w.redis.servers, [one, two, three] = w.hosts;
    await w.crowd();

    await scene(t, w, 'what is published on each host reaches all hosts', async () => {
        for (const h of w.hosts) for (const name of h.pubs) for (const ch of w.channels) await h.publish(name, ch, { count: 5 });
        return w.settle();
    });
    await scene(t, w, 'a subscribe is acked when Redis has confirmed it: what is published elsewhere after that arrives', async () => {
        const c = await two.client();
        for (let i = 0; i < 30; i++) {
            await two.subscribe(c, `fresh ${i}`);
            await one.publish(one.pubs[0], `fresh ${i}`);
            await three.publish(three.pubs[0], `fresh ${i}`);
        }
        return w.settle();
    });
    await scene(t, w, 'each publisher in its order, under load', async () => {
        w.load({ pause: 2, window: 32 });
        const from = w.ledger.counts.received;
        await until(() => w.ledger.counts.received > from + 10000, '10000 messages', 20000);
        const said = await w.settle();
        assert.equal(said.told, 0);
        return said;
    });
    await scene(t, w, 'Redis is killed and starts empty', () => w.through(() => killRedis(w, redis)));
    await scene(t, w, 'Redis is stopped for 3 s', () => w.through(() => stopRedis(redis, 3000)));
    await scene(t, w, 'Redis is stopped for 10 s', () => w.through(() => stopRedis(redis, 10000)));
    await scene(t, w, 'CLIENT KILL TYPE pubsub', () => w.through(() => killLinks(redis)));
    await scene(t, w, 'CLIENT KILL TYPE normal', () => w.through(async () => { await redis.cli('client', 'kill', 'type', 'normal', 'skipme', 'yes'); }));
    await scene(t, w, 'Redis ends links for what waits for them', () => w.through(() => smallBuffers(w, redis,
        () => Promise.all(w.hosts.map(h => h.publish(h.pubs[0], w.channels[0], { count: 10, burst: true, pad: 60000 }))))));
    await scene(t, w, 'a host is cut off for a moment', () => w.through(() => cutHost(w, two, 400)));
    await scene(t, w, 'a host is cut off and healed', () => w.through(async () => { await cutHost(w, two, 4000); }));
    await scene(t, w, 'what a host sends gets lost', () => w.through(() => deafHost(w, three, 3000, true)));
    await scene(t, w, 'what a host is sent gets lost', () => w.through(() => deafHost(w, three, 3000, false)));
    await scene(t, w, 'a cable that delays by 50 ms and loses 5 %', () => w.through(() => badCable(w, one, 3000)));
    await scene(t, w, 'brokers, rings and clients agree on what was missed', () => w.counters());
    await scene(t, w, 'a host joins, and leaves', async () => {
        const list = async () => (await run(join(bin, 'ringcast'), ['hosts', `--run.dir=${one.server.runDir}`])).stdout;
        await until(async () => { const l = await list(); return ['host1', 'host2', 'host3'].every(n => l.includes(n)); }, 'three hosts');
        w.load();
        await w.flows('between three');
        const late = await w.addHost();
        await w.up('the late host to be up');
        for (let i = 0; i < 2; i++) { const c = await late.client(); await Promise.all(w.channels.map(ch => late.subscribe(c, ch))); }
        late.pubs = [await late.client()];
        w.load({}, [late]);
        await w.flows('with the fourth', 15000);
        await until(async () => (await list()).includes('host4'), 'the fourth to be seen');
        const said = await w.settle();
        await w.leave(late);
        await until(async () => !/host4/.test(await list()), 'the fourth to be gone', 10000);
        w.load();
        await w.flows('without it');
        return { ...said, after: await w.settle() };
    });
});
