import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AuthenticationError, ConflictError, InvalidArgumentError, NotEnoughSpaceError, NotFoundError, Sandbox, SandboxError, TimeoutError } from '@declaw/sdk';
import { prepare, serverOfThisFile } from '../harness/server.ts';
import { sandboxOfThisFile } from '../harness/sandbox.ts';
import { within } from '../harness/wait.ts';

const server = serverOfThisFile();
const sandbox = sandboxOfThisFile();
let killed = '';

prepare(async () => {
  const one = await Sandbox.create();
  killed = one.sandboxId;
  await one.kill({ wait: true });
});

/** Checks status and body of a refusal and returns its message. */
async function refused(status: number, method: string, path: string, json?: unknown): Promise<string> {
  const answer = await within(20_000, `${method} ${path}`, server.call(method, path, json === undefined ? {} : { json }));
  const where = `${method} ${path} ${JSON.stringify(json)?.slice(0, 200)} → ${answer.text.slice(0, 300)}`;
  assert.equal(answer.status, status, where);
  assert.match(String(answer.headers['content-type']), /^application\/json/, where);
  assert.equal(typeof answer.json.message, 'string', where);
  assert.ok(answer.json.message.length > 5, where);
  assert.match(answer.json.code, /^[a-z_]+$/, where);
  return answer.json.message;
}

test('a body that is no JSON is 400 everywhere', async () => {
  for (const body of ['{broken', '', 'null', '[]', '"text"', '{"template": "base"', '\ufeff{}x']) {
    if (body === '') continue;
    const answer = await server.call('POST', '/sandboxes', { body, headers: { 'content-type': 'application/json' } });
    assert.equal(answer.status, 400, body);
    assert.ok(answer.json.message.length > 5);
  }
  const root = `/sandboxes/${sandbox().sandboxId}`;
  for (const path of [`${root}/commands`, `${root}/commands/stream`, `${root}/stdio`, `${root}/pty`, `${root}/files`, `${root}/files/batch`, `${root}/files/mkdir`, '/sandboxes/kill-many']) {
    assert.equal((await server.call('POST', path, { body: '{broken', headers: { 'content-type': 'application/json' } })).status, 400, path);
  }
});

test('create refuses a wrong type in each documented field, by the field\'s name', async () => {
  const wrong: [string, unknown][] = [
    ['template', 5], ['template', {}], ['timeout', '60'], ['timeout', -1], ['timeout', 1.5], ['timeout', {}], ['timeout', 1e300], ['secure', 'yes'],
    ['metadata', []], ['metadata', 'x'], ['metadata', { a: 1 }], ['metadata', { a: { b: 'c' } }], ['envs', []], ['envs', { A: 1 }], ['envs', { A: null }], ['vault_refs', { A: 1 }],
    ['network', 'none'], ['network', { allow_out: 'x' }], ['network', { deny_out: [1] }], ['network', { allow_public_traffic: 'no' }], ['network', { mask_request_host: 5 }],
    ['security', 'strict'], ['security', { policy_json: 5 }], ['security', { policy_json: '{broken' }], ['security', { policy_json: '[]' }], ['security', { pii: 'on' }], ['security', { pii: { enabled: 'yes' } }],
    ['security', { pii: { types: ['shoe_size'] } }], ['security', { pii: { action: 'shout' } }], ['security', { injection_defense: { threshold: 2 } }], ['security', { injection_defense: { sensitivity: 'extreme' } }],
    ['security', { transformations: {} }], ['security', { audit: 'off' }], ['security', { env_security: { mask_patterns: 'A' } }], ['security', { toxicity: { threshold: -1 } }],
    ['lifecycle', 'kill'], ['lifecycle', { on_timeout: 'explode' }], ['lifecycle', { auto_resume: 'yes' }], ['volumes', {}], ['volumes', [{}]], ['volumes', [{ volume_id: 'v', mount_path: 'relative' }]],
  ];
  for (const [field, value] of wrong) {
    const message = await refused(400, 'POST', '/sandboxes', { [field]: value });
    assert.ok(message.includes(field), `${field} = ${JSON.stringify(value)}: ${message}`);
  }
});

test('envs that no process could have are refused', async () => {
  for (const envs of [{ 'A=B': 'c' }, { '': 'c' }, { A: 'b\0c' }, { 'A\0': 'c' }]) assert.match(await refused(400, 'POST', '/sandboxes', { envs }), /envs/);
});

test('an unknown template is 404 with the names there are', async () => {
  const message = await refused(404, 'POST', '/sandboxes', { template: 'no-such-template' });
  for (const name of ['no-such-template', 'base', 'python', 'node']) assert.ok(message.includes(name), message);
  await assert.rejects(Sandbox.create({ template: 'no-such-template' }), NotFoundError);
});

test('resources are refused with 403, whatever they say', async () => {
  for (const resources of [{ vcpus: 2 }, {}, [], 'large']) assert.match(await refused(403, 'POST', '/sandboxes', { resources }), /resources/);
});

test('a sandbox nobody knows is 404 in the words of the contract, on every path', async () => {
  for (const id of ['sbx-00000000', 'sbx-zzz', 'nope', '00000000-0000-4000-8000-000000000000', '..%2f..', '%00']) {
    const message = await refused(404, 'GET', `/sandboxes/${id}`);
    if (/^[\w-]+$/.test(id)) assert.equal(message, `Sandbox ${id} not found`);
  }
  const root = '/sandboxes/sbx-00000000';
  for (const [method, path, json] of calls(root)) assert.equal(await refused(404, method, path, json), 'Sandbox sbx-00000000 not found', `${method} ${path}`);
  await refused(404, 'DELETE', root);
  await refused(404, 'GET', `${root}/status`);
  await assert.rejects(Sandbox.connect('sbx-00000000'), (error) => error instanceof NotFoundError && error.message === 'HTTP 404: Sandbox sbx-00000000 not found');
});

test('a killed sandbox is 410 on everything that needs it alive', async () => {
  for (const [method, path, json] of calls(`/sandboxes/${killed}`)) await refused(410, method, path, json);
  const tomb = await Sandbox.connect(killed);
  await assert.rejects(tomb.commands.run('true'), (error) => error instanceof SandboxError && /HTTP 410/.test(error.message));
});

/** A valid request to every endpoint that works on a living sandbox. */
function calls(root: string): [method: string, path: string, json?: unknown][] {
  return [
    ['PATCH', `${root}/timeout`, { timeout: 60 }], ['GET', `${root}/metrics`],
    ['POST', `${root}/commands`, { cmd: 'true' }], ['POST', `${root}/commands`, { cmd: 'true', background: true }], ['POST', `${root}/commands/stream`, { cmd: 'true' }], ['GET', `${root}/commands`],
    ['DELETE', `${root}/commands/1`], ['POST', `${root}/commands/1/stdin`, { data: '' }],
    ['POST', `${root}/stdio`, { cmd: 'cat' }], ['GET', `${root}/stdio/p1/stream`], ['POST', `${root}/stdio/p1/stdin`, { data: '' }], ['POST', `${root}/stdio/p1/stdin/close`], ['DELETE', `${root}/stdio/p1`],
    ['POST', `${root}/pty`, { size: { cols: 80, rows: 24 } }], ['PATCH', `${root}/pty/1`, { size: { cols: 80, rows: 24 } }], ['GET', `${root}/pty/1/stream`], ['DELETE', `${root}/pty/1`],
    ['GET', `${root}/files?path=/tmp`], ['POST', `${root}/files`, { path: '/tmp/a', data: '' }], ['PUT', `${root}/files/raw?path=/tmp/a`], ['GET', `${root}/files/raw?path=/etc/hosts`], ['POST', `${root}/files/batch`, { files: [{ path: '/a', data: '' }] }],
    ['GET', `${root}/files/list?path=/`], ['GET', `${root}/files/exists?path=/`], ['GET', `${root}/files/info?path=/`], ['DELETE', `${root}/files?path=/tmp/a`], ['PATCH', `${root}/files`, { old_path: '/a', new_path: '/b' }],
    ['POST', `${root}/files/mkdir`, { path: '/tmp/d' }], ['POST', `${root}/files/watch`, { path: '/tmp' }], ['GET', `${root}/ports/3000/`],
  ];
}

test('every call refuses wrong types in its fields, by name', async () => {
  const root = `/sandboxes/${sandbox().sandboxId}`;
  const wrong: [string, string, unknown, RegExp][] = [
    ['POST', '/commands', {}, /cmd/], ['POST', '/commands', { cmd: '' }, /cmd/], ['POST', '/commands', { cmd: 5 }, /cmd/], ['POST', '/commands', { cmd: ['ls'] }, /cmd/], ['POST', '/commands', { cmd: 'true', timeout: 'x' }, /timeout/],
    ['POST', '/commands', { cmd: 'true', timeout: -1 }, /timeout/], ['POST', '/commands', { cmd: 'true', envs: [] }, /envs/], ['POST', '/commands', { cmd: 'true', cwd: 5 }, /cwd/], ['POST', '/commands', { cmd: 'true', user: 5 }, /user/],
    ['POST', '/commands', { cmd: 'true', background: 'yes' }, /background/], ['POST', '/commands/stream', {}, /cmd/], ['POST', '/commands/1/stdin', {}, /data/], ['POST', '/stdio', {}, /cmd/], ['POST', '/stdio', { cmd: {} }, /cmd/],
    ['POST', '/pty', { size: 5 }, /size/], ['POST', '/pty', { timeout: 'x' }, /timeout/], ['PATCH', '/pty/1', {}, /size/], ['POST', '/files', { data: 'x' }, /path/], ['POST', '/files', { path: '/tmp/x' }, /data/], ['POST', '/files', { path: '/tmp/x', data: 5 }, /data/],
    ['POST', '/files/batch', {}, /files/], ['POST', '/files/batch', { files: [{ path: '/tmp/x' }] }, /files\[0\].*data|data/], ['PATCH', '/files', { old_path: '/a' }, /new_path/], ['POST', '/files/mkdir', {}, /path/], ['POST', '/files/watch', {}, /path/],
    ['GET', '/files', undefined, /path/], ['GET', '/files/list', undefined, /path/], ['GET', '/files/list?path=/&depth=x', undefined, /depth/], ['GET', '/files/list?path=/&depth=0', undefined, /depth/], ['DELETE', '/files', undefined, /path/],
    ['PATCH', '/timeout', {}, /timeout/], ['PATCH', '/timeout', { timeout: 'x' }, /timeout/], ['PATCH', '/timeout', { timeout: -5 }, /timeout/],
  ];
  for (const [method, path, json, named] of wrong) assert.match(await refused(400, method, root + path, json), named, `${method} ${path} ${JSON.stringify(json)}`);
  assert.match(await refused(400, 'POST', '/sandboxes/kill-many', { sandbox_ids: 'sbx-1' }), /sandbox_ids/);
  assert.match(await refused(400, 'POST', '/sandboxes/kill-many', {}), /sandbox_ids/);
});

test('unknown keys and an empty network are tolerated', async () => {
  const answer = await server.call('POST', '/sandboxes', { json: { template: 'base', network: {}, future_field: { a: 1 }, lifecycle: { on_timeout: 'kill', other: 1 } } });
  assert.equal(answer.status, 201);
  assert.deepEqual(answer.json.network, {});
  await Sandbox.kill(answer.json.sandbox_id);
});

test('a body above 10 MiB is 413, with the limit', async () => {
  const message = await refused(413, 'POST', '/sandboxes', { metadata: { a: 'x'.repeat(11 * 1024 * 1024) } });
  assert.match(message, /10 MiB/);
  await assert.rejects(sandbox().files.write('/tmp/x', 'x'.repeat(11 * 1024 * 1024)), NotEnoughSpaceError);
});

test('metadata and envs above their limits are refused with the limit, not cut', async () => {
  for (const [field, json] of [['metadata', { metadata: { a: 'x'.repeat(200_000) } }], ['envs', { envs: { A: 'x'.repeat(200_000) } }]] as const) {
    const { status, json: body } = await server.call('POST', '/sandboxes', { json });
    assert.ok(status === 400 || status === 413, `${field}: ${status}`);
    assert.ok(body.message.includes(field) && /\d{3}|KiB/.test(body.message), body.message);
  }
});

test('the SDK gets its own class for each kind of failure', async () => {
  const files = sandbox().files;
  await assert.rejects(files.read('/missing'), NotFoundError);
  await assert.rejects(sandbox().commands.run('sleep 9', { timeout: 0.2 }), TimeoutError);
  await assert.rejects(sandbox().setTimeout(-1), InvalidArgumentError);
  await assert.rejects(sandbox().pty.resize(999_999, { cols: 80, rows: 24 }), NotFoundError);
  await assert.rejects(Sandbox.create({ apiKey: 'dcl_not_this_one_at_all' }), AuthenticationError);
  await files.write('/home/user/full/x', '');
  await files.write('/home/user/other/y', '');
  await assert.rejects(files.rename('/home/user/other', '/home/user/full'), ConflictError);
});

test('what comes with later versions is refused clearly, at once, and never with a 5xx that the SDK would repeat', async () => {
  const later: [string, string, unknown?][] = [
    ['GET', '/governance/packs'], ['GET', '/accounts/o'],
  ];
  for (const [method, path, json] of later) {
    const answer = await server.call(method, path, json === undefined ? {} : { json });
    assert.ok(answer.status >= 400 && answer.status < 500, `${method} ${path}: ${answer.status}`);
    assert.match(answer.json.message, /not available/, `${method} ${path}: ${answer.text}`);
  }
  assert.equal(await sandbox().isRunning(), true);
});

test('paths and methods that are none answer in the same shape', async () => {
  await refused(404, 'GET', '/nothing/here');
  await refused(404, 'GET', `/sandboxes/${sandbox().sandboxId}/nothing`);
  const answer = await server.call('DELETE', '/templates');
  assert.ok(answer.status === 404 || answer.status === 405);
  assert.ok(answer.json.message.length > 5);
});

test('a create repeated with the same Idempotency-Key makes one sandbox; another body under it is 422', async () => {
  const headers = { 'idempotency-key': 'c0ffee00-0000-4000-8000-000000000001' };
  const create = (json: unknown) => server.call('POST', '/sandboxes', { json, headers });
  const [first, second] = [await create({ metadata: { a: '1' } }), await create({ metadata: { a: '1' } })];
  assert.equal(first.status, 201);
  assert.equal(second.json.sandbox_id, first.json.sandbox_id);
  const other = await create({ metadata: { a: '2' } });
  assert.deepEqual([other.status, other.json.code], [422, 'idempotency_key_reused']);
  await Sandbox.kill(first.json.sandbox_id);
});
