import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { Sandbox } from '@declaw/sdk';
import { guestGroupsOf } from '../harness/machine.ts';
import { count, counting } from '../harness/pauses.ts';
import { serverOfThisFile } from '../harness/server.ts';
import { eventually, sleep } from '../harness/wait.ts';

const server = serverOfThisFile();

test('"stop --pause" saves every sandbox for a reboot, and the next start brings them back; what its owner paused stays paused', async () => {
  const sandboxes = await Promise.all([counting(), counting(), Sandbox.create({ timeout: 600 })]);
  const [one, two, resting] = sandboxes;
  await resting!.pause();
  const before = await Promise.all([count(one!), count(two!)]);

  const { code, stdout, stderr } = await server.paddock(['stop', '--pause']);
  assert.equal(code, 0, stderr);
  assert.match(stdout, /2 sandboxes were paused/);
  assert.deepEqual(guestGroupsOf(server.dataDir), [], 'a reboot would end what is left');
  assert.equal(readdirSync(join(server.dataDir, 'checkpoints')).length, 3);

  await sleep(200); // its process has ended, and the harness must have heard of it
  await server.start();
  await eventually(async () => (await one!.isRunning()) && (await two!.isRunning()), { withinMs: 15_000 });
  assert.ok((await count(one!)) >= before[0]! && (await count(two!)) >= before[1]!);
  assert.equal((await resting!.getInfo()).state, 'paused');
  for (const sandbox of sandboxes) await sandbox.kill({ wait: true });
});

test('"stop --all" ends paused sandboxes too, and keeps no file of theirs', async () => {
  const sandbox = await Sandbox.create({ timeout: 600 });
  await sandbox.pause();
  const { code } = await server.paddock(['stop', '--all']);
  assert.equal(code, 0);
  await eventually(() => readdirSync(join(server.dataDir, 'checkpoints')).length === 0);
  await sleep(200);
  await server.start();
  const { json } = await server.call('GET', `/sandboxes/${sandbox.sandboxId}`);
  assert.deepEqual([json.state, json.end_reason], ['killed', 'stopped']);
});
