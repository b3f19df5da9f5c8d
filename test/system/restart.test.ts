import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CommandExitError, Sandbox } from '@declaw/sdk';
import { guestGroupsOf, guestProcessesOf, isAlive } from '../harness/machine.ts';
import { output } from '../harness/sandbox.ts';
import { serverOfThisFile, runPaddock, TestServer } from '../harness/server.ts';
import { eventually, sleep, within } from '../harness/wait.ts';

// The server ends, in good order or not, while sandboxes run; the next start has everything that should be there.

const server = serverOfThisFile();

for (const [how, end] of [
  ['stopped by SIGTERM', () => server.stop()],
  ['killed by SIGKILL', () => server.crash()],
] as const) {
  test(`after the server was ${how}, sandboxes are usable under the same ids and tokens, with what ran in them`, async () => {
    const sandbox = await Sandbox.create({ timeout: 600, metadata: { kept: 'yes' }, envs: { KEPT: 'too' } });
    const before = (await server.call('GET', `/sandboxes/${sandbox.sandboxId}`)).json;
    await sandbox.files.write('/home/user/kept', 'file');
    const job = await sandbox.commands.run('echo started; read line; echo "got $line"; exit 5', { background: true, timeout: 0 });
    const session = await sandbox.stdio.start('echo "first"; read line; echo "second $line"');
    const pty = await sandbox.pty.create();
    await pty.sendInput('export SHELL_STATE=alive\n');
    const [container] = guestGroupsOf(server.dataDir);
    const guests = guestProcessesOf(server.dataDir, container ?? '');
    assert.ok(guests.length > 0);

    await end();
    await sleep(300);
    assert.ok(guests.every(isAlive), 'the guest did not survive its server');
    await server.start();

    assert.deepEqual((await server.call('GET', `/sandboxes/${sandbox.sandboxId}`)).json, before);
    assert.equal(await output(sandbox, 'cat kept; echo " $KEPT"'), 'file too\n');
    const again = await Sandbox.connect(sandbox.sandboxId);
    assert.equal(again.envdAccessToken, sandbox.envdAccessToken);
    const { sandboxes } = await Sandbox.list();
    assert.deepEqual(sandboxes.map((each) => [each.sandboxId, each.metadata]), [[sandbox.sandboxId, { kept: 'yes' }]]);

    assert.ok((await sandbox.commands.list()).some((each) => each.pid === job.pid && each.cmd.startsWith('echo started')));
    await sandbox.commands.sendStdin(job.pid, 'hello\n');
    await assert.rejects(job.wait(), (error) => error instanceof CommandExitError && error.stdout === 'started\ngot hello\n' && error.exitCode === 5);

    let replayed = '';
    await session.sendStdin('half\n');
    const { exitCode } = await session.stream({ onStdout: (data) => (replayed += Buffer.from(data).toString()) });
    assert.deepEqual([replayed, exitCode], ['first\nsecond half\n', 0]);

    let screen = '';
    const reader = sandbox.pty.connect(pty.pid, { onData: (data) => (screen += Buffer.from(data).toString()) });
    await reader.sendInput('echo "state: $SHELL_STATE"\n');
    await eventually(() => screen.includes('state: alive'));
    assert.equal(await sandbox.kill({ wait: true }), true);
  });
}

test('deadlines hold over a crash: those to come within a second, those that passed meanwhile at the start', async () => {
  const [passed, coming, moved] = await Promise.all([Sandbox.create({ timeout: 2 }), Sandbox.create({ timeout: 300 }), Sandbox.create({ timeout: 2 })]);
  await moved.setTimeout(300);
  const job = await coming.commands.run('sleep 6211', { background: true, timeout: 6 });
  await coming.setTimeout(9);
  const set = Date.now();
  await server.crash();
  await sleep(3000);
  await server.start();
  const started = Date.now();

  await eventually(async () => (await passed.isRunning()) === false, { withinMs: 1000 });
  const tombstone = (await server.call('GET', `/sandboxes/${passed.sandboxId}`)).json;
  assert.deepEqual([tombstone.state, tombstone.end_reason], ['killed', 'timeout']);
  assert.ok(Date.now() - started < 2000);

  assert.equal(await coming.isRunning(), true);
  assert.match(await output(coming, 'ps -eo args'), /sleep 6211/);
  await eventually(async () => !(await output(coming, 'ps -eo args')).includes('sleep 6211'), { withinMs: set + 7500 - Date.now() });
  await eventually(async () => (await coming.isRunning()) === false, { withinMs: set + 10_500 - Date.now(), everyMs: 20 });
  assert.ok(Date.now() >= set + 8500, 'the sandbox ended before its deadline');
  assert.equal(await moved.isRunning(), true);
  assert.ok(job.pid > 0);
  await moved.kill({ wait: true });
});

test('a stream that is cut by a crash ends at once for its reader, and its sandbox goes on', async () => {
  const sandbox = await Sandbox.create();
  let seen = '';
  const streaming = sandbox.commands.runStream('echo begun; sleep 100', { onStdout: (data) => (seen += data) }).then(
    () => 'ended',
    () => 'failed',
  );
  await eventually(() => seen === 'begun\n');
  await server.crash();
  assert.equal(await within(5000, 'the reader of the stream', streaming), 'failed');
  await server.start();
  assert.equal((await sandbox.commands.run('echo on')).stdout, 'on\n');
  await sandbox.kill({ wait: true });
});

test('a tombstone remains over restarts', async () => {
  const sandbox = await Sandbox.create({ metadata: { grave: '1' } });
  await sandbox.kill({ wait: true });
  const before = (await server.call('GET', `/sandboxes/${sandbox.sandboxId}`)).json;
  await server.crash();
  await server.start();
  assert.deepEqual((await server.call('GET', `/sandboxes/${sandbox.sandboxId}`)).json, before);
  assert.equal((await server.call('POST', `/sandboxes/${sandbox.sandboxId}/commands`, { json: { cmd: 'true' } })).status, 410);
});

test('a second server on the same data directory is refused with a sentence, and does no harm', async () => {
  const sandbox = await Sandbox.create();
  const outcome = await within(20_000, 'the second server', runPaddock(['start'], { ...server.environment, PADDOCK_LISTEN: '127.0.0.1:0' }));
  assert.notEqual(outcome.code, 0);
  assert.match(outcome.stderr, /data directory.*PADDOCK_DATA_DIR|is using the data directory/);
  assert.ok(!outcome.stderr.includes('    at '), `a stack instead of a sentence:\n${outcome.stderr}`);
  assert.equal((await sandbox.commands.run('echo unharmed')).stdout, 'unharmed\n');
  await sandbox.kill({ wait: true });
});

test('two servers with data directories of their own live side by side', async () => {
  const other = new TestServer();
  try {
    const [domain, key] = [process.env['DECLAW_DOMAIN'], process.env['DECLAW_API_KEY']];
    await other.start();
    const theirs = await Sandbox.create();
    [process.env['DECLAW_DOMAIN'], process.env['DECLAW_API_KEY']] = [domain, key];
    const ours = await Sandbox.create();
    assert.equal((await server.call('GET', `/sandboxes/${theirs.sandboxId}`)).status, 404);
    await other.crash();
    await other.start();
    [process.env['DECLAW_DOMAIN'], process.env['DECLAW_API_KEY']] = [domain, key];
    assert.equal((await theirs.commands.run('echo theirs')).stdout, 'theirs\n');
    assert.equal((await ours.commands.run('echo ours')).stdout, 'ours\n');
    await ours.kill({ wait: true });
  } finally {
    await other.remove();
  }
  assert.equal((await server.call('GET', '/health')).status, 200);
});
