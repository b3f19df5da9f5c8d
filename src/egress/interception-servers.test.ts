import assert from 'node:assert/strict';
import { createServer as createTlsServer, type TLSSocket } from 'node:tls';
import { createSecureServer, type ServerHttp2Stream } from 'node:http2';
import { after, before, beforeEach, test } from 'node:test';
import { makeCertificate } from './testing/authority.ts';
import { realValue, SecretWorld, standIn } from './testing/secret-world.ts';

// Servers that are what their certificate says, and speak otherwise: what they send ends their own exchange and nothing else.

let world: SecretWorld;
let port = 10_000;
const bearer = { Authorization: `Bearer ${standIn}` };

before(async () => {
  world = await SecretWorld.open();
});
after(() => world.close());
beforeEach(() => world.admit([world.binding()]));

/** A server for `api.example` that says what it likes. @returns Its port. */
async function serve(say: (socket: TLSSocket) => void, protocols: string[] = ['http/1.1']): Promise<number> {
  const server = createTlsServer({ ...(await makeCertificate(world.internetAuthority, 'api.example')), ALPNProtocols: protocols }, (socket) => {
    socket.on('error', () => {});
    say(socket);
  });
  server.on('tlsClientError', () => {});
  await new Promise<void>((resolve) => server.listen(world.lab.listen(++port), resolve));
  world.lab.keep(server);
  return port;
}

const always = (answer: string) => (socket: TLSSocket) => void socket.on('data', () => socket.write(Buffer.from(answer, 'latin1')));

async function assertAlive(): Promise<void> {
  assert.equal((await world.fetch('https://api.example/', { headers: bearer })).status, 200);
  assert.equal(world.lab.proxyErrors, '');
}

const broken: [string, string][] = [
  ['a status that is none', 'HTTP/1.1 099 Odd\r\nContent-Length: 0\r\n\r\n'],
  ['two lengths', 'HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab'],
  ['a length and chunks', 'HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n'],
  ['endless headers', `HTTP/1.1 200 OK\r\n${Array.from({ length: 3000 }, (_, i) => `X-${i}: ${'y'.repeat(40)}\r\n`).join('')}\r\n`],
  ['a protocol that nobody asked for', 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n'],
  ['a coding of its transfer', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n1\r\na\r\n0\r\n\r\n'],
  ['no HTTP', 'hello\r\n'],
];
for (const [what, answer] of broken) {
  test(`${what}: 502 in words, over both versions`, async () => {
    const at = await serve(always(answer));
    const said = await world.fetch(`https://api.example:${at}/`, { headers: bearer });
    assert.equal(said.status, 502, `${said.status} ${said.error}`);
    assert.match(String(said.headers['x-paddock-error']), /^upstream_/);
    assert.equal((await world.fetch2(`api.example:${at}`, { authorization: `Bearer ${standIn}` })).status, 502);
    await assertAlive();
  });
}

test('trailers that cannot be sent on do not end the process', async () => {
  const at = await serve(always('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nContent-Type: a\r\nContent-Type: b\r\nETag: x\r\nETag: y\r\n\r\n'));
  await world.fetch(`https://api.example:${at}/`, { headers: bearer });
  const said = await world.fetch2(`api.example:${at}`, {});
  assert.ok(said.error !== undefined || said.status === 200);
  await assertAlive();
});

test('headers that HTTP/2 is strict about do not end the process, nor the answer', async () => {
  const at = await serve(always('HTTP/1.1 200 OK\r\nContent-Type: a\r\nContent-Type: b\r\nContent-Length: 1\r\nX-Odd: \u00ff\r\n\r\na'));
  assert.equal((await world.fetch(`https://api.example:${at}/`)).status, 200);
  const said = await world.fetch2(`api.example:${at}`, {});
  assert.deepEqual([said.status, said.body], [200, 'a']);
  await assertAlive();
});

test('a server that breaks off in the middle of an answer: the guest is told that it is not whole', async () => {
  const at = await serve((socket) => void socket.once('data', () => socket.write('HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\nxyz!', () => setTimeout(() => socket.destroy(), 50))));
  assert.match(await world.converse('api.example', `GET / HTTP/1.1\r\nHost: api.example:${at}\r\n\r\n`, { port: at }), /xyz!\r\n\|(ECONNRESET|end)$/);
  const [event] = await world.lab.inspections((event) => event.errorCode === 'upstream_broke_off');
  assert.equal(event?.verdict, 'failed');
  await assertAlive();
});

test('an answer without an end goes on as long as somebody reads it', async () => {
  let open = 0;
  const at = await serve((socket) => {
    open++;
    socket.on('close', () => open--);
    socket.once('data', () => {
      socket.write('HTTP/1.1 200 OK\r\n\r\n');
      const more = (): void => void (socket.destroyed || socket.write(Buffer.alloc(65_536)) ? setImmediate(more) : socket.once('drain', more));
      const endless = (): void => (socket.destroyed ? undefined : more());
      endless();
    });
  });
  const before = (await world.lab.control.request({ op: 'stats' }))['memoryBytes'] as number;
  await world.guest.run(`return new Promise((resolve) => { const r = https.get('https://api.example:' + args.at, { lookup, ca: args.ca, headers: args.headers }, (res) => { res.on('error', () => {}); res.pause(); setTimeout(() => { r.destroy(); resolve(); }, 700); }); r.on('error', () => {}); })`, { at, ca: world.authority.certificate, headers: bearer });
  const grown = ((await world.lab.control.request({ op: 'stats' }))['memoryBytes'] as number) - before;
  assert.ok(grown < 100 << 20, `grew by ${grown >> 20} MiB for a slow reader`);
  for (let i = 0; open > 0 && i < 100; i++) await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(open, 0, 'the server is still asked');
});

test('a server that answers without reading the body, and one that answers before it', async () => {
  const at = await serve((socket) => void socket.once('data', () => socket.end('HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig')));
  for (let i = 0; i < 3; i++) {
    const said = await world.fetch(`https://api.example:${at}/`, { method: 'POST', body: 'x'.repeat(3 << 20) });
    assert.ok([413, 502, 0].includes(said.status), `${said.status}`);
  }
  await assertAlive();
});

test('a guest that leaves a request half sent, after an early answer, leaves no connection to the server behind', async () => {
  let open = 0;
  const at = await serve((socket) => {
    open++;
    socket.on('close', () => open--);
    socket.once('data', () => socket.write('HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno'));
  });
  const said = await world.converse('api.example', `POST / HTTP/1.1\r\nHost: api.example:${at}\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n\r\n`, { port: at, ms: 500 });
  assert.match(said, /^HTTP\/1\.1 401/);
  for (let i = 0; open > 0 && i < 150; i++) await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(open, 0);
});

test('an upgrade with a body, and one that is declined', async () => {
  const head = 'GET /up HTTP/1.1\r\nHost: api.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 99\r\nSec-WebSocket-Key: x\r\n';
  world.seen.length = 0;
  assert.match(await world.converse('api.example', `${head}Content-Length: 60\r\nAuthorization: Bearer ${standIn}\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: api.example\r\n\r\n`, { ms: 500 }), /^HTTP\/1\.1 400[^]*ambiguous_request/);
  assert.match(await world.converse('api.example', `${head}Authorization: Bearer ${standIn}\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: api.example\r\n\r\n`, { ms: 500 }), /^HTTP\/1\.1 4\d\d/);
  assert.ok(!JSON.stringify(world.seen).includes('smuggled'));
  const packed = await serve((socket) => void socket.once('data', (bytes: Buffer) => socket.end(`HTTP/1.1 200 OK\r\nX-Echo: ${/Authorization: (.*)\r\n/i.exec(bytes.toString())?.[1]}\r\n\r\n${bytes.toString()}`)));
  const said = await world.converse('api.example', `${head.replace('api.example', `api.example:${packed}`)}Authorization: Bearer ${standIn}\r\n\r\n`, { port: packed, ms: 500 });
  assert.ok(!said.includes(realValue), said);
  assert.match(said, new RegExp(`X-Echo: Bearer ${standIn}`));
});

test('a body over HTTP/2 that is shorter than it says is no whole request to a server of HTTP/1', async () => {
  let bytes = '';
  const at = await serve((socket) => void socket.on('data', (data: Buffer) => (bytes += data.toString())));
  const said = await world.fetch2(`api.example:${at}`, { ':method': 'POST', 'content-length': '50' }, { body: 'short' });
  assert.ok(said.error !== undefined || said.status === 400, JSON.stringify(said));
  assert.doesNotMatch(bytes, /short[^]+HTTP/);
  await assertAlive();
});

test('a server of HTTP/2 that says goodbye: the next request goes over another connection', async () => {
  let sessions = 0;
  const server = createSecureServer(await makeCertificate(world.internetAuthority, 'api.example'));
  server.on('session', (session) => {
    sessions++;
    session.on('error', () => {});
  });
  server.on('stream', ((stream: ServerHttp2Stream) => {
    stream.on('error', () => {});
    stream.respond({ ':status': 200 });
    stream.end('hello', () => stream.session?.goaway(0));
  }) as never);
  await new Promise<void>((resolve) => server.listen(world.lab.listen(++port), resolve));
  world.lab.keep(server);
  for (let i = 0; i < 3; i++) assert.equal((await world.fetch2(`api.example:${port}`, {})).body, 'hello');
  assert.ok(sessions >= 2, `${sessions} sessions`);
});

test('a client that does not say what it speaks: HTTP, another protocol, and a server that speaks first', async () => {
  assert.match(await world.converse('api.example', 'GET / HTTP/1.1\r\nHost: api.example\r\nConnection: close\r\n\r\n', { protocols: null }), /^HTTP\/1\.1 200/);
  const echo = await serve((socket) => void socket.on('data', (data: Buffer) => socket.write(`echo ${data}`)));
  assert.match(await world.converse('api.example', '\u0001\u0002no HTTP', { port: echo, protocols: null, ms: 800 }), /^echo ..no HTTP\|/);
  const first = await serve((socket) => {
    socket.write('220 welcome\r\n');
    socket.on('data', (data: Buffer) => socket.end(`got ${data}`));
  });
  assert.match(await world.converse('api.example', [], { port: first, protocols: null, ms: 1200 }), /^220 welcome\r\n\|/);
});

test('guests that break off anywhere: in the handshake, in a head, in a body, in an answer', async () => {
  const outcome = await world.guest.run<number>(
    `let done = 0; await Promise.all(Array.from({ length: 120 }, (_, i) => new Promise((resolve) => {
      const s = tls.connect({ host: 'api.example', port: 443, servername: 'api.example', ca: args.ca, lookup, ALPNProtocols: [i % 2 ? 'h2' : 'http/1.1'] }, () => { s.write(i % 2 ? 'PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n' + '\\0'.repeat(i) : ('POST /download/50 HTTP/1.1\\r\\nHost: api.example\\r\\nContent-Length: 100\\r\\nAuthorization: ' + args.auth + '\\r\\n\\r\\n' + 'x'.repeat(100)).slice(0, i * 4)); });
      s.on('error', () => {}); setTimeout(() => { s.destroy(); done++; resolve(); }, 5 + i); }))); return done;`,
    { ca: world.authority.certificate, auth: bearer.Authorization },
  );
  assert.equal(outcome, 120);
  await assertAlive();
  for (let i = 0; i < 100; i++) {
    if (((await world.lab.control.request({ op: 'stats' }))['connections'] as number) < 5) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  assert.fail('connections are left behind');
});

test('a server that takes its time, before the answer and within it', async () => {
  const at = await serve((socket) => void socket.once('data', () => setTimeout(() => socket.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n', () => setTimeout(() => socket.write('3\r\ntwo\r\n0\r\n\r\n'), 5000)), 5000)));
  const said = await world.fetch(`https://api.example:${at}/`, { headers: bearer });
  assert.deepEqual([said.status, said.body], [200, 'onetwo'], said.error);
});

test('messages go both ways at the same time over HTTP/2, as calls of gRPC do', async () => {
  const server = createSecureServer(await makeCertificate(world.internetAuthority, 'api.example'));
  server.on('stream', ((stream: ServerHttp2Stream) => {
    stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
    stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
    stream.on('data', (data: Buffer) => stream.write(`<${data}>`)).on('end', () => stream.end());
  }) as never);
  await new Promise<void>((resolve) => server.listen(world.lab.listen(++port), resolve));
  world.lab.keep(server);
  const said = await world.guest.run<{ got: string[]; status: string }>(
    `return new Promise((resolve, reject) => { const session = http2.connect('https://api.example:' + args.port, { ca: args.ca, lookup }); session.on('error', reject); const s = session.request({ ':method': 'POST', 'content-type': 'application/grpc', te: 'trailers', authorization: args.auth }); const got = []; let status;
      s.on('trailers', (t) => status = t['grpc-status']).on('data', (d) => { got.push(String(d)); if (got.length < 3) s.write('m' + got.length); else s.end(); }).on('end', () => { session.close(); resolve({ got, status }); }).on('error', reject); s.write('m0'); })`,
    { port, ca: world.authority.certificate, auth: bearer.Authorization },
  );
  assert.deepEqual(said, { got: ['<m0>', '<m1>', '<m2>'], status: '0' });
});

test('a proxy that was killed puts secrets in again as soon as it has its table', async () => {
  world.lab.proxy.kill('SIGKILL');
  await new Promise((resolve) => world.lab.proxy.once('exit', resolve));
  await world.lab.startProxy();
  await world.lab.control.request({ op: 'table', entries: [{ ...world.lab.entry(world.guest, {}), inspection: { authority: world.authority, secrets: [world.binding()], guardrails: null, unscanned: 'refuse' } }] });
  world.seen.length = 0;
  assert.equal((await world.fetch('https://api.example/', { headers: bearer })).status, 200);
  assert.equal(world.seen[0]!.headers.authorization, `Bearer ${realValue}`);
});
