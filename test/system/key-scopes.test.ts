import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Sandbox } from '@declaw/sdk';
import { call, open } from '../harness/http.ts';
import { serverOfThisFile } from '../harness/server.ts';
import { control, make } from '../harness/superserve.ts';
import { eventually, within } from '../harness/wait.ts';

const server = serverOfThisFile();

async function keyOf(...options: string[]): Promise<{ key: string; id: string }> {
  const { code, stdout, stderr } = await server.paddock(['keys', 'create', 'test', ...options]);
  assert.equal(code, 0, stderr);
  return { key: stdout.trim(), id: /key-[0-9a-f-]+/.exec(stderr)![0] };
}

async function revoke(id: string): Promise<void> {
  assert.equal((await server.paddock(['keys', 'revoke', id])).code, 0);
}

test('a key that may read sees, changes nothing, and gets nothing that opens more', async () => {
  const { key } = await keyOf('--scope', 'read');
  const created = await server.call('POST', '/sandboxes', { json: { envs: { SECRET: 'planted-value' } } });
  assert.equal(created.status, 201, created.text);
  const sandbox = await Sandbox.connect(created.json.sandbox_id);
  const other = await make(server, { env_vars: { SECRET: 'planted-value' } });
  const id = sandbox.sandboxId;
  for (const path of ['/sandboxes', `/sandboxes/${id}`, `/sandboxes/${id}/status`, `/sandboxes/${id}/metrics`, `/sandboxes/${id}/commands`, '/templates', '/volumes', '/snapshots', '/metrics', `/sandboxes/${id}/audit`]) {
    const { status, text } = await server.call('GET', path, { key });
    assert.equal(status, 200, `${path} ${text}`);
    assert.ok(!text.includes('planted-value') && !text.includes('access_token'), path);
  }
  assert.equal((await server.call('POST', '/network/explain', { key, json: { target: 'https://x.example' } })).status, 200);
  const shown = await control(server, 'GET', `/sandboxes/${other.id}`, { headers: { 'x-api-key': key } });
  assert.equal(shown.status, 200);
  assert.ok(!shown.text.includes(other.token) && !('access_token' in shown.json));

  const changes: [string, string][] = [
    ['POST', '/sandboxes'], ['DELETE', `/sandboxes/${id}`], ['POST', '/sandboxes/kill-many'], ['PATCH', `/sandboxes/${id}/timeout`], ['POST', `/sandboxes/${id}/commands`], ['POST', `/sandboxes/${id}/pty`],
    ['PUT', `/sandboxes/${id}/files/raw?path=/tmp/x`], ['POST', `/sandboxes/${id}/files`], ['PUT', `/sandboxes/${id}/network`], ['POST', `/sandboxes/${id}/pause`], ['POST', `/sandboxes/${id}/snapshots`], ['POST', `/sandboxes/${id}/fork`],
    ['GET', `/sandboxes/${id}/ports/3000/`], ['POST', '/volumes?name=x'], ['POST', '/templates/build'],
  ];
  for (const [method, path] of changes) {
    const { status, json } = await server.call(method, path, { key, ...(method === 'GET' || method === 'DELETE' ? {} : { json: {} }) });
    assert.deepEqual([status, json.code], [403, 'permission_denied'], `${method} ${path}`);
    assert.match(json.message, /scope read.*--scope write/);
  }
  for (const [method, path] of [['POST', '/sandboxes'], ['DELETE', `/sandboxes/${other.id}`], ['PATCH', `/sandboxes/${other.id}`], ['POST', `/sandboxes/${other.id}/activate`], ['POST', `/sandboxes/${other.id}/preview-ports`]] as const) {
    assert.equal((await control(server, method, path, { headers: { 'x-api-key': key }, ...(method === 'DELETE' ? {} : { json: {} }) })).status, 403, `${method} ${path}`);
  }
  assert.equal((await server.call('GET', `/sandboxes/${id}`)).json.state, 'running');
  await sandbox.kill({ wait: true });
  await control(server, 'DELETE', `/sandboxes/${other.id}`);
});

test('a key that may write does what a create needs, and one that has expired nothing', async () => {
  const { key } = await keyOf('--scope', 'write', '--expires', '1h');
  const { status, json } = await server.call('POST', '/sandboxes', { key, json: {} });
  assert.equal(status, 201);
  assert.equal((await server.call('DELETE', `/sandboxes/${json.sandbox_id}`, { key })).status, 200);
});

test('revoking a key cuts its open streams and sockets at once, and no others', async () => {
  const doomed = await keyOf('--scope', 'write');
  const sandbox = await Sandbox.create();
  const id = sandbox.sandboxId;
  await sandbox.commands.run(`python3 -c 'pass' 2>/dev/null; true`);
  const streams = await Promise.all([doomed.key, server.apiKey].map((key) => open(server.url, 'POST', `/sandboxes/${id}/commands/stream`, { key, json: { cmd: 'while :; do echo tick; sleep 0.2; done', timeout: 0 } })));
  const ended = streams.map((stream) => new Promise<void>((resolve) => stream.on('error', () => {}).on('close', () => resolve()).resume()));
  const waiting = server.call('POST', `/sandboxes/${id}/commands`, { key: doomed.key, json: { cmd: 'sleep 60', timeout: 0 } }).then((answer) => answer.status, () => 'cut');
  // A program that speaks no WebSocket answers the upgrade with whatever it says; that the connection stays open is what matters.
  await sandbox.commands.run(`bash -c 'exec 3<>/dev/null; cat > /tmp/s.pl <<"E"\nuse IO::Socket::INET; my $l = IO::Socket::INET->new(Listen=>5, LocalPort=>8080, ReuseAddr=>1) or die; while (my $c = $l->accept) { next if fork; while (<$c>) { last if /^\\r\\n$/ } print $c "HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\nSec-WebSocket-Accept: x\\r\\n\\r\\n"; $c->flush; sleep 600; exit }\nE\nnohup perl /tmp/s.pl >/dev/null 2>&1 &'`, { background: true });
  const socket = await eventually(async () => {
    const { connect } = await import('node:net');
    const raw = connect(server.port, '127.0.0.1');
    raw.on('error', () => {});
    raw.write(`GET /sandboxes/${id}/ports/8080/ HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${doomed.key}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${Buffer.alloc(16).toString('base64')}\r\n\r\n`);
    const first = await new Promise<string>((resolve) => raw.once('data', (data) => resolve(String(data))));
    if (!first.startsWith('HTTP/1.1 101')) raw.destroy();
    assert.match(first, /^HTTP\/1\.1 101 /);
    return raw;
  });
  const closed = new Promise<void>((resolve) => socket.on('close', () => resolve()).resume());
  await revoke(doomed.id);
  await within(5000, 'the stream of the revoked key', ended[0]!);
  await within(5000, 'the command of the revoked key', waiting.then((outcome) => assert.equal(outcome, 'cut')));
  await within(5000, 'the socket of the revoked key', closed);
  await eventually(async () => (await server.call('GET', '/sandboxes', { key: doomed.key })).status === 401);
  assert.equal(streams[1]!.destroyed, false, 'the stream of the other key goes on');
  streams[1]!.destroy();
  await sandbox.kill({ wait: true });
});

test('an attack: a key in the query opens nothing, and is refused even beside a good one', async () => {
  const { key } = await keyOf();
  for (const name of ['api_key', 'key', 'anything']) {
    assert.equal((await call(server.url, 'GET', `/sandboxes?${name}=${key}`)).status, 401, name);
    const beside = await server.call('GET', `/sandboxes?limit=1&${name}=${key}`);
    assert.deepEqual([beside.status, beside.json.code], [400, 'invalid_argument'], name);
    assert.match(beside.json.message, /revoke it/);
    assert.equal((await control(server, 'GET', `/sandboxes?${name}=${key}`)).status, 400, name);
  }
});
