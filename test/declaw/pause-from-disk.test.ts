import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { Sandbox } from '@declaw/sdk';
import { guestGroupsOf } from '../harness/machine.ts';
import { count, counting, whatSurvives } from '../harness/pauses.ts';
import { serverOfThisFile } from '../harness/server.ts';
import { eventually } from '../harness/wait.ts';

const server = serverOfThisFile({ PADDOCK_KEPT_MEMORY: '0' });

whatSurvives(server);

test('a paused sandbox that is not kept has no process, no slot and no memory; killing it leaves no file', async () => {
  const sandbox = await counting();
  await sandbox.pause();
  await eventually(() => guestGroupsOf(server.dataDir).length === 0);
  assert.equal(readdirSync(join(server.dataDir, 'checkpoints')).length, 1);
  await sandbox.kill({ wait: true });
  await eventually(() => readdirSync(join(server.dataDir, 'checkpoints')).length === 0);
});

test('it is the same over restarts of the server: paused, resumed, counting on', async () => {
  const sandbox = await counting();
  const before = await count(sandbox);
  await sandbox.pause();
  await server.crash();
  await server.start();
  assert.equal((await sandbox.getInfo()).state, 'paused');
  await sandbox.resume();
  assert.ok((await count(sandbox)) >= before);
  await sandbox.kill({ wait: true });
});

test('pauses that follow each other leave one checkpoint, the newest', async () => {
  const sandbox = await Sandbox.create({ timeout: 600 });
  for (let i = 0; i < 4; i++) {
    await sandbox.pause();
    await sandbox.resume();
  }
  await eventually(async () => (await sandbox.listSnapshots()).length === 1);
  assert.deepEqual((await sandbox.listSnapshots()).map(({ source }) => source), ['pause']);
  await eventually(() => readdirSync(join(server.dataDir, 'checkpoints')).length === 1);
  await sandbox.kill({ wait: true });
});
