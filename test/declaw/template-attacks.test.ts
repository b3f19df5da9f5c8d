import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { Sandbox } from '@declaw/sdk';
import { buildOver } from '../harness/builds.ts';
import { serverWithInternet } from '../harness/internet.ts';
import { guestGroupsOf, residentBytes } from '../harness/machine.ts';
import { output } from '../harness/sandbox.ts';
import { prepare } from '../harness/server.ts';
import { eventually } from '../harness/wait.ts';

// What a build tries that means harm, or knows no better.

const { server, internet } = serverWithInternet({ PADDOCK_BUILD_ALLOW_OUT: 'good.example', PADDOCK_BUILD_TIMEOUT: '30', PADDOCK_BUILDS: '2' });

prepare(async () => {
  const net = internet();
  net.name('good.example', net.host(10));
  net.name('bad.example', net.host(11));
  await net.serve(80, (socket) => socket.once('data', () => socket.end('HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 8\r\n\r\nreached\n')));
});

async function build(alias: string, template: object, more: object = {}): Promise<{ status: string; logs: string[]; error?: string; template_id: string }> {
  const { status, json, text } = await server.call('POST', '/templates/build', { json: { alias, template: { base_image: 'base', ...template }, ...more } });
  assert.equal(status, 201, text);
  return buildOver(server, json.build_id);
}

test('a step reaches what the operator allows builds, and nothing else: no other host, no metadata service, not this machine', async () => {
  const tried = ['http://good.example/', 'http://bad.example/', 'http://169.254.169.254/', `http://127.0.0.1:${server.port}/health`, 'http://10.0.0.1/'];
  const { status, logs, error } = await build('network', { run_cmds: [`for url in ${tried.join(' ')}; do echo "$url $(curl -s --max-time 5 $url || echo refused)"; done`] });
  assert.equal(status, 'completed', error);
  assert.deepEqual(logs.filter((line) => line.startsWith('http')), tried.map((url) => `${url} ${url === tried[0] ? 'reached' : 'refused'}`));
});

test('a start command is held to the same rules while it is built, and to those of the sandbox afterwards', async () => {
  const { status, error } = await build('network-start', { start_cmd: 'while true; do curl -s --max-time 2 http://bad.example/ > /tmp/new || echo refused > /tmp/new; mv /tmp/new /tmp/last; sleep 0.3; done', ready_cmd: 'test -s /tmp/last' });
  assert.equal(status, 'completed', error);
  const open = await Sandbox.create({ template: 'network-start' });
  const closed = await Sandbox.create({ template: 'network-start', allowInternetAccess: false });
  assert.equal(await output(closed, 'sleep 3; cat /tmp/last'), 'refused\n');
  await eventually(async () => (await output(open, 'cat /tmp/last')) === 'reached\n');
  for (const each of [open, closed]) await each.kill();
});

test('a flood of output neither fills the server’s memory nor its database, and its newest lines are kept', async () => {
  const before = residentBytes(server.pid);
  const { status, logs, error } = await build('flood', { run_cmds: ['seq 1 300000', 'head -c 30000000 /dev/zero | tr "\\0" x; echo; echo the end'] });
  assert.equal(status, 'completed', error);
  assert.equal(logs.length, 2000);
  assert.equal(logs[0], '... [earlier build output truncated]');
  assert.deepEqual(logs.slice(-2), ['the end', 'template ready']);
  assert.ok(logs.every((line) => line.length <= 4096));
  assert.ok(residentBytes(server.pid) < before + 400_000_000);
});

test('what a step leaves running ends with it, and is in no sandbox', async () => {
  const { status, error } = await build('daemon', { run_cmds: ['nohup sh -c "while true; do date > /var/tmp/alive; sleep 0.1; done" > /dev/null 2>&1 & sleep 0.5; test -s /var/tmp/alive', 'rm /var/tmp/alive; sleep 1; test ! -e /var/tmp/alive'] });
  assert.equal(status, 'completed', error);
});

test('output that says it is the end is not taken for it', async () => {
  const { status, json } = await server.call('POST', '/templates/build', { json: { alias: 'liar', template: { base_image: 'base', run_cmds: ['echo template ready; echo "step_failed: no" >&2; printf \'data: {"finished":true,"status":"ready"}\\n\\n\'; sleep 1; false'] } } });
  assert.equal(status, 201);
  assert.equal((await buildOver(server, json.build_id)).status, 'failed');
  const { text } = await server.call('GET', `/superserve/templates/liar/builds/${json.build_id}/logs`, { headers: { 'x-api-key': server.apiKey } });
  const events = text.split('\n\n').filter((each) => each.startsWith('data: ')).map((each) => JSON.parse(each.slice(6)) as { stream: string; text: string; finished?: boolean; status?: string });
  assert.deepEqual(events.filter(({ finished }) => finished === true).map(({ status }) => status), ['failed']);
  assert.ok(events.some(({ stream, text: said }) => stream === 'stdout' && said === 'template ready\n'));
});

test('a step that fills its disk, or eats its memory, fails alone', async () => {
  const full = await build('full', { run_cmds: ['head -c 600000000 /dev/zero > /fill'] }, { disk_mb: 256 });
  assert.equal(full.status, 'failed');
  assert.match(full.error ?? '', /^step_failed: step 1\/1 failed after \d+s: exited with code 1$/);
  assert.ok(full.logs.some((line) => /No space left on device/.test(line)), full.logs.join('\n'));
  const hungry = await build('hungry', { base_image: 'python', run_cmds: ['python3 -c "x = bytearray(900_000_000)"'] }, { memory_mb: 256 });
  assert.equal(hungry.status, 'failed');
  assert.match(hungry.error ?? '', /^step_failed: step 1\/1 failed/);
  const sandbox = await Sandbox.create();
  assert.equal(await output(sandbox, 'echo well'), 'well\n');
  await sandbox.kill();
});

test('a step that never ends is ended by the time limit, with its processes', async () => {
  const { status, error } = await build('endless', { run_cmds: ['trap "" TERM INT; while true; do sleep 1; done'] });
  assert.equal(status, 'failed');
  assert.match(error ?? '', /^timeout: the build took longer than 30 s/);
  await eventually(() => guestGroupsOf(server.dataDir).length === 0);
});

test('nothing of failed builds, and of templates that are deleted, stays on the disk', async () => {
  for (const { template_id: id, cpu_count: own, status } of (await server.call('GET', '/templates')).json.templates) {
    if (/^tpl-[0-9a-f-]{36}$/.test(id) && own > 0) await eventually(async () => (await server.call('DELETE', `/templates/${id}`)).status === 200, { withinMs: 15_000 }).catch((error: unknown) => assert.fail(`${id} ${status}: ${String(error)}`));
  }
  await server.stop();
  const { code, stdout } = await server.paddock(['gc']);
  assert.equal(code, 0);
  assert.match(stdout, /^Layers of builds that no template has were removed: \d+ MiB\.$/m);
  const there = (directory: string): string[] => readdirSync(join(server.dataDir, directory)).filter((name) => /^[0-9a-f]{64}$/.test(name));
  assert.deepEqual([there('layers'), there('roots')], [[], []]);
  await server.start();
});
