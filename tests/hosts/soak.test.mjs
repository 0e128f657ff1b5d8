// Faults by chance, for as long as HOSTS_SECONDS says, one world per topology in turn. HOSTS_SEED gives their sequence;
// what the machine makes of their timing it cannot give. HOSTS_TOPOLOGY=guarded|plain|several|sentinel|cluster: only that.
import { after } from 'node:test';
import { stopAll, sleep } from '../lib/server.mjs';
import { hosts, scene, now } from './world.mjs';
import { guarded, plain, watched, clustered } from './redis.mjs';
import { stopRedis, killLinks, cutHost, deafHost, badCable, killOne } from './faults.mjs';

after(stopAll);
const seconds = Number(process.env.HOSTS_SECONDS || 60), seed0 = Number(process.env.HOSTS_SEED || Date.now() % 1000000);
const quick = { 'redis.timeout': '1500ms', 'redis.connect_timeout': '1500ms', 'redis.ping_interval': '500ms' };
const topologies = {
    guarded: [guarded, {}], plain: [plain, { 'bus.order': 'bus', 'bus.ack': 'bus' }],
    several: [net => plain(net, 2), {}], sentinel: [watched, {}], cluster: [clustered, {}],
};
const chosen = Object.entries(topologies).filter(([n]) => !process.env.HOSTS_TOPOLOGY || n === process.env.HOSTS_TOPOLOGY);

// mulberry32, as in tests/model
function random(seed) {
    return () => {
        seed = (seed + 0x6d2b79f5) | 0;
        let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
        t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
        return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
}

for (const [i, [name, [redis, settings]]] of chosen.entries()) {
    const seed = seed0 + i, rnd = random(seed), int = n => Math.floor(rnd() * n), pick = l => l[int(l.length)];
    hosts(`soak: ${name}, seed ${seed}`, redis, { ...quick, ...settings }, async (w, t) => {
        const ends = Date.now() + seconds * 1000 / chosen.length;
        await w.crowd({ channels: 8 });
        const server = () => pick(w.redis.servers), host = () => pick(w.hosts);
        const faults = {
            kill: async s => { await s.kill(); await sleep(int(3000)); await s.start(); },
            stop: s => stopRedis(s, int(5000)),
            links: s => killLinks(s, 1 + int(3)).catch(() => {}), // a replica has none
            cut: () => cutHost(w, host(), int(5000)),
            deaf: () => deafHost(w, host(), int(4000), rnd() < 0.5),
            cable: () => badCable(w, host(), 500 + int(4000), { delay: int(60), loss: int(8), seed: int(1000) }),
            worker: () => killOne(host(), 'worker', 0),
        };
        if (w.redis.primary) faults.failover = () => pick(w.redis.sentinels).cli('sentinel', 'failover', 'main');
        if (w.redis.nodes) faults.failover = async () => {
            const replicas = (await w.redis.nodes()).filter(n => /slave/.test(n.flags) && !/fail/.test(n.flags));
            if (replicas.length) await w.redis.find(pick(replicas)).cli('cluster', 'failover', pick(['force', 'takeover'])).catch(() => {});
        };
        for (let round = 1; Date.now() < ends; round++) {
            const kinds = Array.from({ length: 1 + int(3) }, () => pick(Object.keys(faults))), from = now();
            await scene(t, w, `soak ${name} ${seed}, round ${round}: ${kinds.join(', ')}`, () => w.through(async () => {
                for (const k of kinds) { await faults[k](server()); await sleep(int(1500)); }
                if (w.redis.whole) await w.redis.whole();
                await w.up('the bus to be up again', 30000);
                w.away.push([from - 500, now() + 1500]);
            }, { flows: 30000, load: { pause: 3 + int(10), window: 1 + int(16), pad: int(2) * int(3000) }, settle: { ms: 20000, except: settings['bus.order'] ? w.away : undefined, unknown: true } }));
            if (w.broken) break;
        }
    }, { timeout: seconds * 1000 + 120000 });
}
