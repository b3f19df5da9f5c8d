import assert from 'node:assert/strict';
import { test } from 'node:test';
import { serverOfThisFile } from '../harness/server.ts';
import { control, exec, make } from '../harness/superserve.ts';
import { eventually } from '../harness/wait.ts';

// The newer meaning of `timeout_seconds`: each running period of that length ends in a pause.

const server = serverOfThisFile({ PADDOCK_SUPERSERVE_TIMEOUT: 'auto_pause' });
const status = async (id: string): Promise<string> => (await control(server, 'GET', `/sandboxes/${id}`)).json.status;

test('a period that is over is paused, and every resume begins a new one', async () => {
  const box = await make(server, { timeout_seconds: 2 });
  assert.equal(box.json.timeout_seconds, 2);
  await exec(server, box, 'echo kept > /root/kept');
  await eventually(async () => (await status(box.id)) === 'paused', { withinMs: 20_000 });
  const { json } = await control(server, 'POST', `/sandboxes/${box.id}/activate`);
  assert.equal(json.status, 'active');
  assert.equal((await exec(server, { id: box.id, token: json.access_token }, 'cat /root/kept')).stdout, 'kept\n');
  await eventually(async () => (await status(box.id)) === 'paused', { withinMs: 20_000 });
  await control(server, 'POST', `/sandboxes/${box.id}/activate`);
  assert.equal((await control(server, 'PATCH', `/sandboxes/${box.id}`, { json: { timeout_seconds: null } })).status, 204);
  await new Promise((resolve) => setTimeout(resolve, 4000));
  assert.equal(await status(box.id), 'active');
  // Measured against the period that runs: it is over already.
  assert.equal((await control(server, 'PATCH', `/sandboxes/${box.id}`, { json: { timeout_seconds: 1 } })).status, 204);
  await eventually(async () => (await status(box.id)) === 'paused', { withinMs: 20_000 });
  await control(server, 'DELETE', `/sandboxes/${box.id}`);
});
