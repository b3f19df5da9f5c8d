import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { Sandbox } from '@declaw/sdk';
import { guestGroupsOf } from '../harness/machine.ts';
import { count, counting } from '../harness/pauses.ts';
import { output } from '../harness/sandbox.ts';
import { serverOfThisFile } from '../harness/server.ts';
import { eventually } from '../harness/wait.ts';

const server = serverOfThisFile({ PADDOCK_MAX_SANDBOXES: '7' });

interface Shown {
  readonly sandbox_id: string;
  readonly guest_ip: string;
  readonly envd_access_token: string;
  readonly traffic_access_token: string;
  readonly network: unknown;
  readonly metadata: unknown;
  readonly end_at: string;
}

async function fork(id: string, body: object): Promise<Shown[]> {
  const { status, json, text } = await server.call('POST', `/sandboxes/${id}/fork`, { json: body });
  assert.equal(status, 201, text);
  return json.sandboxes;
}

test('forks go on where their source is, as machines of their own: ids, addresses, tokens, names, machine ids and entropy all differ', async () => {
  const source = await counting({ envs: { A: 'source' }, network: { allowOut: [], denyOut: ['0.0.0.0/0'], allowPublicTraffic: true } });
  // A process that was running before the fork, and draws from the kernel after it.
  await source.files.write('/home/user/draw.py', "import os, time\nwhile not os.path.exists('/tmp/go'): time.sleep(0.01)\nopen('/tmp/drawn', 'w').write(os.urandom(16).hex())\n");
  await source.commands.run('python3 draw.py', { background: true, timeout: 0 });
  const secret = await output(source, 'cat /etc/machine-id');
  const at = await count(source);

  const forks = await fork(source.sandboxId, { count: 3, metadata: { of: 'three' }, envs: { B: 'fork' }, timeout: 500 });
  assert.equal(forks.length, 3);
  const original = (await server.call('GET', `/sandboxes/${source.sandboxId}`)).json as Shown;
  for (const key of ['sandbox_id', 'guest_ip', 'envd_access_token', 'traffic_access_token'] as const) {
    assert.equal(new Set([original, ...forks].map((each) => each[key])).size, 4, `${key} is not its own`);
  }
  const seen: string[][] = [[(await output(source, 'hostname')).trim(), secret, '', '']];
  for (const shown of forks) {
    assert.deepEqual([shown.network, shown.metadata], [{ allow_out: [], deny_out: ['0.0.0.0/0'], allow_public_traffic: true }, { of: 'three' }]);
    assert.ok(Math.abs(Date.parse(shown.end_at) - Date.now() - 500_000) < 20_000);
    const each = await Sandbox.connect(shown.sandbox_id);
    assert.ok((await count(each)) >= at, 'its processes do not go on');
    assert.equal(await output(each, 'echo $A $B $DECLAW_SANDBOX_ID'), `source fork ${shown.sandbox_id}\n`);
    assert.equal((await output(each, 'hostname')).trim(), shown.sandbox_id);
    assert.equal(await output(each, 'getent hosts $(hostname) >/dev/null && echo resolves'), 'resolves\n');
    await each.files.write('/tmp/go', '');
    await each.files.write('/tmp/mine', shown.sandbox_id);
    seen.push([(await output(each, 'cat /etc/hostname')).trim(), await output(each, 'cat /etc/machine-id'), await output(each, 'until [ -s /tmp/drawn ]; do sleep 0.05; done; cat /tmp/drawn'), await output(each, 'head -c 16 /dev/urandom | od -An -tx1')]);
  }
  for (const [i, what] of ['host name', 'machine id', 'entropy of a running process', 'entropy of a new process'].entries()) {
    const values = seen.map((row) => row[i]).filter((value) => value !== '');
    assert.equal(new Set(values).size, values.length, `${what} is shared: ${values.join(' ')}`);
  }
  assert.equal(await source.files.exists('/tmp/mine'), false);
  assert.equal(await output(source, 'cat /etc/machine-id'), secret);

  // The token of one opens nothing of another.
  const { status } = await server.call('GET', `/sandboxes/${forks[0]!.sandbox_id}/ports/9/`, { key: null, headers: { 'x-traffic-access-token': original.traffic_access_token } });
  assert.equal(status, 401);
  await eventually(() => readdirSync(join(server.dataDir, 'checkpoints')).length === 0);
  for (const id of [source.sandboxId, ...forks.map((each) => each.sandbox_id)]) await (await Sandbox.connect(id)).kill({ wait: true });
});

test('rules cannot be widened by a fork: what would choose others is refused by name', async () => {
  const source = await Sandbox.create({ network: { allowOut: [], denyOut: ['0.0.0.0/0'], allowPublicTraffic: true } });
  for (const [field, value] of [['network', { allow_out: ['*'] }], ['security', { network: { allow_out: ['*'] } }]] as const) {
    const { status, json } = await server.call('POST', `/sandboxes/${source.sandboxId}/fork`, { json: { [field]: value } });
    assert.equal(status, 400);
    assert.match(json.message, new RegExp(field));
  }
  for (const [body, message] of [[{ count: 0 }, /count/], [{ count: 101 }, /100/], [{ count: 1.5 }, /count/], [{ timeout: -1 }, /timeout/], [{ envs: { 'A=B': '' } }, /envs/], [{ metadata: { a: 1 } }, /metadata/]] as const) {
    const { status, json } = await server.call('POST', `/sandboxes/${source.sandboxId}/fork`, { json: body });
    assert.deepEqual([status, message.test(json.message)], [400, true], json.message);
  }
  await source.kill({ wait: true });
  assert.equal((await server.call('POST', `/sandboxes/${source.sandboxId}/fork`, { json: {} })).status, 410);
  assert.equal((await server.call('POST', '/sandboxes/sbx-aaaaaaaa/fork', { json: {} })).status, 404);
});

test('all or nothing: a fork that does not fit leaves nothing behind', async () => {
  const source = await Sandbox.create();
  const { status, json } = await server.call('POST', `/sandboxes/${source.sandboxId}/fork`, { json: { count: 20 } });
  assert.equal(status, 429, JSON.stringify(json));
  assert.equal((await server.call('GET', '/sandboxes')).json.total, 1);
  assert.equal(guestGroupsOf(server.dataDir).length, 1);
  assert.equal(await output(source, 'echo fine'), 'fine\n');
  await source.kill({ wait: true });
});

test('a paused sandbox can be forked without waking it, and forks can be paused, resumed and forked again', async () => {
  const source = await counting();
  await source.pause();
  const [first] = await fork(source.sandboxId, {});
  assert.equal((await source.getInfo()).state, 'paused');
  const child = await Sandbox.connect(first!.sandbox_id);
  const at = await count(child);
  await child.pause();
  await child.resume();
  const [second] = await fork(child.sandboxId, { count: 1 });
  const grandchild = await Sandbox.connect(second!.sandbox_id);
  assert.ok((await count(grandchild)) >= at);
  assert.equal((await output(grandchild, 'hostname')).trim(), grandchild.sandboxId);
  await source.resume();
  await count(source);
  for (const each of [source, child, grandchild]) await each.kill({ wait: true });
  await eventually(() => readdirSync(join(server.dataDir, 'checkpoints')).length === 0);
});
