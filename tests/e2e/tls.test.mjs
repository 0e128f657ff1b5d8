// tls:// listeners with real clients: unmodified socketcluster-client, Node's own TLS, certificates made here
// by openssl(1). The record layer itself is taken apart in tests/unit/test_tls.c and tests/conform.
import test, { before, after } from 'node:test';
import assert from 'node:assert/strict';
import net from 'node:net';
import tls from 'node:tls';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, chmodSync, copyFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startServer, stopAll, until, slow, isReference, ringcast, run, bin } from '../lib/server.mjs';
import { connected, subscribed, arrived, hangUp, majors } from './lib.mjs';

const limit = { timeout: 60000 * slow, skip: isReference && 'ringcast only' };
const dir = mkdtempSync(join(tmpdir(), 'ringcast-tls-'));
const file = name => join(dir, name);
const pair = (name, host = 'localhost') => execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256',
    '-nodes', '-keyout', file(`${name}.key`), '-out', file(`${name}.pem`), '-days', '2', '-subj', `/CN=${name}`,
    '-addext', `subjectAltName=DNS:${host}`], { stdio: 'ignore' });
let server;
const start = (settings = {}, shape = {}) => startServer({ rings: 1, settings: {
    'worker.listen': 'tls://127.0.0.1:0,tcp://127.0.0.1:0', 'tls.certificate': file('a.pem'), 'tls.key': file('a.key'),
    'tls.handshake_timeout': '1s', ...settings }, ...shape });
const portOf = s => Number(/tls:\/\/127\.0\.0\.1:(\d+)/.exec(s.stdout)[1]);
before(async () => {
    pair('a'); pair('b', 'b.test'); pair('client');
    server = await start({ 'http.playground': 'on', 'echo.path': '/echo' }, { workers: 2, rings: 2 });
}, { timeout: 60000 * slow });
after(async () => {
    await hangUp();
    try { await server?.stop(); } finally { await stopAll(); rmSync(dir, { recursive: true, force: true }); }
});

const secure = (s, options = {}) => ({ port: portOf(s), secure: true, wsOptions: { rejectUnauthorized: false, ...options } });
/** A TLS connection; resolves when shaken, rejects when refused. */
const dial = (s, options = {}) => new Promise((done, failed) => {
    const socket = tls.connect({ port: portOf(s), host: '127.0.0.1', rejectUnauthorized: false, ...options }, () => done(socket));
    socket.on('error', failed);
});
const ended = socket => new Promise(r => { socket.on('error', () => {}); socket.on('close', r); socket.resume(); });
const request = (socket, path = '/') => new Promise((done, failed) => {
    let text = '';
    socket.setEncoding('latin1');
    socket.on('data', d => { text += d; });
    socket.on('end', () => done(text));
    socket.on('error', failed);
    socket.write(`GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`);
});

for (const major of majors)
    test(`socketcluster-client ${major} over wss`, limit, async () => {
        const a = await connected(major, server, secure(server)), b = await connected(major, server);
        const got = await subscribed(a, `tls-${major}`);
        await b.invokePublish(`tls-${major}`, { from: 'plain' });
        await a.invokePublish(`tls-${major}`, { from: 'tls', long: 'x'.repeat(200000) });
        await arrived(got, 2);
        assert.equal(got[0].from, 'plain');
        assert.equal(got[1].long.length, 200000);
        await hangUp(a, b);
    });

test('both versions; tickets are taken by any ring of any worker', limit, async () => {
    for (const version of ['TLSv1.2', 'TLSv1.3']) {
        let session;
        const first = await dial(server, { minVersion: version, maxVersion: version });
        assert.equal(first.getProtocol(), version);
        first.on('session', s => { session = s; });
        await until(() => session || (version === 'TLSv1.2' && (session = first.getSession())), 'a ticket');
        first.destroy();
        for (let i = 0; i < 8; i++) {
            const again = await dial(server, { session, minVersion: version, maxVersion: version });
            assert.equal(again.isSessionReused(), true);
            again.end();
            await ended(again);
        }
    }
    await until(async () => await server.counter('tls_resumed_total') >= 16, 'the counters');
});

test('tickets outlive a worker, and one host that shares its secret with another', limit, async () => {
    writeFileSync(file('secret'), 'twelve monkeys and thirty-six more bytes of noise');
    const one = await start({ 'tls.ticket_secret': file('secret'), 'tls.ticket_rotation': '1h' });
    let session;
    const first = await dial(one);
    first.on('session', s => { session = s; });
    await until(() => session, 'a ticket');
    const [worker] = await one.processes('worker');
    process.kill(worker.pid, 'SIGKILL');
    await until(async () => { const [w] = await one.processes('worker'); return w && w.pid !== worker.pid; }, 'a new worker', 10000);
    const again = await until(() => dial(one, { session }).catch(() => null), 'a connection');
    assert.equal(again.isSessionReused(), true);
    again.destroy();
    const two = await start({ 'tls.ticket_secret': file('secret'), 'tls.ticket_rotation': '1h' });
    const other = await dial(two, { session });
    assert.equal(other.isSessionReused(), true);
    other.destroy();
    await one.stop();
    await two.stop();
});

test('HTTP on the TLS port is told what the port speaks (close_tls_expected)', limit, async () => {
    const before = await server.counter('close_tls_expected');
    const answer = await request(net.connect(portOf(server), '127.0.0.1'));
    assert.match(answer, /^HTTP\/1\.1 400 [^]*wss:\/\//);
    await until(async () => await server.counter('close_tls_expected') === before + 1, 'the counter');
});

test('a ClientHello on a plain port gets an alert (close_tls_unexpected)', limit, async () => {
    const before = await server.counter('close_tls_unexpected');
    await assert.rejects(dial(server, { port: server.port }), /alert protocol version/);
    await until(async () => await server.counter('close_tls_unexpected') === before + 1, 'the counter');
});

test('noise on a TLS port ends at once, also behind the handshake (close_tls_broken)', limit, async () => {
    const before = await server.counter('close_tls_broken');
    const noise = net.connect(portOf(server), '127.0.0.1');
    noise.write(Buffer.from([1, 2, 3]));
    await ended(noise);
    const raw = net.connect(portOf(server), '127.0.0.1');
    const shaken = await new Promise((r, f) => { const s = tls.connect({ socket: raw, rejectUnauthorized: false }, () => r(s)); s.on('error', f); });
    shaken.removeAllListeners('error');
    const over = ended(shaken);
    raw.write('no record');
    await over;
    await until(async () => await server.counter('close_tls_broken') === before + 2, 'the counter');
});

test('half a handshake ends at tls.handshake_timeout (close_tls_timeout)', limit, async () => {
    const s = await start();
    const silent = net.connect(portOf(s), '127.0.0.1'), half = net.connect(portOf(s), '127.0.0.1');
    half.write(Buffer.from([22, 3, 1, 0, 200, 1]));
    const trickle = setInterval(() => half.write(Buffer.from([0])), 50); // does not extend it
    await Promise.all([ended(silent), ended(half)]);
    clearInterval(trickle);
    await until(async () => await s.counter('close_tls_timeout') === 2, 'the counter');
    assert.equal(await s.counter('tls_connections'), 0);
    await s.stop();
});

test('the certificate fits the name; ciphers and versions are as set', limit, async () => {
    const s = await start({ 'tls.certificate': `${file('a.pem')},${file('b.pem')}`, 'tls.key': `${file('a.key')},${file('b.key')}`,
        'tls.min_version': '1.3', 'tls.cipher_suites': 'TLS_CHACHA20_POLY1305_SHA256', 'tls.ciphers': 'ECDHE-ECDSA-AES128-GCM-SHA256' });
    for (const [name, cn] of [['localhost', 'a'], ['b.test', 'b'], ['else.test', 'a']]) {
        const c = await dial(s, { servername: name });
        assert.equal(c.getPeerCertificate().subject.CN, cn);
        assert.equal(c.getCipher().standardName, 'TLS_CHACHA20_POLY1305_SHA256');
        c.destroy();
    }
    await assert.rejects(dial(s, { maxVersion: 'TLSv1.2' }), /protocol version/);
    await s.stop();
});

test('client certificates: required means no message without one', limit, async () => {
    const s = await start({ 'tls.client_verify': 'required', 'tls.client_ca': file('client.pem') });
    const own = name => ({ cert: execFileSync('cat', [file(`${name}.pem`)]), key: execFileSync('cat', [file(`${name}.key`)]) });
    for (const bad of [{}, own('b')]) {
        const c = await dial(s, bad).catch(() => null); // TLS 1.3 clients learn of it after their own end
        if (c) await ended(c);
    }
    const c = await connected(20, s, secure(s, own('client')));
    await until(() => /tls-shaken .*subject="?CN=client/.test(s.stderr), 'the subject in the log');
    assert.equal(await s.counter('tls_handshakes_total'), 1);
    await hangUp(c);
    await s.stop();
});

test('SIGHUP, or ringcast reload, reads certificates again: connections stay, new ones see the new one, a bad file changes nothing', limit, async () => {
    const install = name => { for (const end of ['pem', 'key']) { copyFileSync(file(`${name}.${end}`), file(`live.${end}`)); chmodSync(file(`live.${end}`), 0o600); } }; // for root alone: the parent lends them
    install('a');
    const s = await start({ 'tls.certificate': file('live.pem'), 'tls.key': file('live.key') });
    const cn = async () => { const c = await dial(s); const name = c.getPeerCertificate().subject.CN; c.destroy(); return name; };
    const stays = await connected(20, s, secure(s));
    const got = await subscribed(stays, 'reload');
    install('b');
    assert.equal((await ringcast('reload', `--run.dir=${s.runDir}`)).code, 0);
    await until(async () => await cn() === 'b', 'the new certificate');
    writeFileSync(file('live.pem'), 'no certificate');
    process.kill(s.pid, 'SIGHUP');
    await until(() => /tls-not-reloaded .*live\.pem/.test(s.stderr), 'the refusal');
    assert.equal(await cn(), 'b');
    await stays.invokePublish('reload', 1);
    await arrived(got, 1);
    assert.equal(stays.seen.connects, 1);
    await hangUp(stays);
    await s.stop();
});

test('a storm of handshakes is paced and all of them get through', limit, async () => {
    const s = await start({ 'tls.handshakes_per_turn': 1, 'tls.handshake_timeout': '20s' });
    const all = await Promise.all(Array.from({ length: 100 }, () => dial(s)));
    assert.ok(await s.counter('tls_paced_total') > 0);
    for (const c of all) c.destroy();
    await until(async () => await s.counter('tls_connections') === 0, 'their end');
    await s.stop();
});

test('ringcast publish and subscribe over TLS: at home unchecked, by URL against the authorities', limit, async () => {
    const s = await startServer({ settings: { 'worker.listen': 'tls://127.0.0.1:0', 'tls.certificate': file('a.pem'), 'tls.key': file('a.key') } });
    const heard = ringcast('subscribe', 'cli', '--count', '2', `--run.dir=${s.runDir}`);
    await until(async () => await s.counter('subscriptions') === 1, 'the subscription');
    assert.equal((await ringcast('publish', 'cli', '{"n":1}', `--run.dir=${s.runDir}`)).code, 0);
    const url = `wss://localhost:${portOf(s)}/socketcluster/`;
    const refused = await ringcast('publish', 'cli', '1', '--url', url);
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /not trusted/);
    const wrong = await run(join(bin, 'ringcast'), ['publish', 'cli', '1', '--url', url.replace('localhost', '127.0.0.1')],
        { env: { ...process.env, SSL_CERT_FILE: file('a.pem') } });
    assert.match(wrong.stderr, /not trusted|mismatch/);
    const trusted = await run(join(bin, 'ringcast'), ['publish', 'cli', '{"n":2}', '--url', url], { env: { ...process.env, SSL_CERT_FILE: file('a.pem') } });
    assert.equal(trusted.stderr, '');
    assert.equal((await heard).stdout, 'cli\t{"n":1}\ncli\t{"n":2}\n');
    assert.equal((await ringcast('reload', '--run.dir=/nowhere')).code, 1);
    await s.stop();
});

test('the kernel makes the records where it can, and not with tls.kernel=off', limit, async t => {
    const has = /ring listeners=.* tls=kernel/.test(server.stderr);
    const s = await start({ 'tls.kernel': 'off' });
    for (const [which, kernel] of [[server, has], [s, false]]) {
        const before = await which.counter('tls_kernel_total');
        for (const version of ['TLSv1.2', 'TLSv1.3']) {
            const c = await dial(which, { minVersion: version, maxVersion: version });
            assert.match(await request(c, '/nothing'), /^HTTP\/1.1 404 /);
        }
        assert.equal(await which.counter('tls_kernel_total') - before, kernel ? 2 : 0);
    }
    await s.stop();
    if (!has) t.diagnostic('this kernel has no kTLS: only that it is not missed was shown');
});

test('compressed publications over TLS', limit, async () => {
    const s = await start();
    const options = secure(s, { perMessageDeflate: { threshold: 0 } });
    const sockets = [], data = { text: 'a line that comes back often. '.repeat(300) };
    for (const major of [majors[0], majors.at(-1)]) sockets.push(await connected(major, s, options));
    const gots = await Promise.all(sockets.map(c => subscribed(c, 'news')));
    for (let i = 0; i < 20; i++) await sockets[i % 2].invokePublish('news', { ...data, i });
    await Promise.all(gots.map(g => arrived(g, 20)));
    for (const g of gots) assert.deepEqual(g.map(m => m.i), [...Array(20).keys()]);
    assert.equal(await s.counter('deflate_out_messages_total'), 20);
    assert.ok(await s.counter('bytes_out_total') < 20 * 2 * data.text.length / 4);
    await hangUp(...sockets);
    await s.stop();
});
