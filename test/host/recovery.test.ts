import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { afterEach, beforeEach, test } from 'node:test';
import type { Recovery } from '../../src/core/host.ts';
import { repository } from '../harness/server.ts';
import { eventually, sleep, within } from '../harness/wait.ts';
import { Laboratory, openNetwork, saversOf, type Subject, team } from './laboratory.ts';

// What a host finds that was killed in the middle of things.

let laboratory: Laboratory;

beforeEach(() => {
  laboratory = new Laboratory();
});

afterEach(async () => {
  assert.deepEqual(await laboratory.close(), []);
});

/** Lets a host come into this state, and kills it. */
async function killed(state: 'running' | 'held' | 'kept' | 'saving'): Promise<{ subject: Subject; checkpointId: string }> {
  const child: ChildProcess = spawn(process.execPath, ['test/host/doomed.ts', laboratory.dataDir, state], { cwd: repository, stdio: ['ignore', 'pipe', 'inherit'] });
  const [line] = (await within(30_000, `a host that is ${state}`, once(child.stdout!, 'data'))) as [Buffer];
  child.kill('SIGKILL');
  await once(child, 'exit');
  return JSON.parse(line.toString()) as { subject: Subject; checkpointId: string };
}

async function recover({ id, ref, token }: Subject): Promise<Recovery> {
  const host = await laboratory.prepare();
  const recovered = await host.recover(new Map([[id, { ref, agentToken: token, teamId: team, network: openNetwork }]]));
  return recovered.get(id)!;
}

async function assertCounts(subject: Subject): Promise<void> {
  const first = Number(await laboratory.run(subject, 'cat /tmp/count'));
  await eventually(async () => assert.ok(Number(await laboratory.run(subject, 'cat /tmp/count')) > first));
}

test('a guest that ran still runs', async () => {
  const { subject } = await killed('running');
  assert.deepEqual(await recover(subject), { alive: true });
  await assertCounts(subject);
});

test('a guest that was held goes on, and can be saved and held again', async () => {
  const { subject, checkpointId } = await killed('held');
  assert.deepEqual(laboratory.checkpointNames, [checkpointId]);
  assert.deepEqual(await recover(subject), { alive: true });
  await assertCounts(subject);
  const ref = await laboratory.pause(subject);
  const woken = await laboratory.restore(ref, subject, { as: subject });
  await assertCounts(woken);
});

test('a guest that was being saved goes on, and nothing is left of the attempt', async () => {
  const { subject } = await killed('saving');
  assert.deepEqual(await recover(subject), { alive: true });
  await assertCounts(subject);
  await eventually(() => saversOf(subject).length === 0);
  assert.deepEqual(laboratory.checkpointNames, []);
  const ref = await laboratory.pause(subject);
  const woken = await laboratory.restore(ref, subject, { as: subject });
  await assertCounts(woken);
});

test('a kept guest is ended; its checkpoint is there', async () => {
  const { subject, checkpointId } = await killed('kept');
  assert.equal(laboratory.guests.length, 1);
  const host = await laboratory.open();
  assert.deepEqual(laboratory.guests, []);
  const [ref] = await host.checkpoints();
  assert.equal(ref?.id, checkpointId);
  const again = await laboratory.restore(ref!, subject, { as: subject });
  await assertCounts(again);
});

test('a host that closes lets go of held guests, ends kept ones, and leaves the others running', async () => {
  const host = await laboratory.open();
  const [held, kept, running, busy] = await Promise.all([laboratory.create(), laboratory.create(), laboratory.create(), laboratory.create()]);
  await Promise.all([held, running, busy].map((subject) => laboratory.start(subject, 'i=0; while :; do i=$((i+1)); echo $i > /tmp/count; sleep 0.05; done')));
  await laboratory.fillMemory(busy, 200);
  await laboratory.save(held, true);
  await laboratory.pause(kept);
  const saving = laboratory.save(busy, true);
  const failed = assert.rejects(saving, /server is stopping/);
  await eventually(() => saversOf(busy).length > 0, { everyMs: 2 });
  await host.close();
  await failed;
  assert.deepEqual(new Set(laboratory.guests), new Set([held, running, busy].map(({ ref }) => ref.container)));
  await sleep(100);
  const next = await laboratory.prepare();
  const known = new Map([held, running, busy].map(({ id, ref, token }) => [id, { ref, agentToken: token, teamId: team, network: openNetwork }] as const));
  const recovered = await next.recover(known);
  assert.deepEqual([...recovered.values()], [{ alive: true }, { alive: true }, { alive: true }]);
  for (const subject of [held, running, busy]) await assertCounts(subject);
});
