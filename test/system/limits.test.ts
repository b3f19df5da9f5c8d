import assert from 'node:assert/strict';
import { statfsSync } from 'node:fs';
import { test } from 'node:test';
import { NotEnoughSpaceError, Sandbox, TimeoutError } from '@declaw/sdk';
import { residentBytes } from '../harness/machine.ts';
import { output, sandboxOfThisFile } from '../harness/sandbox.ts';
import { serverOfThisFile } from '../harness/server.ts';
import { eventually, sleep, within } from '../harness/wait.ts';

// One sandbox uses up what it has; it, or at least everybody else, goes on.

const server = serverOfThisFile();
const neighbour = sandboxOfThisFile();

async function neighbourWorks(): Promise<void> {
  assert.equal((await within(20_000, 'the neighbour\'s command', neighbour().commands.run('echo unharmed'))).stdout, 'unharmed\n');
}

test('a fork bomb of the user gets errors, and its sandbox goes on', async () => {
  const sandbox = await Sandbox.create();
  const bomb = sandbox.commands.run('f() { f | f & }; f; sleep 100', { timeout: 6 });
  const ended = assert.rejects(bomb, TimeoutError);
  await sleep(3000);
  await neighbourWorks();
  await sandbox.files.write('/tmp/during', 'the bomb');
  await ended;
  assert.equal(await eventually(async () => (await within(20_000, 'a command after the bomb', sandbox.commands.run('echo survived'))).stdout, { withinMs: 30_000 }), 'survived\n');
  assert.equal(await sandbox.files.read('/tmp/during'), 'the bomb');
  assert.equal(await sandbox.isRunning(), true);
  await neighbourWorks();
  await sandbox.kill({ wait: true });
});

test('a program that starts too many processes is told so', async () => {
  const sandbox = await Sandbox.create({ template: 'python' });
  // Small ones: hundreds of large ones would be a matter of memory.
  await sandbox.files.write('/tmp/many.py', `
import errno, os, signal
children, error = [], None
try:
    for i in range(5000): children.append(os.posix_spawn('/bin/sleep', ['sleep', '100'], {}))
except OSError as e: error = errno.errorcode[e.errno]
for pid in children: os.kill(pid, signal.SIGKILL)
for pid in children: os.waitpid(pid, 0)
print(error, len(children) < 5000)
`);
  assert.equal(await output(sandbox, 'python3 /tmp/many.py', { timeout: 100 }), 'EAGAIN True\n');
  assert.equal(await output(sandbox, 'echo after'), 'after\n');
  await sandbox.kill();
});

test('a single memory hog loses its process, and its sandbox goes on', async () => {
  const sandbox = await Sandbox.create({ template: 'python' });
  await sandbox.commands.run('sleep 6111', { background: true });
  const hog = await within(60_000, 'the end of the hog', sandbox.commands.run(`python3 -c 'b = []\nwhile True: b.append(b"x" * 20_000_000)'`, { timeout: 50 }));
  assert.notEqual(hog.exitCode, 0);
  assert.equal(await output(sandbox, 'echo after; pgrep -f "sleep 611[1]" | wc -l'), 'after\n1\n');
  assert.equal(await sandbox.isRunning(), true);
  await neighbourWorks();
  await sandbox.kill();
});

test('a disk filler gets ENOSPC, the host\'s disk is unharmed, and its sandbox goes on', async () => {
  const sandbox = await Sandbox.create();
  const free = (): number => statfsSync(server.dataDir).bavail * statfsSync(server.dataDir).bsize;
  const before = free();
  const { disk_mb } = (await server.call('GET', `/sandboxes/${sandbox.sandboxId}`)).json.resources;
  const filled = await sandbox.commands.run('head -c 100G /dev/zero > /home/user/filler', { timeout: 100 });
  assert.notEqual(filled.exitCode, 0);
  assert.match(filled.stderr, /No space left on device/);
  assert.ok(before - free() < (disk_mb + 512) * 1024 * 1024, `the host lost ${Math.round((before - free()) / 1024 / 1024)} MiB`);
  await assert.rejects(sandbox.files.write('/home/user/one-more', new Uint8Array(64 * 1024 * 1024)), NotEnoughSpaceError);
  await neighbourWorks();
  await output(sandbox, 'rm /home/user/filler && echo ok > again && cat again');
  await sandbox.kill({ wait: true });
  await eventually(() => before - free() < 512 * 1024 * 1024);
});

test('a flood of output that nobody reads stays bounded, and everybody goes on', async () => {
  const sandbox = await Sandbox.create();
  const before = residentBytes(server.pid);
  const floods = await Promise.all([1, 2, 3].map(() => sandbox.commands.run('yes 0123456789012345678901234567890123456789', { background: true, timeout: 0 })));
  await sandbox.stdio.start('yes 0123456789012345678901234567890123456789');
  await sleep(4000);
  await neighbourWorks();
  assert.equal(await output(sandbox, 'echo also here'), 'also here\n');
  assert.ok(residentBytes(server.pid) - before < 200 * 1024 * 1024);
  for (const flood of floods) await flood.kill();
  await sandbox.kill();
});

test('root\'s fork bomb and a full tmpfs may end their own sandbox, with a reason, and nobody else\'s', async () => {
  const [bomber, filler] = await Promise.all([Sandbox.create(), Sandbox.create()]);
  const attacks = [
    bomber.commands.run('f() { f | f & }; f; sleep 100', { user: 'root', timeout: 5 }),
    filler.commands.run('head -c 20G /dev/zero > /dev/shm/filler; sleep 1', { user: 'root', timeout: 20 }),
  ];
  await sleep(2000);
  await neighbourWorks();
  await within(60_000, 'the end of both attacks', Promise.allSettled(attacks));
  for (const sandbox of [bomber, filler]) {
    const { state, end_reason } = (await server.call('GET', `/sandboxes/${sandbox.sandboxId}`)).json;
    assert.match(`${state} ${end_reason}`, /^(running undefined|killed (out_of_memory|runtime_crashed|agent_lost))$/);
  }
  await neighbourWorks();
  await Sandbox.killMany([bomber.sandboxId, filler.sandboxId], { wait: true });
});

test('what a sandbox may use is what its template says', async () => {
  const { resources } = (await server.call('GET', `/sandboxes/${neighbour().sandboxId}`)).json;
  const memoryMb = Number(await output(neighbour(), `awk '/MemTotal/ { print int($2 / 1024) }' /proc/meminfo`));
  assert.ok(memoryMb <= resources.memory_mb * 1.1 && memoryMb >= resources.memory_mb * 0.8, `${memoryMb} MiB`);
  assert.ok(Number(await output(neighbour(), 'nproc')) >= 1);
});
