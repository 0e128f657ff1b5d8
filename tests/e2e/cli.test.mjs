// `ringcast publish`, `subscribe` and `status` against a running server and an unmodified client.
import test, { before, after } from 'node:test';
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { startServer, stopAll, ringcast, bin, until, slow, isReference } from '../lib/server.mjs';
import { connected, subscribed, arrived, hangUp } from './lib.mjs';

const limit = { timeout: 30000 * slow, skip: isReference && 'our own program' };
let server;
before(async () => { if (!isReference) server = await startServer({ rings: 2, brokers: 2 }); }, { timeout: 30000 * slow });
after(async () => { await hangUp(); try { await server?.stop(); } finally { await stopAll(); } });

test('cli: publish reaches an unmodified client', limit, async () => {
    const s = await connected(20, server);
    const got = await subscribed(s, 'from cli');
    for (const data of ['{"a":[1,2,null]}', '"quoted"', 'plain text', '17', 'null'])
        assert.deepEqual(await ringcast('publish', 'from cli', data, `--run.dir=${server.runDir}`), { code: 0, signal: undefined, stdout: '', stderr: '' });
    await arrived(got, 5);
    assert.deepEqual([...got], [{ a: [1, 2, null] }, 'quoted', 'plain text', 17, null]);
    await hangUp(s);
});
test('cli: subscribe prints what an unmodified client publishes, and ends after --count', limit, async () => {
    const child = spawn(join(bin, 'ringcast'), ['subscribe', 'one', 'two', '--url', server.url, '--count', '3'], { stdio: ['ignore', 'pipe', 'pipe'] });
    let out = '';
    child.stdout.on('data', d => { out += d; });
    const ended = new Promise(r => child.on('exit', r));
    await until(async () => await server.counter('subscriptions') >= 2, 'two subscriptions');
    const s = await connected(15, server);
    await s.invokePublish('one', { n: 1 });
    await s.invokePublish('two', 'zwei');
    await s.invokePublish('one', 3);
    assert.equal(await ended, 0);
    assert.equal(out.split('\n').filter(Boolean).sort().join('\n'), ['one\t3', 'one\t{"n":1}', 'two\t"zwei"'].sort().join('\n'));
    await hangUp(s);
});
test('cli: publish to nobody says why it cannot', limit, async () => {
    const r = await ringcast('publish', 'a', '1', '--url', 'ws://127.0.0.1:1/socketcluster/');
    assert.notEqual(r.code, 0);
    assert.match(r.stderr, /127\.0\.0\.1:1/);
});
test('cli: status counts connections, subscriptions and messages, and the books balance', limit, async () => {
    const before = await server.counter('publishes_total');
    const sockets = [];
    for (let i = 0; i < 6; i++) sockets.push(await connected(15 + i, server));
    const gots = await Promise.all(sockets.map(s => subscribed(s, 'books')));
    const delivered = await server.counter('deliveries_total');
    for (let i = 0; i < 50; i++) await sockets[i % 6].invokePublish('books', i);
    await Promise.all(gots.map(g => arrived(g, 50)));
    await until(async () => (await server.counter('publishes_total')) === before + 50, 'the count of publishes');
    assert.equal(await server.counter('connections_open'), 6);
    assert.equal(await server.counter('subscriptions'), 6);
    const pages = await server.pages('worker');
    assert.equal(pages.reduce((n, p) => n + p.counters.connections, 0), 6);
    assert.ok(await server.counter('deliveries_total') - delivered >= 300);
    const text = (await ringcast('status', `--run.dir=${server.runDir}`)).stdout;
    assert.match(text, /worker\.0\/0/);
    assert.match(text, /broker\.1/);
    await hangUp(...sockets);
    await until(async () => (await server.counter('connections')) === 0, 'the connections to be gone');
    assert.equal(await server.counter('subscriptions'), 0);
    await until(async () => (await server.pages('broker')).every(p => p.counters.channels === 0), 'the brokers to forget the channels');
});
