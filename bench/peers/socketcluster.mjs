// socketcluster-server as its documentation starts it, on a free port; for bench/run --suite=peers. With KEY and CERT
// it listens by TLS, too. Prints "ready PORT TLSPORT".
import fs from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import scServer from 'socketcluster-server';

const {KEY, CERT} = process.env;
const servers = [http.createServer()];
if (CERT) servers.push(https.createServer({key: fs.readFileSync(KEY), cert: fs.readFileSync(CERT)}));
const ports = [];
for (const server of servers) {
  const agServer = scServer.attach(server);
  (async () => { for await (const _ of agServer.listener('warning')) { /* not our concern */ } })();
  await new Promise(resolve => server.listen(0, '127.0.0.1', resolve));
  ports.push(server.address().port);
}
console.log('ready', ports.join(' '));
