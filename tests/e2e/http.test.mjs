// What plain HTTP requests get.
import test, { before, after } from 'node:test';
import assert from 'node:assert/strict';
import { startServer, stopAll, isReference, slow, until } from '../lib/server.mjs';
import { http, Raw, dial } from '../lib/raw.mjs';

const limit = { timeout: 30000 * slow, skip: isReference && 'our own answers' };
const upgrade = 'Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n';
let server;
before(async () => {
    if (!isReference) server = await startServer({ settings: { 'http.header_timeout': '700ms', 'http.header_fields': 50, 'echo.path': '/echo' } });
}, { timeout: 30000 * slow });
after(async () => { try { await server?.stop(); } finally { await stopAll(); } });

const cases = {
    'unknown path': ['GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n', 404],
    'the page is off unless configured': ['GET / HTTP/1.1\r\nHost: x\r\n\r\n', 404],
    'path in another case': ['GET /SocketCluster/ HTTP/1.1\r\nHost: x\r\n' + upgrade + '\r\n', 404],
    'path with dots': ['GET /x/../socketcluster/ HTTP/1.1\r\nHost: x\r\n' + upgrade + '\r\n', 404],
    'path percent-encoded': ['GET /socketcluster%2f HTTP/1.1\r\nHost: x\r\n' + upgrade + '\r\n', 404],
    'WebSocket path without an upgrade': ['GET /socketcluster/ HTTP/1.1\r\nHost: x\r\n\r\n', 426],
    'another method': ['POST /socketcluster/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n', 405],
    'wrong WebSocket version': ['GET /socketcluster/ HTTP/1.1\r\nHost: x\r\n' + upgrade.replace('13', '8') + '\r\n', 426],
    'no key': ['GET /socketcluster/ HTTP/1.1\r\nHost: x\r\n' + upgrade.replace(/Sec-WebSocket-Key.*\r\n/, '') + '\r\n', 400],
    'a key of the wrong length': ['GET /socketcluster/ HTTP/1.1\r\nHost: x\r\n' + upgrade.replace('dGhl', '') + '\r\n', 400],
    'no Host': ['GET /socketcluster/ HTTP/1.1\r\n' + upgrade + '\r\n', 400],
    'two Hosts': ['GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n', 400],
    'not HTTP at all': ['\x17\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n', 400],
    'HTTP/0.9': ['GET /\r\n\r\n', 400],
    'HTTP/1.0': ['GET /socketcluster/ HTTP/1.0\r\nHost: x\r\n' + upgrade + '\r\n', [400, 426, 505]],
    'HTTP/2 preface': ['PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', [400, 505]],
    'space before the colon': ['GET / HTTP/1.1\r\nHost : x\r\n\r\n', 400],
    'folded line': ['GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n', 400],
    'a bare CR': ['GET / HTTP/1.1\r\nHost: x\rA: b\r\n\r\n', 400],
    'a NUL': ['GET / HTTP/1.1\r\nHost: x\0\r\n\r\n', 400],
    'two lengths': ['GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n', 400],
    'length and chunked': ['GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n', 400],
    'an upgrade with a body': ['GET /socketcluster/ HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n' + upgrade + '\r\nabcd', 400],
    'a long request line': ['GET /' + 'a'.repeat(9000) + ' HTTP/1.1\r\nHost: x\r\n\r\n', 414],
    'long headers': ['GET / HTTP/1.1\r\nHost: x\r\nA: ' + 'a'.repeat(17000) + '\r\n\r\n', 431],
    'many headers': ['GET / HTTP/1.1\r\nHost: x\r\n' + 'A: b\r\n'.repeat(51) + '\r\n', 431],
    'many empty lines in front': ['\r\n'.repeat(5) + 'GET / HTTP/1.1\r\nHost: x\r\n\r\n', 400],
};
for (const [name, [request, want]] of Object.entries(cases))
    test(`http: ${name}: ${want}`, limit, async () => {
        const answer = await http(server.port, request, { timeout: 5000 * slow });
        assert.ok([want].flat().includes(answer.status), `${answer.status}: ${answer.all.slice(0, 200)}`);
        assert.match(answer.headers.connection ?? '', /close/i);
        assert.equal(Number(answer.headers['content-length']), answer.body.length);
        assert.ok(!answer.body.includes('aaaa') && !answer.body.includes('nowhere'), 'the request is not repeated');
        if (want === 405) assert.ok(answer.headers.allow, 'says what is allowed');
        if (want === 426) assert.match(answer.headers.upgrade ?? '', /websocket/i);
        if (name.includes('version')) assert.equal(answer.headers['sec-websocket-version'], '13');
    });

test('http: half a request is ended at http.header_timeout', limit, async () => {
    const began = Date.now();
    const answer = await http(server.port, 'GET /socketcluster/ HTTP/1.1\r\nHost', { timeout: 8000 * slow });
    assert.ok([0, 408].includes(answer.status));
    assert.ok(Date.now() - began >= 600);
});
test('http: so is silence, and a trickle', limit, async () => {
    const silent = await http(server.port, '', { timeout: 8000 * slow });
    assert.ok([0, 408].includes(silent.status));
    const c = await new Raw().open(server.port, { upgrade: false });
    const timer = setInterval(() => c.bytes('G'), 100);
    const began = Date.now();
    c.socket.resume();
    await c.closed;
    clearInterval(timer);
    assert.ok(Date.now() - began < 5000 * slow);
});
test('http: frames in the same segment as the request are served', limit, async () => {
    const { encodeFrame, TEXT } = await import('../lib/raw.mjs');
    const c = new Raw();
    await c.open(server.port, { upgrade: false });
    let got = '';
    c.socket.on('data', d => { got += d.toString('latin1'); });
    c.bytes(Buffer.concat([Buffer.from('GET /socketcluster/?x=1 HTTP/1.1\r\nHost: x\r\n' + upgrade + '\r\n'),
        encodeFrame(TEXT, '{"event":"#handshake","data":{},"cid":1}'), encodeFrame(TEXT, '{"event":"#subscribe","data":{"channel":"a"},"cid":2}')]));
    await until(() => got.includes('{"rid":2}'), () => `both answers: ${got}`);
    assert.match(got, /^HTTP\/1\.1 101 [^]*\{"rid":1,"data":\{"id":"[^"]+","pingTimeout":30000,"isAuthenticated":false\}\}/);
    c.destroy();
});
test('http: the path works without its last slash', limit, async () => {
    const c = await dial(server.port, { path: '/socketcluster' });
    await c.end();
    await assert.rejects(new Raw().open(server.port, { path: '/socketcluster//' }), e => e.status === 404);
});
test('http: no subprotocol and no extension is agreed to but permessage-deflate', limit, async () => {
    const c = await new Raw().open(server.port, { headers: ['Sec-WebSocket-Extensions: foo, permessage-deflate; unknown', 'Sec-WebSocket-Protocol: a, b'] });
    assert.doesNotMatch(c.head, /Sec-WebSocket-(Extensions|Protocol)/i);
    c.destroy();
});
