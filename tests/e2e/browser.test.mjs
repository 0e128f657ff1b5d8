// The playground page in a headless Chromium. RINGCAST_TEST_SCREENSHOT=FILE.png keeps a picture of it.
import test, { before, after } from 'node:test';
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';
import { startServer, stopAll, slow } from '../lib/server.mjs';
import { dial } from '../lib/raw.mjs';

const executablePath = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(existsSync);
const limit = { timeout: 90000 * slow, skip: !executablePath && 'no chromium' };
let server, profile, browser, page;

before(async () => {
    if (!executablePath) return;
    server = await startServer({ rings: 2, settings: { 'http.playground': 'on', 'sc.ping_interval': '300ms', 'sc.ping_timeout': '3s', 'run.drain_timeout': '300ms' } });
    profile = mkdtempSync(join(tmpdir(), 'ringcast-profile-'));
    browser = await chromium.launchPersistentContext(profile, {
        executablePath, headless: true, viewport: { width: 1280, height: 860 }, colorScheme: 'light',
        args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
            '--disable-component-update', '--disable-sync'],
    });
    page = browser.pages()[0] ?? await browser.newPage();
    page.problems = [];
    page.requests = [];
    page.on('pageerror', e => page.problems.push(String(e)));
    page.on('console', m => { if (m.type() === 'error') page.problems.push(m.text()); });
    page.on('request', r => page.requests.push(r.url()));
    await page.goto(server.http + '/');
}, { timeout: 90000 * slow });
after(async () => {
    await browser?.close();
    if (profile) rmSync(profile, { recursive: true, force: true });
    try { await server?.stop(); } finally { await stopAll(); }
});

const state = want => page.waitForFunction(w => document.getElementById('state').dataset.is === w, want, { timeout: 10000 * slow });

test('page: it is served whole, and asks nobody else for anything', limit, async () => {
    assert.equal(await page.title(), 'Ringcast playground');
    assert.deepEqual(page.requests.filter(u => !u.startsWith(server.http) && !u.startsWith('data:')), []);
    assert.equal(await page.inputValue('#url'), server.url);
});

test('page: it connects', limit, async () => {
    await page.click('#connect');
    await state('open');
    assert.match(await page.textContent('#who'), /^socket .{8,}/);
});

test('page: it subscribes, publishes, hears itself and measures', limit, async () => {
    await page.fill('#channel', 'hello');
    await page.click('#sub button');
    await page.waitForSelector('#channels li:not(.pending)');
    await page.fill('#to', 'hello');
    await page.fill('#data', '{"text":"Hello, world"}');
    await page.click('#send');
    await page.waitForFunction(() => document.getElementById('m-n').textContent === '1');
    assert.match(await page.textContent('#messages li'), /hello\{"text":"Hello, world"\}/);
    assert.match(await page.textContent('#r-last'), /^[\d.]+ ms$/);
    await page.click('#burst');
    await page.waitForFunction(() => document.getElementById('m-n').textContent === '101');
    assert.equal(await page.textContent('#r-n'), '101');
    assert.ok((await page.getAttribute('#spark polyline', 'points')).split(' ').length > 50);
});

test('page: the browser compresses what it sends, and understands what comes compressed', limit, async () => {
    const text = 'Hello, world. '.repeat(500), sent = await server.counter('deflate_out_messages_total');
    assert.ok(await server.counter('deflate_connections') > 0);
    assert.ok(await server.counter('deflate_in_messages_total') > 100);
    const before = Number(await page.textContent('#m-n'));
    await page.fill('#data', JSON.stringify({ text }));
    await page.click('#send');
    await page.waitForFunction(n => Number(document.getElementById('m-n').textContent) > n, before);
    assert.ok(await server.counter('deflate_out_messages_total') > sent);
    assert.ok(await server.counter('deflate_out_packed_bytes_total') < await server.counter('deflate_out_plain_bytes_total') / 10);
    await page.fill('#data', '{"text":"Hello, world"}');
});

test('page: a message of somebody else appears, as text', limit, async () => {
    const other = await dial(server.port);
    const text = '<img src=x onerror="document.title=1"> "quoted" 😀';
    await other.publish('hello', text);
    await page.waitForFunction(() => document.getElementById('m-n').textContent === '103');
    assert.match(await page.textContent('#messages li'), /<img src=x/);
    assert.equal(await page.title(), 'Ringcast playground');
    await other.end();
});

test('page: frames are shown both ways, pings answered', limit, async () => {
    await page.waitForFunction(() => /\(empty: ping\)/.test(document.getElementById('frames').textContent));
    assert.match(await page.textContent('#frames'), /\(empty: pong\)/);
    assert.ok(await page.locator('#frames .in').count() > 50);
    assert.ok(await page.locator('#frames .out').count() > 50);
});

test('page: a picture of it', { ...limit, skip: limit.skip || (!process.env.RINGCAST_TEST_SCREENSHOT && 'RINGCAST_TEST_SCREENSHOT=FILE asks for it') }, async () => {
    await page.uncheck('#pings');
    await page.setViewportSize({ width: 1280, height: 1020 });
    await page.click('#clear-rtt');
    const other = await dial(server.port);
    for (let i = 0; i < 60; i++) { await page.click('#send'); await new Promise(r => setTimeout(r, 20)); }
    await page.click('#clear-msg');
    for (const data of [{ from: 'anna', text: 'good morning' }, { from: 'ben', text: 'the kettle is on' }, { temperature: 21.5, unit: '°C' }, ['any', 'JSON', 1, null, true]]) {
        await other.publish('hello', data);
        await page.click('#send');
        await new Promise(r => setTimeout(r, 40));
    }
    await page.waitForFunction(() => Number(document.getElementById('m-n').textContent) === 8);
    await page.fill('#channel', 'news');
    await page.click('#sub button');
    await page.waitForFunction(() => document.querySelectorAll('#channels li:not(.pending)').length === 2);
    await page.screenshot({ path: process.env.RINGCAST_TEST_SCREENSHOT });
    await page.click('button[aria-label="Unsubscribe from news"]');
    await page.check('#pings');
    await page.setViewportSize({ width: 1280, height: 860 });
    await other.end();
});

test('page: an error is shown with its words', limit, async () => {
    await page.fill('#channel', 'x'.repeat(1025));
    await page.click('#sub button');
    await page.waitForFunction(() => /InvalidActionError/.test(document.getElementById('trouble').textContent));
    assert.match(await page.textContent('#trouble'), /Subscribe channel name was malformatted/);
    assert.equal(await page.locator('#channels li').count(), 1);
    await page.click('#trouble button');
});

test('page: it unsubscribes', limit, async () => {
    await page.click('button[aria-label="Unsubscribe from hello"]');
    await page.waitForFunction(() => document.querySelectorAll('#channels li').length === 0);
    await page.fill('#channel', 'hello');
    await page.click('#sub button');
    await page.waitForSelector('#channels li:not(.pending)');
});

test('page: after a restart of the server it is back, with its channels; the code is explained', limit, async () => {
    const first = server;
    await first.stop();
    await page.waitForFunction(() => /1001|1006/.test(document.getElementById('trouble').textContent));
    assert.match(await page.textContent('#trouble'), /going away|lost/);
    server = await startServer({ port: first.port, rings: 2, settings: { 'http.playground': 'on' } });
    await state('open');
    await page.waitForSelector('#channels li:not(.pending)');
    await page.click('#clear-msg');
    await page.click('#send');
    await page.waitForFunction(() => document.getElementById('m-n').textContent === '1');
});

test('page: it disconnects with 1000 and stays away', limit, async () => {
    await page.click('#disconnect');
    await state('closed');
    assert.equal(await page.textContent('#state'), 'closed 1000');
    assert.ok(await page.isDisabled('#send'));
});

test('page: dark, narrow and by keyboard', limit, async () => {
    const bg = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const light = await bg();
    await page.emulateMedia({ colorScheme: 'dark' });
    assert.notEqual(await bg(), light);
    await page.setViewportSize({ width: 360, height: 700 });
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= 360), 'no sideways scrolling');
    const bare = await page.evaluate(() => [...document.querySelectorAll('input,textarea,button')].filter(e =>
        !(e.labels?.length || e.textContent.trim() || e.getAttribute('aria-label'))).map(e => e.id));
    assert.deepEqual(bare, [], 'every control has a name');
    await page.focus('#url');
    await page.keyboard.press('Enter');
    await state('open');
});

test('page: nothing went wrong unseen', limit, async () => {
    // The tries to reconnect while the server was away are told by the browser itself.
    assert.deepEqual(page.problems.filter(p => !/WebSocket connection to/.test(p)), []);
});
