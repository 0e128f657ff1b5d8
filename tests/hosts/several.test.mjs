// Channels spread over two Redis servers that know nothing of each other; processes of ours that die.
import { after } from 'node:test';
import assert from 'node:assert/strict';
import { stopAll, until } from '../lib/server.mjs';
import { hosts, scene, now } from './world.mjs';
import { plain } from './redis.mjs';
import { killRedis, killOne } from './faults.mjs';

after(stopAll);
const quick = { 'redis.timeout': '1500ms', 'redis.connect_timeout': '1500ms', 'redis.ping_interval': '500ms' };

hosts('two independent servers', net => plain(net, 2), quick, async (w, t) => {
    const [first, second] = w.redis.servers;
    await w.crowd({ channels: 16 });
    const published = async s => Number(/cmdstat_publish:calls=(\d+)/.exec(await s.cli('info', 'commandstats'))?.[1] ?? 0);
    await scene(t, w, 'both carry their share', async () => {
        w.load();
        await w.flows('everywhere');
        const shares = [await published(first), await published(second)];
        assert.ok(Math.min(...shares) > 0, `${shares}`);
        return { shares, ...await w.settle() };
    });
    await scene(t, w, 'one is killed: the channels of the other go on', async () => {
        w.load();
        await w.flows('before');
        await first.kill();
        await w.down();
        const from = now(), l = w.ledger;
        const flowing = () => w.channels.filter(ch => l.living().filter(b => b.channel === ch).every(b => [...l.published.get(ch)].every(([p, line]) => line[(b.got.get(p)?.last ?? 1) - 1]?.asked > from + 500)));
        const ours = [];
        for (const ch of w.channels) if (Number((await second.cli('pubsub', 'numsub', `ringcast:${ch}`)).split('\n')[1]) > 0) ours.push(ch);
        assert.ok(ours.length > 0 && ours.length < w.channels.length, `${ours.length} channels of the other`);
        await until(() => { const f = new Set(flowing()); return ours.every(ch => f.has(ch)); }, () => `the channels ${ours} to flow, not only ${flowing()}`, 8000);
        assert.equal(l.counts.told, 0, 'nothing is missing yet');
        await first.start();
        await w.flows('again', 15000);
        return { ours: ours.length, ...await w.settle() };
    });
    await scene(t, w, 'the other is killed, too, and starts empty', () => w.through(() => killRedis(w, second)));
    await scene(t, w, 'brokers, rings and clients agree on what was missed', () => w.counters());
    // From here on counters begin again with each process, and what a dead process had numbered and not sent nobody knows.
    // Clients are back before the new worker's rings have found their brokers, and before the brokers have noticed the death.
    // The first death of two: who dies again waits longer for its successor, and so would the brokers.
    await scene(t, w, 'a worker is killed while its brokers stand still: its clients are told of no gap', async () => w.through(async () => {
        const [host] = w.hosts, brokers = await host.server.processes('broker'), was = await host.counter('subscriptions');
        for (const b of brokers) process.kill(b.pid, 'SIGSTOP');
        try {
            await killOne(host, 'worker', 0);
            await until(async () => await host.counter('subscriptions') === was, 'its clients to have asked for all they had');
        } finally {
            for (const b of brokers) process.kill(b.pid, 'SIGCONT');
        }
    }));
    await scene(t, w, 'a worker is killed: its clients come back, the other hosts notice nothing', async () => w.through(async () => {
        const ends = w.ledger.counts.ended;
        await killOne(w.hosts[0], 'worker', 0);
        await until(() => w.ledger.counts.ended > ends, 'its clients to lose their connections');
    }));
    await scene(t, w, 'a broker is killed: messages flow again, who may have missed some is told', async () => {
        w.ledger.died = 'host2';
        return w.through(() => killOne(w.hosts[1], 'broker', 0), { settle: { unknown: true } });
    });
});
