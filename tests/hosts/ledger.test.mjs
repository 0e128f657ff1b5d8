// The books themselves: what must not be, is found.
import test from 'node:test';
import assert from 'node:assert/strict';
import { Ledger } from './ledger.mjs';

// Publishers a and b on channel c, subscriber s from time 1; one event per ms.
function books(...events) {
    const l = new Ledger();
    let t = 0;
    for (const e of [['s', 's', 'c'], ...events]) l.read([++t, ...e]);
    return l;
}
const sent = (...numbers) => numbers.flatMap(n => [['p', 'a', 'c', n], ['a', 'a', 'c', n]]);
const got = (n, p = 'a') => ['m', 's', 'c', p, n], gap = count => ['g', 's', 'c', count];
const fine = l => { assert.deepEqual(l.complaints, []); assert.deepEqual(l.unbalanced(), []); };

test('ledger: what came and what was told make up what was published', () => {
    fine(books(...sent(1, 2, 3), got(1), got(2), got(3)));
    fine(books(...sent(1, 2, 3, 4), got(1), gap(2), got(4)));
    fine(books(...sent(1, 2, 3), got(1), gap(2)));
});
test('ledger: a message lost in silence, at the end and in the middle', () => {
    assert.match(books(...sent(1, 2), got(1)).unbalanced()[0], /published 2, received 1 \+ told 0.*a 2 \(acked\)/);
    assert.match(books(...sent(1, 2, 3), got(1), got(3)).complaints[0], /1 missing so far, 0 told/);
});
test('ledger: a gap that is told too late, too small, too large', () => {
    assert.match(books(...sent(1, 2, 3), got(1), got(3), gap(1)).complaints[0], /1 missing so far/);
    assert.match(books(...sent(1, 2, 3, 4), got(1), gap(1), got(4)).complaints[0], /2 missing so far, 1 told/);
    assert.equal(books(...sent(1, 2, 3), got(1), gap(2), got(3)).unbalanced().length, 1);
});
test('ledger: twice, out of order, after a refusal', () => {
    assert.match(books(...sent(1), got(1), got(1)).complaints[0], /came twice/);
    assert.match(books(...sent(1, 2), got(2), got(1)).complaints.at(-1), /came after 2/);
    fine(books(['p', 'a', 'c', 1], ['r', 'a', 'c', 1, 'BrokerError: x'], ...sent(2), got(2)));
    fine(books(['p', 'a', 'c', 1], ['r', 'a', 'c', 1, 'BrokerError: x'], ...sent(2), got(1), got(2)));
    assert.equal(books(['p', 'a', 'c', 1], ['r', 'a', 'c', 1, 'BrokerError: x'], ...sent(2), gap(2), got(2)).unbalanced().length, 1);
});
test('ledger: a refusal that is read late', () => {
    fine(books(['p', 'a', 'c', 1], ['p', 'a', 'c', 2], got(2), ['r', 'a', 'c', 1, 'BrokerError: x'], ['a', 'a', 'c', 2]));
    assert.equal(books(['p', 'a', 'c', 1], ['p', 'a', 'c', 2], got(2), ['a', 'a', 'c', 1], ['a', 'a', 'c', 2]).unbalanced().length, 1);
});
test('ledger: what was published before the subscription may come, and need not', () => {
    const l = new Ledger();
    for (const [i, e] of [['p', 'a', 'c', 1], ['a', 'a', 'c', 1], ['p', 'a', 'c', 2], ['s', 's', 'c'], ['a', 'a', 'c', 2], got(2), ...sent(3), got(3)].entries()) l.read([i, ...e]);
    fine(l);
});
test('ledger: two that see different orders', () => {
    const l = books(['s', 'r', 'c'], ...sent(1), ['p', 'b', 'c', 1], ['a', 'b', 'c', 1], got(1), got(1, 'b'), ['m', 'r', 'c', 'b', 1], ['m', 'r', 'c', 'a', 1]);
    fine(l);
    l.orders();
    assert.match(l.complaints[0], /different orders/);
});
