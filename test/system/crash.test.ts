import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { Sandbox } from '@declaw/sdk';
import { guestGroupsOf, instanceId, loopsBelow, mountsBelow, namespacesOf, processesOf } from '../harness/machine.ts';
import { serverOfThisFile } from '../harness/server.ts';
import { eventually, sleep } from '../harness/wait.ts';

// The server is killed in the middle of its work. Whatever moment that was: what is listed works, and nothing else is left.

const server = serverOfThisFile();
/** Slots that a server keeps built ahead of demand. */
const slotsAhead = 4;

/** Every listed sandbox runs a command, and there are guests, mounts and namespaces for no more. Returns the ids. */
async function everythingFits(): Promise<string[]> {
  const { json } = await server.call('GET', '/sandboxes');
  const ids = json.sandboxes.map((each: { sandbox_id: string }) => each.sandbox_id) as string[];
  assert.deepEqual(json.sandboxes.map((each: { state: string }) => each.state), ids.map(() => 'running'));
  for (const id of ids) assert.equal((await (await Sandbox.connect(id)).commands.run('echo works')).stdout, 'works\n');
  await eventually(() => {
    assert.equal(guestGroupsOf(server.dataDir).length, ids.length, 'guests');
    assert.equal(runtimesOf().length, ids.length, `runtime processes:\n${processesOf(server.dataDir).map((each) => each.command).join('\n')}`);
    for (const [what, count] of [['namespaces', namespacesOf(server.dataDir).length - 1], ['disks', mountsBelow(server.dataDir).filter((point) => point.endsWith('/disk')).length], ['other mounts', mountsBelow(server.dataDir).filter((point) => !point.endsWith('/disk')).length], ['loop devices', loopsBelow(server.dataDir).length], ['slots', readdirSync(join(server.dataDir, 'host/slots')).length]] as const) {
      assert.ok(count >= ids.length && count <= ids.length + slotsAhead, `${count} ${what} for ${ids.length} sandboxes`);
    }
  });
  return ids;
}

/** One process of each guest: the one that is its kernel. */
function runtimesOf(): string[] {
  return processesOf(server.dataDir).map((each) => each.command).filter((command) => /\brunsc\b.*\bboot\b|^runsc-sandbox /.test(command));
}

async function killAll(ids: readonly string[]): Promise<void> {
  for (const result of Object.values(await Sandbox.killMany([...ids], { wait: true }))) assert.deepEqual(result, { killed: true });
  await everythingFits();
}

for (const delayMs of [20, 120, 250, 400]) {
  test(`killed ${delayMs} ms into six creates, it leaves whole sandboxes or none`, async () => {
    const creates = Array.from({ length: 6 }, () => server.call('POST', '/sandboxes', { json: {} }).then((answer) => answer.json.sandbox_id as string, () => null));
    await sleep(delayMs);
    await server.crash();
    const answered = (await Promise.all(creates)).filter((id) => id !== null);
    await server.start();
    const ids = await everythingFits();
    for (const id of answered) assert.ok(ids.includes(id), `${id} was promised and is gone`);
    await killAll(ids);
  });
}

for (const delayMs of [5, 40, 100]) {
  test(`killed ${delayMs} ms into four kills, it ends what was to end`, async () => {
    const sandboxes = await Promise.all(Array.from({ length: 5 }, () => Sandbox.create()));
    const [kept, ...doomed] = sandboxes.map((each) => each.sandboxId) as [string, ...string[]];
    const kills = doomed.map((id) => server.call('DELETE', `/sandboxes/${id}`).then(() => id, () => null));
    await sleep(delayMs);
    await server.crash();
    const answered = (await Promise.all(kills)).filter((id) => id !== null);
    await server.start();
    const ids = await everythingFits();
    assert.ok(ids.includes(kept));
    for (const id of answered) assert.ok(!ids.includes(id), `${id} was killed and is back`);
    await killAll(ids);
  });
}

test('an asynchronous kill that was accepted is carried out after a crash', async () => {
  const sandboxes = await Promise.all(Array.from({ length: 3 }, () => Sandbox.create()));
  await Promise.all(sandboxes.map((each) => each.kill()));
  await server.crash();
  await server.start();
  await eventually(async () => (await server.call('GET', '/sandboxes')).json.total === 0);
  assert.deepEqual(await everythingFits(), []);
});

test('what belongs to nobody is removed at the start: namespaces, cgroups, directories, mounts', async () => {
  const sandbox = await Sandbox.create();
  await server.crash();
  const [netns, container, slot] = [`paddock-${instanceId(server.dataDir)}-77`, `g${'0'.repeat(16)}`, join(server.dataDir, 'host/slots/77')];
  execFileSync('ip', ['netns', 'add', netns]);
  const groups = readdirSync('/sys/fs/cgroup').map((name) => `/sys/fs/cgroup/${name}/paddock-${instanceId(server.dataDir)}`).concat(`/sys/fs/cgroup/paddock-${instanceId(server.dataDir)}`).filter((path) => existsSync(path));
  assert.ok(groups.length > 0);
  for (const group of groups) mkdirSync(join(group, container));
  mkdirSync(join(slot, 'disk'), { recursive: true });
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'none', join(slot, 'disk')]);
  writeFileSync(join(server.dataDir, 'host/runsc-state', `${container}_sandbox:${container}.state.lock`), '');

  await server.start();
  assert.deepEqual(await everythingFits(), [sandbox.sandboxId]);
  assert.ok(!namespacesOf(server.dataDir).includes(netns));
  assert.ok(!guestGroupsOf(server.dataDir).includes(container));
  assert.ok(!existsSync(slot));
  assert.ok(!readdirSync(join(server.dataDir, 'host/runsc-state')).some((name) => name.includes(container)));
  await killAll([sandbox.sandboxId]);
});

test('killed while it starts again, it still comes back whole', async () => {
  const sandbox = await Sandbox.create();
  for (const delayMs of [150, 300, 450]) {
    await server.crash();
    const starting = server.start().then(
      () => true,
      () => false,
    );
    await sleep(delayMs);
    await server.crash();
    await starting;
    await server.start();
    assert.deepEqual(await everythingFits(), [sandbox.sandboxId]);
  }
  await killAll([sandbox.sandboxId]);
});
