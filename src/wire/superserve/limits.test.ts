import assert from 'node:assert/strict';
import { test } from 'node:test';
import { assertEnvVars, assertMetadata, assertName, assertSecretBindings } from './limits.ts';

const keys = (count: number, value = ''): Record<string, string> => Object.fromEntries(Array.from({ length: count }, (_, i) => [`k${i}`, value]));
const invalid = (message: RegExp) => ({ code: 'invalid_argument', message });

test('metadata is taken up to each limit and refused one byte beyond it', () => {
  assertMetadata(keys(64));
  assert.throws(() => assertMetadata(keys(65)), invalid(/^metadata has 65 keys; the limit is 64$/));
  assertMetadata({ ['k'.repeat(256)]: 'v'.repeat(2048) });
  assert.throws(() => assertMetadata({ ['k'.repeat(257)]: '' }), invalid(/has 257 bytes; the limit is 256$/));
  assert.throws(() => assertMetadata({ key: 'v'.repeat(2049) }), invalid(/^metadata value of "key" has 2049 bytes; the limit is 2048$/));
  assert.throws(() => assertMetadata({ '': 'v' }), invalid(/empty key/));
  // Eight keys of two bytes, and values that make it exactly 16,384.
  const full = Object.fromEntries(Array.from({ length: 8 }, (_, i) => [`k${i}`, 'v'.repeat(2046)]));
  assertMetadata(full);
  assert.throws(() => assertMetadata({ ...full, x: '' }), invalid(/^metadata takes 16385 bytes, keys and values together; the limit is 16384$/));
});

test('bytes are counted, not characters', () => {
  assertMetadata({ ['ü'.repeat(128)]: '€'.repeat(682) });
  assert.throws(() => assertMetadata({ ['ü'.repeat(129)]: '' }), invalid(/258 bytes/));
  assertName('ü'.repeat(32));
  assert.throws(() => assertName('ü'.repeat(33)), invalid(/^name has 66 bytes; the limit is 64$/));
});

for (const key of ['superserve.x', 'SuperServe.x', '_superserve', '_SUPERSERVE_mine']) {
  test(`the metadata key ${key} is reserved`, () => assert.throws(() => assertMetadata({ [key]: '1' }), invalid(/reserved/)));
}
test('a key that only looks reserved is not', () => assertMetadata({ superserve: '1', 'my.superserve.x': '1', 'superserve-x': '1' }));

test('environment variables are taken up to each limit and refused one byte beyond it', () => {
  assertEnvVars(keys(64));
  assert.throws(() => assertEnvVars(keys(65)), invalid(/^env_vars has 65 keys; the limit is 64$/));
  assertEnvVars({ ['k'.repeat(256)]: 'v'.repeat(8192), 'with space': '', '1digit': '' });
  assert.throws(() => assertEnvVars({ ['k'.repeat(257)]: '' }), invalid(/257 bytes/));
  assert.throws(() => assertEnvVars({ A: 'v'.repeat(8193) }), invalid(/8193 bytes; the limit is 8192/));
  assert.throws(() => assertEnvVars({ 'A=B': '' }), invalid(/must not contain =/));
  assert.throws(() => assertEnvVars({ 'A\0': '' }), invalid(/NUL/));
  assert.throws(() => assertEnvVars({ A: '\0' }), invalid(/NUL/));
  const full = Object.fromEntries(Array.from({ length: 8 }, (_, i) => [`k${i}`, 'v'.repeat(8190)]));
  assertEnvVars(full);
  assert.throws(() => assertEnvVars({ ...full, x: '' }), invalid(/^env_vars takes 65537 bytes/));
});

test('secrets are bound to names of variables that have no other source', () => {
  assertSecretBindings(Object.fromEntries(Array.from({ length: 32 }, (_, i) => [`K${i}`, 's'])), {});
  assert.throws(() => assertSecretBindings(Object.fromEntries(Array.from({ length: 33 }, (_, i) => [`K${i}`, 's'])), {}), invalid(/33 entries; the limit is 32/));
  assert.throws(() => assertSecretBindings({ '1A': 's' }, {}), invalid(/must match/));
  assert.throws(() => assertSecretBindings({ A: 's' }, { A: '' }), invalid(/also in env_vars/));
});
