import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { ConflictError, Sandbox } from '@declaw/sdk';
import { guestGroupsOf, guestProcessesOf } from '../harness/machine.ts';
import { count, counting, whatSurvives } from '../harness/pauses.ts';
import { output } from '../harness/sandbox.ts';
import { serverOfThisFile } from '../harness/server.ts';
import { eventually, sleep, within } from '../harness/wait.ts';

// Guests are kept in memory for a while after their pause, as they are where nothing else is set.

const server = serverOfThisFile();

whatSurvives(server);

test('a paused sandbox costs no CPU, and once it is on disk only, no memory and no process either', async () => {
  const sandbox = await counting();
  await sandbox.pause();
  const usage = (): number => guestGroupsOf(server.dataDir).reduce((sum, group) => sum + guestProcessesOf(server.dataDir, group).reduce((ticks, pid) => ticks + cpuTicks(pid), 0), 0);
  const before = usage();
  await sleep(1000);
  assert.equal(usage(), before);
  await sandbox.kill({ wait: true });
  assert.deepEqual(guestGroupsOf(server.dataDir), []);
});

test('the wrong state is 409, an ended sandbox 410, an unknown one 404', async () => {
  const sandbox = await Sandbox.create();
  await assert.rejects(sandbox.resume(), ConflictError);
  await sandbox.pause();
  await assert.rejects(sandbox.pause(), (error) => error instanceof ConflictError && /paused/.test(error.message));
  for (const call of [() => sandbox.commands.run('true'), () => sandbox.files.read('/etc/hostname'), () => sandbox.files.write('/tmp/x', ''), () => sandbox.pty.create(), () => sandbox.getMetrics(), () => sandbox.commands.list()]) {
    await assert.rejects(call(), (error) => error instanceof ConflictError && /paused/.test(error.message));
  }
  assert.equal((await server.call('GET', `/sandboxes/${sandbox.sandboxId}/ports/8000/`)).status, 409);
  assert.ok((await Sandbox.list({ query: { state: 'paused' } })).sandboxes.some((each) => each.sandboxId === sandbox.sandboxId));
  assert.equal(await sandbox.kill({ wait: true }), true);
  assert.equal((await sandbox.getInfo()).state, 'killed');
  for (const call of ['pause', 'resume']) {
    assert.equal((await server.call('POST', `/sandboxes/${sandbox.sandboxId}/${call}`)).status, 410);
    assert.equal((await server.call('POST', `/sandboxes/sbx-aaaaaaaa/${call}`)).status, 404);
  }
});

test('of two pauses one wins and the other gets 409; of two resumes likewise', async () => {
  const sandbox = await Sandbox.create();
  const outcomes = async (call: string): Promise<number[]> => (await Promise.all([1, 2, 3].map(() => server.call('POST', `/sandboxes/${sandbox.sandboxId}/${call}`)))).map(({ status }) => status).sort();
  assert.deepEqual(await outcomes('pause'), [200, 409, 409]);
  assert.deepEqual(await outcomes('resume'), [200, 409, 409]);
  assert.equal(await output(sandbox, 'echo alive'), 'alive\n');
  await sandbox.kill({ wait: true });
});

test('whoever is connected when a sandbox is paused is told, and the command goes on with the sandbox, for the time it has left', async () => {
  const sandbox = await Sandbox.create({ timeout: 600 });
  let streamed = '';
  const stream = sandbox.commands.runStream('echo one; sleep 2; echo two > /tmp/two; sleep 3609', { onStdout: (text) => (streamed += text), timeout: 10 });
  const streaming = stream.then(() => 'ended', (error: Error) => error.message);
  const running = sandbox.commands.run('echo begun > /tmp/begun; sleep 3601', { timeout: 6 });
  const interrupted = assert.rejects(running, (error) => error instanceof ConflictError && /paused/.test(error.message));
  await eventually(() => streamed === 'one\n');
  await eventually(() => sandbox.files.exists('/tmp/begun'));
  await sandbox.pause();
  await within(3000, 'the command that was running', interrupted);
  assert.match(await within(3000, 'the stream', streaming), /paused/);
  await sleep(5000);
  await sandbox.resume();
  assert.match(await output(sandbox, 'ps -eo args'), /sleep 3601/);
  await eventually(() => sandbox.files.exists('/tmp/two'));
  // It had about five of its six seconds left.
  await eventually(async () => !(await output(sandbox, 'ps -eo args')).includes('sleep 3601'), { withinMs: 9000 });
  assert.match(await output(sandbox, 'ps -eo args'), /sleep 3609/);
  await sandbox.kill({ wait: true });
});

test('the countdown stands still while a sandbox is paused, and starts again with the resume', async () => {
  const sandbox = await Sandbox.create({ timeout: 3 });
  await sandbox.pause();
  assert.equal((await server.call('GET', `/sandboxes/${sandbox.sandboxId}`)).json.end_at, null);
  await sleep(4000);
  assert.equal((await sandbox.getInfo()).state, 'paused');
  await sandbox.resume();
  const resumed = Date.now();
  await eventually(async () => (await sandbox.getInfo()).state === 'killed', { withinMs: 4500 });
  assert.ok(Date.now() - resumed > 2500);
});

test('auto_resume: any operation wakes it, those that come together cause one resume, and the SDK notices nothing', async () => {
  const sandbox = await Sandbox.create({ timeout: 600, lifecycle: { onTimeout: 'pause', autoResume: true } });
  await sandbox.files.write('/tmp/kept', 'kept');
  const operations: [string, () => Promise<unknown>][] = [
    ['a command', async () => assert.equal(await output(sandbox, 'cat /tmp/kept'), 'kept')],
    ['a file', async () => assert.equal(await sandbox.files.read('/tmp/kept'), 'kept')],
    ['a listing', () => sandbox.files.list('/tmp')],
    ['a terminal', async () => (await sandbox.pty.create()).kill()],
    ['a stdio session', async () => (await sandbox.stdio.start('cat')).kill()],
    ['the metrics', () => sandbox.getMetrics()],
    ['the list of commands', () => sandbox.commands.list()],
    ['a port', async () => assert.equal((await server.call('GET', `/sandboxes/${sandbox.sandboxId}/ports/9/`)).status, 502)],
  ];
  for (const [what, operation] of operations) {
    await sandbox.pause();
    await operation();
    assert.equal(await sandbox.isRunning(), true, what);
  }
  await sandbox.pause();
  assert.deepEqual(await Promise.all(Array.from({ length: 12 }, (_, i) => output(sandbox, `echo ${i}`))), Array.from({ length: 12 }, (_, i) => `${i}\n`));
  const { entries } = (await server.call('GET', `/sandboxes/${sandbox.sandboxId}/audit?limit=1000`)).json;
  const names = entries.map((entry: { event?: string; name?: string; type?: string }) => JSON.stringify(entry));
  assert.equal(names.filter((text: string) => text.includes('resumed')).length, operations.length + 1);
  // Looking at it wakes nothing.
  await sandbox.pause();
  await sandbox.getInfo();
  await Sandbox.list();
  assert.equal((await sandbox.getInfo()).state, 'paused');
  await sandbox.kill({ wait: true });
});

test('an operation that meets a pause under way is served after it, with auto_resume', async () => {
  const sandbox = await Sandbox.create({ timeout: 600, lifecycle: { onTimeout: 'pause', autoResume: true } });
  for (let i = 0; i < 6; i++) {
    const pausing = sandbox.pause();
    await sleep(i * 25);
    assert.equal(await output(sandbox, `echo ${i}`), `${i}\n`);
    await pausing.catch(() => {});
    await eventually(async () => (await sandbox.isRunning()) || (await output(sandbox, 'true')) === '');
  }
  await sandbox.kill({ wait: true });
});

test('on_timeout "pause" pauses within a second of the deadline and keeps what runs', async () => {
  const sandbox = await counting({ timeout: 4, lifecycle: { onTimeout: 'pause', autoResume: false } });
  const { endAt } = await sandbox.getInfo();
  await eventually(async () => (await sandbox.getInfo()).state === 'paused', { withinMs: 8000, everyMs: 20 });
  assert.ok(Date.now() - endAt!.getTime() < 2500, `${Date.now() - endAt!.getTime()} ms after the deadline`);
  await sandbox.setTimeout(600);
  await sandbox.resume();
  await count(sandbox);
  await sandbox.kill({ wait: true });
});

test('a paused sandbox is deleted after auto_delete_seconds, unless it was resumed before; 0 is at once', async () => {
  const [soon, saved, now] = await Promise.all([2, 3, 0].map(async (auto_delete_seconds) => (await server.call('POST', '/sandboxes', { json: { timeout: 600, lifecycle: { auto_delete_seconds } } })).json.sandbox_id as string));
  for (const id of [soon!, saved!, now!]) assert.equal((await server.call('POST', `/sandboxes/${id}/pause`)).status, 200);
  assert.equal((await server.call('POST', `/sandboxes/${saved}/resume`)).status, 200);
  const state = async (id: string): Promise<string> => {
    const { json } = await server.call('GET', `/sandboxes/${id}`);
    return `${json.state} ${json.end_reason ?? ''}`;
  };
  await eventually(async () => (await state(now!)) === 'killed auto_deleted', { withinMs: 1500 });
  await eventually(async () => (await state(soon!)) === 'killed auto_deleted', { withinMs: 4000 });
  await sleep(1500);
  assert.equal(await state(saved!), 'running ');
  await Sandbox.kill(saved!);
});

test('a hard cap ends a sandbox in whatever state it is', async () => {
  const make = async (): Promise<string> => (await server.call('POST', '/sandboxes', { json: { timeout: 600, lifecycle: { max_lifetime_seconds: 4 } } })).json.sandbox_id;
  const [running, paused] = await Promise.all([make(), make()]);
  const made = Date.now();
  await server.call('POST', `/sandboxes/${paused}/pause`);
  for (const id of [running, paused]) await eventually(async () => (await server.call('GET', `/sandboxes/${id}`)).json.end_reason === 'timeout', { withinMs: 6000, everyMs: 20 });
  assert.ok(Date.now() - made < 5500, `${Date.now() - made} ms`);
});

test('killing a sandbox while it is paused or resumed wins, and nothing of it is left', async () => {
  for (const call of ['pause', 'resume']) {
    for (const delay of [0, 30, 80, 200]) {
      const sandbox = await Sandbox.create({ timeout: 600 });
      if (call === 'resume') await sandbox.pause();
      const moving = server.call('POST', `/sandboxes/${sandbox.sandboxId}/${call}`);
      await sleep(delay);
      await sandbox.kill({ wait: true });
      const { status } = await moving;
      assert.ok([200, 409, 410, 422].includes(status), String(status));
      assert.equal((await sandbox.getInfo()).state, 'killed');
      assert.deepEqual((await sandbox.listSnapshots()), []);
    }
  }
  assert.deepEqual(guestGroupsOf(server.dataDir), []);
});

/** User and system time of a process: fields 14 and 15 of its stat. */
function cpuTicks(pid: number): number {
  const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return Number(fields[11]) + Number(fields[12]);
}
