// A small publish/subscribe server on ws, the way applications write one: a map from channels to sets of sockets. Text
// messages "sub C", "unsub C" (answered "ok C") and "pub C DATA", which subscribers get as "msg C DATA". It does
// not parse or check DATA. DEFLATE=1: permessage-deflate.
import {WebSocketServer} from 'ws';
import {listen, deflate} from './listen.mjs';

const channels = new Map();

function leave(ws, name) {
  const set = channels.get(name);
  if (set && set.delete(ws) && set.size === 0) channels.delete(name);
  ws.names.delete(name);
}

function onMessage(data) {
  const text = data.toString();
  if (text.startsWith('pub ')) {
    const set = channels.get(text.slice(4, text.indexOf(' ', 4)));
    if (!set) return;
    const out = Buffer.from('msg' + text.slice(3));
    for (const ws of set) ws.send(out, {binary: false});
  } else if (text.startsWith('sub ')) {
    const name = text.slice(4);
    if (!channels.has(name)) channels.set(name, new Set());
    channels.get(name).add(this);
    this.names.add(name);
    this.send('ok ' + name);
  } else if (text.startsWith('unsub ')) {
    leave(this, text.slice(6));
    this.send('ok ' + text.slice(6));
  }
}

await listen(server => {
  const wss = new WebSocketServer({server, perMessageDeflate: deflate});
  wss.on('connection', ws => {
    ws.names = new Set();
    ws.on('message', onMessage);
    ws.on('error', () => {});
    ws.on('close', () => { for (const name of ws.names) leave(ws, name); });
  });
});
