import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Sandbox } from '@declaw/sdk';
import { guestGroupsOf } from '../harness/machine.ts';
import { serverOfThisFile } from '../harness/server.ts';
import { eventually, sleep, within } from '../harness/wait.ts';

const server = serverOfThisFile();

test('of twenty parallel kills of one sandbox one says true, and all succeed', async () => {
  const sandbox = await Sandbox.create();
  const results = await Promise.all(Array.from({ length: 20 }, () => server.call('DELETE', `/sandboxes/${sandbox.sandboxId}`)));
  assert.deepEqual(results.map((each) => each.status), results.map(() => 200));
  assert.equal(results.filter((each) => each.json.killed === true).length, 1);
  assert.equal((await sandbox.getInfo()).state, 'killed');
  await eventually(() => guestGroupsOf(server.dataDir).length === 0);
});

test('ten parallel creates give ten sandboxes of their own that work', async () => {
  const sandboxes = await Promise.all(Array.from({ length: 10 }, (_, i) => Sandbox.create({ envs: { NUMBER: String(i) } })));
  assert.equal(new Set(sandboxes.map((each) => each.sandboxId)).size, 10);
  const addresses = await Promise.all(sandboxes.map(async (each) => (await server.call('GET', `/sandboxes/${each.sandboxId}`)).json.guest_ip));
  assert.equal(new Set(addresses).size, 10);
  const outputs = await Promise.all(sandboxes.map(async (each) => (await each.commands.run('echo $NUMBER')).stdout));
  assert.deepEqual(outputs, sandboxes.map((_, i) => `${i}\n`));
  await Sandbox.killMany(sandboxes.map((each) => each.sandboxId), { wait: true });
  await eventually(() => guestGroupsOf(server.dataDir).length === 0);
});

test('a sandbox that is killed while it is being created is gone, and its create says so', async () => {
  const creates = Array.from({ length: 4 }, () => server.call('POST', '/sandboxes', { json: {} }));
  const kills: Promise<unknown>[] = [];
  const killed = new Set<string>();
  await within(20_000, 'a create', (async () => {
    let open = creates.length;
    for (const create of creates) void create.finally(() => open--);
    while (open > 0) {
      const { json } = await server.call('GET', '/sandboxes?state=creating,running');
      for (const { sandbox_id: id } of json.sandboxes as { sandbox_id: string }[]) {
        if (killed.has(id)) continue;
        killed.add(id);
        kills.push(server.call('DELETE', `/sandboxes/${id}`).then((answer) => assert.equal(answer.status, 200)));
      }
    }
  })());
  await Promise.all(kills);
  for (const answer of await Promise.all(creates)) {
    assert.ok(answer.status === 201 || answer.status === 409, `${answer.status} ${answer.text}`);
    if (answer.status === 201) await server.call('DELETE', `/sandboxes/${answer.json.sandbox_id}`);
  }
  assert.equal((await server.call('GET', '/sandboxes')).json.total, 0);
  await eventually(() => guestGroupsOf(server.dataDir).length === 0);
});

test('clients that hang up while they create leave no sandbox that nobody knows of', async () => {
  // Who hangs up while the answer is already on its way leaves a sandbox that ends by its deadline, as no server can know better.
  for (const [delayMs, timeout] of [[5, 300], [50, 300], [120, 3], [135, 3]] as const) {
    const hangUp = new AbortController();
    const create = server.call('POST', '/sandboxes', { json: { timeout }, signal: hangUp.signal }).then(
      (answer) => answer.json.sandbox_id as string,
      () => null,
    );
    await sleep(delayMs);
    hangUp.abort();
    const id = await create;
    if (id !== null) await Sandbox.kill(id, { wait: true });
  }
  await eventually(async () => (await server.call('GET', '/sandboxes')).json.total === 0);
  await eventually(() => guestGroupsOf(server.dataDir).length === 0);
});

test('a kill while a command runs ends the command with 410', async () => {
  const sandbox = await Sandbox.create();
  const running = server.call('POST', `/sandboxes/${sandbox.sandboxId}/commands`, { json: { cmd: 'sleep 100' } });
  await sleep(300);
  await sandbox.kill({ wait: true });
  assert.equal((await within(5000, 'the command', running)).status, 410);
});

test('fifty clients at once, each with a create, a command, a file and a kill, all get through', async () => {
  const problems: string[] = [];
  const queue = Array.from({ length: 50 }, (_, i) => i);
  const client = async (): Promise<void> => {
    for (let i = queue.shift(); i !== undefined; i = queue.shift()) {
      const sandbox = await Sandbox.create({ metadata: { i: String(i) } });
      await sandbox.files.write('/tmp/i', String(i));
      const { stdout } = await sandbox.commands.run('cat /tmp/i');
      if (stdout !== String(i)) problems.push(`${i}: ${stdout}`);
      if (!(await sandbox.kill({ wait: true }))) problems.push(`${i}: not killed`);
    }
  };
  await Promise.all(Array.from({ length: 10 }, client));
  assert.deepEqual(problems, []);
  assert.equal((await server.call('GET', '/sandboxes')).json.total, 0);
  await eventually(() => guestGroupsOf(server.dataDir).length === 0);
});
