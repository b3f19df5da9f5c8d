import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Sandbox } from '@declaw/sdk';
import { output } from '../harness/sandbox.ts';
import { serverOfThisFile } from '../harness/server.ts';
import { eventually } from '../harness/wait.ts';

const server = serverOfThisFile();
const rfc3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/;

test('a create answers 201 with the full sandbox object, and GET gives the same with its resources', async () => {
  const created = await server.call('POST', '/sandboxes', { json: { template: 'base', timeout: 120, secure: true, metadata: { run: '7' }, envs: { MODE: 'fast' } } });
  assert.equal(created.status, 201);
  const sandbox = created.json;
  assert.match(sandbox.sandbox_id, /^sbx-[a-zA-Z0-9]{8}$/);
  assert.equal(sandbox.template_id, 'tpl-base');
  assert.equal(sandbox.name, 'base');
  assert.equal(sandbox.state, 'running');
  assert.equal(sandbox.timeout, 120);
  assert.deepEqual(sandbox.metadata, { run: '7' });
  assert.deepEqual(sandbox.envs, { MODE: 'fast' });
  assert.equal(sandbox.network, null);
  assert.equal(sandbox.security, null);
  assert.equal(sandbox.lifecycle, null);
  assert.equal(sandbox.sandbox_domain, 'sandbox.localhost');
  assert.equal(sandbox.envd_port, 49983);
  assert.match(sandbox.guest_ip, /^\d+\.\d+\.\d+\.\d+$/);
  assert.ok(sandbox.envd_access_token.length >= 32);
  assert.ok(sandbox.traffic_access_token.length >= 32);
  assert.notEqual(sandbox.envd_access_token, sandbox.traffic_access_token);
  assert.match(sandbox.started_at, rfc3339);
  assert.match(sandbox.end_at, rfc3339);
  assert.ok(Math.abs(Date.parse(sandbox.end_at) - Date.parse(sandbox.started_at) - 120_000) <= 2000);

  const { resources, ...read } = (await server.call('GET', `/sandboxes/${sandbox.sandbox_id}`)).json;
  assert.deepEqual(read, sandbox);
  assert.ok(resources.vcpus >= 1);
  assert.ok(resources.memory_mb >= 128);
  await Sandbox.kill(sandbox.sandbox_id);
});

test('an empty body and an empty template name mean the base template with the default timeout', async () => {
  for (const json of [{}, { template: '' }]) {
    const { status, json: sandbox } = await server.call('POST', '/sandboxes', { json });
    assert.equal(status, 201);
    assert.equal(sandbox.name, 'base');
    assert.equal(sandbox.timeout, 300);
    assert.deepEqual(sandbox.metadata, {});
    await Sandbox.kill(sandbox.sandbox_id);
  }
});

test('the SDK creates, connects to, describes and kills a sandbox', async () => {
  const sandbox = await Sandbox.create({ template: 'base', timeout: 60, metadata: { owner: 'test' } });
  assert.equal(sandbox.sandboxDomain, 'sandbox.localhost');
  const info = await sandbox.getInfo();
  assert.equal(info.sandboxId, sandbox.sandboxId);
  assert.equal(info.templateId, 'tpl-base');
  assert.equal(info.name, 'base');
  assert.equal(info.state, 'running');
  assert.deepEqual(info.metadata, { owner: 'test' });
  assert.ok(info.startedAt instanceof Date && info.endAt instanceof Date);
  assert.equal(await sandbox.isRunning(), true);

  const same = await Sandbox.connect(sandbox.sandboxId);
  assert.equal(same.sandboxId, sandbox.sandboxId);
  assert.equal(same.envdAccessToken, sandbox.envdAccessToken);
  assert.equal(same.trafficAccessToken, sandbox.trafficAccessToken);
  await sandbox.files.write('/tmp/shared', 'one sandbox');
  assert.equal(await same.files.read('/tmp/shared'), 'one sandbox');

  assert.equal(await sandbox.kill({ wait: true }), true);
  assert.equal(await sandbox.isRunning(), false);
});

test('envs, and who and where it is, are in the environment of every process', async () => {
  const sandbox = await Sandbox.create({ envs: { GREETING: 'grüß dich', EMPTY: '' } });
  const environment = new Map((await output(sandbox, 'env -0')).split('\0').map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]));
  assert.equal(environment.get('GREETING'), 'grüß dich');
  assert.equal(environment.get('EMPTY'), '');
  assert.equal(environment.get('DECLAW_SANDBOX'), 'true');
  assert.equal(environment.get('DECLAW_SANDBOX_ID'), sandbox.sandboxId);
  assert.equal(environment.get('HOME'), '/home/user');
  assert.equal(environment.get('USER'), 'user');
  assert.ok(environment.get('TMPDIR'));
  assert.equal((await output(sandbox, 'hostname')).trim(), sandbox.sandboxId);
  await sandbox.kill();
});

test('a killed sandbox still answers GET and status, with the reason, and can be killed again without effect', async () => {
  const sandbox = await Sandbox.create();
  const path = `/sandboxes/${sandbox.sandboxId}`;
  const first = await server.call('DELETE', path);
  assert.deepEqual([first.status, first.json], [200, { killed: true }]);

  const tombstone = await server.call('GET', path);
  assert.equal(tombstone.status, 200);
  assert.equal(tombstone.json.state, 'killed');
  assert.equal(tombstone.json.end_reason, 'killed');
  assert.match(tombstone.json.end_at, rfc3339);
  assert.deepEqual((await server.call('GET', `${path}/status`)).json, { is_running: false });

  const again = await server.call('DELETE', path);
  assert.deepEqual([again.status, again.json], [200, { killed: false }]);
  const queued = await server.call('DELETE', `${path}?async=true`);
  assert.deepEqual([queued.status, queued.json], [202, { queued: true }]);
});

test('an asynchronous kill answers at once and takes effect', async () => {
  const sandbox = await Sandbox.create();
  const answer = await server.call('DELETE', `/sandboxes/${sandbox.sandboxId}?async=true`);
  assert.deepEqual([answer.status, answer.json], [202, { queued: true }]);
  await eventually(async () => (await sandbox.isRunning()) === false);
  assert.equal((await sandbox.getInfo()).state, 'killed');
});

test('kill-many ends several sandboxes and reports unknown ids one by one', async () => {
  const sandboxes = await Promise.all(Array.from({ length: 4 }, () => Sandbox.create()));
  const [a, b, c, d] = sandboxes.map((sandbox) => sandbox.sandboxId) as [string, string, string, string];
  const waited = await Sandbox.killMany([a, b, 'sbx-00000000'], { wait: true });
  assert.deepEqual(waited[a], { killed: true });
  assert.deepEqual(waited[b], { killed: true });
  assert.equal(waited['sbx-00000000']?.error, 'Sandbox sbx-00000000 not found');
  assert.equal(await sandboxes[0]?.isRunning(), false);

  const queued = await server.call('POST', '/sandboxes/kill-many?async=true', { json: { sandbox_ids: [c, d] } });
  assert.equal(queued.status, 202);
  assert.deepEqual(queued.json, { results: { [c]: { queued: true }, [d]: { queued: true } } });
  await eventually(async () => !(await sandboxes[2]?.isRunning()) && !(await sandboxes[3]?.isRunning()));
});

test('metrics are one sample of what the sandbox really uses', async () => {
  const sandbox = await Sandbox.create();
  const [before, ...more] = await sandbox.getMetrics();
  assert.ok(before !== undefined && more.length === 0);
  assert.ok(Math.abs(before.timestamp.getTime() - Date.now()) < 5000);
  assert.ok(before.memoryUsageMb > 1);

  await sandbox.commands.run('while :; do :; done', { background: true });
  await sandbox.commands.run('head -c 67108864 /dev/urandom > /home/user/64m; sync');
  const busy = await eventually(async () => {
    const [sample] = await sandbox.getMetrics();
    return sample !== undefined && sample.cpuUsagePercent > 20 && sample.diskUsageMb - before.diskUsageMb > 50 && sample;
  });
  assert.ok(busy.diskUsageMb < before.diskUsageMb + 200);

  const range = await server.call('GET', `/sandboxes/${sandbox.sandboxId}/metrics?start=2026-01-01T00:00:00Z&end=2036-01-01T00:00:00Z`);
  assert.equal(range.status, 200);
  assert.ok(Array.isArray(range.json));
  await sandbox.kill();
});

test('a lifecycle is echoed as it was asked for, and a wrong one is refused by its field', async () => {
  for (const lifecycle of [{ on_timeout: 'kill', auto_resume: false }, { on_timeout: 'pause', auto_resume: true }, { auto_delete_seconds: 0, max_lifetime_seconds: 900 }]) {
    const created = await server.call('POST', '/sandboxes', { json: { lifecycle } });
    assert.equal(created.status, 201);
    assert.deepEqual(created.json.lifecycle, lifecycle);
    await Sandbox.kill(created.json.sandbox_id);
  }
  for (const [field, value] of [['on_timeout', 'sleep'], ['auto_resume', 'yes'], ['auto_delete_seconds', -1], ['max_lifetime_seconds', 0], ['max_lifetime_seconds', 1.5]] as const) {
    const refused = await server.call('POST', '/sandboxes', { json: { lifecycle: { [field]: value } } });
    assert.equal(refused.status, 400, field);
    assert.match(refused.json.message, new RegExp(`lifecycle.${field}`));
  }
});

test('only a sandbox that came to be is listed: a refused create leaves nothing', async () => {
  const total = async (): Promise<number> => (await server.call('GET', '/sandboxes?state=all')).json.total;
  const before = await total();
  assert.equal((await server.call('POST', '/sandboxes', { json: { template: 'no-such' } })).status, 404);
  assert.equal((await server.call('POST', '/sandboxes', { json: { resources: { vcpus: 4 } } })).status, 403);
  assert.equal(await total(), before);
});
