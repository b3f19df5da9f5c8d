import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Sandbox } from '@declaw/sdk';
import { serverOfThisFile } from '../harness/server.ts';
import { sleep } from '../harness/wait.ts';

const server = serverOfThisFile();

/** Milliseconds since the epoch at which the sandbox was first seen not to run. */
async function endOf(sandbox: Sandbox): Promise<number> {
  while (await sandbox.isRunning()) await sleep(20);
  return Date.now();
}

test('a sandbox ends within a second of its deadline, and not before', async () => {
  const asked = Date.now();
  const sandbox = await Sandbox.create({ timeout: 3 });
  const created = Date.now();
  const ended = await endOf(sandbox);
  assert.ok(ended >= asked + 3000, `ended ${asked + 3000 - ended} ms early`);
  assert.ok(ended <= created + 4000, `ended ${ended - created - 3000} ms after its deadline`);

  const { state, end_reason } = (await server.call('GET', `/sandboxes/${sandbox.sandboxId}`)).json;
  assert.deepEqual({ state, end_reason }, { state: 'killed', end_reason: 'timeout' });
  const refused = await server.call('POST', `/sandboxes/${sandbox.sandboxId}/commands`, { json: { cmd: 'true' } });
  assert.equal(refused.status, 410);
});

test('setting the timeout starts the countdown again from now', async () => {
  const [shortened, prolonged] = await Promise.all([Sandbox.create({ timeout: 300 }), Sandbox.create({ timeout: 2 })]);
  await Promise.all([shortened.setTimeout(2), prolonged.setTimeout(180)]);
  const set = Date.now();
  assert.equal((await server.call('GET', `/sandboxes/${prolonged.sandboxId}`)).json.timeout, 180);
  const { end_at } = (await server.call('GET', `/sandboxes/${prolonged.sandboxId}`)).json;
  assert.ok(Math.abs(Date.parse(end_at) - set - 180_000) <= 2000);

  const ended = await endOf(shortened);
  assert.ok(ended <= set + 3000, `ended ${ended - set - 2000} ms after its new deadline`);
  await sleep(2000);
  assert.equal(await prolonged.isRunning(), true);
  await prolonged.kill();
});

test('timeout 0 means no deadline, at create and later', async () => {
  const [never, noMore] = await Promise.all([Sandbox.create({ timeout: 0 }), Sandbox.create({ timeout: 2 })]);
  const answer = await server.call('PATCH', `/sandboxes/${noMore.sandboxId}/timeout`, { json: { timeout: 0 } });
  assert.deepEqual([answer.status, answer.json], [200, { ok: true }]);
  await sleep(3500);
  for (const sandbox of [never, noMore]) {
    const { state, end_at, timeout } = (await server.call('GET', `/sandboxes/${sandbox.sandboxId}`)).json;
    assert.deepEqual({ state, end_at, timeout }, { state: 'running', end_at: null, timeout: 0 });
    await sandbox.kill();
  }
});

test('what runs in a sandbox that reaches its deadline ends at once with 410', async () => {
  const sandbox = await Sandbox.create({ timeout: 2 });
  const running = await server.call('POST', `/sandboxes/${sandbox.sandboxId}/commands`, { json: { cmd: 'sleep 60' } });
  assert.equal(running.status, 410);
  assert.ok(Date.now() < Date.parse((await server.call('GET', `/sandboxes/${sandbox.sandboxId}`)).json.end_at) + 3000);
});
