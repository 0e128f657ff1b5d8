// How test runs of node:test are told: a line per test, the story of each failure, and the counts in
// the words that tests/run reads.
export default async function* reporter(source) {
    let passed = 0, failed = 0, skipped = 0;
    for await (const { type, data } of source) {
        if (type !== 'test:pass' && type !== 'test:fail') {
            if (type === 'test:stderr') yield data.message;
            continue;
        }
        if (data.details?.type === 'suite') continue;
        const time = `${Math.round(data.details?.duration_ms ?? 0)} ms`;
        if (data.todo !== undefined && type === 'test:fail') {
            skipped++;
            yield `todo  ${data.name}: ${data.todo}\n`;
        } else if (data.skip !== undefined) {
            skipped++;
            yield `skip  ${data.name}${typeof data.skip === 'string' && data.skip ? ': ' + data.skip : ''}\n`;
        } else if (type === 'test:pass') {
            passed++;
            yield `ok    ${data.name} (${time})\n`;
        } else {
            failed++;
            const e = data.details?.error, cause = e?.cause ?? e;
            yield `FAIL  ${data.name} (${time})\n${String(cause?.stack ?? cause).replace(/^/gm, '      ')}\n`;
        }
    }
    yield `${passed} passed, ${failed} failed${skipped ? `, ${skipped} skipped` : ''}\n`;
}
