// A cluster of three primaries with a replica each, and sharded pub/sub.
import { after } from 'node:test';
import assert from 'node:assert/strict';
import { stopAll, until } from '../lib/server.mjs';
import { hosts, scene } from './world.mjs';
import { clustered } from './redis.mjs';

after(stopAll);

hosts('a cluster', clustered, { 'redis.timeout': '1500ms', 'redis.connect_timeout': '1500ms', 'redis.ping_interval': '500ms' }, async (w, t) => {
    const { nodes, find, whole } = w.redis;
    const primaries = async () => (await nodes()).filter(n => /master/.test(n.flags) && !/fail/.test(n.flags) && n.slots.length);
    await w.crowd({ channels: 16 });
    await scene(t, w, 'each node carries its share', async () => {
        const said = await w.through(async () => {});
        const shares = await Promise.all((await primaries()).map(async n => Number(/cmdstat_spublish:calls=(\d+)/.exec(await find(n).cli('info', 'commandstats'))?.[1] ?? 0)));
        assert.ok(Math.min(...shares) > 0, `SPUBLISH on each: ${shares}`);
        return { shares, ...said };
    });
    await scene(t, w, 'slots move while messages flow', () => w.through(async () => {
        const [from, to] = await primaries();
        await w.net.run('servers', 'redis-cli', ['--cluster', 'reshard', find(from).at, '--cluster-from', from.id, '--cluster-to', to.id, '--cluster-slots', '600', '--cluster-yes'], { ms: 60000 });
        await whole();
        // Those hold few of our channels, or none: one of each that the first still has goes, too.
        const all = (await nodes()).filter(n => /master/.test(n.flags)), slots = [];
        for (const ch of w.channels) slots.push(Number(await find(to).cli('cluster', 'keyslot', `ringcast:${ch}`)));
        const has = (n, slot) => n.slots.some(r => { const [a, z = a] = r.split('-').map(Number); return a <= slot && slot <= z; });
        const source = all.find(n => n.id === from.id), moving = slots.filter(s => has(source, s));
        assert.ok(moving.length > 0, 'channels of the first node');
        for (const slot of moving) {
            await find(to).cli('cluster', 'setslot', slot, 'importing', from.id);
            await find(from).cli('cluster', 'setslot', slot, 'migrating', to.id);
            await w.flows(`while slot ${slot} is between two nodes`, 10000);
            for (const n of [to, from, ...all]) await find(n).cli('cluster', 'setslot', slot, 'node', to.id);
        }
        await whole();
        return { moved: 600 + moving.length, channels: moving.length };
    }, { flows: 20000 }));
    await scene(t, w, 'a replica takes over by hand', () => w.through(async () => {
        const [was] = await primaries(), replica = (await nodes()).find(n => n.of === was.id);
        await find(replica).cli('cluster', 'failover');
        await until(async () => (await primaries()).some(n => n.id === replica.id), 'the replica to be primary', 10000);
        await whole();
    }, { flows: 20000 }));
    await scene(t, w, 'a primary is killed: its replica takes its place', () => w.through(async () => {
        const victim = (await primaries())[1];
        await find(victim).kill();
        await until(async () => { const p = await primaries(); return p.length === 3 && !p.some(n => n.id === victim.id); }, 'three primaries again', 20000, 50);
        await w.up('all to have followed', 20000);
        await find(victim).start();
        await whole();
    }, { flows: 20000 }));
    await scene(t, w, 'a host is cut off and healed', () => w.through(async () => {
        await w.net.cut('host2');
        await w.down('the host to notice', 10000, [w.hosts[1]]);
        await w.net.heal('host2');
    }, { flows: 20000 }));
    await scene(t, w, 'brokers, rings and clients agree on what was missed', () => w.counters());
});
