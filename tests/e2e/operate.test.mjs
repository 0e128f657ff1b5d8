// What an operator does to a running server: settings re-read on SIGHUP, an orderly stop, starts that must
// not succeed. Real processes throughout.
import test, { after } from 'node:test';
import assert from 'node:assert/strict';
import { writeFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startServer, stopAll, until, ringcast, run, bin, isReference, slow } from '../lib/server.mjs';
import { Raw, dial, encodeFrame, TEXT } from '../lib/raw.mjs';

const ours = { timeout: 60000 * slow, skip: isReference && 'this is about our processes' };
const dir = mkdtempSync(join(tmpdir(), 'ringcast-operate-'));
after(async () => { await stopAll(); rmSync(dir, { recursive: true, force: true }); });
const count = (text, word) => text.split(word).length - 1;

// ---- SIGHUP ----

const conf = (name, ini) => { writeFileSync(join(dir, name), ini); return join(dir, name); };
async function hup(s, word) {
    const before = count(s.stderr, word);
    s.child.kill('SIGHUP');
    await until(() => count(s.stderr, word) > before, () => `"${word}" after SIGHUP; it said:\n${s.stderr.slice(-3000)}`);
}
// The worker answers a channel name that is too long with an error; the limit is what the file says.
async function longestName(c) {
    for (let n = 1; n <= 64; n++)
        try { await c.publish('x'.repeat(n), 1); } catch { return n - 1; }
    return 64;
}

test('SIGHUP: what may change does, in the clients that are there, and all the rest stays', ours, async () => {
    const file = conf('a.conf', '[sc]\nmax_channel_name = 5\n[broker]\nmax_channels = 1000\n');
    const s = await startServer({ rings: 2, settings: { 'log.level': 'info' }, args: [`--config=${file}`] });
    const c = await dial(s.port);
    assert.equal(await longestName(c), 5);
    conf('a.conf', '[sc]\nmax_channel_name = 9\n[broker]\nmax_channels = 2000\n[worker]\nbacklog = 7\n[lane]\nbytes = 64KiB\n');
    await hup(s, 'reloaded');
    await until(async () => await longestName(c) === 9, 'the new limit');
    // each process says what changed, and what would need a restart
    for (const who of ['run', 'worker.0', 'broker.0']) {
        await until(() => new RegExp(`${who}\\S* conf-changed setting=sc.max_channel_name value=9`).test(s.stderr), () => `${who}:\n${s.stderr}`);
        assert.match(s.stderr, new RegExp(`${who}\\S* conf-needs-restart setting=worker.backlog value=7 running=1024`));
        assert.match(s.stderr, new RegExp(`${who}\\S* conf-needs-restart setting=lane.bytes value=64KiB running=4MiB`));
    }
    assert.equal(c.ended, false);
    c.destroy();
    await s.stop();
});

test('SIGHUP: a bad file changes nothing, and each of its mistakes is said with its line', ours, async () => {
    const file = conf('b.conf', '[sc]\nmax_channel_name = 5\n');
    const s = await startServer({ args: [`--config=${file}`] });
    const c = await dial(s.port);
    conf('b.conf', '[sc]\nmax_channel_name = 9\nping_interval = soon\n[worker]\ncuont = 2\n');
    await hup(s, 'not-reloaded mistake=2');
    assert.match(s.stderr, /not-reloaded mistake=1 of=2 why="sc.ping_interval is \\?"soon\\?" \(\S+b.conf:3\)/);
    assert.match(s.stderr, /not-reloaded mistake=2 of=2 why="\\?"worker.cuont\\?" \(\S+b.conf:5\).*worker.count/);
    assert.equal(await longestName(c), 5);
    // and once it is right it counts
    conf('b.conf', '[sc]\nmax_channel_name = 9\n');
    await hup(s, 'reloaded');
    await until(async () => await longestName(c) === 9, 'the new limit');
    c.destroy();
    await s.stop();
});

test('SIGHUP: log.level and log.rate change at once', ours, async () => {
    const file = conf('c.conf', '[log]\nlevel = warn\n');
    const s = await startServer({ args: [`--config=${file}`], settings: { 'log.level': undefined } });
    const end = async () => { const c = await dial(s.port); await c.end(); };
    await end();
    assert.equal(count(s.stderr, ' peer_closed '), 0);
    conf('c.conf', '[log]\nlevel = debug\nrate = 0\n');
    s.child.kill('SIGHUP');
    await until(async () => { await end(); return /PEER_CLOSED|peer_closed/.test(s.stderr); }, () => `a debug line:\n${s.stderr}`);
    await s.stop();
});

// ---- the orderly stop ----

/** A client with megabytes in its queue that takes none of them. */
async function stuckClient(s) {
    const stuck = await dial(s.port, { keep: false }), from = await dial(s.port);
    await stuck.subscribe('flood');
    stuck.socket.pause();
    while (await s.counter('queue_bytes') < 1 << 20)
        for (let i = 0; i < 20; i++) await from.publish('flood', 'x'.repeat(100000));
    from.destroy();
    return stuck;
}

for (const drain of [1000, 4000])
    test(`SIGTERM: a client that takes nothing holds up the end for run.drain_timeout (${drain} ms), and hardly longer`, ours, async () => {
        const s = await startServer({ workers: 2, brokers: 2, settings: { 'run.drain_timeout': `${drain}ms`, 'out.queue_bytes': '64MiB', 'out.stall': '60s', 'ws.close_timeout': '60s' } });
        const stuck = await stuckClient(s), silent = await new Raw().open(s.port), fine = await dial(s.port);
        const began = Date.now();
        await s.stop();
        const took = Date.now() - began;
        await fine.closed;
        assert.equal(fine.closeCode, 1001);
        assert.ok(took >= drain - 50 && took <= drain + 3000 * slow, `it took ${took} ms`);
        assert.match(s.stderr, /forced conn=\d+ .*why="an orderly stop ran out of time/);
        for (const c of [stuck, silent]) c.destroy();
    });

for (const kind of ['worker', 'broker'])
    test(`SIGTERM: a ${kind} that stands still cannot hold up the end either`, ours, async () => {
        const s = await startServer({ workers: 2, brokers: 2, settings: { 'run.drain_timeout': '1s' } });
        const [{ pid }] = await s.processes(kind);
        process.kill(pid, 'SIGSTOP');
        const began = Date.now();
        await s.stop({ check: false });
        const took = Date.now() - began;
        assert.ok(took <= 1000 + 4000 * slow, `it took ${took} ms`); // it would stand still for ever
        assert.equal(s.exit.code, 1); // so that whoever started it hears of it
        assert.match(s.stderr, new RegExp(`stop-forced ${kind}s=1`));
    });

test('SIGTERM twice ends at once', ours, async () => {
    const s = await startServer({ settings: { 'run.drain_timeout': '60s', 'out.queue_bytes': '64MiB', 'out.stall': '60s', 'ws.close_timeout': '60s' } });
    const stuck = await stuckClient(s);
    s.child.kill('SIGTERM');
    await until(() => / drain connections=[12]/.test(s.stderr), 'the drain'); // who flooded may not have been seen to go
    s.child.kill('SIGTERM');
    const began = Date.now();
    await s.stop({ check: false });
    assert.ok(Date.now() - began < 5000 * slow, `${Date.now() - began} ms`); // and not run.drain_timeout
    stuck.destroy();
});

// ---- starts ----

test('a CPU that this machine does not have is refused before anything starts', ours, async () => {
    for (const key of ['worker.cpus', 'broker.cpus']) {
        const r = await ringcast('run', `--${key}=0,999`, `--run.dir=${join(dir, 'none')}`);
        assert.equal(r.code, 1);
        assert.match(r.stderr, new RegExp(`^ringcast: ${key} has the entry "999" \\(flag --${key}\\), a CPU that this machine does not have: write CPU numbers from 0 to \\d+, with commas between\\n$`));
    }
    const alone = await run(join(bin, 'ringcast-worker'), ['--worker.cpus=999', `--run.dir=${join(dir, 'none')}`]);
    assert.equal(alone.code, 1);
    assert.match(alone.stderr, /^ringcast: worker.cpus has the entry "999"/);
});

test('a listen address with a relative path is refused with what is right', ours, async () => {
    const r = await ringcast('run', '--worker.listen=unix:relative', `--run.dir=${join(dir, 'none')}`);
    assert.equal(r.code, 1);
    assert.match(r.stderr, /^ringcast: worker.listen \(flag --worker.listen\): "unix:relative" has a path that does not begin with \/: write unix:\/path[^\n]*\n$/);
});

test('all mistakes are told at once', ours, async () => {
    const file = conf('d.conf', '[worker]\ncuont = 2\nrings = 65\n[log\n[sc]\nping_interval = 8\n');
    const r = await run(join(bin, 'ringcast'), ['run', '--config', file, '--broker.count=none'], { env: { ...process.env, RINGCAST_LOG_LEVEL: 'loud' } });
    assert.equal(r.code, 1);
    const lines = r.stderr.trimEnd().split('\n');
    assert.deepEqual(lines.map(l => /d\.conf:\d+|RINGCAST_\w+|flag --[\w.]+/.exec(l)?.[0]), ['d.conf:2', 'd.conf:3', 'd.conf:4', 'd.conf:6', 'RINGCAST_LOG_LEVEL', 'flag --broker.count']);
    for (const l of lines) assert.match(l, /^ringcast: /);
    conf('d.conf', '[worker]\n' + Array.from({ length: 100 }, (_, i) => `k${i} = 1\n`).join(''));
    const many = (await ringcast('check-config', '--config', file)).stderr.trimEnd().split('\n');
    assert.equal(many.length, 21);
    assert.equal(many[20], 'ringcast: and 80 more mistakes: correct these first');
});
