import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { PartFilter } from './multipart.ts';
import { InvisibleTextGuard, TextRefused } from './text-guards.ts';

function through(filter: PartFilter, body: string | Buffer, step = 997): Buffer {
  const bytes = Buffer.from(body);
  const out: Buffer[] = [];
  for (let from = 0; from < bytes.length; from += step) out.push(filter.write(bytes.subarray(from, from + step)));
  return Buffer.concat([...out, filter.end()]);
}

const refused = (code: TextRefused['code']) => (reason: unknown): boolean => reason instanceof TextRefused && reason.code === code;

test('hidden text is taken out, refused or only counted', () => {
  const body = JSON.stringify({ a: 'x\u200by' });
  assert.equal(through(new InvisibleTextGuard('application/json', { action: 'strip', detectZeroWidth: true }), body).toString(), '{"a":"xy"}');
  assert.throws(() => through(new InvisibleTextGuard('application/json', { action: 'block', detectZeroWidth: true }), body), refused('hidden_text_found'));
  const logged = new InvisibleTextGuard('application/json', { action: 'log_only', detectZeroWidth: true });
  assert.equal(through(logged, body).toString(), body);
  assert.deepEqual(logged.findings, [{ kind: 'zero_width', count: 1 }]);
});

test('attack: hidden text in a part of a multipart body', () => {
  const body = '--b\r\n\r\nx\u200by\r\n--b--';
  assert.equal(through(new InvisibleTextGuard('multipart/form-data; boundary=b', { action: 'strip', detectZeroWidth: true }), body, 1).toString(), body.replace('\u200b', ''));
});

test('attack: text that cannot be read is refused when it may not pass unseen', () => {
  const utf16 = Buffer.from('\ufeffbash', 'utf16le');
  assert.throws(() => through(new InvisibleTextGuard('text/plain', { action: 'strip', detectZeroWidth: true }), utf16), refused('text_unreadable'));
  assert.deepEqual(through(new InvisibleTextGuard('text/plain', { action: 'log_only', detectZeroWidth: true }), utf16), utf16);
});
