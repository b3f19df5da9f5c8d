import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Sandbox } from '@declaw/sdk';
import { output } from './sandbox.ts';
import type { TestServer } from './server.ts';
import { eventually, sleep, within } from './wait.ts';

/** Counts in a file, in memory that it checks, and with a file open that has no name any more. */
const counter = `
import time
memory = bytearray(8 << 20)
open_file = open('/tmp/deleted', 'w+'); open_file.write('still here'); open_file.flush()
import os; os.unlink('/tmp/deleted')
n = 0
while True:
    n += 1
    memory[n % len(memory)] = n % 251
    open_file.seek(0)
    with open('/tmp/count', 'w') as f: f.write(f'{n} {open_file.read()}')
    time.sleep(0.02)
`;

export async function count(sandbox: Sandbox): Promise<number> {
  return eventually(async () => {
    const [n, ...words] = (await output(sandbox, 'cat /tmp/count')).split(' ');
    return words.join(' ') === 'still here' && Number(n);
  });
}

export async function counting(options: Parameters<typeof Sandbox.create>[0] = {}): Promise<Sandbox> {
  const sandbox = await Sandbox.create({ template: 'python', timeout: 600, ...options });
  await sandbox.files.write('/home/user/count.py', counter);
  await sandbox.commands.run('python3 count.py', { background: true, timeout: 0 });
  await count(sandbox);
  return sandbox;
}

/** What a pause must not touch; the same whether the guest is woken in memory or comes back from disk. */
export function whatSurvives(server: TestServer): void {
  test('the SDK pauses and resumes a sandbox: memory, processes, deleted but open files and files are as they were, and nothing ran meanwhile', async () => {
    const sandbox = await counting({ envs: { KEPT: 'yes' } });
    const pid = Number(await output(sandbox, 'pgrep -f count.py'));
    const before = await count(sandbox);
    await sandbox.pause();
    assert.equal((await sandbox.getInfo()).state, 'paused');
    assert.equal(await sandbox.isRunning(), false);
    await sleep(1500);
    await sandbox.resume();
    const after = await count(sandbox);
    assert.ok(after >= before, `${after} after ${before}`);
    assert.ok(after < before + 60, `it ran while it was paused: ${before} became ${after}`);
    assert.equal(Number(await output(sandbox, 'pgrep -f count.py')), pid);
    assert.equal(await output(sandbox, 'echo "$KEPT $DECLAW_SANDBOX_ID"; hostname'), `yes ${sandbox.sandboxId}\n${sandbox.sandboxId}\n`);
    assert.ok(Math.abs(Number(await output(sandbox, 'date +%s')) - Date.now() / 1000) < 3, 'the wall clock is wrong');
    await sandbox.kill({ wait: true });
  });

  test('what is busy can be paused: a compiler, an open database, a listening server, a shell in a terminal; all go on', async () => {
    const sandbox = await Sandbox.create({ template: 'python', timeout: 600 });
    await sandbox.files.write('/home/user/db.py', "import sqlite3, time\nc = sqlite3.connect('/home/user/x.db'); c.execute('create table t(n)'); c.commit()\nc.execute('begin'); c.execute('insert into t values (1)')\nprint('open', flush=True); input(); c.execute('insert into t values (2)'); c.commit()\nprint(c.execute('select count(*) from t').fetchone()[0])\n");
    const database = await sandbox.commands.run('python3 db.py', { background: true, timeout: 0 });
    const web = await sandbox.commands.run('cd /tmp && echo page > index.html && exec python3 -m http.server 8000 --bind 127.0.0.1', { background: true, timeout: 0 });
    const busy = await sandbox.commands.run('python3 -c "\nx = 0\nfor i in range(60_000_000): x += i\nprint(x)"', { background: true, timeout: 0 });
    const pty = await sandbox.pty.create();
    await pty.sendInput('STATE=kept; cd /tmp\n');
    await eventually(async () => (await server.call('GET', `/sandboxes/${sandbox.sandboxId}/ports/8000/`)).text === 'page\n');
    await eventually(async () => (await output(sandbox, 'ls /home/user/x.db*')).includes('x.db'));
    await sandbox.pause();
    await sandbox.resume();
    let screen = '';
    const reader = sandbox.pty.connect(pty.pid, { onData: (data) => (screen += Buffer.from(data).toString()) });
    await reader.sendInput('echo "state: $STATE $PWD"\n');
    await eventually(() => screen.includes('state: kept /tmp'));
    assert.equal((await server.call('GET', `/sandboxes/${sandbox.sandboxId}/ports/8000/`)).text, 'page\n');
    await sandbox.commands.sendStdin(database.pid, '\n');
    assert.equal((await database.wait()).stdout, 'open\n2\n');
    assert.equal((await busy.wait()).stdout.trim(), String((60_000_000 * 59_999_999) / 2));
    assert.equal(await sandbox.commands.kill(web.pid), true);
    await sandbox.kill({ wait: true });
  });

  test('deadlines of background commands and terminals count only the time in which the sandbox runs', async () => {
    const sandbox = await Sandbox.create({ timeout: 600 });
    await sandbox.commands.run('sleep 3602', { background: true, timeout: 4 });
    await sandbox.pause();
    await sleep(5000);
    await sandbox.resume();
    assert.match(await output(sandbox, 'ps -eo args'), /sleep 3602/);
    await eventually(async () => !(await output(sandbox, 'ps -eo args')).includes('sleep 3602'), { withinMs: 6000 });
    await sandbox.kill({ wait: true });
  });

  test('a connection into a port ends cleanly with the pause, and the port is there again after it', async () => {
    const sandbox = await Sandbox.create({ template: 'node' });
    await sandbox.files.write('/home/user/echo.mjs', "import net from 'node:net'; import http from 'node:http';\nhttp.createServer((_, res) => { res.write('first\\n'); setTimeout(() => res.end('late'), 60_000).unref(); }).listen(8080);");
    await sandbox.commands.run('node echo.mjs', { background: true, timeout: 0 });
    const url = `${server.url}/sandboxes/${sandbox.sandboxId}/ports/8080/`;
    const headers = { 'x-api-key': server.apiKey };
    const answer = await eventually(async () => {
      const got = await fetch(url, { headers });
      return got.status === 200 && got;
    });
    const reader = answer.body!.getReader();
    assert.equal(Buffer.from((await reader.read()).value!).toString(), 'first\n');
    const cut = assert.rejects(reader.read());
    await sandbox.pause();
    await within(3000, 'the open connection', cut);
    await sandbox.resume();
    const again = await fetch(url, { headers });
    assert.equal(again.status, 200);
    await again.body!.cancel();
    await sandbox.kill({ wait: true });
  });

  test('rules survive, in force before the first packet, and closed ports stay closed', async () => {
    const { json } = await server.call('POST', '/sandboxes', { json: { template: 'node', timeout: 600, network: { deny_out: ['0.0.0.0/0'], allow_public_traffic: false } } });
    const id = json.sandbox_id as string;
    const sandbox = await Sandbox.connect(id);
    await sandbox.files.write('/home/user/knock.sh', 'while :; do (exec 3<>/dev/tcp/198.51.100.7/80) 2>/dev/null && echo open >> /tmp/open; sleep 0.01; done');
    await sandbox.commands.run('bash knock.sh', { background: true, timeout: 0 });
    await sandbox.pause();
    await sandbox.resume();
    await sleep(500);
    assert.equal(await sandbox.files.exists('/tmp/open'), false);
    assert.equal((await server.call('GET', `/sandboxes/${id}/ports/8080/`, { key: null })).status, 401);
    assert.deepEqual((await server.call('GET', `/sandboxes/${id}`)).json.network, { deny_out: ['0.0.0.0/0'], allow_public_traffic: false });
    await sandbox.kill({ wait: true });
  });
}
