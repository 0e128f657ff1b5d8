// Hosts as network namespaces: one for each host, one in which all Redis servers live, one with the bridge between them.
// Nothing of the machine's own network is touched, and nothing is left: names carry the process that made them, and
// whoever comes next sweeps up after one that was killed.
import { execFile, execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, chmodSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { until } from '../lib/server.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const MARK = 'ringcast-test-';

export function ip(...args) {
    return new Promise((done, fail) => execFile('ip', args.map(String), (e, out, err) => e ? fail(new Error(`ip ${args.join(' ')}: ${err || e.message}`)) : done(out)));
}

/** Why there can be no namespaces here; null when there can. */
export function forbidden() {
    if (process.platform !== 'linux') return 'not on Linux';
    try { execFileSync('ip', ['-V'], { stdio: 'ignore' }); } catch { return 'there is no ip(8): install iproute2'; }
    const name = `${MARK}${process.pid}-try`;
    try {
        execFileSync('ip', ['netns', 'add', name], { stdio: 'pipe' });
        execFileSync('ip', ['-n', name, 'link', 'add', 'name', 'sw', 'type', 'bridge'], { stdio: 'pipe' });
        execFileSync('ip', ['-n', name, 'link', 'add', 'name', 'v', 'type', 'veth', 'peer', 'name', 'w'], { stdio: 'pipe' });
        execFileSync('ip', ['netns', 'exec', name, 'true'], { stdio: 'pipe' });
        return null;
    } catch (e) {
        return `network namespaces are not permitted: ${String(e.stderr || e.message).trim().split('\n')[0]}`;
    } finally {
        try { execFileSync('ip', ['netns', 'del', name], { stdio: 'ignore' }); } catch { /* it was never made */ }
    }
}

const isAlive = pid => { try { process.kill(pid, 0); return true; } catch { return false; } };
function removeNow(name) {
    try {
        for (const pid of execFileSync('ip', ['netns', 'pids', name]).toString().split('\n').filter(Boolean))
            if (Number(pid) !== process.pid) try { process.kill(Number(pid), 'SIGKILL'); } catch { /* it is gone */ }
    } catch { /* no such name any more */ }
    try { execFileSync('ip', ['netns', 'del', name], { stdio: 'ignore' }); } catch { /* somebody was quicker */ }
}
function sweep() {
    for (const name of execFileSync('ip', ['netns', 'list']).toString().split('\n').map(l => l.split(' ')[0])) {
        const owner = new RegExp(`^${MARK}(\\d+)-`).exec(name);
        if (owner && !isAlive(Number(owner[1]))) removeNow(name);
    }
    for (const name of readdirSync(tmpdir())) {
        const owner = new RegExp(`^${MARK}(\\d+)-`).exec(name);
        if (owner && !isAlive(Number(owner[1]))) rmSync(join(tmpdir(), name), { recursive: true, force: true });
    }
}

const nets = new Set();
function removeAll() { for (const n of nets) n.removeNow(); }
process.on('exit', removeAll);
for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP']) process.on(signal, () => process.exit(1));

/** Its hosts are 10.77.0.1, 2, 3 ..., its servers 10.77.0.100 and up, all in the namespace "servers". */
export class Net {
    constructor() {
        this.prefix = `${MARK}${process.pid}-${nets.size}`;
        this.dir = mkdtempSync(join(tmpdir(), `${MARK}${process.pid}-`));
        chmodSync(this.dir, 0o755); // the server's processes become other users
        this.names = new Set();
        this.children = new Set();
        nets.add(this);
    }
    name(what) { return `${this.prefix}-${what}`; }
    async make() {
        sweep();
        await this.namespace('bridge');
        await ip('-n', this.name('bridge'), 'link', 'add', 'name', 'sw', 'type', 'bridge', 'forward_delay', 0);
        await ip('-n', this.name('bridge'), 'link', 'set', 'dev', 'sw', 'up');
        await this.join('servers', '10.77.0.100');
        return this;
    }
    async namespace(what) {
        this.names.add(what);
        await ip('netns', 'add', this.name(what));
        await ip('-n', this.name(what), 'link', 'set', 'dev', 'lo', 'up');
    }
    /** A namespace with an address, on the bridge. */
    async join(what, address) {
        await this.namespace(what);
        const b = this.name('bridge'), n = this.name(what);
        await ip('link', 'add', 'name', 'eth', 'netns', n, 'type', 'veth', 'peer', 'name', what, 'netns', b);
        await ip('-n', n, 'address', 'add', `${address}/24`, 'dev', 'eth');
        await ip('-n', n, 'link', 'set', 'dev', 'eth', 'up');
        await ip('-n', b, 'link', 'set', 'dev', what, 'master', 'sw', 'up');
    }
    async address(what, address) { await ip('-n', this.name(what), 'address', 'add', `${address}/24`, 'dev', 'eth'); }

    /** The cable of a host, pulled and put in again. */
    cut(what) { return ip('-n', this.name('bridge'), 'link', 'set', 'dev', what, 'down'); }
    heal(what) { return ip('-n', this.name('bridge'), 'link', 'set', 'dev', what, 'up'); }
    /** What the host sends to the servers gets lost, what they send arrives: frames go to a station that is not there. */
    async deafen(what, servers) { for (const s of servers) await ip('-n', this.name(what), 'neigh', 'replace', s, 'lladdr', '02:00:00:00:00:fe', 'dev', 'eth', 'nud', 'permanent'); }
    async undeafen(what, servers) { for (const s of servers) await ip('-n', this.name(what), 'neigh', 'del', s, 'dev', 'eth'); }
    /** The other direction: what the servers send to the host gets lost. */
    deafenTo(address) { return ip('-n', this.name('servers'), 'neigh', 'replace', address, 'lladdr', '02:00:00:00:00:fe', 'dev', 'eth', 'nud', 'permanent'); }
    undeafenTo(address) { return ip('-n', this.name('servers'), 'neigh', 'del', address, 'dev', 'eth'); }
    /** Delay and loss on a host's cable, each way. The kernel's netem where it has it, else relay.py in the cable's place.
     *  Returns the function that ends it. */
    async disturb(what, { delay, loss, seed = 1 }) {
        const b = this.name('bridge'), n = this.name(what), netem = ['netem', 'delay', `${delay}ms`, 'loss', `${loss}%`];
        const tc = (...args) => new Promise(done => execFile('tc', args, e => done(!e)));
        if (await tc('-n', n, 'qdisc', 'add', 'dev', 'eth', 'root', ...netem)) {
            await tc('-n', b, 'qdisc', 'add', 'dev', what, 'root', ...netem);
            return Object.assign(async () => { await tc('-n', n, 'qdisc', 'del', 'dev', 'eth', 'root'); await tc('-n', b, 'qdisc', 'del', 'dev', what, 'root'); }, { how: 'netem' });
        }
        await ip('-n', b, 'link', 'add', 'name', 'near', 'type', 'veth', 'peer', 'name', 'far');
        await ip('-n', b, 'link', 'set', 'dev', 'near', 'master', 'sw', 'up');
        await ip('-n', b, 'link', 'set', 'dev', 'far', 'up');
        await ip('-n', b, 'link', 'set', 'dev', what, 'nomaster');
        await ip('-n', b, 'link', 'set', 'dev', what, 'promisc', 'on');
        await ip('-n', b, 'link', 'set', 'dev', 'far', 'promisc', 'on');
        const relay = this.spawn('bridge', 'python3', [join(here, 'relay.py'), what, 'far', String(delay), String(loss), String(seed)]);
        let said = '';
        relay.stdout.on('data', d => { said += d; });
        // Segments that the kernel left to be cut or summed later would not survive: ends do that themselves from now on.
        await this.run(what, 'python3', [join(here, 'relay.py'), '--plain', 'eth']);
        await this.run('servers', 'python3', [join(here, 'relay.py'), '--plain', 'eth']);
        await until(() => said.includes('ready') || relay.over, () => `the relay (${relay.said})`);
        return Object.assign(async () => {
            await ip('-n', b, 'link', 'set', 'dev', what, 'master', 'sw');
            relay.kill('SIGTERM');
            await relay.ended;
            await ip('-n', b, 'link', 'del', 'near');
            return said;
        }, { how: 'relay' });
    }

    /** What stands in front of a command that runs inside a namespace; each replaces itself by the next. */
    wrap(what) { return ['ip', 'netns', 'exec', this.name(what), 'setpriv', '--pdeathsig', 'KILL', '--']; }
    /** A process inside a namespace; it dies with this one. */
    spawn(what, file, args, options = {}) {
        const [first, ...rest] = [...this.wrap(what), file, ...args];
        const child = spawn(first, rest, { stdio: ['pipe', 'pipe', 'pipe'], ...options });
        child.said = '';
        child.stderr?.on('data', d => { child.said = (child.said + d).slice(-200000); });
        child.stdin?.on('error', () => {});
        child.ended = new Promise(r => child.on('exit', (code, signal) => { child.over = { code, signal }; this.children.delete(child); r(child.over); }));
        child.on('error', e => { child.said += e.message; });
        this.children.add(child);
        return child;
    }
    async run(what, file, args, { input, ms = 15000 } = {}) {
        const child = this.spawn(what, file, args);
        let out = '';
        child.stdout.on('data', d => { out += d; });
        child.stdin.end(input);
        const timer = setTimeout(() => child.kill('SIGKILL'), ms);
        const flushed = new Promise(r => child.stdout.on('close', r));
        const { code, signal } = await child.ended;
        await flushed;
        clearTimeout(timer);
        if (code !== 0) throw new Error(`${file} ${args.join(' ')} ended with ${code ?? signal}: ${child.said}${out}`);
        return out;
    }
    removeNow() {
        nets.delete(this);
        for (const c of this.children) c.kill('SIGKILL');
        for (const what of this.names) removeNow(this.name(what));
        rmSync(this.dir, { recursive: true, force: true });
    }
}
