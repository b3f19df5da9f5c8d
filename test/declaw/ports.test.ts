import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import { Sandbox } from '@declaw/sdk';
import WebSocket from 'ws';
import { collect, open } from '../harness/http.ts';
import { sandboxOfThisFile } from '../harness/sandbox.ts';
import { prepare, repository, serverOfThisFile } from '../harness/server.ts';
import { eventually, within } from '../harness/wait.ts';

const server = serverOfThisFile();
const sandbox = sandboxOfThisFile({ template: 'node' });
const authorization = (): Record<string, string> => ({ authorization: `Bearer ${server.apiKey}` });

/** Answers with what it was asked, on loopback only; streams, sets cookies, and speaks WebSocket. */
const program = `
import { createServer } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { WebSocketServer } from './ws/wrapper.mjs';
const server = createServer(async (request, response) => {
  if (request.url.startsWith('/stream')) {
    response.writeHead(200, { 'content-type': 'text/plain' });
    for (const part of ['one ', 'two ', 'three']) { response.write(part); await sleep(400); }
    return response.end();
  }
  if (request.url.startsWith('/teapot')) return response.writeHead(418, { 'set-cookie': ['session=1', 'b=2'], 'x-kept': 'yes' }).end('short and stout');
  if (request.url.startsWith('/hang')) return response.write('never ') && setTimeout(() => process.exit(1), 300);
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const body = Buffer.concat(chunks);
  response.setHeader('content-type', 'application/json');
  response.end(JSON.stringify({ method: request.method, url: request.url, headers: request.headers, length: body.length, body: body.toString('base64').slice(0, 1000) }));
});
new WebSocketServer({ server }).on('connection', (socket, request) => {
  socket.send('hello ' + request.url);
  socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }));
  socket.on('close', () => console.log('closed'));
});
server.listen(3000, '127.0.0.1', () => console.log('listening'));
`;

prepare(async () => {
  const ws = join(repository, 'node_modules/ws');
  const names = ['package.json', 'index.js', 'wrapper.mjs', ...readdirSync(join(ws, 'lib')).map((name) => `lib/${name}`)];
  await sandbox().files.writeFiles([
    ...names.map((name) => ({ path: `/home/user/ws/${name}`, data: readFileSync(join(ws, name), 'utf8') })),
    { path: '/home/user/server.mjs', data: program },
  ]);
  await sandbox().commands.run('while :; do node server.mjs; done', { background: true, timeout: 0 });
  await eventually(async () => (await fetch(`${sandbox().getHost(3000)}/`, { headers: authorization() })).status === 200, { withinMs: 20_000 });
});

/** What the server inside saw. */
async function echoed(path: string, init: RequestInit = {}): Promise<{ method: string; url: string; headers: Record<string, string>; length: number; body: string }> {
  const response = await fetch(`${sandbox().getHost(3000)}${path}`, { ...init, headers: { ...authorization(), ...init.headers } });
  assert.equal(response.status, 200);
  return (await response.json()) as Awaited<ReturnType<typeof echoed>>;
}

test('getHost and getMcpUrl name the port proxy', () => {
  assert.equal(sandbox().getHost(3000), `${server.url}/sandboxes/${sandbox().sandboxId}/ports/3000`);
  assert.equal(sandbox().getMcpUrl(), `${server.url}/sandboxes/${sandbox().sandboxId}/ports/50005/mcp`);
});

test('a server bound to loopback is reached, with method, path and query byte by byte', async () => {
  assert.equal((await echoed('')).url, '/');
  assert.equal((await echoed('/')).url, '/');
  assert.equal((await echoed('/a/b%2Fc/%E6%97%A5//d/?q=1&q=2&empty=&plus=a+b&enc=%26%3D')).url, '/a/b%2Fc/%E6%97%A5//d/?q=1&q=2&empty=&plus=a+b&enc=%26%3D');
  assert.equal((await echoed('?only=query')).url, '/?only=query');
  for (const method of ['GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'REPORT']) assert.equal((await echoed('/m', { method })).method, method);
});

test('bodies go through, also large ones without a length', async () => {
  const posted = await echoed('/post', { method: 'POST', body: '{"a":1}', headers: { 'content-type': 'application/json', 'x-own': 'kept' } });
  assert.equal(Buffer.from(posted.body, 'base64').toString(), '{"a":1}');
  assert.equal(posted.headers['content-type'], 'application/json');
  assert.equal(posted.headers['x-own'], 'kept');
  const broken = await echoed('/post', { method: 'POST', body: '{"a":', headers: { 'content-type': 'application/json' } });
  assert.equal(broken.length, 5, 'the proxy reads JSON that is none of its business');

  const blocks = Readable.from((function* () { for (let i = 0; i < 32; i++) yield Buffer.alloc(1024 * 1024, i); })());
  const chunked = await server.call('POST', `/sandboxes/${sandbox().sandboxId}/ports/3000/large`, { body: blocks });
  assert.equal(chunked.json.length, 32 * 1024 * 1024);
});

test('the key of the API does not reach the program inside', async () => {
  const { headers } = await echoed('/headers', { headers: { 'x-api-key': server.apiKey } });
  assert.ok(!JSON.stringify(headers).includes(server.apiKey), JSON.stringify(headers));
});

test('status and headers come back, cookies do not', async () => {
  const response = await fetch(`${sandbox().getHost(3000)}/teapot`, { headers: authorization() });
  assert.equal(response.status, 418);
  assert.equal(await response.text(), 'short and stout');
  assert.equal(response.headers.get('x-kept'), 'yes');
  assert.equal(response.headers.get('set-cookie'), null);
});

test('a streamed answer arrives piece by piece', async () => {
  const message = await open(server.url, 'GET', `/sandboxes/${sandbox().sandboxId}/ports/3000/stream`, { key: server.apiKey });
  const arrivals: { text: string; at: number }[] = [];
  for await (const chunk of message) arrivals.push({ text: String(chunk), at: Date.now() });
  assert.equal(arrivals.map((each) => each.text).join(''), 'one two three');
  assert.ok((arrivals.at(-1)?.at ?? 0) - (arrivals[0]?.at ?? 0) > 500, 'the parts came together');
});

test('WebSockets work: text, binary, large messages, close', async () => {
  const socket = new WebSocket(`${sandbox().getHost(3000).replace('http', 'ws')}/chat?room=1`, { headers: authorization() });
  const messages: { data: Buffer; isBinary: boolean }[] = [];
  socket.on('message', (data: Buffer, isBinary) => messages.push({ data, isBinary }));
  await within(10_000, 'the WebSocket to open', once(socket, 'open'));
  socket.send('text 🦊');
  socket.send(Buffer.alloc(1_000_000, 7));
  await eventually(() => messages.length === 3);
  assert.deepEqual(messages.map((each) => each.isBinary), [false, false, true]);
  assert.equal(messages[0]?.data.toString(), 'hello /chat?room=1');
  assert.equal(messages[1]?.data.toString(), 'text 🦊');
  assert.ok(messages[2]?.data.equals(Buffer.alloc(1_000_000, 7)));
  socket.close(1000);
  await within(10_000, 'the WebSocket to close', once(socket, 'close'));
});

test('a WebSocket without a key, or to a port nobody listens on, is refused with the status', async () => {
  const refusal = async (port: number, headers: Record<string, string>): Promise<number | undefined> => {
    const socket = new WebSocket(sandbox().getHost(port).replace('http', 'ws'), { headers });
    const [, response] = (await within(10_000, 'the refusal', once(socket, 'unexpected-response'))) as [unknown, { statusCode?: number }];
    socket.on('error', () => {}); // ws reports its own abort of the handshake
    socket.terminate();
    return response.statusCode;
  };
  assert.equal(await refusal(3000, {}), 401);
  assert.equal(await refusal(3000, { authorization: 'Bearer dcl_wrong' }), 401);
  assert.equal(await refusal(3999, authorization()), 502);
});

test('no key is 401, a port nobody listens on 502, no port at all 400, the guest daemon\'s 403', async () => {
  const status = async (port: string, key: string | null = server.apiKey): Promise<number> => (await server.call('GET', `/sandboxes/${sandbox().sandboxId}/ports/${port}/`, { key })).status;
  assert.equal(await status('3000', null), 401);
  assert.equal(await status('3000', 'dcl_wrong'), 401);
  assert.equal(await status('3999'), 502);
  for (const port of ['0', '65536', 'http', '-1', '3000x', '1e3', '+80']) assert.equal(await status(port), 400, port);
  assert.equal(await status('49983'), 403);
  const refused = await server.call('GET', `/sandboxes/${sandbox().sandboxId}/ports/3999/`);
  assert.match(refused.json.message, /3999/);
  assert.equal((await server.call('GET', '/sandboxes/sbx-00000000/ports/3000/')).status, 404);
});

test('an answer that breaks off inside breaks off outside, and the server goes on', async () => {
  const message = await open(server.url, 'GET', `/sandboxes/${sandbox().sandboxId}/ports/3000/hang`, { key: server.apiKey });
  assert.equal(message.statusCode, 200);
  await assert.rejects(within(10_000, 'the broken answer', collect(message)), /aborted|ECONNRESET|terminated/);
  await eventually(async () => (await fetch(sandbox().getHost(3000), { headers: authorization() })).status === 200);
});

test('the same program is reached by host name, at the root, with the key or the token', async () => {
  const host = `3000-${sandbox().sandboxId.slice(4)}.sandbox.localhost:7070`;
  const { traffic_access_token: token } = (await server.call('GET', `/sandboxes/${sandbox().sandboxId}`)).json;
  const seen = await server.call('GET', '/a?b', { headers: { host } });
  assert.deepEqual([seen.json.url, seen.json.headers.host, seen.json.headers['x-forwarded-host']], ['/a?b', 'localhost:3000', host]);
  const byToken = await server.call('GET', '/a', { key: null, headers: { host, 'x-traffic-access-token': token } });
  assert.equal(byToken.json.url, '/a');
  assert.ok(!byToken.text.includes(token));
  assert.equal((await server.call('GET', '/a', { key: null, headers: { host } })).status, 401);
  const socket = new WebSocket(`${server.url.replace('http', 'ws')}/chat`, { headers: { host, 'x-traffic-access-token': token } });
  const [hello] = (await within(10_000, 'the first message', once(socket, 'message'))) as [Buffer];
  assert.equal(String(hello), 'hello /chat');
  socket.terminate();
});

test('ports that the owner closed to the outside answer 403', async () => {
  const closed = await Sandbox.create({ network: { allowOut: [], denyOut: [], allowPublicTraffic: false } });
  await closed.commands.run('sleep 60', { background: true });
  const answer = await server.call('GET', `/sandboxes/${closed.sandboxId}/ports/3000/`);
  assert.equal(answer.status, 403);
  assert.match(answer.json.message, /allow_public_traffic/);
  await closed.kill();
});

test('ports of a killed sandbox answer 410, also to a connection that is open', async () => {
  const short = await Sandbox.create({ template: 'python' });
  await short.files.write('/tmp/slow.py', 'import http.server, time\nclass H(http.server.BaseHTTPRequestHandler):\n  def do_GET(self):\n    self.send_response(200); self.end_headers(); self.wfile.write(b"x"); self.wfile.flush(); time.sleep(60)\nhttp.server.HTTPServer(("127.0.0.1", 8000), H).serve_forever()\n');
  await short.commands.run('python3 /tmp/slow.py', { background: true });
  const message = await eventually(async () => {
    const answer = await open(server.url, 'GET', `/sandboxes/${short.sandboxId}/ports/8000/`, { key: server.apiKey });
    return answer.statusCode === 200 && answer;
  });
  const reading = collect(message);
  const ended = assert.rejects(within(10_000, 'the open answer of a killed sandbox', reading), /aborted|ECONNRESET|terminated/);
  await short.kill({ wait: true });
  await ended;
  assert.equal((await server.call('GET', `/sandboxes/${short.sandboxId}/ports/8000/`)).status, 410);
});
