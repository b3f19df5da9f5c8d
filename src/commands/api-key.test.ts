import assert from 'node:assert/strict';
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { parseConfig, type Config } from '../config.ts';
import { Server as Core } from '../core/testing/server.ts';
import { ensureStartKey } from './api-key.ts';

function config(core: Core, apiKey?: string): Config {
  return parseConfig({ PADDOCK_DATA_DIR: core.directory, PADDOCK_API_KEY: apiKey }).config;
}

test('a key is made once, for its owner only, and shown again at every start', async () => {
  await using core = await Core.start();
  const first = await ensureStartKey(core.access, config(core));
  assert.match(first.raw, /^dcl_[A-Za-z0-9]{40}$/);
  const file = join(core.directory, 'api-key');
  assert.equal(readFileSync(file, 'utf8'), `${first.raw}\n`);
  assert.equal(statSync(file).mode & 0o777, 0o600);
  await core.access.authenticate(first.raw);
  assert.deepEqual(await ensureStartKey(core.access, config(core)), first);
});

test('a generated key that was revoked is replaced', async () => {
  await using core = await Core.start();
  const first = await ensureStartKey(core.access, config(core));
  const [key] = await core.access.listKeys();
  await core.access.revokeKey(key!.id);
  const second = await ensureStartKey(core.access, config(core));
  assert.notEqual(second.raw, first.raw);
  await core.access.authenticate(second.raw);
  await assert.rejects(core.access.authenticate(first.raw));
});

test('the operator\'s own key is valid and not written down', async () => {
  await using core = await Core.start();
  const raw = 'my-own-key-0123456789';
  assert.deepEqual(await ensureStartKey(core.access, config(core, raw)), { raw, fromEnvironment: true });
  await core.access.authenticate(raw);
  assert.throws(() => readFileSync(join(core.directory, 'api-key')), { code: 'ENOENT' });
});

test('the operator\'s own key that was revoked stops the start with a sentence that does not repeat it', async () => {
  await using core = await Core.start();
  const raw = 'my-own-key-0123456789';
  await ensureStartKey(core.access, config(core, raw));
  await core.access.revokeKey((await core.access.listKeys())[0]!.id);
  await assert.rejects(ensureStartKey(core.access, config(core, raw)), (error: Error) => error.message.startsWith('PADDOCK_API_KEY cannot be used: ') && !error.message.includes(raw));
});
