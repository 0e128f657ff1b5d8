// The reference must be able to complain: each promise, broken once.
import test from 'node:test';
import assert from 'node:assert/strict';
import { Model } from './pubsub.mjs';

function story(tell, expected) {
    const m = new Model();
    for (const c of [1, 2, 3]) m.connected(c);
    const hear = (conn, ch = 'a') => { const s = m.subscribeAsked(conn, ch); m.subscribeAcked(s); return s; };
    tell(m, hear);
    const said = m.finish().join('\n');
    if (expected) assert.match(said, expected);
    else assert.equal(said, '');
}
const cases = {
    'all is well': [(m, hear) => { hear(1); const x = m.publishAsked(2, 'a'); m.delivered(1, 'a', x.id); m.publishAcked(x); }],
    'never acked, never delivered': [(m, hear) => { hear(1); m.publishAsked(2, 'a'); }],
    'acked, not delivered': [(m, hear) => { hear(1); m.publishAcked(m.publishAsked(2, 'a')); }, /never got message 0/],
    'transmitted before one that was acked, not delivered': [(m, hear) => { hear(1); m.publishAsked(2, 'a'); const y = m.publishAsked(2, 'a'); m.delivered(1, 'a', y.id); m.publishAcked(y); }, /never got message 0/],
    'acked before the subscription was': [m => { const s = m.subscribeAsked(1, 'a'); m.publishAcked(m.publishAsked(2, 'a')); m.subscribeAcked(s); }],
    'on its way when the end was asked for': [(m, hear) => { hear(1); const x = m.publishAsked(2, 'a'); m.unsubscribeAsked(1, 'a'); m.publishAcked(x); }],
    'twice': [(m, hear) => { hear(1); const x = m.publishAsked(2, 'a'); m.delivered(1, 'a', x.id); m.delivered(1, 'a', x.id); }, /delivered twice/],
    'out of thin air': [(m, hear) => { hear(1); m.delivered(1, 'a', 7); }, /nobody published/],
    'on another channel': [(m, hear) => { hear(1, 'b'); const x = m.publishAsked(2, 'a'); m.delivered(1, 'b', x.id); }, /was published on a/],
    'to who did not ask': [m => { const x = m.publishAsked(2, 'a'); m.delivered(1, 'a', x.id); }, /not subscribed/],
    'between the wish and the answer of an end': [(m, hear) => { const s = hear(1); const x = m.publishAsked(2, 'a'); m.unsubscribeAsked(1, 'a'); m.delivered(1, 'a', x.id); m.unsubscribeAnswered(s); }],
    'after the answer of an end': [(m, hear) => { hear(1); const x = m.publishAsked(2, 'a'); m.unsubscribeAnswered(m.unsubscribeAsked(1, 'a')); m.delivered(1, 'a', x.id); }, /not subscribed/],
    'out of order': [(m, hear) => { hear(1); const x = m.publishAsked(2, 'a'), y = m.publishAsked(2, 'a'); m.delivered(1, 'a', y.id); m.delivered(1, 'a', x.id); }, /came after/],
    'two orders': [(m, hear) => { hear(1); hear(3); const x = m.publishAsked(2, 'a'), y = m.publishAsked(1, 'a'); m.delivered(1, 'a', x.id); m.delivered(1, 'a', y.id); m.delivered(3, 'a', y.id); m.delivered(3, 'a', x.id); }, /different orders/],
    'refused, delivered all the same': [(m, hear) => { hear(1); const x = m.publishAsked(2, 'a'); m.publishRefused(x); m.delivered(1, 'a', x.id); }, /told that it failed/],
};
for (const [name, [tell, expected]] of Object.entries(cases)) test(`reference: ${name}`, () => story(tell, expected));
