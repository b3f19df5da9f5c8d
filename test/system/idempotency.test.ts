import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';
import { Sandbox } from '@declaw/sdk';
import { filesWith, guestGroupsOf } from '../harness/machine.ts';
import type { Answer } from '../harness/http.ts';
import { repository, serverOfThisFile } from '../harness/server.ts';
import { eventually, sleep, within } from '../harness/wait.ts';

const server = serverOfThisFile();

function create(key: string, json: object = {}): Promise<Answer> {
  return server.call('POST', '/sandboxes', { json, headers: { 'idempotency-key': key } });
}

async function living(): Promise<string[]> {
  return (await server.call('GET', '/sandboxes')).json.sandboxes.map((each: { sandbox_id: string }) => each.sandbox_id);
}

async function killAll(): Promise<void> {
  await Sandbox.killMany(await living(), { wait: true });
  await eventually(() => assert.equal(guestGroupsOf(server.dataDir).length, 0));
}

test('fifty creates at once with one key make one sandbox, and a client that repeats gets it', async () => {
  const patient = async (): Promise<string> => {
    for (;;) {
      const { status, json, headers } = await create('fifty', { metadata: { a: 'b' } });
      if (status === 201) return json.sandbox_id;
      assert.deepEqual([status, json.code, headers['retry-after']], [409, 'idempotency_in_progress', '1']);
      await sleep(100);
    }
  };
  const ids = new Set(await Promise.all(Array.from({ length: 50 }, patient)));
  assert.deepEqual(await living(), [...ids]);
  const other = await create('fifty', { metadata: { a: 'c' } });
  assert.deepEqual([other.status, other.json.code], [422, 'idempotency_key_reused']);
  await killAll();
});

test('the original answer is repeated after a stop and after a crash, tokens and times included', async () => {
  const first = await create('again', { envs: { SECRET: 'planted-in-an-answer' } });
  assert.equal(first.status, 201);
  await server.stop();
  await server.start();
  assert.equal((await create('again', { envs: { SECRET: 'planted-in-an-answer' } })).text, first.text);
  await server.crash();
  await server.start();
  assert.equal((await create('again', { envs: { SECRET: 'planted-in-an-answer' } })).text, first.text);
  assert.deepEqual(await living(), [first.json.sandbox_id]);
  assert.deepEqual(filesWith(server.dataDir, 'planted-in-an-answer'), []);
  await killAll();
  assert.equal((await create('again', { envs: { SECRET: 'planted-in-an-answer' } })).text, first.text);
  assert.deepEqual(await living(), []);
});

test('SIGKILL after any stage of a create: the key is free or leads to the sandbox that survived', async () => {
  await server.stop();
  for (const stage of ['slot', 'boot', 'agent', 'claim', 'store', 'answer']) {
    const child = spawn(process.execPath, [join(repository, 'test/harness/dying-server.ts'), 'create', `dying-${stage}`, stage], { env: server.environment, stdio: 'inherit' });
    const signal = await within(60_000, stage, new Promise((resolve) => child.on('close', (_code, how) => resolve(how))));
    assert.equal(signal, 'SIGKILL', stage);
    await server.start();
    const before = await living();
    assert.equal(before.length, ['store', 'answer'].includes(stage) ? 1 : 0, stage);
    const answers = await Promise.all([create(`dying-${stage}`), create(`dying-${stage}`), create(`dying-${stage}`)]);
    const id = answers.find((each) => each.status === 201)?.json.sandbox_id;
    assert.ok(answers.every((each) => (each.status === 201 && each.json.sandbox_id === id) || each.json.code === 'idempotency_in_progress'), answers.map((each) => each.text).join('\n'));
    assert.deepEqual(await living(), [id], stage);
    if (before.length > 0) assert.deepEqual(before, [id], stage);
    assert.equal((await (await Sandbox.connect(id)).commands.run('echo works')).stdout, 'works\n');
    assert.equal(guestGroupsOf(server.dataDir).length, 1);
    await killAll();
    await server.stop();
  }
  await server.start();
});

for (const delayMs of [15, 60, 150, 300]) {
  test(`a crash ${delayMs} ms into a create that is repeated afterwards leaves one sandbox`, async () => {
    const key = `crash-${delayMs}`;
    const lost = create(key).then((answer) => answer.json.sandbox_id as string, () => null);
    await sleep(delayMs);
    await server.crash();
    const answered = await lost;
    await server.start();
    const again = await create(key);
    assert.equal(again.status, 201);
    if (answered !== null) assert.equal(again.json.sandbox_id, answered);
    assert.deepEqual(await living(), [again.json.sandbox_id]);
    await killAll();
  });
}
