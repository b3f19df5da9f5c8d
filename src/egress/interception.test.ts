import assert from 'node:assert/strict';
import { after, before, beforeEach, test } from 'node:test';
import { realValue, SecretWorld, standIn } from './testing/secret-world.ts';

// What a sandbox with secrets may do works as if nothing were in between, over either version of HTTP, and the real value is where it belongs.

let world: SecretWorld;
const bearer = { Authorization: `Bearer ${standIn}` };

before(async () => {
  world = await SecretWorld.open();
});
after(() => world.close());
beforeEach(async () => {
  world.seen.length = 0;
  world.lab.control.inspections.length = 0;
  await world.admit([world.binding()]);
});

test('the stand-in becomes the real value on its way, and the answer has the stand-in again', async () => {
  const said = await world.fetch('https://api.example/v1/x?y=1', { headers: bearer });
  assert.equal(said.status, 200, said.error);
  assert.equal(world.seen[0]!.headers.authorization, `Bearer ${realValue}`);
  assert.equal(JSON.parse(said.body).headers.authorization, `Bearer ${standIn}`);
  const [event] = await world.lab.inspections((event) => event.path === '/v1/x');
  assert.deepEqual([event!.method, event!.host, event!.port, event!.status, event!.upstreamStatus, event!.verdict], ['GET', 'api.example', 443, 200, 200, 'allowed']);
  assert.deepEqual(event!.secrets, [{ bindingId: world.binding().id, outcome: 'injected', code: null, removedFromResponse: 1 }]);
});

test('the same over HTTP/2', async () => {
  const said = await world.fetch2('api.example', { ':path': '/two', authorization: `Bearer ${standIn}` });
  assert.equal(said.status, 200, said.error);
  assert.deepEqual([world.seen[0]!.version, world.seen[0]!.headers.authorization], ['2.0', `Bearer ${realValue}`]);
  assert.equal(JSON.parse(said.body!).headers.authorization, `Bearer ${standIn}`);
});

test('the guest sees a certificate of its own authority for the host, for a day', async () => {
  const seen = await world.guest.run<{ subject: string; issuer: string; hours: number; protocol: string }>(
    `return new Promise((resolve, reject) => { const s = tls.connect({ host: 'api.example', port: 443, servername: 'api.example', ca: args.ca, lookup }, () => { const c = s.getPeerCertificate(); resolve({ subject: c.subjectaltname, issuer: c.issuer.CN, hours: (Date.parse(c.valid_to) - Date.parse(c.valid_from)) / 3600000, protocol: s.getProtocol() }); s.destroy(); }); s.on('error', reject); })`,
    { ca: world.authority.certificate },
  );
  assert.deepEqual(seen, { subject: 'DNS:api.example', issuer: 'a sandbox', hours: 25, protocol: 'TLSv1.3' });
});

test('a version of TLS before 1.2 is not spoken', async () => {
  const outcome = await world.guest.run<string>(`return new Promise((resolve) => { const s = tls.connect({ host: 'api.example', port: 443, servername: 'api.example', ca: args.ca, lookup, minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'ALL:@SECLEVEL=0' }, () => resolve('connected')); s.on('error', (e) => resolve(e.code)); })`, { ca: world.authority.certificate });
  assert.match(outcome, /ERR_SSL|ECONNRESET/);
});

test('each place of a credential: basic, a header with a prefix, templates, a query; and what a rule sets besides', async () => {
  const extra = { extraHeaders: { 'X-Version': '2', 'x-drop': 'set' }, extraQuery: { v: 'ü' } };
  await world.admit([world.binding({}, { place: { kind: 'basic', username: null }, ...extra })]);
  await world.fetch('https://api.example/a?v=old', { headers: { authorization: `bAsIc ${Buffer.from(`me:${standIn}`).toString('base64')}`, 'X-Drop': 'guest' } });
  assert.equal(world.seen[0]!.headers.authorization, `Basic ${Buffer.from(`me:${realValue}`).toString('base64')}`);
  assert.deepEqual([world.seen[0]!.headers['x-version'], world.seen[0]!.headers['x-drop'], world.seen[0]!.url], ['2', 'set', '/a?v=%C3%BC']);
  await world.admit([world.binding({}, { place: { kind: 'basic', username: 'x-access-token' } })]);
  await world.fetch('https://api.example/b', { headers: { authorization: `Basic ${Buffer.from(`${standIn}:`).toString('base64')}` } });
  assert.equal(world.seen[1]!.headers.authorization, `Basic ${Buffer.from(`x-access-token:${realValue}`).toString('base64')}`);
  await world.admit([world.binding({}, { place: { kind: 'header', name: 'X-Api-Key', prefix: 'Key ' } })]);
  await world.fetch('https://api.example/c', { headers: { 'x-api-KEY': standIn } });
  assert.equal(world.seen[2]!.headers['x-api-key'], `Key ${realValue}`);
  await world.admit([world.binding({}, { place: { kind: 'headers', headers: { 'X-One': 'one {{ value }}', 'X-Two': '{{value}}' } } })]);
  await world.fetch('https://api.example/d', { headers: { 'X-Two': standIn } });
  assert.deepEqual([world.seen[3]!.headers['x-one'], world.seen[3]!.headers['x-two']], [`one ${realValue}`, realValue]);
  await world.admit([world.binding({}, { place: { kind: 'query', name: 'key' } })]);
  await world.fetch(`https://api.example/e?a=1&key=${standIn}&b=2`);
  assert.equal(new URL(world.seen[4]!.url, 'https://x').searchParams.get('key'), realValue);
});

test('a rule for every request puts the value in whatever the guest has there, and its marker is welcome elsewhere', async () => {
  await world.admit([world.binding({ standIn: 'declaw:vault-managed' }, { when: 'always' })]);
  const said = await world.fetch('https://api.example/x', { method: 'POST', body: 'declaw:vault-managed', headers: { Authorization: 'Bearer mine' } });
  assert.equal(said.status, 200);
  assert.deepEqual([world.seen[0]!.headers.authorization, world.seen[0]!.body], [`Bearer ${realValue}`, 'declaw:vault-managed']);
  assert.equal(JSON.parse(said.body).headers.authorization, 'Bearer declaw:vault-managed');
});

test('with rules for every request only, other hosts are not opened', async () => {
  await world.admit([world.binding({ standIn: 'declaw:vault-managed' }, { when: 'always' })]);
  const issuer = (host: string): Promise<string> => world.guest.run(`return new Promise((resolve, reject) => { const s = tls.connect({ host: args.host, port: 443, servername: args.host, rejectUnauthorized: false, lookup }, () => { resolve(s.getPeerCertificate().issuer.CN); s.destroy(); }); s.on('error', reject); })`, { host });
  assert.deepEqual([await issuer('api.example'), await issuer('other.example')], ['a sandbox', 'the internet of a test']);
});

test('bodies, trailers, methods, HEAD and answers without a body, over both versions', async () => {
  const body = 'x'.repeat(300_000);
  const put = await world.fetch('https://api.example/put', { method: 'PUT', body, headers: { ...bearer, 'Content-Length': body.length } });
  assert.equal(JSON.parse(put.body).body.length, body.length);
  const put2 = await world.fetch2('api.example', { ':method': 'PUT', ':path': '/put' }, { body });
  assert.equal(JSON.parse(put2.body!).body.length, body.length);
  assert.equal((await world.fetch('https://api.example/trailers')).trailers['x-sum'], '42');
  assert.equal((await world.fetch2('api.example', { ':path': '/trailers' })).trailers!['x-sum'], '42');
  assert.deepEqual([(await world.fetch('https://api.example/head', { method: 'HEAD' })).body, (await world.fetch2('api.example', { ':method': 'HEAD' })).body], ['', '']);
  for (const status of [204, 304, 404]) {
    assert.equal((await world.fetch(`https://api.example/status/${status}`)).status, status);
    assert.equal((await world.fetch2('api.example', { ':path': `/status/${status}` })).status, status);
  }
});

test('a small answer keeps its length, a packed one comes unpacked', async () => {
  const plain = await world.fetch('https://api.example/plain', { headers: bearer });
  assert.equal(Number(plain.headers['content-length']), plain.body.length);
  const packed = await world.fetch('https://api.example/gzip', { headers: { ...bearer, 'Accept-Encoding': 'gzip' } });
  assert.deepEqual([packed.headers['content-encoding'], packed.headers['etag']], [undefined, 'W/"strong"']);
  assert.equal(JSON.parse(packed.body).headers.authorization, `Bearer ${standIn}`);
});

test('100-continue', async () => {
  const said = await world.guest.run<string>(
    `return new Promise((resolve, reject) => { let asked = false; const r = https.request('https://api.example/c', { lookup, ca: args.ca, method: 'POST', headers: { Expect: '100-continue', 'Content-Length': 4 } }, (res) => { let b = ''; res.on('data', (d) => b += d).on('end', () => resolve(asked + ' ' + JSON.parse(b).body)); }); r.on('continue', () => { asked = true; r.end('body'); }); r.on('error', reject); r.flushHeaders(); })`,
    { ca: world.authority.certificate },
  );
  assert.equal(said, 'true body');
});

test('server-sent events arrive one by one', async () => {
  const times = await world.guest.run<number[]>(`return new Promise((resolve, reject) => https.get('https://api.example/events', { lookup, ca: args.ca }, (res) => { const at = []; res.on('data', () => at.push(performance.now())).on('end', () => resolve(at)); }).on('error', reject))`, { ca: world.authority.certificate });
  assert.equal(times.length, 3);
  assert.ok(times[2]! - times[0]! > 60, 'they were not gathered');
});

const webSocket = (headers: string): string => `GET /ws HTTP/1.1\r\nHost: api.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n${headers}\r\n`;
const frame = (text: string): string => String.fromCharCode(0x81, 0x80 + text.length, 0, 0, 0, 0) + text;

test('a WebSocket: the value is in its request, and bytes go both ways', async () => {
  const said = await world.converse('api.example', [webSocket(`Authorization: Bearer ${standIn}\r\n`) + frame('hi')], { ms: 600 });
  assert.match(said, /^HTTP\/1\.1 101 [^]*echo hi\|timeout$/);
  assert.equal(world.seen[0]!.headers.authorization, `Bearer ${realValue}`);
});

test('what is not HTTP goes through TLS that is opened, and is left alone where it names another protocol', async () => {
  world.lab.name('opaque.example', world.lab.host(20));
  const said = await world.converse('api.example', ['\u0001\u0002 no HTTP here \r\n'], { protocols: null, ms: 1000 });
  assert.match(said, /400 Bad Request|\|(end|ECONNRESET)/, 'the server of the test speaks only HTTP');
});

test('a change of the secret is in force for the next request on an open connection', async () => {
  const statuses = await world.guest.run<number[]>(
    `globalThis.agent = new https.Agent({ keepAlive: true, maxSockets: 1 }); globalThis.get = () => fetchText('https://api.example/', { agent, ca: args.ca, rejectUnauthorized: true, headers: args.headers }); return [(await get()).status, (await get()).status];`,
    { ca: world.authority.certificate, headers: bearer },
  );
  assert.deepEqual(statuses, [200, 200]);
  await world.admit([world.binding({ value: 'rotated-value-0001' })]);
  await world.guest.run(`return (await globalThis.get()).status`);
  assert.equal(world.seen.at(-1)!.headers.authorization, 'Bearer rotated-value-0001');
  await world.admit([world.binding({ value: null })]);
  const revoked = await world.guest.run<{ status: number; headers: Record<string, string> }>(`return await globalThis.get()`);
  assert.deepEqual([revoked.status, revoked.headers['x-superserve-proxy-error']], [503, 'credential_revoked']);
  assert.equal(world.seen.length, 3);
});

test('a rule that closes the host ends open connections, and later ones are refused', async () => {
  await world.guest.run(`globalThis.held = tls.connect({ host: 'api.example', port: 443, servername: 'api.example', ca: args.ca, lookup }); globalThis.held.on('error', () => {}); return new Promise((resolve) => globalThis.held.on('secureConnect', () => resolve(true)))`, { ca: world.authority.certificate });
  await world.admit([world.binding()], { deny: ['api.example'] });
  assert.equal(await world.guest.run(`await new Promise((resolve) => setTimeout(resolve, 200)); return globalThis.held.destroyed || globalThis.held.readableEnded`), true);
  assert.equal((await world.fetch('https://api.example/', { headers: bearer })).status, 0);
});

test('the log of connections has a row for each opened connection, with its bytes', async () => {
  world.lab.control.events.length = 0;
  await world.fetch('https://api.example/row', { headers: { ...bearer, Connection: 'close' } });
  const [event] = await world.lab.events((event) => event.host === 'api.example' && event.port === 443);
  assert.deepEqual([event?.verdict, event?.address], ['allowed', world.lab.host(10)]);
  assert.ok(event!.bytesSent > 300 && event!.bytesReceived > 500, `${event!.bytesSent} ${event!.bytesReceived}`);
});

test('a gigabyte streams through in bounded memory', async () => {
  const before = (await world.lab.control.request({ op: 'stats' }))['memoryBytes'] as number;
  let most = before;
  const timer = setInterval(() => void world.lab.control.request({ op: 'stats' }).then((stats) => (most = Math.max(most, stats['memoryBytes'] as number)), () => {}), 50);
  const { size, ms } = await world.guest.run<{ size: number; ms: number }>(`const started = performance.now(); return new Promise((resolve, reject) => https.get('https://api.example/download/1024', { lookup, ca: args.ca, headers: args.headers }, (res) => { let size = 0; res.on('data', (d) => size += d.length).on('end', () => resolve({ size, ms: performance.now() - started })).on('error', reject); }).on('error', reject))`, { ca: world.authority.certificate, headers: bearer });
  clearInterval(timer);
  assert.equal(size, 1 << 30);
  assert.ok(most - before < 100 << 20, `grew by ${(most - before) >> 20} MiB`);
  console.log(`${Math.round((1024 / ms) * 1000)} MB/s, memory +${(most - before) >> 20} MiB, ${most >> 20} MiB at most`);
});
