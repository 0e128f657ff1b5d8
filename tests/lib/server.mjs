// Starts and stops the server under test, and reads its counters. What a test gets is a real
// `ringcast run` with real workers and brokers, or, with RINGCAST_TEST_REFERENCE=1, SocketCluster's own
// server behind the same face: a way to check that the tests are right.
import { spawn, execFile } from 'node:child_process';
import { mkdtempSync, rmSync, readdirSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
export const root = resolve(here, '../..');
export const preset = process.env.RINGCAST_TEST_PRESET || 'dev';
export const bin = process.env.RINGCAST_TEST_BIN || join(root, 'build', preset, 'bin');
export const isReference = !!process.env.RINGCAST_TEST_REFERENCE;
// Sanitizers make everything slower; deadlines are stretched by this, never shortened.
export const slow = /asan|tsan|cover/.test(preset) ? 3 : 1;

const sanitizerWords = /AddressSanitizer|LeakSanitizer|ThreadSanitizer|runtime error:|BUG_ON|bug:| call-(refused|forbidden) /;
const living = new Set();
process.on('exit', () => {
    for (const s of living) {
        try { process.kill(s.pid, 'SIGKILL'); } catch { /* it is gone */ }
        for (const p of s.seen) try { process.kill(p, 'SIGKILL'); } catch { /* it is gone */ }
        try { rmSync(s.runDir, { recursive: true, force: true }); } catch { /* leave it */ }
    }
});

export const sleep = ms => new Promise(r => setTimeout(r, ms));

/** Waits until fn() gives something true, asking every `step` ms; fails with `what` after `ms`. */
export async function until(fn, what, ms = 5000, step = 20) {
    const end = Date.now() + ms * slow;
    for (;;) {
        const got = await fn();
        if (got) return got;
        if (Date.now() > end) throw new Error(`not in ${ms * slow} ms: ${typeof what === 'function' ? what() : what}`);
        await sleep(step);
    }
}

/** Runs a program to its end. */
export function run(file, args, options = {}) {
    return new Promise(done => {
        const child = execFile(file, args, { timeout: 30000 * slow, maxBuffer: 64 << 20, ...options }, (error, stdout, stderr) =>
            done({ code: error ? (error.code ?? 1) : 0, signal: error?.signal, stdout, stderr }));
        if (options.input !== undefined) child.stdin.end(options.input);
    });
}
export const ringcast = (...args) => run(join(bin, 'ringcast'), args);

const launch = ([file, ...args]) => [file, args];

class Server {
    constructor(child, runDir) {
        this.child = child;
        this.pid = child.pid;
        this.runDir = runDir;
        this.stderr = '';
        this.stdout = '';
        this.seen = new Set();
        child.stderr.on('data', d => { this.stderr += d; });
        child.stdout.on('data', d => { this.stdout += d; });
        this.ended = new Promise(r => child.on('exit', (code, signal) => { this.exit = { code, signal }; r(this.exit); }));
    }
    get url() { return `ws://127.0.0.1:${this.port}/socketcluster/`; }
    get http() { return `http://127.0.0.1:${this.port}`; }
    get address() { return { hostname: '127.0.0.1', port: this.port }; }

    /** `ringcast status --json` */
    async status() {
        const r = await ringcast('status', '--json', `--run.dir=${this.runDir}`);
        if (r.code !== 0) throw new Error(`ringcast status ended with ${r.code}: ${r.stderr}`);
        return JSON.parse(r.stdout);
    }
    async pages(process) { return (await this.status()).pages.filter(p => p.process === process); }
    /** The sum of a counter over all pages that have it. */
    async counter(name) {
        let sum = 0, found = false;
        for (const p of (await this.status()).pages)
            if (name in p.counters) { sum += p.counters[name]; found = true; }
        if (!found) throw new Error(`no process has a counter ${name}`);
        return sum;
    }
    /** Processes of a kind ("worker", "broker"): [{pid, index}], from the counter pages. */
    async processes(kind) {
        const all = new Map();
        for (const p of await this.pages(kind)) if (p.state !== 'dead' && p.state !== 'gone') all.set(p.index, p.pid);
        for (const pid of all.values()) this.seen.add(pid);
        return [...all].map(([index, pid]) => ({ index, pid })).sort((a, b) => a.index - b.index);
    }
    /** Ends it, and fails when it did not end well or a sanitizer had something to say. */
    async stop({ signal = 'SIGTERM', ms = 15000, check = true } = {}) {
        if (!this.exit) this.child.kill(signal);
        const timer = setTimeout(() => { this.late = true; this.child.kill('SIGKILL'); }, ms * slow);
        await this.ended;
        clearTimeout(timer);
        living.delete(this);
        for (const pid of this.seen) try { process.kill(pid, 'SIGKILL'); } catch { /* it is gone, as it should be */ }
        try { rmSync(this.runDir, { recursive: true, force: true }); } catch { /* a child may still write */ }
        if (!check || isReference) return;
        const tail = this.stderr.slice(-3000);
        if (sanitizerWords.test(this.stderr)) throw new Error(`the server reported:\n${tail}`);
        if (this.late) throw new Error(`the server did not end in ${ms * slow} ms of ${signal}:\n${tail}`);
        if (signal === 'SIGTERM' && this.exit.code !== 0) throw new Error(`the server ended with ${JSON.stringify(this.exit)}:\n${tail}`);
    }
}

/** {workers, rings, brokers, port, settings: {'sc.ping_interval': '1s'}, args: ['--config=x']}: a running server.
 *  A setting that is undefined is left to what it is by itself. `wrap` stands in front of the command, as
 *  ['ip', 'netns', 'exec', 'name'], and becomes it. */
export async function startServer({ workers = 1, rings = 1, brokers = 1, port = 0, settings = {}, ready = 20000,
    args: more = [], wrap = [],
    runDir = mkdtempSync(join(tmpdir(), 'ringcast-test-')) } = {}) {
    const all = {
        'worker.listen': `tcp://127.0.0.1:${port}`, 'worker.count': workers, 'worker.rings': rings,
        'broker.count': brokers, 'run.dir': runDir, 'run.drain_timeout': '1s', 'log.level': 'info', ...settings,
    };
    const args = [...Object.entries(all).filter(([, v]) => v !== undefined).map(([k, v]) => `--${k}=${v}`), ...more];
    const child = isReference
        ? spawn(process.execPath, [join(here, 'reference.mjs'), ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
        : spawn(...launch([...wrap, join(bin, 'ringcast'), 'run', ...args]), { stdio: ['ignore', 'pipe', 'pipe'] });
    const s = new Server(child, runDir);
    s.settings = all;
    child.on('error', e => { s.stderr += e.message; s.exit = { code: 127 }; });
    living.add(s);
    try {
        await until(() => {
            if (s.exit) throw new Error(`the server ended with ${JSON.stringify(s.exit)} before it was ready:\n${s.stderr.slice(-3000)}`);
            return /^ringcast: ready on /m.test(s.stdout);
        }, () => `the server's ready line; it said:\n${s.stdout}${s.stderr.slice(-3000)}`, ready);
    } catch (e) {
        await s.stop({ signal: 'SIGKILL', check: false });
        throw e;
    }
    s.port = Number(/^ringcast: ready on .*?tcp:\/\/[^ ]*:(\d+)/m.exec(s.stdout)?.[1]);
    if (!isReference) { await s.processes('worker'); await s.processes('broker'); }
    return s;
}

/** What a failed test left running; called when a file is over, so that its process can end. */
export async function stopAll() {
    await Promise.all([...living].map(s => s.stop({ signal: 'SIGKILL', check: false })));
}

/** Use of CPU and memory of a process, from /proc. */
export function procStat(pid) {
    const f = readFileSync(`/proc/${pid}/stat`, 'latin1').replace(/^.*\) /, '').split(' ');
    return { state: f[0], ticks: Number(f[11]) + Number(f[12]), rss: Number(f[21]) * 4096, fds: readdirSync(`/proc/${pid}/fd`).length };
}
