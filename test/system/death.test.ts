import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { Sandbox, SandboxError } from '@declaw/sdk';
import { eventsOf, open } from '../harness/http.ts';
import { guestGroupsOf, guestProcessesOf } from '../harness/machine.ts';
import { serverOfThisFile } from '../harness/server.ts';
import { eventually, sleep, within } from '../harness/wait.ts';

// A guest dies without being asked to.

const server = serverOfThisFile();

/** A sandbox with the host processes that run it, found by what is new on this machine. */
async function createWithProcesses(): Promise<{ sandbox: Sandbox; pids: number[] }> {
  const before = new Set(guestGroupsOf(server.dataDir));
  const sandbox = await Sandbox.create();
  const added = guestGroupsOf(server.dataDir).filter((name) => !before.has(name));
  assert.equal(added.length, 1);
  return { sandbox, pids: guestProcessesOf(server.dataDir, added[0] ?? '') };
}

function die(pids: readonly number[]): void {
  for (const pid of pids) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch (reason) {
      if ((reason as NodeJS.ErrnoException).code !== 'ESRCH') throw reason; // went with another one
    }
  }
}

const isKernel = (pid: number): boolean => / boot /.test(readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' '));

test('a sandbox whose guest dies is killed, with a reason, and holds nothing any more', async () => {
  const { sandbox, pids } = await createWithProcesses();
  die(pids);
  await eventually(async () => (await sandbox.isRunning()) === false, { withinMs: 3000 });
  const tombstone = (await server.call('GET', `/sandboxes/${sandbox.sandboxId}`)).json;
  assert.equal(tombstone.state, 'killed');
  assert.match(tombstone.end_reason, /^(runtime_crashed|agent_lost)$/);
  assert.ok(tombstone.end_detail.length > 0);
  assert.equal((await sandbox.getInfo()).state, 'killed');
  assert.equal(await sandbox.kill({ wait: true }), false);
  await eventually(() => guestGroupsOf(server.dataDir).length === 0);
});

test('it is enough that its kernel process dies', async () => {
  const { sandbox, pids } = await createWithProcesses();
  const kernels = pids.filter(isKernel);
  assert.ok(kernels.length >= 1, 'no boot process was found');
  die(kernels);
  await eventually(async () => (await sandbox.isRunning()) === false, { withinMs: 3000 });
  await eventually(() => guestGroupsOf(server.dataDir).length === 0);
});

test('every call in flight ends at once and says that the sandbox has ended', async () => {
  const { sandbox, pids } = await createWithProcesses();
  const root = `/sandboxes/${sandbox.sandboxId}`;
  const session = await sandbox.stdio.start('sleep 100');
  const pty = await sandbox.pty.create();
  const job = await sandbox.commands.run('sleep 100', { background: true });
  const streamOf = async (method: string, path: string, json?: unknown): Promise<string[]> => {
    const message = await open(server.url, method, root + path, { key: server.apiKey, ...(json === undefined ? {} : { json }) });
    assert.equal(message.statusCode, 200);
    const events: string[] = [];
    try {
      for await (const { event, data } of eventsOf(message)) events.push(`${event} ${JSON.stringify(data)}`);
    } catch (reason) {
      events.push(`cut: ${(reason as Error).message}`);
    }
    return events;
  };
  const plain = [
    server.call('POST', `${root}/commands`, { json: { cmd: 'sleep 100' } }),
    server.call('GET', `${root}/commands/${job.pid}/wait`),
  ];
  const streams = [streamOf('POST', '/commands/stream', { cmd: 'sleep 100' }), streamOf('GET', `/stdio/${session.cmdId}/stream`), streamOf('GET', `/pty/${pty.pid}/stream`)];
  const viaSdk = sandbox.commands.runStream('sleep 100').then(() => null, (error: unknown) => error);
  await sleep(1000);
  die(pids);

  for (const answer of await within(5000, 'the plain calls', Promise.all(plain))) {
    assert.equal(answer.status, 410, answer.text);
    assert.match(answer.json.message, /ended/);
  }
  await within(5000, 'the streams', Promise.all(streams));
  const [command = []] = await Promise.all(streams);
  assert.match(command.at(-1) ?? '', /error.*ended/, 'a command stream must say that it failed, or the SDK takes it for success');
  assert.ok((await within(5000, 'the SDK\'s stream', viaSdk)) instanceof SandboxError);
});

test('uploads and downloads in flight end at once too', async () => {
  const { sandbox, pids } = await createWithProcesses();
  await sandbox.commands.run('head -c 200M /dev/zero > big');
  const root = `/sandboxes/${sandbox.sandboxId}/files/raw`;
  const download = await open(server.url, 'GET', `${root}?path=/home/user/big`, { key: server.apiKey });
  download.pause();
  async function* dripping(): AsyncGenerator<Buffer> {
    for (;;) {
      yield Buffer.alloc(65_536);
      await sleep(20);
    }
  }
  const { Readable } = await import('node:stream');
  const upload = server.call('PUT', `${root}?path=/home/user/up`, { body: Readable.from(dripping()) }).then(
    (answer) => answer.status,
    () => 'cut',
  );
  await sleep(700);
  die(pids);
  assert.ok([410, 'cut'].includes(await within(5000, 'the upload', upload)));
  await assert.rejects(within(5000, 'the download', (async () => { for await (const _ of download) void _; })()), /aborted|ECONNRESET|terminated/);
});

test('a death while the server is down is found at the next start, with a reason', async () => {
  const { sandbox, pids } = await createWithProcesses();
  const { sandbox: healthy } = await createWithProcesses();
  await server.crash();
  die(pids);
  await server.start();
  const tombstone = (await server.call('GET', `/sandboxes/${sandbox.sandboxId}`)).json;
  assert.equal(tombstone.state, 'killed');
  assert.match(tombstone.end_reason, /^(runtime_crashed|agent_lost)$/);
  assert.equal((await healthy.commands.run('echo fine')).stdout, 'fine\n');
  await healthy.kill({ wait: true });
  await eventually(() => guestGroupsOf(server.dataDir).length === 0);
});

test('a guest that dies while it is being created costs its client a repetition at most, not a wait', async () => {
  for (const delayMs of [0, 40, 80, 120]) {
    const before = new Set(guestGroupsOf(server.dataDir));
    const create = server.call('POST', '/sandboxes', { json: {} });
    const container = await eventually(() => guestGroupsOf(server.dataDir).find((name) => !before.has(name)) ?? false, { everyMs: 1 });
    await sleep(delayMs);
    die(guestProcessesOf(server.dataDir, container));
    const answer = await within(8000, `a create whose guest died after ${delayMs} ms`, create);
    assert.ok(answer.status === 201 || answer.status === 503, `${answer.status} ${answer.text}`);
    if (answer.status === 201) await server.call('DELETE', `/sandboxes/${answer.json.sandbox_id}`);
    await eventually(() => assert.deepEqual(guestGroupsOf(server.dataDir), []));
  }
  assert.equal((await server.call('GET', '/sandboxes')).json.total, 0);
});

test('a user who ends process 1 ends only the own sandbox, or nothing', async () => {
  const [suicidal, other] = await Promise.all([Sandbox.create(), Sandbox.create()]);
  await within(20_000, 'the kill of process 1', suicidal.commands.run('kill -9 1; kill -TERM 1; kill -SEGV 1; sleep 1; echo on', { user: 'root' }).catch(() => null));
  const { state, end_reason } = (await server.call('GET', `/sandboxes/${suicidal.sandboxId}`)).json;
  assert.match(`${state} ${end_reason}`, /^(running undefined|killed (agent_lost|runtime_crashed))$/);
  assert.equal((await other.commands.run('echo fine')).stdout, 'fine\n');
  await Sandbox.killMany([suicidal.sandboxId, other.sandboxId], { wait: true });
});
