import assert from 'node:assert/strict';
import { readdirSync, rmSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { ConflictError, ConnectionConfig, getSharedClient, NotFoundError, Sandbox, SnapshotPaginator } from '@declaw/sdk';
import { guestGroupsOf } from '../harness/machine.ts';
import { count, counting } from '../harness/pauses.ts';
import { output } from '../harness/sandbox.ts';
import { serverOfThisFile } from '../harness/server.ts';
import { eventually } from '../harness/wait.ts';

const server = serverOfThisFile({ PADDOCK_MAX_SNAPSHOTS: '4' });
const checkpoints = (): string[] => readdirSync(join(server.dataDir, 'checkpoints'));

test('snapshots of a running sandbox: it goes on, and each can be restored, many times, in place', async () => {
  const sandbox = await counting({ envs: { COLOUR: 'blue' } });
  await sandbox.files.write('/home/user/version', 'one');
  const first = await sandbox.snapshot();
  assert.match(first.snapshotId, /^snap-[0-9a-f-]{36}$/);
  assert.deepEqual([first.source, first.sandboxId], ['manual', sandbox.sandboxId]);
  const atFirst = await count(sandbox);
  await sandbox.files.write('/home/user/version', 'two');
  const { snapshotId: second } = await sandbox.createSnapshot();
  await sandbox.files.write('/home/user/version', 'three');
  await eventually(async () => (await count(sandbox)) > atFirst + 20);
  assert.deepEqual((await sandbox.listSnapshots()).map(({ snapshotId }) => snapshotId), [second, first.snapshotId]);

  for (const [id, version] of [[first.snapshotId, 'one'], [second, 'two'], [first.snapshotId, 'one']] as const) {
    const restored = await Sandbox.restore(sandbox.sandboxId, { snapshotId: id });
    assert.equal(restored.sandboxId, sandbox.sandboxId);
    assert.equal(restored.envdAccessToken, sandbox.envdAccessToken);
    assert.equal(await restored.files.read('/home/user/version'), version);
    assert.equal(await output(restored, 'echo $COLOUR; hostname'), `blue\n${sandbox.sandboxId}\n`);
    await count(restored);
  }
  assert.equal(guestGroupsOf(server.dataDir).length, 1, 'what was replaced is still there');
  assert.equal(await sandbox.deleteSnapshot(second), true);
  assert.equal(await sandbox.deleteSnapshot(second), true);
  await assert.rejects(Sandbox.restore(sandbox.sandboxId, { snapshotId: second }), NotFoundError);
  await sandbox.kill({ wait: true });
  assert.deepEqual((await sandbox.listSnapshots()).map(({ snapshotId }) => snapshotId), [first.snapshotId], 'a snapshot outlives its sandbox');
  await sandbox.deleteSnapshot(first.snapshotId);
  assert.deepEqual(checkpoints(), []);
});

test('the plural path works too, and a snapshot has every field of the contract', async () => {
  const sandbox = await Sandbox.create();
  const { status, json } = await server.call('POST', `/sandboxes/${sandbox.sandboxId}/snapshots`);
  assert.equal(status, 201);
  assert.deepEqual(Object.keys(json).sort(), ['created_at', 'mem_blob_key', 'mem_size_bytes', 'pause_duration_ms', 'sandbox_id', 'size_bytes', 'snapshot_id', 'source', 'vmstate_blob_key']);
  assert.ok(json.mem_size_bytes > 1_000_000 && json.size_bytes > 100_000 && json.size_bytes < 10 * 1024 * 1024, `an idle sandbox takes ${json.size_bytes} bytes`);
  assert.match(json.created_at, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
  await sandbox.deleteSnapshot(json.snapshot_id);
  await sandbox.kill({ wait: true });
});

test('a snapshot of a paused sandbox leaves it paused; that of its pause cannot be deleted while it is, and a restore prefers it', async () => {
  const sandbox = await Sandbox.create({ timeout: 600 });
  await sandbox.files.write('/tmp/v', 'manual');
  const early = await sandbox.snapshot();
  await sandbox.files.write('/tmp/v', 'paused');
  await sandbox.pause();
  const late = await sandbox.snapshot();
  assert.equal((await sandbox.getInfo()).state, 'paused');
  const pause = (await sandbox.listSnapshots()).find(({ source }) => source === 'pause')!;
  await assert.rejects(sandbox.deleteSnapshot(pause.snapshotId), ConflictError);
  const restored = await Sandbox.restore(sandbox.sandboxId);
  assert.equal(await restored.files.read('/tmp/v'), 'paused');
  await restored.files.write('/tmp/v', 'later');
  assert.equal(await sandbox.deleteSnapshot(pause.snapshotId), true);
  // Its files still serve the other one.
  assert.equal(await (await Sandbox.restore(sandbox.sandboxId, { snapshotId: late.snapshotId })).files.read('/tmp/v'), 'paused');
  assert.equal(await (await Sandbox.restore(sandbox.sandboxId, { snapshotId: early.snapshotId })).files.read('/tmp/v'), 'manual');
  await sandbox.kill({ wait: true });
  for (const { snapshotId } of await sandbox.listSnapshots()) await sandbox.deleteSnapshot(snapshotId);
  await eventually(() => checkpoints().length === 0);
});

test('a killed sandbox comes back from its snapshot, with its id, its rules of today and a new countdown', async () => {
  const sandbox = await Sandbox.create({ timeout: 600, network: { allowOut: [], denyOut: ['0.0.0.0/0'], allowPublicTraffic: true }, metadata: { kept: 'yes' } });
  await sandbox.files.write('/tmp/v', 'kept');
  const { snapshotId } = await sandbox.snapshot();
  await sandbox.kill({ wait: true });
  const back = await Sandbox.restore(sandbox.sandboxId);
  assert.equal(await back.files.read('/tmp/v'), 'kept');
  const { json } = await server.call('GET', `/sandboxes/${sandbox.sandboxId}`);
  assert.deepEqual([json.state, json.network.deny_out, json.metadata, json.end_reason], ['running', ['0.0.0.0/0'], { kept: 'yes' }, undefined]);
  assert.ok(Math.abs(Date.parse(json.end_at) - Date.now() - 600_000) < 5000);
  await sandbox.deleteSnapshot(snapshotId);
  await sandbox.kill({ wait: true });
});

test('a new sandbox from a snapshot is somebody else, and both live', async () => {
  const source = await counting({ envs: { A: 'source', B: 'source' } });
  const { snapshotId } = await source.snapshot();
  const { status, json } = await server.call('POST', '/sandboxes', { json: { template: 'base', snapshot_id: snapshotId, envs: { B: 'own' }, metadata: { copy: '1' } } });
  assert.equal(status, 201);
  assert.notEqual(json.sandbox_id, source.sandboxId);
  const copy = await Sandbox.connect(json.sandbox_id);
  assert.equal(await output(copy, 'echo $A $B $DECLAW_SANDBOX_ID; hostname'), `source own ${json.sandbox_id}\n${json.sandbox_id}\n`);
  await count(copy);
  await count(source);
  assert.equal((await server.call('POST', '/sandboxes', { json: { snapshot_id: 'snap-00000000-0000-4000-8000-000000000000' } })).status, 404);
  await copy.kill({ wait: true });
  await source.kill({ wait: true });
  await source.deleteSnapshot(snapshotId);
});

test('account-wide listing pages through the snapshots of all sandboxes', async () => {
  const [one, two] = await Promise.all([Sandbox.create(), Sandbox.create()]);
  const made: string[] = [];
  for (const sandbox of [one, two, one]) made.push((await sandbox.createSnapshot()).snapshotId);
  const listed: string[] = [];
  const paginator = new SnapshotPaginator(getSharedClient(new ConnectionConfig()), { limit: 2 });
  while (paginator.hasNext) listed.push(...(await paginator.nextItems()).map(({ snapshotId }) => snapshotId));
  assert.deepEqual(listed, made.toReversed());
  const { json } = await server.call('GET', `/snapshots?sandbox_id=${two.sandboxId}`);
  assert.deepEqual(json.snapshots.map((each: { snapshot_id: string }) => each.snapshot_id), [made[1]]);
  assert.equal((await server.call('GET', '/snapshots?next_token=forged')).status, 400);
  assert.equal((await server.call('GET', '/snapshots?limit=0')).status, 400);

  await one.createSnapshot();
  const refused = await server.call('POST', `/sandboxes/${one.sandboxId}/snapshot`);
  assert.equal(refused.status, 429);
  assert.match(refused.json.message, /limit is 4/);
  for (const sandbox of [one, two]) {
    for (const { snapshotId } of await sandbox.listSnapshots()) await sandbox.deleteSnapshot(snapshotId);
    await sandbox.kill({ wait: true });
  }
});

test('a restore that cannot be leaves the sandbox as it was, says why, and the rest of the machine too', async () => {
  const running = await counting();
  const { snapshotId } = await running.snapshot();
  const [damaged] = checkpoints();
  const file = readdirSync(join(server.dataDir, 'checkpoints', damaged!)).find((name) => name.startsWith('pages') && !name.includes('meta'))!;
  truncateSync(join(server.dataDir, 'checkpoints', damaged!, file), 4096);
  const refused = await server.call('POST', `/sandboxes/${running.sandboxId}/restore?snapshot_id=${snapshotId}`);
  assert.equal(refused.status, 422);
  assert.match(refused.json.message, /damaged|size/);
  await count(running);
  assert.equal(guestGroupsOf(server.dataDir).length, 1);

  await running.pause();
  const pause = (await running.listSnapshots()).find(({ source }) => source === 'pause')!;
  await server.crash(); // so that nothing is kept in memory
  for (const name of checkpoints()) if (pause.snapshotId.endsWith(name)) rmSync(join(server.dataDir, 'checkpoints', name), { recursive: true });
  await server.start();
  const gone = await server.call('POST', `/sandboxes/${running.sandboxId}/resume`);
  assert.equal(gone.status, 404, gone.text);
  assert.match(gone.json.message, /saved state.*no longer/);
  assert.equal((await running.getInfo()).state, 'paused');
  assert.deepEqual(guestGroupsOf(server.dataDir), []);
  await running.kill({ wait: true });
  await running.deleteSnapshot(snapshotId);
});

test('snapshots belong to their sandbox: another one is not restored from it, and cannot delete it', async () => {
  const [one, two] = await Promise.all([Sandbox.create(), Sandbox.create()]);
  const { snapshotId } = await one.snapshot();
  await assert.rejects(Sandbox.restore(two.sandboxId, { snapshotId }), NotFoundError);
  await two.deleteSnapshot(snapshotId);
  assert.equal((await one.listSnapshots()).length, 1);
  await assert.rejects(Sandbox.restore(two.sandboxId), NotFoundError);
  await one.deleteSnapshot(snapshotId);
  await Promise.all([one.kill({ wait: true }), two.kill({ wait: true })]);
});

test('streams and waits go on through a snapshot of the running sandbox; nothing of the output is lost or doubled', async () => {
  const sandbox = await Sandbox.create({ timeout: 600 });
  let text = '';
  const streaming = sandbox.commands.runStream('for i in $(seq 1 300); do echo $i; sleep 0.01; done', { onStdout: (data) => (text += data), timeout: 0 });
  const job = await sandbox.commands.run('sleep 3; echo done', { background: true });
  const waiting = job.wait();
  for (let i = 0; i < 3; i++) await sandbox.deleteSnapshot((await sandbox.createSnapshot()).snapshotId);
  assert.equal((await streaming).exitCode, 0);
  assert.equal(text, Array.from({ length: 300 }, (_, i) => `${i + 1}\n`).join(''));
  assert.equal((await waiting).stdout, 'done\n');
  await sandbox.kill({ wait: true });
});
