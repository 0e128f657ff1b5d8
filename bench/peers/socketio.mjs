// Socket.IO as its documentation starts it, with WebSocket from the start; rooms are channels. DEFLATE=1:
// permessage-deflate.
import {Server} from 'socket.io';
import {listen, deflate} from './listen.mjs';

await listen(server => {
  const io = new Server(server, {transports: ['websocket'], perMessageDeflate: deflate, serveClient: false});
  io.on('connection', socket => {
    socket.on('sub', (channel, done) => { socket.join(channel); done(); });
    socket.on('unsub', (channel, done) => { socket.leave(channel); done(); });
    socket.on('pub', (channel, data) => { io.to(channel).emit('msg', channel, data); });
  });
});
