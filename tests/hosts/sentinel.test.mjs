// A primary with replicas, watched by sentinels.
import { after } from 'node:test';
import { stopAll, until } from '../lib/server.mjs';
import { hosts, scene } from './world.mjs';
import { watched } from './redis.mjs';
import { stopRedis } from './faults.mjs';

after(stopAll);

hosts('a primary, two replicas, three sentinels', watched, { 'redis.timeout': '1500ms', 'redis.connect_timeout': '1500ms', 'redis.ping_interval': '500ms' }, async (w, t) => {
    const moved = async (from, what) => until(async () => (await w.redis.primary()) !== from, what, 20000, 50);
    await w.crowd();
    await scene(t, w, 'what is published on each host reaches all hosts', () => w.through(async () => {}));
    await scene(t, w, 'the primary is killed: a replica takes its place', () => w.through(async () => {
        const was = await w.redis.primary();
        await was.kill();
        await moved(was, 'another primary');
        await w.up('all to have followed', 20000);
        await was.start();
    }, { flows: 20000 }));
    await scene(t, w, 'a failover by hand', () => w.through(async () => {
        const was = await w.redis.primary();
        await until(async () => (await w.redis.sentinels[0].cli('sentinel', 'failover', 'main')).startsWith('OK'), 'a failover to be begun', 15000, 200);
        await moved(was, 'another primary');
    }, { flows: 20000 }));
    await scene(t, w, 'the primary is stopped until another has its place, then goes on as if it were it', () => w.through(async () => {
        const was = await w.redis.primary();
        was.stop();
        await moved(was, 'another primary');
        was.go();
    }, { flows: 20000 }));
    await scene(t, w, 'two of three sentinels die: nothing happens', () => w.through(async () => {
        await Promise.all(w.redis.sentinels.slice(0, 2).map(s => s.kill()));
        await stopRedis(await w.redis.primary(), 500);
    }));
    await scene(t, w, 'brokers, rings and clients agree on what was missed', () => w.counters());
});
