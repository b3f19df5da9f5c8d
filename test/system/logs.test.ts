import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { test } from 'node:test';
import { Sandbox } from '@declaw/sdk';
import { call, open } from '../harness/http.ts';
import { filesWith } from '../harness/machine.ts';
import { serverOfThisFile } from '../harness/server.ts';
import { control, inside, make, SocketLog } from '../harness/superserve.ts';
import { eventually } from '../harness/wait.ts';

const server = serverOfThisFile({ PADDOCK_LOG_LEVEL: 'trace' });

/** Different in every place, so that a failure says where it came from. */
const planted = (place: string): string => `planted${place}c4n4ry`;

function lines(): Record<string, unknown>[] {
  return server.log.split('\n').filter((line) => line.startsWith('{')).map((line) => JSON.parse(line) as Record<string, unknown>);
}

test('every line about a request has the id that its answer has, whatever wire, method and outcome', async () => {
  const sandbox = await Sandbox.create();
  const other = await make(server);
  const answers = [
    await server.call('GET', '/sandboxes'),
    await server.call('POST', '/sandboxes', { json: { template: 'none' } }),
    await server.call('POST', '/sandboxes', { body: '{broken', headers: { 'content-type': 'application/json' } }),
    await server.call('POST', `/sandboxes/${sandbox.sandboxId}/commands`, { json: { cmd: 'true' } }),
    await server.call('POST', `/sandboxes/${sandbox.sandboxId}/commands/stream`, { json: { cmd: 'true' } }),
    await control(server, 'GET', `/sandboxes/${other.id}`),
    await control(server, 'POST', '/sandboxes', { json: { nonsense: 1 } }),
    await inside(server, other, 'POST', '/exec', { json: { command: 'true' } }),
    await call(server.url, 'GET', '/sandboxes'),
    await server.call('GET', '/nothing/here'),
  ];
  const ids = answers.map(({ headers }) => String(headers['x-request-id']));
  assert.equal(new Set(ids).size, ids.length);
  await eventually(() => {
    const logged = lines().filter((line) => line['msg'] === 'request');
    for (const [i, id] of ids.entries()) {
      const line = logged.find((each) => each['reqId'] === id);
      assert.ok(line, `nothing is logged of request ${i}`);
      assert.equal(line['status'], answers[i]!.status);
    }
    assert.ok(logged.every((line) => typeof line['reqId'] === 'string'));
  });
  const refused = await new SocketLog(server, { id: other.id, token: 'wrong' }, '/terminal', 'superserve.terminal.v1').opened.catch((error: unknown) => error as { headers: Record<string, string> });
  assert.match(String((refused as { headers: Record<string, string> }).headers['x-request-id']), /^\w+-\w+$/);
  await sandbox.kill({ wait: true });
  await control(server, 'DELETE', `/sandboxes/${other.id}`);
});

test('an attack: nothing of what is secret in a request is in the log, nor readable in the data directory', async () => {
  const headers = { cookie: planted('cookie'), 'x-access-token': planted('access'), 'idempotency-key': planted('idempotency'), 'user-agent': planted('agent'), referer: `https://x/?a=${planted('referer')}`, 'x-custom': planted('header') };
  const json = { envs: { SECRET: planted('env') }, metadata: { harmless: 'yes' } };
  const created = await server.call('POST', `/sandboxes?token=${planted('query')}`, { json, headers });
  assert.equal(created.status, 201);
  const id = created.json.sandbox_id as string;
  const requests: (readonly [string, string, Parameters<typeof server.call>[2]?])[] = [
    ['GET', `/sandboxes?api_key=${planted('query')}`],
    ['GET', `/${planted('path')}?x=${planted('query')}`, { headers }],
    ['GET', `/sandboxes/${planted('path')}`],
    ['GET', `/sandboxes/%zz${planted('path')}?${planted('query')}`],
    ['POST', '/sandboxes', { body: `{"envs": {"A": "${planted('body')}", broken`, headers: { ...headers, 'content-type': 'application/json', 'idempotency-key': 'another' } }],
    ['POST', '/sandboxes', { json: { ...json, template: planted('template') } }],
    ['POST', '/sandboxes', { json: { envs: { SECRET: 1, [planted('env')]: planted('env') } } }],
    ['POST', `/sandboxes/${id}/commands`, { json: { cmd: `echo ${planted('command')}; echo "$S"`, envs: { S: planted('env') } } }],
    ['POST', `/sandboxes/${id}/commands`, { json: { cmd: planted('command'), user: planted('user'), cwd: `/${planted('path')}` } }],
    ['POST', `/sandboxes/${id}/commands/stream`, { json: { cmd: `sleep 0; ${planted('command')}`, envs: { S: planted('env') } } }],
    ['POST', `/sandboxes/${id}/files`, { json: { path: `/tmp/${planted('path')}`, data: planted('body') } }],
    ['PUT', `/sandboxes/${id}/files/raw?path=/tmp/${planted('path')}`, { body: planted('body') }],
    ['GET', `/sandboxes/${id}/files?path=/${planted('path')}`],
    ['GET', `/sandboxes/${id}/ports/3000/${planted('path')}?${planted('query')}`, { headers }],
    ['GET', `/sandboxes/${id}/network/explain?target=https://x.example/?${planted('query')}`],
    ['POST', `/sandboxes/${id}/pause`],
    ['POST', `/sandboxes/${id}/resume`],
    ['POST', `/sandboxes/${id}/fork`, { json: { envs: { S: planted('env') } } }],
  ];
  for (const [method, path, options] of requests) await server.call(method, path, options);
  for (const key of [planted('key'), `dcl_${planted('key')}${'x'.repeat(20)}`]) {
    for (const as of [{ authorization: `Bearer ${key}` }, { 'x-api-key': key }, { authorization: `Basic ${key}` }]) await call(server.url, 'GET', '/sandboxes', { headers: as });
    await call(server.url, 'GET', '/metrics', { headers: { authorization: `Bearer ${key}` } });
  }
  const other = await make(server, { env_vars: { SECRET: planted('env') } });
  await inside(server, other, 'POST', '/exec', { json: { command: planted('command'), env: { S: planted('env') } } });
  await inside(server, { id: other.id, token: planted('token') }, 'GET', `/files?path=/${planted('path')}`);
  await control(server, 'POST', '/sandboxes', { json: { env_vars: 1, secrets: { A: planted('secret') } } });
  await new SocketLog(server, { id: other.id, token: planted('token') }, `/terminal?${planted('query')}`, 'superserve.terminal.v1').opened.catch(() => {});
  await call(server.url, 'GET', `/${planted('path')}`, { headers: { host: `3000-${other.id}.sandbox.superserve.ai`, ...headers } });
  const garbage = connect(server.port, '127.0.0.1');
  garbage.on('error', () => {}).end(`GET /${planted('path')} HTTP/9.9\r\nX: ${planted('header')}\r\n\r\n`);
  // Stops in the middle: whoever is cut off must not be quoted either.
  const stream = await open(server.url, 'POST', `/sandboxes/${id}/commands/stream`, { key: server.apiKey, json: { cmd: `echo ${planted('command')}; sleep 100`, timeout: 0 } });
  stream.on('error', () => {}).resume();
  await server.stop();
  await server.start();
  await server.call('GET', `/sandboxes/${id}`);
  await eventually(() => assert.ok(lines().length > 20));
  assert.ok(!server.log.includes('c4n4ry'), server.log.split('\n').find((line) => line.includes('c4n4ry')));
  for (const token of [server.apiKey, other.token, created.json.envd_access_token, created.json.traffic_access_token]) {
    if (typeof token === 'string' && token !== '') assert.ok(!server.log.includes(token), 'a token is in the log');
  }
  for (const place of ['env', 'key', 'cookie', 'access', 'idempotency', 'token', 'query', 'header', 'secret']) assert.deepEqual(filesWith(server.dataDir, planted(place)).filter((file) => !/\/(pages|memory|checkpoint)[^/]*\.img$|\/checkpoints\//.test(file)), [], place);
  await server.call('POST', '/sandboxes/kill-many', { json: { sandbox_ids: (await server.call('GET', '/sandboxes')).json.sandboxes.map((each: { sandbox_id: string }) => each.sandbox_id) } });
});
