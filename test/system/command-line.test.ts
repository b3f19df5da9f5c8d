import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Sandbox } from '@declaw/sdk';
import { guestGroupsOf, loopsBelow, mountsBelow, processesOf, tracesOf } from '../harness/machine.ts';
import { runPaddock, serverOfThisFile, TestServer, type CommandOutcome } from '../harness/server.ts';
import { eventually, within } from '../harness/wait.ts';

const server = serverOfThisFile();

/** One line for the operator: what is wrong and what to do, no stack. */
function assertSentence({ code, stderr }: CommandOutcome, ...says: RegExp[]): void {
  assert.equal(code, 1, stderr);
  assert.match(stderr, /^paddock: /m);
  assert.ok(!/^\s+at /m.test(stderr), `a stack instead of a sentence:\n${stderr}`);
  for (const each of says) assert.match(stderr, each);
}

test('help names every command and every setting', async () => {
  const { code, stdout } = await server.paddock(['help']);
  assert.equal(code, 0);
  for (const word of ['start', 'stop --all', 'stop --pause', 'doctor', 'keys create', 'gc', 'PADDOCK_LISTEN', 'PADDOCK_DATA_DIR', 'PADDOCK_DOMAIN', 'PADDOCK_API_KEY', 'PADDOCK_RUNSC']) assert.ok(stdout.includes(word), word);
  assert.match((await server.paddock(['version'])).stdout, /^\d+\.\d+\.\d+\n$/);
});

test('what is not understood is refused with a sentence', async () => {
  assertSentence(await server.paddock(['launch']), /launch/, /help/);
  assertSentence(await server.paddock(['start', '--fast']), /--fast/);
  assertSentence(await server.paddock(['keys']), /Usage/);
  assertSentence(await server.paddock(['stop', '--pause', '--all']), /not both/);
});

test('templates are built, listed, shown and deleted on the command line', async () => {
  const dockerfile = join(server.dataDir, 'Dockerfile');
  writeFileSync(dockerfile, 'FROM base\nRUN echo made here > /made\nRUN cat /made\n');
  const built = await server.paddock(['templates', 'build', 'by-hand', '--file', dockerfile, '--memory', '600']);
  assert.equal(built.code, 0, built.stdout + built.stderr);
  assert.match(built.stdout, /\[paddock\] step 2\/2: run cat \/made\nmade here\n[^]*\[paddock\] template ready\n$/);
  const failed = await server.paddock(['templates', 'build', 'wrong', '--from', 'by-hand', '--env', 'A=b c', '--run', 'echo "$A"', '--run', 'exit 3']);
  assert.equal(failed.code, 1);
  assert.match(failed.stdout, /\nb c\n[^]*\[paddock\] step_failed: step 3\/3 failed after \d+s: exited with code 3\n$/);
  const { stdout } = await server.paddock(['templates', 'list']);
  assert.match(stdout, /^by-hand +ready +2 CPU {2}600 MiB memory/m);
  assert.match(stdout, /^wrong +failed .*step_failed/m);
  assert.match(stdout, /^base +ready/m);
  assert.equal((await server.paddock(['templates', 'logs', 'by-hand'])).stdout, built.stdout);
  assertSentence(await server.paddock(['templates', 'delete', 'nobody']), /there is no template nobody/);
  assertSentence(await server.paddock(['templates', 'build', 'x']), /either --file or --from/);
  assertSentence(await server.paddock(['templates', 'build', 'x', '--file', '/no/such']), /cannot be read/);
  assertSentence(await server.paddock(['templates', 'frobnicate', 'x']), /Usage: paddock templates list/);
  for (const name of ['wrong', 'by-hand']) assert.equal((await server.paddock(['templates', 'delete', name])).code, 0);
});

test('a setting that cannot be is refused by its name', async () => {
  for (const [name, value] of [['PADDOCK_LISTEN', 'nowhere'], ['PADDOCK_LISTEN', '127.0.0.1:99999'], ['PADDOCK_API_KEY', 'short'], ['PADDOCK_DOMAIN', 'http://x'], ['PADDOCK_UNKNOWN_TEMPLATE', 'maybe'], ['PADDOCK_SUBNET', '10.0.0.0/30'], ['PADDOCK_MAX_SANDBOXES', 'many']] as const) {
    assertSentence(await server.paddock(['start'], { [name]: value }), new RegExp(name));
  }
});

test('a port that is taken is refused with a sentence that names it, and the machine is left alone', async () => {
  const taken = createServer();
  await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve));
  const { port } = taken.address() as { port: number };
  const dataDir = realpathSync(mkdtempSync(join(tmpdir(), 'paddock-test-')));
  try {
    const environment = { ...server.environment, PADDOCK_DATA_DIR: dataDir, PADDOCK_LISTEN: `127.0.0.1:${port}` };
    assertSentence(await within(30_000, 'the refusal', runPaddock(['start'], environment)), new RegExp(`${port}`), /PADDOCK_LISTEN/);
    assert.equal((await runPaddock(['stop', '--all'], environment)).code, 0);
    assert.deepEqual(await tracesOf(dataDir), []);
  } finally {
    rmSync(dataDir, { recursive: true, force: true });
    taken.close();
  }
});

test('missing artefacts are a sentence that says how to get them', async () => {
  const empty = mkdtempSync(join(tmpdir(), 'paddock-test-'));
  try {
    assertSentence(await runPaddock(['start'], { ...server.environment, PADDOCK_DATA_DIR: empty, PADDOCK_LISTEN: '127.0.0.1:0', PADDOCK_ARTEFACTS_DIR: join(empty, 'none') }), /npm start/);
  } finally {
    rmSync(empty, { recursive: true, force: true });
  }
});

/** Another user without root's powers, but able to read this repository wherever it lies. */
const asNobody = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', '--inh-caps=-all,+dac_override,+dac_read_search', '--ambient-caps=-all,+dac_override,+dac_read_search', process.execPath];

test('who is not root is told so, by start and by doctor', async () => {
  const dataDir = mkdtempSync(join(tmpdir(), 'paddock-test-'));
  try {
    const environment = { ...server.environment, PADDOCK_DATA_DIR: dataDir, PADDOCK_LISTEN: '127.0.0.1:0' };
    assertSentence(await within(30_000, 'the refusal', runPaddock(['start'], environment, asNobody)), /root/);
    const doctor = await runPaddock(['doctor'], environment, asNobody);
    assert.equal(doctor.code, 1);
    assert.match(doctor.stdout, /failed +root:/);
  } finally {
    rmSync(dataDir, { recursive: true, force: true });
  }
});

test('doctor tries the real thing beside a running server, says what it found, and leaves nothing', async () => {
  const before = { mounts: mountsBelow(server.dataDir).length, loops: loopsBelow(server.dataDir).length, groups: guestGroupsOf(server.dataDir).length, processes: processesOf(server.dataDir).length };
  const { code, stdout } = await within(60_000, 'doctor', server.paddock(['doctor']));
  assert.equal(code, 0, stdout);
  for (const name of ['root', 'system', 'programs', 'disk', 'templates', 'cgroup']) assert.match(stdout, new RegExp(`^ok +${name}`, 'm'));
  assert.ok(!/^failed/m.test(stdout), stdout);
  assert.match(stdout, /sandbox/i);
  await eventually(() => {
    const after = { mounts: mountsBelow(server.dataDir).length, loops: loopsBelow(server.dataDir).length, groups: guestGroupsOf(server.dataDir).length, processes: processesOf(server.dataDir).length };
    assert.deepEqual(after, before);
  });
  assert.deepEqual(readdirSync(server.dataDir).filter((name) => name.startsWith('doctor')), []);
});

test('doctor says what is missing and what to do', async () => {
  const { code, stdout } = await server.paddock(['doctor'], { PADDOCK_ARTEFACTS_DIR: join(server.dataDir, 'no-artefacts') });
  assert.equal(code, 1);
  assert.match(stdout, /^failed .*[^]*→ run "npm start"/m);
});

test('keys are made, used at once, listed without being shown, and revoked within 5 s', async () => {
  const made = await server.paddock(['keys', 'create', 'second']);
  assert.equal(made.code, 0);
  const key = made.stdout.trim();
  assert.match(key, /^dcl_\S{16,}$/);
  assert.equal((await server.call('GET', '/sandboxes', { key })).status, 200);
  const sandbox = await Sandbox.create({ apiKey: key });
  assert.equal((await server.call('GET', `/sandboxes/${sandbox.sandboxId}`)).status, 200, 'both keys are of one team');
  await sandbox.kill();

  const listed = (await server.paddock(['keys', 'list'])).stdout;
  assert.ok(!listed.includes(key));
  const id = listed.split('\n').find((line) => line.includes('second'))?.split(' ')[0] ?? '';
  assert.equal((await server.paddock(['keys', 'revoke', id])).code, 0);
  await eventually(async () => (await server.call('GET', '/sandboxes', { key })).status === 401, { withinMs: 6000 });
  assert.equal((await server.call('GET', '/sandboxes')).status, 200);
  assertSentence(await server.paddock(['keys', 'revoke', 'key-nobody']), /key-nobody/);
  assert.match((await server.paddock(['keys', 'list'])).stdout, /PADDOCK_API_KEY {2}admin {2}made \d{4}-\d\d-\d\d {2}used \d{4}-\d\d-\d\dT\d\d:\d\dZ {2}valid\n/);
  assert.equal((await server.paddock(['keys', 'create', 'third', '--scope', 'read', '--expires', '30d'])).code, 0);
  assert.match((await server.paddock(['keys', 'list'])).stdout, /third {2}read {2}made \S+ {2}never used {2}valid until \d{4}-/);
  assertSentence(await server.paddock(['keys', 'create', 'x', '--scope', 'root']), /--scope must be admin, write or read/);
  assertSentence(await server.paddock(['keys', 'create', 'x', '--expires', '30']), /--expires must be minutes, hours or days/);
  assertSentence(await server.paddock(['keys', 'list', '--scope', 'read']), /Usage/);
});

test('a key is generated, kept, and printed with a snippet when the operator gives none', async () => {
  const fresh = new TestServer({ PADDOCK_API_KEY: '' });
  try {
    await fresh.start();
    const key = /dcl_\S{16,}/.exec(fresh.log)?.[0] ?? '';
    assert.equal((await fresh.call('GET', '/sandboxes', { key })).status, 200);
    assert.ok(fresh.log.includes(fresh.url) && fresh.log.includes('@declaw/sdk') && fresh.log.includes(`DECLAW_DOMAIN=127.0.0.1:${fresh.port}`));
    assert.equal(statSync(fresh.dataDir).mode & 0o077, 0, 'the data directory is open to others');
    for (const name of ['api-key', 'master.key', 'paddock.db']) assert.equal(statSync(join(fresh.dataDir, name)).mode & 0o077, 0, name);
    assert.ok(readFileSync(join(fresh.dataDir, 'api-key'), 'utf8').includes(key));
    await fresh.stop();
    await fresh.start();
    assert.equal((await fresh.call('GET', '/sandboxes', { key })).status, 200);
  } finally {
    await fresh.remove();
    process.env['DECLAW_DOMAIN'] = `127.0.0.1:${server.port}`;
    process.env['DECLAW_API_KEY'] = server.apiKey;
  }
});

test('stop ends the server and leaves the sandboxes, stop --all ends those too and leaves nothing but files', async () => {
  const sandbox = await Sandbox.create();
  const stopped = await server.paddock(['stop']);
  assert.equal(stopped.code, 0, stopped.stderr);
  assert.match(stopped.stdout, /keep running/);
  assert.equal(guestGroupsOf(server.dataDir).length, 1);
  await assert.rejects(server.call('GET', '/health'), /ECONNREFUSED/);
  const nothing = await server.paddock(['stop']);
  assert.equal(nothing.code, 0);
  assert.match(nothing.stdout, /No server is running/);

  await server.start();
  assert.equal((await sandbox.commands.run('echo on')).stdout, 'on\n');
  const all = await server.paddock(['stop', '--all']);
  assert.equal(all.code, 0, all.stderr);
  assert.match(all.stdout, /1 sandbox/);
  assert.deepEqual(await tracesOf(server.dataDir), []);

  await server.start();
  const tombstone = (await server.call('GET', `/sandboxes/${sandbox.sandboxId}`)).json;
  assert.deepEqual([tombstone.state, tombstone.end_reason], ['killed', 'stopped']);
  assert.equal((await (await Sandbox.create()).commands.run('echo again')).stdout, 'again\n');
});

test('gc works on a stopped server and keeps what lives', async () => {
  const sandbox = await Sandbox.create();
  assertSentence(await server.paddock(['gc']), /data directory/);
  await server.crash();
  assert.equal((await server.paddock(['gc'])).code, 0);
  await server.start();
  assert.equal((await sandbox.commands.run('echo kept')).stdout, 'kept\n');
});

test('SIGTERM ends the server in good order', async () => {
  assert.equal(await server.stop(), 0);
  await server.start();
});

