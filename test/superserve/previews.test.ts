import assert from 'node:assert/strict';
import { test } from 'node:test';
import { WebSocket } from 'ws';
import { serverOfThisFile } from '../harness/server.ts';
import { control, exec, inside, make, preview, type Made } from '../harness/superserve.ts';
import { eventually, within } from '../harness/wait.ts';

// Programs inside, at host names of their own. Requests arrive as they would behind the gateway or a wildcard certificate.

const server = serverOfThisFile({ PADDOCK_SUPERSERVE_TEAM_RATE: '0', PADDOCK_SUPERSERVE_PREVIEWS: 'public' });
const cookie = '__Host-superserve_preview_token';

/** A program that says what it was asked, sets a cookie when asked to, and speaks WebSocket as far as an echo of one frame. */
const program = String.raw`
const http = require('http'), crypto = require('crypto');
const server = http.createServer((request, response) => {
  if (request.url === '/cookie') response.setHeader('Set-Cookie', ['a=b; Domain=.sandbox.superserve.ai; Path=/', '__Host-superserve_preview_token=evil; Path=/; Secure']);
  response.end(JSON.stringify({ method: request.method, url: request.url, headers: request.headers }));
});
server.on('upgrade', (request, socket) => {
  const accept = crypto.createHash('sha1').update(request.headers['sec-websocket-key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11').digest('base64');
  socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ' + accept + '\r\n\r\n');
  const text = Buffer.from(request.url);
  socket.write(Buffer.concat([Buffer.of(0x81, text.length), text]));
});
server.listen(Number(process.argv[2]), '127.0.0.1');
`;

async function withPrograms(fields: object, ...ports: number[]): Promise<Made> {
  const made = await make(server, { from_template: 'superserve/node-22', ...fields });
  await inside(server, made, 'POST', '/files?path=/srv/app.js', { body: program });
  await exec(server, made, ports.map((port) => `node /srv/app.js ${port} >/dev/null 2>&1 </dev/null & `).join('\n'));
  await eventually(async () => (await exec(server, made, ports.map((port) => `curl -s -o /dev/null http://127.0.0.1:${port}/`).join(' && '))).exit_code === 0, { withinMs: 30_000 });
  return made;
}

test('only published ports are there, for everybody when public, and as long as they are published', async () => {
  const { id } = await withPrograms({}, 3000, 3001);
  assert.deepEqual([(await preview(server, id, 3000, '/')).status, (await preview(server, id, 3000, '/')).json.error.message], [404, 'sandbox not found']);
  assert.deepEqual((await control(server, 'POST', `/sandboxes/${id}/preview-ports`, { json: { port: 3000 } })).json, { port: 3000, access: 'public', token_version: 1 });
  const seen = await preview(server, id, 3000, '/a%2Fb?x=%41', { headers: { 'x-forwarded-for': '198.51.100.9', 'x-forwarded-host': 'evil.example', cookie: 'mine=1' } });
  assert.equal(seen.status, 200);
  assert.deepEqual([seen.json.url, seen.json.headers.host, seen.json.headers.cookie, seen.json.headers['x-forwarded-for'], seen.json.headers['x-forwarded-host'], seen.json.headers['x-forwarded-proto']], ['/a%2Fb?x=%41', `3000-${id}.sandbox.superserve.ai`, 'mine=1', '127.0.0.1', `3000-${id}.sandbox.superserve.ai`, 'https']);
  const ownDomain = await preview(server, id, 3000, '/', { headers: { host: `3000-sb-usw-${id}.sandbox.localhost:7070` } });
  assert.deepEqual([ownDomain.status, ownDomain.json.headers['x-forwarded-proto']], [200, 'http']);
  assert.equal((await preview(server, id, 3001, '/')).status, 404);
  assert.deepEqual((await control(server, 'GET', `/sandboxes/${id}/preview-ports`)).json, { preview_access: 'public', ports: [{ port: 3000, access: 'public', token_version: 1 }] });
  for (const round of [1, 2]) assert.equal((await control(server, 'DELETE', `/sandboxes/${id}/preview-ports/3000`)).status, 204, String(round));
  assert.equal((await preview(server, id, 3000, '/')).status, 404);

  await control(server, 'POST', `/sandboxes/${id}/preview-ports`, { json: { port: 4000 } });
  const silent = await preview(server, id, 4000, '/');
  assert.deepEqual([silent.status, silent.json.error.code, silent.headers['retry-after']], [502, 'sandbox_unreachable', '2']);
  assert.match(silent.json.error.message, /^sandbox unreachable/);
  for (const json of [{ port: 1023 }, { port: 49983 }, { port: 65536 }, {}, { port: '3000' }, { port: 3000, access: 'legacy_public' }, { port: 3000, x: 1 }]) assert.equal((await control(server, 'POST', `/sandboxes/${id}/preview-ports`, { json })).status, 400, JSON.stringify(json));
  for (const port of [80, 49983]) assert.equal((await preview(server, id, port, '/')).status, 404);
  await control(server, 'DELETE', `/sandboxes/${id}`);
  assert.equal((await preview(server, id, 3000, '/')).status, 404);
});

test('a private port opens for a token in header, link or cookie, none of which the program sees', async () => {
  const { id } = await withPrograms({ preview_access: 'private' }, 3000, 3001);
  for (const port of [3000, 3001]) assert.equal((await control(server, 'POST', `/sandboxes/${id}/preview-ports`, { json: { port } })).json.access, 'private');
  const issue = (json: object = {}, port = 3000): Promise<any> => control(server, 'POST', `/sandboxes/${id}/preview-ports/${port}/token`, { json });
  const closed = await preview(server, id, 3000, '/');
  assert.deepEqual([closed.status, closed.json.error.code], [401, 'auth_failed']);
  const made = await issue({ expires_in_seconds: 60 });
  assert.equal(made.headers['cache-control'], 'no-store');
  const { token, expires_at: expires, ...shown } = made.json;
  assert.deepEqual(shown, { port: 3000, header: 'X-Superserve-Preview-Token', query_param: 'superserve_preview_token', access: 'private', preview_access: 'private', token_version: 1 });
  assert.match(token, /^spv1\./);
  assert.ok(Math.abs(Date.parse(expires) - Date.now() - 60_000) < 3000);
  assert.equal((await issue()).json.expires_at, undefined);

  const byHeader = await preview(server, id, 3000, '/x', { headers: { 'X-Superserve-Preview-Token': token } });
  assert.equal(byHeader.status, 200);
  assert.equal(byHeader.json.headers['x-superserve-preview-token'], undefined);

  const link = await preview(server, id, 3000, `/page?a=1&superserve_preview_token=${token}&b=%20`);
  assert.deepEqual([link.status, link.headers.location, link.headers['cache-control'], link.headers['referrer-policy']], [302, '/page?a=1&b=%20', 'no-store', 'no-referrer']);
  const set = link.headers['set-cookie']?.[0] ?? '';
  assert.match(set, new RegExp(`^${cookie}=spv1\\.[^;]+; Path=/; Secure; HttpOnly; SameSite=None; Partitioned; Max-Age=(5[5-9]|60)$`));
  const byCookie = await preview(server, id, 3000, String(link.headers.location), { headers: { cookie: `own=1; ${set.split(';', 1)[0]}; other=2` } });
  assert.deepEqual([byCookie.status, byCookie.json.url, byCookie.json.headers.cookie], [200, '/page?a=1&b=%20', 'own=1; other=2']);
  assert.equal((await preview(server, id, 3000, `//evil.example/?superserve_preview_token=${token}`)).headers.location, '/evil.example/');

  // Anything but a browser's GET has no use for a redirect.
  const posted = await import('../harness/http.ts').then(({ call }) => call(server.url, 'POST', `/post?superserve_preview_token=${token}`, { body: 'x', headers: { host: `3000-${id}.sandbox.superserve.ai` } }));
  assert.deepEqual([posted.status, posted.json.method, posted.json.url], [200, 'POST', '/post']);
  const socket = new WebSocket(`ws://127.0.0.1:${server.port}/ws?q=1&superserve_preview_token=${token}`, { headers: { host: `3000-${id}.sandbox.superserve.ai` } });
  assert.equal(String(await within(10_000, 'a frame', new Promise((resolve) => socket.once('message', resolve)))), '/ws?q=1');
  socket.terminate();

  for (const [what, wrong] of [['nonsense', 'spv1.x.y'], ['of another port', (await issue({}, 3001)).json.token]] as const) assert.equal((await preview(server, id, 3000, '/', { headers: { 'X-Superserve-Preview-Token': wrong } })).status, 401, what);
  const short = (await issue({ expires_in_seconds: 1 })).json.token;
  await eventually(async () => (await preview(server, id, 3000, '/', { headers: { 'X-Superserve-Preview-Token': short } })).status === 401);

  const sibling = (await issue({}, 3001)).json.token;
  assert.deepEqual((await control(server, 'POST', `/sandboxes/${id}/preview-ports/3000/token/rotate`)).json, { port: 3000, access: 'private', token_version: 2 });
  assert.equal((await preview(server, id, 3000, '/', { headers: { 'X-Superserve-Preview-Token': token } })).status, 401);
  assert.equal((await preview(server, id, 3000, '/', { headers: { cookie: set.split(';', 1)[0]! } })).status, 401);
  assert.equal((await preview(server, id, 3001, '/', { headers: { 'X-Superserve-Preview-Token': sibling } })).status, 200);
  assert.equal((await preview(server, id, 3000, '/', { headers: { 'X-Superserve-Preview-Token': (await issue()).json.token } })).status, 200);

  for (const seconds of [0, 604_801]) assert.equal((await issue({ expires_in_seconds: seconds })).status, 400);
  assert.equal((await issue({}, 5000)).status, 404);
  assert.deepEqual((await control(server, 'POST', `/sandboxes/${id}/preview-ports`, { json: { port: 3001, access: 'public' } })).json, { port: 3001, access: 'public', token_version: 1 });
  assert.equal((await issue({}, 3001)).status, 409);
  await control(server, 'DELETE', `/sandboxes/${id}`);
});

test('a program sets cookies for its own host only, and never ours', async () => {
  const { id } = await withPrograms({}, 3000);
  await control(server, 'POST', `/sandboxes/${id}/preview-ports`, { json: { port: 3000 } });
  assert.deepEqual((await preview(server, id, 3000, '/cookie')).headers['set-cookie'], ['a=b; Path=/']);
  await control(server, 'DELETE', `/sandboxes/${id}`);
});

test('what was made on the other wire is not opened by this one, until its owner publishes it', async () => {
  const { sandbox_id: short } = (await server.call('POST', '/sandboxes', { json: { template: 'base' } })).json;
  const { id } = (await control(server, 'GET', '/sandboxes')).json[0];
  assert.equal((await preview(server, id, 3000, '/')).status, 404);
  assert.equal((await control(server, 'POST', `/sandboxes/${id}/preview-ports`, { json: { port: 3000 } })).json.access, 'private');
  assert.equal((await preview(server, id, 3000, '/')).status, 401);
  await server.call('DELETE', `/sandboxes/${short}`);
});

test('legacy_public opens every port, knows no private one, and is left for good', async () => {
  const { TestServer } = await import('../harness/server.ts');
  const open = new TestServer({ PADDOCK_SUPERSERVE_TEAM_RATE: '0' });
  await open.start();
  try {
    const made = await make(open);
    assert.equal(made.json.preview_access, 'legacy_public');
    await exec(open, made, 'cd /tmp && python3 -m http.server 8000 --bind 127.0.0.1 >/dev/null 2>&1 &');
    await eventually(async () => (await preview(open, made.id, 8000, '/')).status === 200, { withinMs: 20_000 });
    assert.equal((await control(open, 'POST', `/sandboxes/${made.id}/preview-ports`, { json: { port: 8000, access: 'private' } })).status, 409);
    assert.equal((await control(open, 'PATCH', `/sandboxes/${made.id}`, { json: { preview_access: 'public' } })).status, 204);
    assert.equal((await preview(open, made.id, 8000, '/')).status, 404);
  } finally {
    await open.remove();
  }
});
