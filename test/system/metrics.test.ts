import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Sandbox } from '@declaw/sdk';
import { call } from '../harness/http.ts';
import { serverOfThisFile, TestServer } from '../harness/server.ts';
import { control, make } from '../harness/superserve.ts';
import { eventually } from '../harness/wait.ts';

const server = serverOfThisFile({ PADDOCK_WARM_GUESTS: '1' });

async function figures(): Promise<string> {
  const { status, text, headers } = await server.call('GET', '/metrics');
  assert.equal(status, 200);
  assert.match(headers['content-type'] ?? '', /^text\/plain; version=0\.0\.4/);
  return text;
}

/** The value of one sample; 0 when there is none. */
async function sample(name: string, labels: Readonly<Record<string, string>> = {}): Promise<number> {
  const line = (await figures()).split('\n').find((each) => (each.startsWith(`${name}{`) || each.startsWith(`${name} `)) && Object.entries(labels).every(([label, value]) => each.includes(`${label}="${value}"`)));
  return Number(line?.split(' ').at(-1) ?? 0);
}

test('the figures need a key, and probes need none', async () => {
  for (const headers of [{}, { authorization: 'Bearer dcl_0000000000000000' }, { cookie: `api_key=${server.apiKey}` }]) {
    assert.equal((await call(server.url, 'GET', '/metrics', { headers })).status, 401, JSON.stringify(headers));
  }
  assert.equal((await call(server.url, 'GET', `/metrics?api_key=${server.apiKey}`)).status, 401);
  assert.equal((await call(server.url, 'GET', '/metrics', { headers: { 'x-api-key': server.apiKey } })).status, 200);
  const ready = await call(server.url, 'GET', '/ready');
  assert.deepEqual([ready.status, ready.json], [200, { status: 'ready' }]);
});

test('the life of sandboxes is in the figures, by wire, outcome and stage', async () => {
  const sandbox = await Sandbox.create();
  const other = await make(server);
  await server.call('POST', '/sandboxes', { json: { template: 'no-such-template' } });
  assert.equal(await sample('paddock_operations_total', { operation: 'create', wire: 'declaw', outcome: 'ok' }), 1);
  assert.equal(await sample('paddock_operations_total', { operation: 'create', wire: 'superserve', outcome: 'ok' }), 1);
  assert.equal(await sample('paddock_operations_total', { operation: 'create', wire: 'declaw', outcome: 'not_found' }), 1);
  assert.equal(await sample('paddock_failures_total', { wire: 'declaw', code: 'not_found' }), 1);
  assert.equal(await sample('paddock_operation_stage_seconds_count', { operation: 'create', stage: 'claim' }), 2);
  assert.equal(await sample('paddock_sandboxes', { state: 'running' }), 2);

  await server.call('POST', `/sandboxes/${sandbox.sandboxId}/pause`);
  assert.equal(await sample('paddock_sandboxes', { state: 'paused' }), 1);
  await eventually(async () => assert.equal(await sample('paddock_kept_guests'), 1));
  assert.ok((await sample('paddock_kept_guests_bytes')) > 0);
  assert.equal(await sample('paddock_operation_stage_seconds_count', { operation: 'pause', stage: 'save' }), 1);
  await server.call('POST', `/sandboxes/${sandbox.sandboxId}/resume`);
  assert.equal(await sample('paddock_operation_seconds_count', { operation: 'resume' }), 1);
  await eventually(async () => assert.ok((await sample('paddock_waiting_guests')) > 0));

  await sandbox.kill({ wait: true });
  await control(server, 'DELETE', `/sandboxes/${other.id}`);
  assert.equal(await sample('paddock_sandboxes', { state: 'running' }), 0);
  assert.equal(await sample('paddock_sandbox_ends_total', { reason: 'killed' }), 2);
});

test('what sandboxes were refused is counted by what refused it', async () => {
  const sandbox = await Sandbox.create({ network: { allowOut: [], denyOut: ['0.0.0.0/0'], allowPublicTraffic: true } });
  await sandbox.commands.run('curl -s -m 3 http://198.51.100.7/ || true');
  await eventually(async () => assert.ok((await sample('paddock_egress_connections_total', { verdict: 'blocked' })) > 0));
  await sandbox.kill({ wait: true });
});

test('an attack with names, paths, methods and ids in requests adds no label', async () => {
  const planted = 'plantedlabel';
  for (let i = 0; i < 40; i++) {
    await server.call('GET', `/${planted}/${i}`);
    await server.call('GET', `/sandboxes/${planted}${i}`);
    await server.call('GET', `/sandboxes/sbx-00000000/files?path=/${planted}${i}`);
    await server.call('GET', '/sandboxes', { headers: { host: `3000-${planted}${i}.sandbox.localhost` } });
    await control(server, 'GET', `/${planted}${i}`);
    await server.call('POST', '/sandboxes', { json: { template: `${planted}${i}` }, headers: { 'user-agent': `${planted}${i}` } });
  }
  await server.call('PROPFIND', `/${planted}`);
  const text = await figures();
  assert.ok(!text.includes(planted), text.split('\n').find((line) => line.includes(planted)));
  assert.ok(!text.includes('sbx-'));
  assert.ok(!text.includes(server.apiKey));
  assert.ok(await sample('paddock_http_requests_total', { wire: 'declaw', route: '/sandboxes/:id', status: '400' }) + await sample('paddock_http_requests_total', { wire: 'declaw', route: '/sandboxes/:id', status: '404' }) >= 40);
  assert.ok((await sample('paddock_http_requests_total', { wire: 'server', route: 'none', status: '404' })) >= 40);
  assert.equal(await sample('paddock_http_requests_open'), 1, 'this request alone is open');
  assert.ok((await sample('nodejs_eventloop_lag_seconds')) >= 0 && text.includes('paddock_build_info{version='));
});

test('a server that recovers lives, is not ready, and asks for patience', async () => {
  await server.stop();
  const seen = new Map<string, number>();
  let started = false;
  const starting = server.start().finally(() => (started = true));
  while (!started) {
    const answer = await call(server.url, 'GET', '/ready').catch(() => null);
    const said = answer === null ? 'nobody' : `${answer.status} ${answer.json.status}`;
    seen.set(said, (seen.get(said) ?? 0) + 1);
    if (said === '503 recovering') {
      const create = await call(server.url, 'POST', '/sandboxes', { json: {}, key: server.apiKey });
      assert.ok(create.status === 201 || (create.status === 503 && create.headers['retry-after'] === '1'), create.text);
      assert.ok([200].includes((await call(server.url, 'GET', '/health')).status));
    }
  }
  await starting;
  assert.ok((seen.get('503 recovering') ?? 0) > 0, JSON.stringify([...seen]));
});

test('the figures can be open to everybody, or not be there', async () => {
  for (const [setting, status] of [['open', 200], ['off', 404]] as const) {
    const other = new TestServer({ PADDOCK_METRICS: setting });
    try {
      await other.start();
      assert.equal((await call(other.url, 'GET', '/metrics')).status, status, setting);
    } finally {
      await other.remove();
    }
  }
});
