import assert from 'node:assert/strict';
import { test } from 'node:test';
import { serverOfThisFile } from '../harness/server.ts';
import { control, exec, inside, preview, type Made } from '../harness/superserve.ts';
import { eventually } from '../harness/wait.ts';

// The call sequences of the MCP server, over raw HTTP: those it makes that the SDK alone does not (contract, section 1.9).

const server = serverOfThisFile({ PADDOCK_SUPERSERVE_TEAM_RATE: '0' });
let box: Made;

async function activate(): Promise<Made> {
  const { status, json } = await control(server, 'POST', `/sandboxes/${box.id}/activate`);
  assert.equal(status, 200);
  return { id: json.id, token: json.access_token, json };
}

test('create always sends preview_access, and info picks the sandbox out of the list', async () => {
  const { status, json } = await control(server, 'POST', '/sandboxes', { json: { name: `sandbox-${Date.now().toString(36)}`, preview_access: 'public' } });
  assert.equal(status, 201);
  box = { id: json.id, token: json.access_token, json };
  const listed = (await control(server, 'GET', '/sandboxes')).json.find((each: any) => each.id === box.id);
  assert.equal(listed.status, 'active');
});

test('exec activates first, with a minute and with ten', async () => {
  for (const timeout of [60, 600]) assert.equal((await exec(server, await activate(), { command: 'echo hi', timeout_s: timeout })).stdout, 'hi\n');
});

test('files are read and written after an activate', async () => {
  const made = await activate();
  assert.equal((await inside(server, made, 'POST', '/files?path=/home/user/mcp/a.txt', { body: 'x'.repeat(8 * 1024 * 1024) })).status, 200);
  assert.equal((await inside(server, await activate(), 'GET', '/files?path=/home/user/mcp/a.txt')).bytes.length, 8 * 1024 * 1024);
  assert.equal((await inside(server, await activate(), 'GET', '/files?path=/home/user/mcp&format=zip')).headers['content-type'], 'application/zip');
});

test('a directory is listed with find, with ls and with a plain shell', async () => {
  const made = await activate();
  assert.match((await exec(server, made, "find /home/user/mcp -mindepth 1 -maxdepth 1 -printf '%y\\t%s\\t%T@\\t%f\\n'")).stdout, /^f\t8388608\t[\d.]+\ta\.txt\n$/);
  assert.match((await exec(server, made, 'ls -la --time-style=long-iso /home/user/mcp')).stdout, /-rw-r--r-- 1 root root 8388608 \d{4}-\d\d-\d\d \d\d:\d\d a\.txt/);
  assert.equal((await exec(server, made, 'for f in /home/user/mcp/*; do [ -f "$f" ] && echo "f ${f##*/}"; done')).stdout, 'f a.txt\n');
});

test('preview_url publishes, reads back and, for a private port, asks for a token', async () => {
  const made = await activate();
  await exec(server, made, 'cd /srv && python3 -m http.server 8080 --bind 0.0.0.0 >/dev/null 2>&1 & cd /srv && python3 -m http.server 8081 >/dev/null 2>&1 &');
  assert.equal((await control(server, 'POST', `/sandboxes/${box.id}/preview-ports`, { json: { port: 8080 } })).status, 200);
  assert.deepEqual((await control(server, 'GET', `/sandboxes/${box.id}/preview-ports`)).json.ports.map((each: any) => each.port), [8080]);
  await eventually(async () => (await preview(server, box.id, 8080, '/')).status === 200);
  assert.equal((await control(server, 'POST', `/sandboxes/${box.id}/preview-ports`, { json: { port: 8081, access: 'private' } })).json.access, 'private');
  const { json } = await control(server, 'POST', `/sandboxes/${box.id}/preview-ports/8081/token`, { json: { expires_in_seconds: 3600 } });
  await eventually(async () => (await preview(server, box.id, 8081, '/', { headers: { [json.header]: json.token } })).status === 200);
});

test('the network log is asked for with limit and verdict', async () => {
  assert.equal((await control(server, 'PATCH', `/sandboxes/${box.id}`, { json: { network: { deny_out: ['0.0.0.0/0'] } } })).status, 204);
  await exec(server, await activate(), 'curl -s -m 2 http://198.51.100.7/; true');
  const page = await eventually(async () => {
    const { json } = await control(server, 'GET', `/sandboxes/${box.id}/network?limit=50&verdict=blocked`);
    return json.data.length > 0 && json;
  });
  const [row] = page.data;
  assert.deepEqual([row.kind, row.dst_ip, row.dst_port, row.verdict, row.match_rule], ['connection', '198.51.100.7', 80, 'blocked', 'cidr']);
  assert.deepEqual([page.has_more, page.next_cursor], [false, null]);
  assert.deepEqual((await control(server, 'GET', `/sandboxes/${box.id}/network?verdict=allowed`)).json.data, []);
  assert.equal((await control(server, 'GET', `/sandboxes/${box.id}/network?limit=200&since=2026-01-01T00:00:00Z`)).status, 200);
  for (const query of ['limit=0', 'limit=x', 'verdict=x', 'since=x', 'before=!']) assert.equal((await control(server, 'GET', `/sandboxes/${box.id}/network?${query}`)).status, 400, query);
});

test('update and kill are direct, and templates are listed', async () => {
  assert.equal((await control(server, 'PATCH', `/sandboxes/${box.id}`, { json: { metadata: { by: 'mcp' } } })).status, 204);
  assert.ok((await control(server, 'GET', '/templates')).json.length >= 3);
  assert.equal((await control(server, 'DELETE', `/sandboxes/${box.id}`)).status, 204);
});
