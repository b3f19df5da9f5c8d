import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AuthenticationError, Sandbox, SandboxError } from '@declaw/sdk';
import { serverOfThisFile } from '../harness/server.ts';

const server = serverOfThisFile({
  PADDOCK_UNKNOWN_TEMPLATE: 'base',
  PADDOCK_MAX_SANDBOXES: '2',
  PADDOCK_MAX_TIMEOUT: '600',
  PADDOCK_DOMAIN: 'agents.example',
});

test('an operator may let unknown template names mean the base template, under the name asked for', async () => {
  const sandbox = await Sandbox.create({ template: 'anything-goes' });
  assert.equal((await sandbox.getInfo()).name, 'anything-goes');
  assert.equal(sandbox.sandboxDomain, 'agents.example');
  assert.equal((await sandbox.commands.run('echo works')).stdout, 'works\n');
  await sandbox.kill({ wait: true });
});

test('a create beyond the number of sandboxes is refused with 429 and works again after a kill', async () => {
  const sandboxes = [await Sandbox.create(), await Sandbox.create()];
  const refused = await server.call('POST', '/sandboxes', { json: {} });
  assert.equal(refused.status, 429);
  assert.match(refused.json.message, /\b2\b/);
  await assert.rejects(Sandbox.create(), (error) => error instanceof SandboxError && /HTTP 429/.test(error.message));
  await sandboxes[0]?.kill({ wait: true });
  sandboxes[0] = await Sandbox.create();
  for (const sandbox of sandboxes) await sandbox.kill({ wait: true });
});

test('a timeout beyond the longest allowed is refused with 403 and the limit, never clamped', async () => {
  await assert.rejects(Sandbox.create({ timeout: 601 }), (error) => error instanceof AuthenticationError && /600/.test(error.message));
  const sandbox = await Sandbox.create({ timeout: 600 });
  await assert.rejects(sandbox.setTimeout(601), (error) => error instanceof AuthenticationError && /600/.test(error.message));
  assert.equal((await server.call('GET', `/sandboxes/${sandbox.sandboxId}`)).json.timeout, 600);
  await sandbox.kill({ wait: true });
});
