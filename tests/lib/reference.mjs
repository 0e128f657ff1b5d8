// SocketCluster's own server with the settings and the first words of `ringcast run`, for checking the
// tests against it: RINGCAST_TEST_REFERENCE=1 tests/run e2e.
import http from 'node:http';
import { createRequire } from 'node:module';

const require = createRequire(new URL('../e2e/package.json', import.meta.url));
const socketClusterServer = require('socketcluster-server');
const settings = Object.fromEntries(process.argv.slice(2).map(a => /^--([^=]+)=(.*)$/s.exec(a).slice(1)));

function ms(key, dflt) {
    if (settings[key] === undefined) return dflt;
    const [, n, unit] = /^(\d+)(ms|s|m|h)?$/.exec(settings[key]);
    return n * { ms: 1, s: 1000, m: 60000, h: 3600000 }[unit ?? 'ms'];
}
function bytes(key, dflt) {
    if (settings[key] === undefined) return dflt;
    const [, n, unit] = /^(\d+)(KiB|MiB)?$/.exec(settings[key]);
    return n * { KiB: 1024, MiB: 1048576 }[unit] || Number(n);
}
const server = http.createServer((req, res) => { res.statusCode = 404; res.end(); });
const sc = socketClusterServer.attach(server, {
    pingInterval: ms('sc.ping_interval', 8000), pingTimeout: ms('sc.ping_timeout', 30000),
    handshakeTimeout: ms('sc.handshake_timeout', 10000),
    socketChannelLimit: settings['sc.max_channels'] ? Number(settings['sc.max_channels']) : undefined,
    wsEngineServerOptions: { maxPayload: bytes('ws.max_message', 1048576) },
    path: settings['sc.path'] ?? '/socketcluster/',
});
(async () => { for await (const { error } of sc.listener('error')) console.error(error.message); })();
(async () => { for await (const { warning } of sc.listener('warning')) console.error(warning.message); })();
server.listen(Number(/:(\d+)$/.exec(settings['worker.listen'])[1]), '127.0.0.1', () =>
    console.log(`ringcast: ready on tcp://127.0.0.1:${server.address().port}`));
process.on('SIGTERM', () => process.exit(0));
