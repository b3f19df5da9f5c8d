import assert from 'node:assert/strict';
import { test } from 'node:test';
import { missingPackages, planTestPackages } from './debian-packages.mjs';

test('a command that is missing asks for its package, one that is there does not', async () => {
  assert.deepEqual(await missingPackages({ commands: { sh: 'dash', 'no-such-program': 'brings-it' }, files: { '/no/such/file': 'brings-that' } }), [
    'brings-it',
    'brings-that',
  ]);
});

test('what only the tests need is never installed for a server', async () => {
  assert.deepEqual(await planTestPackages({ tests: false, note: () => {} }), []);
});
