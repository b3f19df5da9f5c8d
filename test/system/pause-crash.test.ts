import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { Sandbox } from '@declaw/sdk';
import { guestGroupsOf, loopsBelow, namespacesOf } from '../harness/machine.ts';
import { count, counting } from '../harness/pauses.ts';
import { repository, serverOfThisFile } from '../harness/server.ts';
import { eventually, within } from '../harness/wait.ts';

// The server is ended by SIGKILL after each stage of whatever saves or brings back a sandbox. The next start has the sandbox running or
// paused, with its memory, and nothing else.

const server = serverOfThisFile();

interface Outcome {
  readonly signal: string | null;
  readonly stages: readonly string[];
  readonly errors: string;
}

function act(operation: string, id: string, stage: string): Promise<Outcome> {
  const child = spawn(process.execPath, [join(repository, 'test/harness/dying-server.ts'), operation, id, stage], { env: server.environment, stdio: ['ignore', 'pipe', 'pipe'] });
  let [stdout, errors] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (errors += text));
  return within(60_000, `${operation} until ${stage}`, new Promise((resolve) => child.on('close', (_code, signal) => resolve({ signal, stages: stdout.split(' ').filter(Boolean), errors }))));
}

/** What a server of one running sandbox holds on the machine, slots built ahead aside. */
async function nothingElseIsLeft(checkpoints: number): Promise<void> {
  assert.equal(guestGroupsOf(server.dataDir).length, 1, 'guests');
  assert.equal(readdirSync(join(server.dataDir, 'checkpoints')).length, checkpoints, 'checkpoints');
  await eventually(() => {
    const slots = namespacesOf(server.dataDir).filter((name) => !name.endsWith('-gw')).length;
    return slots <= 6 && loopsBelow(server.dataDir).length === slots;
  });
}

const planned: readonly (readonly [operation: string, stages: readonly string[], before: (sandbox: Sandbox) => Promise<unknown>])[] = [
  ['pause', ['hold', 'save', 'durable', 'store'], async () => {}],
  ['resume', ['slot', 'egress', 'restore', 'agent', 'identity', 'store'], (sandbox) => sandbox.pause()],
  ['snapshot', ['hold', 'save', 'durable'], async () => {}],
  ['restore', ['slot', 'restore', 'identity', 'store'], (sandbox) => sandbox.snapshot()],
  ['fork', ['save', 'durable', 'saved', 'restore'], async () => {}],
];

for (const [operation, stages, prepare] of planned) {
  test(`SIGKILL after any stage of a ${operation} loses nothing and leaves nothing`, async () => {
    const sandbox = await counting();
    let last = await count(sandbox);
    for (const stage of [...stages, '-']) {
      await prepare(sandbox);
      await server.stop();
      const outcome = await act(operation, sandbox.sandboxId, stage);
      if (stage === '-') assert.deepEqual(stages.filter((each) => !outcome.stages.includes(each)), [], `stages are ${outcome.stages.join(' ')}: ${outcome.errors}`);
      else assert.equal(outcome.signal, 'SIGKILL', `${stage} did not come: ${outcome.errors}`);
      await server.start();
      const { state } = await sandbox.getInfo();
      assert.ok(['running', 'paused'].includes(state), `${state} after ${stage}`);
      if (state === 'paused') await sandbox.resume();
      const now = await count(sandbox);
      assert.ok(operation === 'restore' || now >= last, `${now} after ${last}, killed at ${stage}`);
      last = now;
      const { sandboxes } = await Sandbox.list();
      for (const each of sandboxes) if (each.sandboxId !== sandbox.sandboxId) await Sandbox.kill(each.sandboxId, { wait: true } as never);
      for (const { snapshotId } of await sandbox.listSnapshots()) await sandbox.deleteSnapshot(snapshotId);
      await eventually(async () => (await Sandbox.list()).sandboxes.length === 1);
      await nothingElseIsLeft(0);
    }
    await sandbox.kill({ wait: true });
  });
}
