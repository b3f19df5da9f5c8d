import assert from 'node:assert/strict';
import { test } from 'node:test';
import { call, type Answer, type CallOptions } from '../harness/http.ts';
import { sandboxOfThisFile } from '../harness/sandbox.ts';
import { prepare, serverOfThisFile } from '../harness/server.ts';

// What the create page promises: from this machine, the sandbox's own process answers on guest_ip:envd_port to its token.

const server = serverOfThisFile();
const sandbox = sandboxOfThisFile();
const other = sandboxOfThisFile();
let base = '';

prepare(async () => {
  const { guest_ip, envd_port } = (await server.call('GET', `/sandboxes/${sandbox().sandboxId}`)).json;
  base = `http://${guest_ip}:${envd_port}`;
});

const agent = (method: string, path: string, options: CallOptions = {}): Promise<Answer> => call(base, method, path, options);

test('the agent answers to the envd access token, in its protocol', async () => {
  const token = sandbox().envdAccessToken ?? '';
  const listed = await agent('GET', '/v1/processes', { key: token });
  assert.equal(listed.status, 200);
  assert.equal(listed.headers['paddock-agent-protocol'], '2');
  assert.ok(Array.isArray(listed.json.processes));
  const written = await agent('PUT', '/v1/files?path=/tmp/direct', { key: token, body: 'straight in' });
  assert.deepEqual([written.status, written.json], [200, { path: '/tmp/direct', size: 11 }]);
  assert.equal(await sandbox().files.read('/tmp/direct'), 'straight in');
});

test('health needs no token and says which sandbox software answers, not which sandbox', async () => {
  const health = await agent('GET', '/v1/health');
  assert.equal(health.status, 200);
  assert.equal(health.json.protocol, 2);
  assert.equal(health.json.claimed, true);
  assert.ok(!health.text.includes(sandbox().sandboxId));
});

test('no token, a wrong one, another sandbox\'s, the traffic token and the API key are all 401', async () => {
  const keys = [null, '', 'wrong', other().envdAccessToken ?? '', sandbox().trafficAccessToken ?? '', server.apiKey, `${sandbox().envdAccessToken}x`, sandbox().envdAccessToken?.slice(0, -1) ?? ''];
  for (const key of keys) {
    for (const [method, path] of [['GET', '/v1/processes'], ['POST', '/v1/processes'], ['GET', '/v1/files?path=/etc/passwd'], ['GET', '/v1/events'], ['GET', '/v1/tunnel?port=22'], ['POST', '/v1/identity'], ['POST', '/v1/hold']] as const) {
      const answer = await agent(method, path, { key });
      assert.equal(answer.status, 401, `${method} ${path} with ${key}`);
      assert.equal(answer.json.code, 'unauthorized');
    }
  }
});

test('a claim cannot be repeated by somebody else', async () => {
  const claim = { sandbox_id: 'somebody', token: 'somebody-elses-token', hostname: 'x', machine_id: '0'.repeat(32), entropy: Buffer.alloc(64).toString('base64'), default_user: 'user', sudo: true, env: {}, nameservers: [], limits: { pids: 512, memory_bytes: 536_870_912 } };
  for (const key of [null, sandbox().envdAccessToken ?? '']) {
    const answer = await agent('POST', '/v1/claim', { key, json: claim });
    assert.equal(answer.status, 409);
    assert.equal(answer.json.code, 'already_claimed');
  }
  assert.equal((await agent('GET', '/v1/processes', { key: 'somebody-elses-token' })).status, 401);
  assert.equal((await sandbox().commands.run('id -un')).stdout, 'user\n');
});

test('the token is the same on every read, and another sandbox has another', async () => {
  const read = (await server.call('GET', `/sandboxes/${sandbox().sandboxId}`)).json.envd_access_token;
  assert.equal(read, sandbox().envdAccessToken);
  assert.notEqual(read, other().envdAccessToken);
});
