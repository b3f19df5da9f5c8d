import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { ShortId } from '../../core/ids.ts';
import { decodeBase64 } from './base64.ts';
import { parsePublicId, publicId } from './ids.ts';
import { parsePid } from './pid.ts';

test('base64 of any bytes comes back, with padding and without', () => {
  fc.assert(
    fc.property(fc.uint8Array(), (bytes) => {
      const text = Buffer.from(bytes).toString('base64');
      assert.deepEqual(new Uint8Array(decodeBase64('data', text)), bytes);
      assert.deepEqual(new Uint8Array(decodeBase64('data', text.replace(/=+$/, ''))), bytes);
    }),
  );
});

test('what is not base64 is refused by name instead of being skipped over', () => {
  for (const text of ['a', 'ab c', 'a-b_', '====', 'YQ===', 'Y=Q=', 'é', 'YWI=\n']) assert.throws(() => decodeBase64('data', text), /^PaddockError: data must be standard base64/, text);
});

test('a public id is sbx- and the short id, and is read back', () => {
  assert.equal(publicId({ shortId: 'abcd1234' as ShortId }), 'sbx-abcd1234');
  assert.deepEqual(parsePublicId('sbx-abcd1234'), { shortId: 'abcd1234' });
  assert.deepEqual(parsePublicId('00000000-0000-4000-8000-00000000000A'), { id: '00000000-0000-4000-8000-00000000000a' });
});

test('what can be no id names no sandbox', () => {
  for (const text of ['', 'sbx-', 'abcd1234', 'sbx-ABCD1234', 'sbx-abcd12345', 'sbx-../etc', 'SBX-abcd1234']) assert.throws(() => parsePublicId(text), { message: `Sandbox ${text} not found` });
});

test('a pid is a plain number', () => {
  assert.equal(parsePid('42'), 42);
  for (const text of ['', 'abc', '-1', '1.5', '0x10', '1e3', ' 1']) assert.throws(() => parsePid(text), /^PaddockError: pid must be a whole number/, text);
});
