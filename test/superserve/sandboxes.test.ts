import assert from 'node:assert/strict';
import { test } from 'node:test';
import { call } from '../harness/http.ts';
import { serverOfThisFile } from '../harness/server.ts';
import { control, make } from '../harness/superserve.ts';

const server = serverOfThisFile({ PADDOCK_SUPERSERVE_TEAM_RATE: '0' });
const uuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const rfc3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/;
const generic = 'invalid request body: it must be one JSON object with only the documented fields, each of its documented type';

/** Status and code of a create that is refused, and its message. */
async function refused(body: object | string): Promise<[number, string, string]> {
  const { status, json } = await control(server, 'POST', '/sandboxes', typeof body === 'string' ? { body } : { json: body });
  return [status, json.error.code, json.error.message];
}

test('a create answers 201 with the whole object and a token, GET gives the same, and lists never have a token', async () => {
  const fields = { name: 'one', timeout_seconds: 600, auto_delete_seconds: 60, metadata: { a: '1' }, env_vars: { A: 'x' }, network: { allow_out: ['93.184.216.34', 'Example.COM'], deny_out: ['198.51.100.0/24'] }, preview_access: 'private' };
  const created = await control(server, 'POST', '/sandboxes', { json: fields });
  assert.equal(created.status, 201);
  const { access_token: token, ...shown } = created.json;
  assert.match(token, /^[A-Za-z0-9._-]+$/);
  assert.match(shown.id, uuid);
  assert.match(shown.created_at, rfc3339);
  assert.deepEqual({ ...shown, id: '', created_at: '' }, {
    id: '',
    name: 'one',
    status: 'active',
    vcpu_count: 1,
    memory_mib: 1024,
    created_at: '',
    metadata: { a: '1' },
    preview_access: 'private',
    timeout_seconds: 600,
    auto_delete_seconds: 60,
    network: { allow_out: ['93.184.216.34/32', 'example.com'], deny_out: ['198.51.100.0/24'] },
  });
  const read = await control(server, 'GET', `/sandboxes/${shown.id}`);
  assert.deepEqual(read.json, created.json);
  const tagged = await control(server, 'GET', `/sandboxes/sb-usw-${shown.id}`);
  assert.equal(tagged.json.id, shown.id);
  const listed = await control(server, 'GET', '/sandboxes');
  assert.equal(listed.headers['x-total-count'], '1');
  assert.deepEqual(listed.json, [shown]);
  assert.equal((await control(server, 'DELETE', `/sandboxes/${shown.id}`)).status, 204);
});

test('nulls are what was left out, and an empty name of a template is the default one', async () => {
  const { json } = await make(server, { timeout_seconds: null, metadata: null, env_vars: null, network: null, secrets: null, from_template: null, from_snapshot: null, preview_access: null, auto_delete_seconds: null });
  assert.deepEqual([json.metadata, json.timeout_seconds, json.network, json.preview_access], [{}, undefined, undefined, 'legacy_public']);
  await control(server, 'DELETE', `/sandboxes/${json.id}`);
});

test('every body of the wrong shape gets one text', async () => {
  for (const body of ['', 'null', '[]', '"x"', '{', '{"name":"x"} {}', '{"name":"x"}x', '{"name":1}', '{"name":"x","foo":1}', '{"name":"x","metadata":{"a":1}}', '{"name":"x","env_vars":["A"]}', '{"name":"x","timeout_seconds":"60"}', '{"name":"x","timeout_seconds":1.5}', '{"name":"x","network":{"allow_out":"x"}}', '{"name":"x","network":{"allow":[]}}']) {
    const [status, code, message] = await refused(body);
    // An empty body is an empty object, and misses its name.
    assert.deepEqual([status, code, message], [400, 'bad_request', body === '' ? 'name is required: 1 to 64 bytes' : generic], body);
  }
});

test('each limit of a create, one beyond its edge', async () => {
  const many = (count: number): Record<string, string> => Object.fromEntries(Array.from({ length: count }, (_, i) => [`k${i}`, '']));
  for (const [fields, message] of [
    [{ name: undefined }, /^name is required/],
    [{ name: '' }, /^name is required/],
    [{ name: 'x'.repeat(65) }, /^name has 65 bytes; the limit is 64/],
    [{ timeout_seconds: 0 }, /^timeout_seconds must be from 1 to 604800, but is 0/],
    [{ timeout_seconds: 604_801 }, /^timeout_seconds must be from 1 to 604800/],
    [{ auto_delete_seconds: -1 }, /^auto_delete_seconds must be from 0 to 2592000/],
    [{ auto_delete_seconds: 2_592_001 }, /^auto_delete_seconds must be from 0 to 2592000/],
    [{ network: { deny_out: ['example.com'] } }, /^network\.deny_out\[0\]/],
    [{ network: { allow_out: ['::1'] } }, /^network\.allow_out\[0\].*IPv6/],
    [{ metadata: many(65) }, /^metadata has 65 keys/],
    [{ metadata: { '_Superserve.x': '' } }, /^metadata key "_Superserve\.x" is reserved/],
    [{ env_vars: many(65) }, /^env_vars has 65 keys/],
    [{ env_vars: { 'A=B': '' } }, /^env_vars key "A=B" must not contain =/],
    [{ preview_access: 'legacy_public' }, /^preview_access must be public or private/],
    [{ secrets: { 'a-b': 's' } }, /^secrets key "a-b" must match/],
    [{ secrets: { A: 's' }, env_vars: { A: '' } }, /^secrets key "A" is also in env_vars/],
    [{ from_template: 'base', from_snapshot: '0f8fad5b-d9cb-469f-a165-70867728950e' }, /^from_template and from_snapshot exclude each other/],
    [{ from_snapshot: 'x' }, /^from_snapshot must be a lowercase UUID/],
  ] as const) {
    const [status, code, told] = await refused({ name: 'x', ...fields });
    assert.deepEqual([status, code], [400, 'bad_request'], told);
    assert.match(told, message);
  }
  assert.deepEqual((await refused({ name: 'x', secrets: { A: 'none' } })).slice(0, 2), [400, 'secret_not_found']);
  assert.deepEqual((await refused({ name: 'x', from_template: 'no/such' })).slice(0, 2), [404, 'not_found']);
  assert.deepEqual((await refused({ name: 'x', from_template: '0f8fad5b-d9cb-469f-a165-70867728950e' })).slice(0, 2), [404, 'not_found']);
  assert.deepEqual((await refused({ name: 'x', from_snapshot: '0f8fad5b-d9cb-469f-a165-70867728950e' })).slice(0, 2), [404, 'snapshot_not_found']);
});

test('the edges themselves are taken', async () => {
  const env = Object.fromEntries(Array.from({ length: 64 }, (_, i) => [`${i === 0 ? 'with space' : `k${i}`}`, '']));
  const made = await make(server, { name: 'ü'.repeat(32), timeout_seconds: 604_800, auto_delete_seconds: 2_592_000, env_vars: env, metadata: { ['k'.repeat(256)]: 'v'.repeat(2048) } });
  assert.equal(made.json.timeout_seconds, 604_800);
  await control(server, 'DELETE', `/sandboxes/${made.id}`);
});

test('of several faults the first in the contract\'s order is told', async () => {
  const wrong = { name: '', timeout_seconds: 0, auto_delete_seconds: -1, network: { deny_out: ['x.example'] }, metadata: { '': '' }, env_vars: { '': '' }, preview_access: 'x', secrets: { '-': '' }, from_template: 'no/such' };
  const order = ['name', 'timeout_seconds', 'auto_delete_seconds', 'network', 'metadata', 'env_vars', 'preview_access', 'secrets'] as const;
  const right: Record<string, unknown> = { name: 'x', timeout_seconds: 1, auto_delete_seconds: 0, network: {}, metadata: {}, env_vars: {}, preview_access: 'public', secrets: {} };
  for (const [i, field] of order.entries()) {
    const body = { ...wrong, ...Object.fromEntries(order.slice(0, i).map((each) => [each, right[each]])) };
    assert.match((await refused(body))[2], new RegExp(`^${field}`));
  }
  assert.equal((await refused({ ...wrong, ...right }))[1], 'not_found');
  // Templates and snapshots come last of all.
  assert.equal((await refused({ ...wrong, ...right, secrets: { A: 'none' }, from_snapshot: 'x' }))[1], 'secret_not_found');
});

test('a body of the other wire is told where that is, on both', async () => {
  for (const field of ['template', 'timeout', 'envs', 'security', 'lifecycle', 'volumes']) {
    assert.match((await refused({ name: 'x', [field]: {} }))[2], new RegExp(`^${field} belongs to the Declaw API, which this server has at its root`));
  }
  for (const field of ['from_template', 'env_vars', 'timeout_seconds', 'secrets', 'auto_delete_seconds']) {
    const { status, json } = await server.call('POST', '/sandboxes', { json: { name: 'x', [field]: {} } });
    assert.equal(status, 400);
    assert.match(json.message, new RegExp(`^${field} belongs to the Superserve API, which this server has at /superserve`));
  }
});

test('lists are filtered, sorted, searched and paged', async () => {
  const made = [];
  for (const [name, stage] of [['Zebra', 'a'], ['alpha', 'b'], ['beta', 'a']] as const) made.push(await make(server, { name, metadata: { stage, suite: 'list' } }));
  const names = async (query: string): Promise<string[]> => (await control(server, 'GET', `/sandboxes?metadata.suite=list${query}`)).json.map((each: { name: string }) => each.name);
  assert.deepEqual(await names(''), ['beta', 'alpha', 'Zebra']);
  assert.deepEqual(await names('&order=asc'), ['Zebra', 'alpha', 'beta']);
  assert.deepEqual(await names('&sort=name&order=asc'), ['Zebra', 'alpha', 'beta']);
  assert.deepEqual(await names('&metadata.stage=a'), ['beta', 'Zebra']);
  assert.deepEqual(await names('&q=ET'), ['beta']);
  assert.deepEqual(await names('&limit=1&offset=1'), ['alpha']);
  assert.deepEqual(await names('&status=active&sort=status').then((found) => found.sort()), ['Zebra', 'alpha', 'beta']);
  for (const status of ['paused', 'failed', 'deleted', 'migrating', 'starting', 'resuming', 'pausing']) assert.deepEqual(await names(`&status=${status}`), [], status);
  const paged = await control(server, 'GET', '/sandboxes?metadata.suite=list&limit=1000');
  assert.deepEqual([paged.json.length, paged.headers['x-total-count']], [3, '3']);
  for (const query of ['status=x', 'sort=x', 'order=x', 'limit=0', 'limit=x', 'offset=-1', 'metadata.=x', 'metadata.a=1&metadata.a=2', `metadata.${'k'.repeat(257)}=1`, 'metadata.superserve.x=1']) {
    const { status, json } = await control(server, 'GET', `/sandboxes?${query}`);
    assert.deepEqual([status, json.error.code], [400, 'bad_request'], query);
  }
  for (const { id } of made) await control(server, 'DELETE', `/sandboxes/${id}`);
  assert.deepEqual(await names(''), []);
  assert.deepEqual((await names('&status=deleted')).sort(), ['Zebra', 'alpha', 'beta']);
});

test('deleted is 404, malformed is 400, and two deletes at once are both 204', async () => {
  const { id } = await make(server);
  const both = await Promise.all([control(server, 'DELETE', `/sandboxes/${id}`), control(server, 'DELETE', `/sandboxes/${id}`)]);
  assert.deepEqual(both.map((each) => [each.status, each.text]), [[204, ''], [204, '']]);
  for (const [method, path] of [['GET', ''], ['DELETE', ''], ['POST', '/activate'], ['POST', '/pause'], ['POST', '/resume'], ['GET', '/network'], ['GET', '/preview-ports']] as const) {
    assert.equal((await control(server, method, `/sandboxes/${id}${path}`)).status, 404, `${method} ${path}`);
  }
  for (const bad of ['x', 'sb--1', `${id}0`, `sb-A_B-${id}`]) assert.equal((await control(server, 'GET', `/sandboxes/${bad}`)).status, 400, bad);
  assert.equal((await control(server, 'GET', '/sandboxes/0f8fad5b-d9cb-469f-a165-70867728950e')).status, 404);
});

test('a patch changes what it names, and nothing is a fault', async () => {
  const { id } = await make(server, { metadata: { a: '1' }, timeout_seconds: 600, network: { deny_out: ['198.51.100.0/24'] } });
  const patch = (json: object) => control(server, 'PATCH', `/sandboxes/${id}`, { json });
  const shown = async () => (await control(server, 'GET', `/sandboxes/${id}`)).json;
  assert.deepEqual([(await patch({ metadata: { b: '2' } })).status, (await shown()).metadata], [204, { b: '2' }]);
  assert.equal((await control(server, 'GET', '/sandboxes?metadata.b=2')).json.length, 1);
  assert.equal((await control(server, 'GET', '/sandboxes?metadata.a=1')).json.length, 0);
  assert.deepEqual([(await patch({ timeout_seconds: 700, auto_delete_seconds: 0 })).status, (await shown()).timeout_seconds, (await shown()).auto_delete_seconds], [204, 700, 0]);
  assert.deepEqual([(await patch({ timeout_seconds: null, auto_delete_seconds: null })).status, (await shown()).timeout_seconds, (await shown()).auto_delete_seconds], [204, undefined, undefined]);
  assert.deepEqual([(await patch({ network: { allow_out: ['*.Example.com'] } })).status, (await shown()).network], [204, { allow_out: ['*.example.com'], deny_out: [] }]);
  assert.deepEqual([(await patch({ network: {} })).status, (await shown()).network], [204, undefined]);
  assert.deepEqual([(await patch({ preview_access: 'private' })).status, (await shown()).preview_access], [204, 'private']);
  for (const wrong of [{}, { name: 'x' }, { metadata: null }, { network: null }, { timeout_seconds: 0 }, { timeout_seconds: '1' }, { auto_delete_seconds: 2_592_001 }, { preview_access: 'legacy_public' }, { metadata: { 'superserve.a': '' } }, { network: { deny_out: ['a.example'] } }]) {
    const { status, json } = await patch(wrong);
    assert.deepEqual([status, json.error.code], [400, 'bad_request'], JSON.stringify(wrong));
  }
  await control(server, 'DELETE', `/sandboxes/${id}`);
});

test('a hard cap that has passed by a change destroys the sandbox', async () => {
  const { id } = await make(server);
  assert.equal((await control(server, 'PATCH', `/sandboxes/${id}`, { json: { timeout_seconds: 1 } })).status, 204);
  for (let i = 0; i < 100 && (await control(server, 'GET', `/sandboxes/${id}`)).status !== 404; i++) await new Promise((resolve) => setTimeout(resolve, 100));
  assert.equal((await control(server, 'GET', `/sandboxes/${id}`)).status, 404);
});

test('a key is wanted in X-API-Key, and only there', async () => {
  for (const headers of [{}, { 'x-api-key': '' }, { 'x-api-key': 'ss_live_wrong' }, { authorization: `Bearer ${server.apiKey}` }] as Record<string, string>[]) {
    const { status, json } = await call(server.url, 'GET', '/superserve/sandboxes', { headers });
    assert.deepEqual([status, json.error.code], [401, 'auth_failed']);
  }
});

test('health needs no key, every answer has its headers, and both hosts and double slashes lead here', async () => {
  const health = await call(server.url, 'GET', '/superserve/health');
  assert.deepEqual([health.status, health.json], [200, { status: 'ok', version: '0.1.0' }]);
  for (const answer of [health, await control(server, 'GET', '/sandboxes'), await control(server, 'GET', '/nowhere')]) {
    assert.deepEqual([answer.headers['x-content-type-options'], answer.headers['x-frame-options'], answer.headers['strict-transport-security']], ['nosniff', 'DENY', 'max-age=31536000']);
  }
  assert.equal((await control(server, 'GET', '//sandboxes')).status, 200);
  assert.equal((await call(server.url, 'GET', '//sandboxes', { headers: { host: 'api.superserve.ai', 'x-api-key': server.apiKey } })).status, 200);
  assert.deepEqual((await control(server, 'GET', '/nowhere')).json.error.code, 'not_found');
  assert.deepEqual((await control(server, 'GET', '/sandboxes/%zz')).json.error.code, 'bad_request');
});

test('what comes later says so in a status that nobody repeats', async () => {
  for (const [method, path] of [['GET', '/billing/summary'], ['GET', '/teams/x/management']] as const) {
    const { status, json } = await control(server, method, path);
    assert.deepEqual([status, json.error.code], [422, 'feature_disabled'], path);
  }
});

test('templates are listed, searched and found by name or id; none of them can be deleted', async () => {
  const list = (query = ''): Promise<any> => control(server, 'GET', `/templates${query}`).then(({ json }) => json);
  assert.deepEqual((await list('?sort=name&order=asc')).map((each: any) => each.name), [
    'ai-agent', 'base', 'code-interpreter', 'devops', 'mcp-server', 'node', 'python', 'superserve/base', 'superserve/claude-code', 'superserve/code-interpreter', 'superserve/node-22',
    'superserve/python-3.11', 'superserve/python-ml', 'web-dev',
  ]);
  assert.deepEqual((await list('?name_prefix=superserve/&q=NODE')).map((each: any) => each.name), ['superserve/node-22']);
  assert.deepEqual(await list('?owner=team'), []);
  const [offered] = await list('?name_prefix=superserve/python-ml'); // ready, when somebody has asked for it on this machine
  assert.deepEqual([offered.vcpu, offered.memory_mib, offered.disk_mib, ['pending', 'ready'].includes(offered.status)], [2, 2048, 4096, true]);
  assert.equal((await list('?limit=2')).length, 2);
  const { json } = await control(server, 'GET', '/templates/superserve%2Fbase');
  assert.match(json.id, uuid);
  assert.deepEqual([json.status, json.vcpu, json.memory_mib, json.disk_mib], ['ready', 1, 1024, 4096]);
  assert.deepEqual((await control(server, 'GET', `/templates/${json.id}`)).json, json);
  assert.equal((await control(server, 'DELETE', `/templates/${json.id}`)).status, 404);
  assert.equal((await control(server, 'GET', '/templates/none')).status, 404);
  const made = await make(server, { from_template: json.id });
  await control(server, 'DELETE', `/sandboxes/${made.id}`);
});

test('what happened in the team is listed', async () => {
  const { id } = await make(server, { name: 'watched' });
  await control(server, 'PATCH', `/sandboxes/${id}`, { json: { network: { deny_out: ['198.51.100.0/24'] } } });
  await new Promise((resolve) => setTimeout(resolve, 500)); // events are written in batches
  const { json, headers } = await control(server, 'GET', '/activity?q=watched&limit=5');
  assert.deepEqual(json.map((each: any) => [each.sandbox_id, each.category, each.action, each.status, each.sandbox_name]), [[id, 'sandbox', 'network_changed', 'success', 'watched'], [id, 'sandbox', 'created', 'success', 'watched']]);
  assert.equal(headers['x-total-count'], '2');
  assert.ok(json[1].duration_ms > 0);
  assert.deepEqual((await control(server, 'GET', '/activity?category=template')).json, []);
  assert.deepEqual((await control(server, 'GET', '/activity?q=watched&order=asc&limit=1')).json.map((each: any) => each.action), ['created']);
  assert.deepEqual((await control(server, 'GET', `/activity?q=watched&start=${new Date(Date.now() + 60_000).toISOString()}`)).json, []);
  assert.equal((await control(server, 'GET', '/activity?category=x')).status, 400);
  await control(server, 'DELETE', `/sandboxes/${id}`);
});
