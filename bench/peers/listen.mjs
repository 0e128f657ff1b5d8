// What the peers on Node share: free ports on the loopback, TLS too with KEY and CERT, and the line "ready PORT
// TLSPORT" that says all is up. attach(server) is called for each HTTP server.
import fs from 'node:fs';
import http from 'node:http';
import https from 'node:https';

const {KEY, CERT, DEFLATE} = process.env;
export const deflate = Boolean(DEFLATE);

export async function listen(attach) {
  const servers = [http.createServer()];
  if (CERT) servers.push(https.createServer({key: fs.readFileSync(KEY), cert: fs.readFileSync(CERT)}));
  const ports = [];
  for (const server of servers) {
    attach(server);
    await new Promise(resolve => server.listen(0, '127.0.0.1', 4096, resolve));
    ports.push(server.address().port);
  }
  console.log('ready', ports.join(' '));
}
