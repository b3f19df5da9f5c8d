import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AuthenticationError, Sandbox } from '@declaw/sdk';
import { filesWith } from '../harness/machine.ts';
import { serverOfThisFile } from '../harness/server.ts';

const server = serverOfThisFile();
const refusal = 'unauthorized: missing or invalid API key';

test('the key is taken as bearer token and as X-API-Key', async () => {
  for (const headers of [{ authorization: `Bearer ${server.apiKey}` }, { authorization: `bearer ${server.apiKey}` }, { 'x-api-key': server.apiKey }]) {
    assert.equal((await server.call('GET', '/sandboxes', { key: null, headers })).status, 200, JSON.stringify(Object.keys(headers)));
  }
});

test('without a key, with a wrong one, or with it in the wrong place, everything is 401 with one message', async () => {
  const wrong: Record<string, string>[] = [
    {},
    { authorization: 'Bearer' },
    { authorization: 'Bearer ' },
    { authorization: `Bearer ${server.apiKey.slice(0, -1)}` },
    { authorization: `Bearer ${server.apiKey}x` },
    { authorization: `Basic ${Buffer.from(`x:${server.apiKey}`).toString('base64')}` },
    { authorization: server.apiKey },
    { 'x-api-key': 'dcl_wrong' },
    { 'x-api-key': '' },
    { cookie: `api_key=${server.apiKey}` },
  ];
  for (const headers of wrong) {
    const { status, json } = await server.call('GET', '/sandboxes', { key: null, headers });
    assert.deepEqual([status, json.message], [401, refusal], JSON.stringify(headers));
  }
});

test('a key in the query opens nothing', async () => {
  for (const name of ['api_key', 'apiKey', 'key', 'token', 'x-api-key', 'access_token']) {
    assert.equal((await server.call('GET', `/sandboxes?${name}=${server.apiKey}`, { key: null })).status, 401, name);
  }
});

test('the key is asked for before anything is said about what exists', async () => {
  const { sandboxId } = await Sandbox.create();
  const paths: [string, string][] = [
    ['POST', '/sandboxes'], ['GET', '/sandboxes'], ['GET', `/sandboxes/${sandboxId}`], ['GET', '/sandboxes/sbx-00000000'], ['DELETE', `/sandboxes/${sandboxId}`],
    ['POST', '/sandboxes/kill-many'], ['GET', `/sandboxes/${sandboxId}/status`], ['PATCH', `/sandboxes/${sandboxId}/timeout`], ['GET', `/sandboxes/${sandboxId}/metrics`],
    ['POST', `/sandboxes/${sandboxId}/commands`], ['POST', `/sandboxes/${sandboxId}/commands/stream`], ['POST', `/sandboxes/${sandboxId}/stdio`], ['POST', `/sandboxes/${sandboxId}/pty`],
    ['GET', `/sandboxes/${sandboxId}/files?path=/etc/passwd`], ['PUT', `/sandboxes/${sandboxId}/files/raw?path=/tmp/x`], ['GET', `/sandboxes/${sandboxId}/ports/3000/`],
    ['POST', `/sandboxes/${sandboxId}/pause`], ['GET', '/templates'], ['GET', '/volumes'], ['GET', '/teams'],
  ];
  for (const [method, path] of paths) {
    const { status, json } = await server.call(method, path, { key: 'dcl_0000000000000000', ...(method === 'GET' ? {} : { body: '{broken' }) });
    assert.deepEqual([status, json.message], [401, refusal], `${method} ${path}`);
  }
  assert.equal((await server.call('GET', `/sandboxes/${sandboxId}`)).json.state, 'running');
});

test('the SDK sees a wrong key as AuthenticationError', async () => {
  await assert.rejects(Sandbox.create({ apiKey: 'dcl_wrong_wrong_wrong' }), (error) => error instanceof AuthenticationError && error.message === `HTTP 401: ${refusal}`);
});

test('health needs no key and tells nothing but that', async () => {
  const { status, text } = await server.call('GET', '/health', { key: null });
  assert.equal(status, 200);
  assert.ok(text.length < 500 && !text.includes('sbx-'));
});

test('the key is never in the log, and stands hashed in the data directory', async () => {
  assert.ok(!server.log.includes(server.apiKey));
  assert.deepEqual(filesWith(server.dataDir, server.apiKey), []);
});
