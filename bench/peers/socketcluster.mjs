// socketcluster-server as its documentation starts it. CODEC=min-bin: with the codec sc-codec-min-bin. DEFLATE=1:
// permessage-deflate, with the settings of ws.
import {createRequire} from 'node:module';
import scServer from 'socketcluster-server';
import {listen, deflate} from './listen.mjs';

const options = {perMessageDeflate: deflate};
if (process.env.CODEC === 'min-bin') options.codecEngine = createRequire(import.meta.url)('sc-codec-min-bin');

await listen(server => {
  const agServer = scServer.attach(server, options);
  (async () => { for await (const _ of agServer.listener('warning')) { /* not our concern */ } })();
});
