// What workers and brokers that are started as root may still do, seen from outside in /proc, and that
// nothing is lost by it: restarts, settings read again, files that only root may read.
import test, { after } from 'node:test';
import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startServer, stopAll, until, slow, isReference, preset, ringcast } from '../lib/server.mjs';
import { connected, subscribed, arrived, hangUp } from './lib.mjs';

const isRoot = process.getuid() === 0;
const sanitized = /asan|tsan/.test(preset);
const limit = { timeout: 60000 * slow, skip: (isReference && 'our own processes') || (!isRoot && 'needs root') };
after(async () => { await hangUp(); await stopAll(); });

/** What the kernel says of each thread of a process. */
function threads(pid) {
    return readdirSync(`/proc/${pid}/task`).map(t => Object.fromEntries(
        readFileSync(`/proc/${pid}/task/${t}/status`, 'utf8').split('\n').filter(Boolean)
            .map(line => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1).trim()])));
}
function assertDropped(pid, uid, gid) {
    for (const t of threads(pid)) {
        assert.deepEqual(t.Uid.split('\t'), Array(4).fill(String(uid)), t.Name);
        assert.deepEqual(t.Gid.split('\t'), Array(4).fill(String(gid)), t.Name);
        for (const set of ['CapInh', 'CapPrm', 'CapEff', 'CapAmb', 'CapBnd']) assert.match(t[set], /^0+$/, `${t.Name} ${set}`);
        assert.equal(t.NoNewPrivs, '1', t.Name);
        assert.equal(t.Seccomp, sanitized ? '0' : '2', t.Name);
    }
    const core = /^Max core file size\s+(\S+)\s+(\S+)/m.exec(readFileSync(`/proc/${pid}/limits`, 'utf8'));
    // A process that may not be dumped belongs to root as far as /proc goes.
    if (!sanitized) assert.deepEqual([core[1], core[2], statSync(`/proc/${pid}/maps`).uid], ['0', '0', 0]);
}

test('rights: started as root, workers and brokers are users of their own', limit, async () => {
    const server = await startServer({ workers: 2, rings: 2, brokers: 2,
        settings: { 'worker.user': '60001:60011', 'broker.user': '60002:60012' } });
    for (const { pid } of await server.processes('worker')) assertDropped(pid, 60001, 60011);
    for (const { pid } of await server.processes('broker')) assertDropped(pid, 60002, 60012);
    for (const p of [...await server.pages('worker'), ...await server.pages('broker')])
        assert.deepEqual(['user_id', 'capabilities', 'no_new_privs', 'core_dumps', 'seccomp', 'ring_restricted', 'refused_calls_total'].map(c => p.counters[c]),
            [p.process === 'worker' ? 60001 : 60002, 0, 1, sanitized ? 1 : 0, sanitized ? 0 : 2, 1, 0]);
    assert.equal(threads(server.pid)[0].NoNewPrivs, '1');
    const { stdout } = await ringcast('status', `--run.dir=${server.runDir}`);
    const limits = sanitized ? 'system calls not limited, ring limited, core dumps' : 'system calls limited, ring limited, no core dumps';
    for (const [who, uid] of [['worker.0', 60001], ['worker.1', 60001], ['broker.0', 60002], ['broker.1', 60002]])
        assert.match(stdout, new RegExp(`^  ${who} +user ${uid}, 0 capabilities, no new privileges, ${limits}$`, 'm'));
    // Others may walk the directory, and see nothing in it; the sockets are the workers'.
    assert.equal(statSync(server.runDir).mode & 0o7777, 0o711);
    assert.equal(statSync(join(server.runDir, 'stat')).mode & 0o7777, 0o700);
    const socket = statSync(join(server.runDir, 'broker-0.sock'));
    assert.deepEqual([socket.mode & 0o777, socket.uid, socket.gid], [0o660, 60002, 60011]);

    const s = await connected(20, server);
    const got = await subscribed(s, 'between users');
    await s.invokePublish('between users', 1);
    await arrived(got, 1);
    await hangUp(s);
    await server.stop();
});

test('rights: what dies is started as root again, and drops again', limit, async () => {
    const server = await startServer({ settings: { 'worker.user': '60001', 'broker.user': '60002' } });
    for (const kind of ['broker', 'worker']) {
        const [{ pid }] = await server.processes(kind);
        process.kill(pid, 'SIGKILL');
        await until(async () => (await server.processes(kind)).some(p => p.pid !== pid), `another ${kind}`);
        await until(async () => (await server.counter('brokers_up')) === 1, 'the broker to be back');
        const [now] = await server.processes(kind);
        await until(() => threads(now.pid).every(t => !t.Uid.startsWith('0\t')), 'the drop');
        assertDropped(now.pid, kind === 'worker' ? 60001 : 60002, kind === 'worker' ? 60001 : 60002);
    }
    const s = await connected(20, server);
    const got = await subscribed(s, 'again');
    await s.invokePublish('again', 1);
    await arrived(got, 1);
    await hangUp(s);
    await server.stop();
});

test('rights: settings that only root may read are read again on SIGHUP, through the parent', limit, async () => {
    const dir = mkdtempSync(join(tmpdir(), 'ringcast-rights-')); // 0700
    const file = join(dir, 'ringcast.conf');
    writeFileSync(file, '[sc]\nping_interval = 5s\n', { mode: 0o600 });
    process.env.RINGCAST_CONFIG = file;
    let server;
    try { server = await startServer(); } finally { delete process.env.RINGCAST_CONFIG; }
    const [worker] = await server.processes('worker'), [broker] = await server.processes('broker');
    writeFileSync(file, '[sc]\nping_interval = 6s\n');
    server.child.kill('SIGHUP');
    const said = (who, what) => until(() => server.stderr.split('\n').some(l => l.includes(` ${who} `) && l.includes(what)),
        () => `${who}: ${what}, in:\n${server.stderr}`);
    for (const who of ['run', 'worker.0', 'broker.0']) await said(who, 'conf-changed setting=sc.ping_interval value=6s');
    // Without its parent a process can't: it says so, and goes on.
    server.child.kill('SIGSTOP');
    writeFileSync(file, '[sc]\nping_interval = 7s\n');
    process.kill(worker.pid, 'SIGHUP');
    await said('worker.0', 'not-reloaded');
    server.child.kill('SIGCONT');
    chmodSync(dir, 0o755);
    chmodSync(file, 0o644);
    process.kill(broker.pid, 'SIGHUP');
    await said('broker.0', 'conf-changed setting=sc.ping_interval value=7s');
    await server.stop();
    rmSync(dir, { recursive: true });
});

test('rights: root stays root, and calls are not limited, only when it is told so', limit, async () => {
    const server = await startServer({ settings: { 'worker.user': 'root', 'broker.user': 'root', 'run.core_dumps': 'on', 'run.seccomp': 'off' } });
    for (const kind of ['worker', 'broker'])
        for (const { pid } of await server.processes(kind)) {
            for (const t of threads(pid)) assert.deepEqual([t.Uid.split('\t')[0], Number(`0x${t.CapEff}`), t.NoNewPrivs, t.Seccomp], ['0', 0, '1', '0']);
            const [page] = await server.pages(kind);
            assert.deepEqual([page.counters.core_dumps, page.counters.seccomp], [1, 0]);
        }
    await server.stop();
});

test('rights: a user that does not exist is said before anything starts', limit, async () => {
    const r = await ringcast('run', '--worker.listen=tcp://127.0.0.1:0', '--broker.user=no-such-user',
        `--run.dir=${mkdtempSync(join(tmpdir(), 'ringcast-test-'))}`);
    assert.equal(r.code, 1);
    assert.match(r.stderr, /broker\.user is no-such-user \(flag --broker\.user\), and there is no such user: make one/);
});
