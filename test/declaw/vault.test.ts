import assert from 'node:assert/strict';
import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { test } from 'node:test';
import Database from 'better-sqlite3';
import { InvalidArgumentError, NotFoundError, Sandbox, Vault } from '@declaw/sdk';
import { output } from '../harness/sandbox.ts';
import { serverWithUpstream } from '../harness/upstream.ts';

const { server, arrived } = await serverWithUpstream(['api.vault-test.example', 'other.vault-test.example', 'evil.example']);
const value = `real-${randomBytes(12).toString('hex')}`;
const scopes = [{ domainRegex: '^api\\.vault-test\\.example$', injectionType: 'bearer' }];

test('the SDK stores, lists, rotates, rescopes and deletes a secret, and never sees its value', async () => {
  assert.deepEqual(await Vault.listSecrets(), []);
  const created = await Vault.createSecret({ name: 'crud', value, scopes: [{ domainRegex: 'api\\.vault-test\\.example', injectionType: 'header', headerName: 'X-Key', valuePrefix: 'v1 ', extraHeaders: { 'x-version': '7' }, queryParams: { beta: 'true' } }], rotationIntervalDays: 30 });
  assert.deepEqual({ ...created, secretId: '', createdAt: '', updatedAt: '' }, {
    secretId: '', name: 'crud', createdAt: '', updatedAt: '', rotationIntervalDays: 30, rotationDue: false,
    scopes: [{ domainRegex: 'api\\.vault-test\\.example', injectionType: 'header', headerName: 'x-key', valuePrefix: 'v1 ', extraHeaders: { 'x-version': '7' }, queryParams: { beta: 'true' } }],
  });
  assert.match(created.createdAt, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
  await Vault.rotateSecret('crud', `${value}2`);
  await Vault.updateScopes('crud', scopes);
  const [listed] = await Vault.listSecrets();
  assert.ok(listed?.rotatedAt);
  assert.deepEqual(listed.scopes, [{ domainRegex: '^api\\.vault-test\\.example$', injectionType: 'bearer', headerName: 'Authorization', valuePrefix: 'Bearer ' }]);
  await Vault.deleteSecret('crud');
  assert.deepEqual(await Vault.listSecrets(), []);
  await assert.rejects(Vault.deleteSecret('crud'), /not found/);
});

test('a provider brings name and scopes, and the presets carry nothing secret', async () => {
  const presets = await Vault.listPresets();
  const openai = presets.find(({ key }) => key === 'openai');
  assert.deepEqual([openai?.category, openai?.scopes[0]], ['ai', { domainRegex: 'api\\.openai\\.com', injectionType: 'bearer', headerName: 'Authorization', valuePrefix: 'Bearer ' }]);
  const created = await Vault.createSecret({ provider: 'anthropic', value });
  assert.deepEqual([created.name, created.scopes], ['anthropic', [{ domainRegex: 'api\\.anthropic\\.com', injectionType: 'header', headerName: 'x-api-key', extraHeaders: { 'anthropic-version': '2023-06-01' } }]]);
  await Vault.deleteSecret('anthropic');
});

test('teams and environments are as the clients look for them', async () => {
  const { teams } = (await server.call('GET', '/teams')).json;
  assert.deepEqual([teams.length, teams[0].name], [1, 'default']);
  const path = `/teams/${teams[0].team_id}/environments`;
  assert.deepEqual((await server.call('GET', path)).json.environments.map(({ name }: { name: string }) => name), ['prod']);
  const made = await server.call('POST', path, { json: { name: 'staging' } });
  assert.deepEqual([made.status, made.json.name], [201, 'staging']);
  assert.equal((await server.call('POST', path, { json: { name: 'staging' } })).status, 409);
  assert.equal((await server.call('POST', '/teams', { json: { name: 'default' } })).json.team_id, teams[0].team_id);
  assert.equal((await server.call('POST', '/teams', { json: { name: 'mine' } })).status, 422);
  const secret = { name: 'twice', value, scopes: [{ domain_regex: 'api.vault-test.example' }] };
  for (const environment of ['prod', 'staging']) assert.equal((await server.call('POST', `/teams/${teams[0].team_id}/vault/secrets`, { json: { ...secret, environment } })).status, 201);
  assert.equal((await server.call('POST', `/teams/${teams[0].team_id}/vault/secrets`, { json: secret })).status, 409);
  assert.equal((await server.call('POST', `/teams/${teams[0].team_id}/vault/secrets`, { json: { ...secret, environment: 'none' } })).status, 404);
  for (const { secret_id: id } of (await server.call('GET', `/teams/${teams[0].team_id}/vault/secrets`)).json.secrets) await server.call('DELETE', `/teams/${teams[0].team_id}/vault/secrets/${id}`);
});

test('what cannot be injected, or would reach strangers, is refused by its name', async () => {
  const { team_id: team } = (await server.call('GET', '/teams')).json.teams[0];
  const refused: [object, RegExp][] = [
    ...['sigv4', 'oidc', 'hmac', 'redis', 'postgres', 'mysql', 'smtp', 'mongodb'].map((type): [object, RegExp] => [{ scopes: [{ domain_regex: 'a.example.com', injection_type: type }] }, new RegExp(`^scopes\\[0\\]\\.injection_type "${type}" is not available yet`)]),
    [{ scopes: [{ domain_regex: 'a.example.com', injection_type: 'magic' }] }, /^scopes\[0\]\.injection_type "magic" is not known/],
    [{ scopes: [{ domain_regex: '.*' }] }, /^scopes\[0\]\.domain_regex "\.\*" is too broad/],
    [{ scopes: [{ domain_regex: 'a.example.com' }, { domain_regex: '.*example.com' }] }, /^scopes\[1\]\.domain_regex .* would match anybody's evilexample\.com/],
    [{ scopes: [{ domain_regex: '(' }] }, /^scopes\[0\]\.domain_regex .* is not a regular expression/],
    [{ scopes: [{ domain_regex: 'a.example.com', injection_type: 'header', header_name: 'Host' }] }, /^scopes\[0\]\.header_name "Host" cannot be set/],
    [{ scopes: [{ domain_regex: 'a.example.com', injection_type: 'header' }] }, /^scopes\[0\]\.header_name is required/],
    [{ scopes: [{ domain_regex: 'a.example.com', extra_headers: { 'Content-Length': '0' } }] }, /^scopes\[0\]\.extra_headers "Content-Length" cannot be set/],
    [{ scopes: [{ domain_regex: 'a.example.com', injection_type: 'query', query_params: { a: 'b' } }] }, /^scopes\[0\]\.query_params must have one parameter/],
    [{ value: `${value}\n` }, /^value ends with a line break/],
    [{ value: 'a\r\nX-Evil: 1' }, /^value holds a control character/],
    [{ value: 'x'.repeat(8193) }, /^value has 8193 bytes; the limit is 8192/],
    [{ value: '' }, /^value is empty/],
    [{ name: '../../x' }, /^name must have 1 to 128 characters/],
    [{ scopes: [] }, /^scopes must have an entry/],
    [{ scopes: [], provider: 'nobody' }, /^provider "nobody" is not known; there is anthropic, /],
  ];
  for (const [changes, message] of refused) {
    const answer = await server.call('POST', `/teams/${team}/vault/secrets`, { json: { name: 'x', value, scopes: [{ domain_regex: 'a.example.com' }], ...changes } });
    assert.equal(answer.status, 400, JSON.stringify(changes));
    assert.match(answer.json.message, message);
    assert.ok(!answer.text.includes(value));
  }
  assert.deepEqual(await Vault.listSecrets(), []);
});

test('the variable says nothing, and the credential arrives where its scope says and nowhere else', async () => {
  await Vault.createSecret({ name: 'key', value, scopes });
  await using sandbox = await created({ vaultRefs: { API_KEY: 'key' } });
  assert.equal(await output(sandbox, 'echo $API_KEY'), 'declaw:vault-managed\n');
  arrived();
  const answer = await output(sandbox, 'curl -sS -m 20 -H "Authorization: Bearer $API_KEY" https://api.vault-test.example/v1/x?y=1');
  assert.deepEqual(arrived().map(({ host, url, headers }) => [host, url, headers.authorization]), [['api.vault-test.example', '/v1/x?y=1', `Bearer ${value}`]]);
  assert.ok(!answer.includes(value), 'the echo of the server beyond reached the sandbox');
  // Also for programs that send no credential at all.
  await output(sandbox, 'curl -sS -m 20 https://api.vault-test.example/bare');
  assert.equal(arrived()[0]?.headers.authorization, `Bearer ${value}`);
  await sandbox.commands.run('curl -sS -m 20 -H "Authorization: Bearer $API_KEY" https://other.vault-test.example/');
  assert.ok(arrived().every(({ headers }) => !JSON.stringify(headers).includes(value)));
  const check = async (url: string): Promise<unknown[]> => {
    const { works, code } = (await server.call('POST', `/sandboxes/${sandbox.sandboxId}/vault/check`, { json: { env: 'API_KEY', url } })).json;
    return [works, code];
  };
  assert.deepEqual(await check('https://api.vault-test.example/v1'), [true, null]);
  assert.deepEqual(await check('http://api.vault-test.example/v1'), [false, 'plain_http']);
  assert.deepEqual(await check('https://evil.example/'), [false, 'credential_host_mismatch']);
  await Vault.deleteSecret('key');
  const refused = await sandbox.commands.run('curl -sS -m 20 -o /dev/null -w "%{http_code}" -H "Authorization: Bearer $API_KEY" https://api.vault-test.example/');
  assert.notEqual(refused.stdout, '200');
  assert.deepEqual(arrived(), []);
});

test('a reference that leads nowhere, or to another team, is an error before anything is created', async () => {
  const before = (await server.call('GET', '/sandboxes')).json.total;
  await assert.rejects(Sandbox.create({ vaultRefs: { A: 'missing' } }), (error: Error) => error instanceof InvalidArgumentError || error instanceof NotFoundError);
  for (const ref of ['vault://', 'vault://x/prod/key', `vault://${randomUUID()}/prod/key`, 'vault://a/b/c/d', 'key']) {
    const answer = await server.call('POST', '/sandboxes', { json: { vault_refs: { A: ref } } });
    assert.equal(answer.status, 400, ref);
    assert.match(answer.json.message, /^vault_refs\.A /);
  }
  assert.equal((await server.call('GET', '/sandboxes')).json.total, before);
});

test('another team sees no secret of this one on any route, and no team but its own', async () => {
  await Vault.createSecret({ name: 'mine', value, scopes });
  const stranger = strangerKey();
  const { team_id: team } = (await server.call('GET', '/teams')).json.teams[0];
  const { secret_id: id } = (await server.call('GET', `/teams/${team}/vault/secrets`)).json.secrets[0]; // newest first
  const { team_id: theirs } = (await server.call('GET', '/teams', { key: stranger })).json.teams[0];
  assert.notEqual(theirs, team);
  const attempts: [string, string, unknown?][] = [
    ['GET', `/vault/secrets`], ['POST', `/vault/secrets`, { name: 'x', value, scopes: [{ domain_regex: 'a.example.com' }] }], ['GET', `/vault/secrets/${id}`], ['GET', `/vault/secrets/${id}/audit`], ['DELETE', `/vault/secrets/${id}`],
    ['POST', `/vault/secrets/${id}/rotate`, { value: 'stolen' }], ['POST', `/vault/secrets/${id}/scopes`, { scopes: [{ domain_regex: 'evil.example' }] }],
  ];
  for (const at of [team, theirs]) {
    for (const [method, path, json] of attempts) {
      if (at === theirs && path === '/vault/secrets') continue; // its own list
      const answer = await server.call(method, `/teams/${at}${path}`, { key: stranger, ...(json === undefined ? {} : { json }) });
      assert.equal(answer.status, 404, `${method} ${at === team ? 'of the other' : 'in its own'} ${path}`);
    }
  }
  assert.equal((await server.call('GET', `/teams/${team}/environments`, { key: stranger })).status, 404);
  assert.deepEqual((await server.call('GET', `/teams/${theirs}/vault/secrets`, { key: stranger })).json, { secrets: [] });
  for (const ref of [`vault://${team}/prod/mine`, `vault://${theirs}/prod/mine`]) assert.equal((await server.call('POST', '/sandboxes', { key: stranger, json: { vault_refs: { A: ref } } })).status, 400);
  assert.ok((await Vault.listSecrets()).some(({ name }) => name === 'mine'));
  await Vault.deleteSecret('mine');
});

async function created(options: Parameters<typeof Sandbox.create>[0]): Promise<Sandbox & AsyncDisposable> {
  const sandbox = await Sandbox.create({ timeout: 300, ...options });
  return Object.assign(sandbox, { [Symbol.asyncDispose]: async () => void (await sandbox.kill({ wait: true })) });
}

/** A key of a team that only this test makes: there is no call for it. */
function strangerKey(): string {
  const raw = `dcl_${randomBytes(24).toString('hex')}`;
  const db = new Database(join(server.dataDir, 'paddock.db'));
  const team = randomUUID();
  db.prepare('insert into teams (id, name, created_at) values (?, ?, ?)').run(team, `team ${team}`, Date.now());
  db.prepare('insert into api_keys (id, team_id, name, hash, created_at) values (?, ?, ?, ?, ?)').run(randomUUID(), team, 'stranger', createHash('sha256').update(raw).digest('hex'), Date.now());
  db.close();
  return raw;
}
