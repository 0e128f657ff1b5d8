// What the tests with socketcluster-client share.
import { createRequire } from 'node:module';
import { slow, sleep, until } from '../lib/server.mjs';

const require = createRequire(import.meta.url);
export const majors = [15, 16, 17, 18, 19, 20];
export const library = major => require(`socketcluster-client-${major}`);
export const topologies = { '1x1x1': [1, 1, 1], '1x2x2': [1, 2, 2], '2x2x3': [2, 2, 3] };

const open = new Set();

/** A client as an application makes it; errors, closes and messages are written down. */
export function client(major, server, options = {}) {
    const socket = library(major).create({
        hostname: '127.0.0.1', port: server.port, path: '/socketcluster/', secure: false,
        autoReconnectOptions: { initialDelay: 100, randomness: 100, multiplier: 1.5, maxDelay: 1000 },
        ackTimeout: 10000 * slow, connectTimeout: 20000 * slow, ...options,
    });
    // The events are read where the library emits them, not from its streams: those of major 18 lose
    // events when one socket has several (stream-demux 9.0.2), which is no matter of the wire.
    const seen = { errors: [], closes: [], raws: [], fails: [], connects: 0 };
    const emit = socket.emit;
    socket.emit = function (name, e) {
        if (name === 'error') seen.errors.push(e.error);
        else if (name === 'close' || name === 'connectAbort') seen.closes.push(e);
        else if (name === 'raw') seen.raws.push(e.message);
        else if (name === 'subscribeFail') seen.fails.push(e);
        else if (name === 'connect') seen.connects++;
        return emit.apply(this, arguments);
    };
    if (major === 18) {
        const demux = socket._channelDataDemux, write = demux.write;
        socket.data = new Map();
        demux.write = function (channel, data) { socket.data.get(channel)?.push(data); return write.apply(this, arguments); };
    }
    socket.seen = seen;
    open.add(socket);
    return socket;
}
export async function connected(major, server, options) {
    const socket = client(major, server, options);
    await until(() => {
        if (socket.seen.errors.length) throw socket.seen.errors[0];
        return socket.state === 'open';
    }, 'the connection', 15000, 5);
    return socket;
}
/** Subscribes, collects what comes into an array, and resolves when the server has acked. */
export async function subscribed(socket, name, options) {
    const got = [];
    if (socket.data) socket.data.set(name, got);
    const channel = socket.subscribe(name, options);
    if (!socket.data) (async () => { for await (const data of channel) got.push(data); })();
    await until(() => {
        const failed = socket.seen.fails.find(f => f.channel === name);
        if (failed) { socket.seen.fails.length = 0; throw failed.error; }
        return channel.state === 'subscribed';
    }, `the subscription of ${name}`, 10000, 2);
    got.channel = channel;
    return got;
}
export const arrived = (got, n, ms = 5000) => until(() => got.length >= n, () => `${n} messages (have ${got.length})`, ms);
/** Everything on its way has arrived once a marker published after it has. */
export async function settled(publisher, name, gots) {
    const mark = `settled ${Math.random()}`;
    await publisher.invokePublish(name, mark);
    await Promise.all(gots.map(g => until(() => g[g.length - 1] === mark, `the marker on ${name}`)));
    for (const g of gots) g.pop();
}
export async function hangUp(...sockets) {
    for (const s of sockets.length ? sockets : open) { s.disconnect(); s.closeAllListeners?.(); open.delete(s); }
    await sleep(5);
}
