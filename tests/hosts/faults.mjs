// Ways to hurt a world, each over when it returns: what was hurt is whole again, though the hosts may not have noticed yet.
import { sleep, until } from '../lib/server.mjs';

export const killRedis = async (w, server, away = 1000) => {
    await server.kill();
    await w.down(`brokers to notice that ${server.name} is gone`);
    await sleep(away);
    await server.start();
};
export const stopRedis = async (server, ms) => {
    server.stop();
    await sleep(ms);
    server.go();
};
export const killLinks = async (server, times = 3) => {
    const killed = [];
    for (let i = 0; i < times; i++) {
        await until(async () => { const n = Number(await server.cli('client', 'kill', 'type', 'pubsub')); if (n) killed.push(n); return n > 0; }, 'a subscribing connection to kill');
        await sleep(150);
    }
    return { killed };
};
/** Redis ends a subscriber's link for what waits for it. `large` publishes what is more than it may hold. */
export const smallBuffers = async (w, server, large) => {
    const before = await server.cli('config', 'get', 'client-output-buffer-limit');
    await server.cli('config', 'set', 'client-output-buffer-limit', 'pubsub 16kb 0 0');
    const failures = async () => (await Promise.all(w.hosts.map(h => h.counter('redis_failures_total')))).reduce((a, b) => a + b);
    const was = await failures();
    await large();
    await until(async () => await failures() > was, 'Redis to have ended links');
    await server.cli('config', 'set', 'client-output-buffer-limit', before.split('\n')[1]);
};
export const cutHost = async (w, host, ms) => {
    await w.net.cut(host.name);
    await sleep(ms);
    await w.net.heal(host.name);
};
/** Only one direction of a host's cable goes. */
export const deafHost = async (w, host, ms, outwards) => {
    const servers = [...(w.redis.servers ?? []), ...(w.redis.sentinels ?? [])].map(s => s.address);
    await (outwards ? w.net.deafen(host.name, servers) : w.net.deafenTo(host.address));
    await sleep(ms);
    await (outwards ? w.net.undeafen(host.name, servers) : w.net.undeafenTo(host.address));
};
export const badCable = async (w, host, ms, { delay = 50, loss = 5, seed = 1 } = {}) => {
    const end = await w.net.disturb(host.name, { delay, loss, seed });
    await sleep(ms);
    const said = await end();
    return { cable: end.how, ...(said ? { carried: said.trim().split('\n').slice(-2) } : {}) };
};
/** Kills a process of a host and waits for the next. */
export const killOne = async (host, kind, index) => {
    const victim = (await host.server.processes(kind)).find(p => p.index === index);
    process.kill(victim.pid, 'SIGKILL');
    await until(async () => (await host.server.processes(kind)).some(p => p.index === index && p.pid !== victim.pid), `the next ${kind} ${index} of ${host.name}`);
};
