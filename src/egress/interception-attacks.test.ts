import assert from 'node:assert/strict';
import { createServer as createTlsServer } from 'node:tls';
import { after, before, beforeEach, test } from 'node:test';
import { makeAuthority, makeCertificate } from './testing/authority.ts';
import { realValue, SecretWorld, standIn } from './testing/secret-world.ts';

// What a sandbox tries that wants a secret itself, or wants it sent where it does not belong.

let world: SecretWorld;
const bearer = { Authorization: `Bearer ${standIn}` };
const secondStandIn = 'xoxb-second-0123456789abcdefghijABCDEFGHIJ';
const second = { id: '22222222-2222-4222-8222-222222222222', secretName: 'OTHER_KEY', standIn: secondStandIn, value: 'second-real-value-4711' };

before(async () => {
  world = await SecretWorld.open();
});
after(() => world.close());
beforeEach(async () => {
  world.seen.length = 0;
  world.lab.control.inspections.length = 0;
  await world.admit([world.binding(), world.binding(second, { hosts: [{ kind: 'name', text: 'other.example', name: 'other.example' }] })]);
});

/** What was refused and why, as the guest and the log have it; and that nothing arrived. */
async function refused(said: { status?: number; headers?: Record<string, unknown>; body?: string; error?: string }, status: number, code: string): Promise<void> {
  assert.deepEqual([said.status, said.headers?.['x-paddock-error'], said.headers?.['x-superserve-proxy-error']], [status, code, code], JSON.stringify(said));
  assert.ok(String(said.headers?.['x-superserve-proxy-reason']).length > 20);
  assert.equal(JSON.parse(said.body ?? '').error, code);
  const [event] = await world.lab.inspections((event) => event.errorCode === code);
  assert.equal(event?.status, status);
  assert.ok(!JSON.stringify(world.lab.control.inspections).includes(standIn) && !JSON.stringify(world.lab.control.inspections).includes(realValue), 'the log has a secret');
}

function nothingReal(text: string): void {
  for (const form of [realValue, encodeURIComponent(realValue), Buffer.from(realValue).toString('hex'), Buffer.from(`user:${realValue}`).toString('base64')]) assert.ok(!text.includes(form), `${form} came back`);
}

test('a stand-in sent to another allowed host is refused there, over both versions', async () => {
  await refused(await world.fetch('https://other.example/', { headers: bearer }), 403, 'credential_host_mismatch');
  await refused(await world.fetch2('other.example', { authorization: `Bearer ${standIn}` }), 403, 'credential_host_mismatch');
  await refused(await world.fetch('https://sub.api.example/', { headers: bearer }), 403, 'credential_host_mismatch');
  assert.equal(world.seen.length, 0);
});

test('a one-level pattern is for one level', async () => {
  await world.admit([world.binding({}, { hosts: [{ kind: 'one-level', text: '*.api.example', suffix: 'api.example' }] })]);
  assert.equal((await world.fetch('https://sub.api.example/', { headers: bearer })).status, 200);
  for (const host of ['api.example', 'deep.sub.api.example']) assert.equal((await world.fetch(`https://${host}/`, { headers: bearer })).status, 403);
});

const misplaced: [string, string, object][] = [
  ['in the query', `/?token=${standIn}`, {}],
  ['in the path', `/x/${standIn}/y`, {}],
  ['percent-encoded in the path', `/${[...standIn].map((char) => `%${char.charCodeAt(0).toString(16)}`).join('')}`, {}],
  ['percent-encoded twice', `/${[...standIn].map((char) => `%25${char.charCodeAt(0).toString(16)}`).join('')}`, {}],
  ['partly encoded', `/?q=${standIn.replaceAll('s', '%73').replace('t', '%74')}`, {}],
  ['in another header', '/', { headers: { 'X-Other': standIn } }],
  ['in a cookie', '/', { headers: { Cookie: `a=b; t=${standIn}` } }],
  ['in base64 in another header', '/', { headers: { 'X-Other': Buffer.from(`ab${standIn}`).toString('base64') } }],
  ['as Basic where Bearer is meant', '/', { headers: { Authorization: `Basic ${Buffer.from(`u:${standIn}`).toString('base64')}` } }],
  ['with more behind it', '/', { headers: { Authorization: `Bearer ${standIn} and more` } }],
  ['in the name of a header', '/', { headers: { [standIn]: 'x' } }],
  ['in the body', '/', { method: 'POST', body: `{"key":"${standIn}"}` }],
  ['in the body, escaped for JSON', '/', { method: 'POST', body: `{"key":"${[...standIn].map((char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`).join('')}"}` }],
  ['in the body, partly escaped', '/', { method: 'POST', body: `{"key":"${standIn.replace('k', '\\u006b').replaceAll('a', '%61')}"}` }],
  ['in the body, in base64', '/', { method: 'POST', body: Buffer.from(`some ${standIn} text`).toString('base64') }],
  ['in the body, percent-encoded', '/', { method: 'POST', body: `key=${[...standIn].map((char) => `%${char.charCodeAt(0).toString(16)}`).join('')}` }],
];
for (const [where, path, options] of misplaced) {
  test(`a stand-in ${where} is refused`, async () => {
    const said = await world.fetch(`https://api.example${path}`, options);
    await refused(said, 403, 'credential_misplaced');
    assert.ok(!JSON.stringify(world.seen).includes(realValue));
  });
}

test('a stand-in in a body, cut into pieces of a byte, is refused over both versions', async () => {
  const pieces = `return new Promise((resolve) => { const r = https.request('https://api.example/', { lookup, ca: args.ca, method: 'POST', headers: args.headers }, (res) => { res.resume(); resolve(res.statusCode); }); r.on('error', (e) => resolve(e.code)); (async () => { for (const c of 'before ' + args.text + ' after'.repeat(50)) { r.write(c); await new Promise((done) => setTimeout(done, 1)); } r.end(); })(); })`;
  assert.equal(await world.guest.run(pieces, { ca: world.authority.certificate, headers: bearer, text: standIn }), 403);
  assert.equal(world.seen.length, 0, 'the server saw an end of the request');
  const two = await world.fetch2('api.example', { ':method': 'POST' }, { body: `${'x'.repeat(70_000)}${standIn}` });
  assert.equal(two.status, 403, two.error);
});

test('a secret of a sandbox is nothing in another one', async () => {
  await world.admit([], {}, world.other);
  const said = await world.fetch('https://api.example/', { headers: bearer, rejectUnauthorized: false }, world.other);
  assert.equal(said.status, 200, said.error);
  assert.equal(world.seen[0]!.headers.authorization, `Bearer ${standIn}`);
  await world.admit([world.binding(second)], {}, world.other);
  await world.fetch('https://api.example/', { headers: bearer }, world.other);
  assert.ok(!JSON.stringify(world.seen).includes(realValue));
});

for (const how of ['plain', 'gzip', 'deflate', 'raw-deflate', 'br', 'zstd', 'pieces']) {
  test(`a server that echoes the value: ${how}`, async () => {
    for (const said of [await world.fetch(`https://api.example/${how}`, { headers: { ...bearer, 'Accept-Encoding': 'gzip, deflate, br, zstd' } }), await world.fetch2('api.example', { ':path': `/${how}`, authorization: `Bearer ${standIn}` })]) {
      assert.equal(said.status, 200, said.error);
      assert.match(said.body!, new RegExp(`Bearer ${standIn}`));
      nothingReal(JSON.stringify(said));
    }
    assert.ok((await world.lab.inspections((event) => event.secrets.some((use) => use.removedFromResponse > 0))).length > 0);
  });
}

for (const how of ['base64', 'url', 'json', 'hex', 'unicode']) {
  test(`a server that echoes the value spelled as ${how}, in a header and in the body`, async () => {
    const said = await world.fetch(`https://api.example/spell/${how}`, { headers: bearer });
    assert.match(said.body, /redacted/);
    assert.match(String(said.headers['x-spelled']), /redacted/);
    nothingReal(JSON.stringify(said));
  });
}

test('a server that echoes the value in trailers', async () => {
  assert.equal((await world.fetch('https://api.example/trailers', { headers: bearer })).trailers['x-seen'], `Bearer ${standIn}`);
  assert.equal((await world.fetch2('api.example', { ':path': '/trailers', authorization: `Bearer ${standIn}` })).trailers!['x-seen'], `Bearer ${standIn}`);
});

test('a value that comes back later, to a request without the stand-in, is taken out as well', async () => {
  assert.ok(!(await world.fetch('https://api.example/plain', { headers: { 'X-Ask': realValue } })).body.includes(realValue));
});

test('half a value at a time: pieces of an answer are not asked for', async () => {
  await world.fetch('https://api.example/plain', { headers: { ...bearer, Range: 'bytes=0-9', 'If-Range': '"x"' } });
  assert.deepEqual([world.seen[0]!.headers['range'], world.seen[0]!.headers['if-range']], [undefined, undefined]);
});

test('an answer in a coding that nobody here can undo is not asked for', async () => {
  await world.fetch('https://api.example/plain', { headers: { ...bearer, 'Accept-Encoding': 'exotic, gzip;q=0.5, dcb' } });
  assert.equal(String(world.seen[0]!.headers['accept-encoding']).trim(), 'gzip;q=0.5');
});

const webSocket = `GET /ws HTTP/1.1\r\nHost: api.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Extensions: permessage-deflate\r\nAuthorization: Bearer ${standIn}\r\n\r\n`;

test('a WebSocket that sends the value back ends before it arrives', async () => {
  const said = await world.converse('api.example', [webSocket, `${String.fromCharCode(0x81, 0x84, 0, 0, 0, 0)}leak`], { ms: 1500 });
  assert.match(said, /^HTTP\/1\.1 101/);
  nothingReal(said);
  assert.doesNotMatch(said, /timeout$/, 'it goes on');
});

test('plain HTTP: a stand-in is never replaced, and refused', async () => {
  await refused(await world.fetch('http://api.example/', { headers: bearer }), 403, 'plain_http');
  await refused(await world.fetch('http://other.example/', { headers: bearer }), 403, 'credential_host_mismatch');
  await world.admit([world.binding({ standIn: 'declaw:vault-managed' }, { when: 'always' })]);
  await refused(await world.fetch('http://api.example/', { headers: { Authorization: 'Bearer declaw:vault-managed' } }), 403, 'plain_http');
  assert.equal((await world.fetch('http://api.example/')).status, 200);
  assert.ok(!JSON.stringify(world.seen).includes(realValue));
});

const head = (lines: string, host = 'api.example'): string => `GET / HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n${lines}\r\n`;

test('the header twice, in odd case, or named away: the value goes out once, or not at all', async () => {
  assert.match(await world.converse('api.example', head(`Authorization: Bearer ${standIn}\r\nauthorization: Bearer mine\r\n`)), /^HTTP\/1\.1 403/);
  assert.match(await world.converse('api.example', head(`aUTHORIZATION: bEARER ${standIn}\r\n`)), /^HTTP\/1\.1 200/);
  assert.equal(world.seen.at(-1)!.headers.authorization, `Bearer ${realValue}`);
  await world.converse('api.example', `GET /named HTTP/1.1\r\nHost: api.example\r\nConnection: close, authorization\r\nAuthorization: Bearer ${standIn}\r\n\r\n`);
  assert.equal(world.seen.at(-1)!.headers.authorization, undefined);
  await world.admit([world.binding({ standIn: 'declaw:vault-managed' }, { when: 'always' })]);
  await world.converse('api.example', `GET /always HTTP/1.1\r\nHost: api.example\r\nConnection: close, authorization\r\nAuthorization: Bearer a\r\nAUTHORIZATION: Bearer b\r\n\r\n`);
  assert.equal(world.seen.at(-1)!.headers.authorization, `Bearer ${realValue}`);
});

test('a value with a line break is refused as a whole, and the sandbox reaches nothing', async () => {
  for (const value of ['a\r\nX-Evil: 1', 'a\nb', 'a\u0000b']) {
    await assert.rejects(world.admit([world.binding({ value })]), (error: Error) => /cannot stand in a header/.test(error.message) && !error.message.includes('Evil'));
    assert.equal((await world.guest.attempt(world.lab.host(10), 443)).outcome, 'ECONNREFUSED');
  }
});

test('a secret taken away while a connection is open: the next request is refused', async () => {
  const first = await world.guest.run<number>(`globalThis.session = http2.connect('https://api.example', { ca: args.ca, lookup }); globalThis.ask = () => new Promise((resolve) => { const s = session.request({ ':path': '/', authorization: args.auth }); s.on('response', (h) => { resolve(h[':status']); s.resume(); }).on('error', (e) => resolve(e.code)); }); return ask()`, { ca: world.authority.certificate, auth: bearer.Authorization });
  assert.equal(first, 200);
  await world.admit([world.binding({ value: null })]);
  assert.equal(await world.guest.run(`return globalThis.ask()`), 503);
  await world.lab.admit(world.guest, {});
  await world.guest.run(`return globalThis.ask()`);
  assert.ok(world.seen.slice(1).every((seen) => !JSON.stringify(seen).includes(realValue)));
});

test('an allowed server name with another Host, at once, in the second request, and over HTTP/2', async () => {
  assert.match(await world.converse('api.example', head(`Authorization: Bearer ${standIn}\r\n`, 'other.example')), /^HTTP\/1\.1 421/);
  assert.match(await world.converse('api.example', head('', 'api.example:8443')), /^HTTP\/1\.1 421/);
  const both = await world.converse('api.example', [`GET /one HTTP/1.1\r\nHost: api.example\r\n\r\n`, head('', 'other.example')]);
  assert.match(both, /^HTTP\/1\.1 200[^]*HTTP\/1\.1 421/);
  assert.match(await world.converse('api.example', 'GET https://other.example/ HTTP/1.1\r\nHost: api.example\r\nConnection: close\r\n\r\n'), /^HTTP\/1\.1 400/);
  const misdirected = await world.fetch2('api.example', { ':authority': 'other.example', authorization: `Bearer ${secondStandIn}` });
  await refused(misdirected, 421, 'host_mismatch');
  assert.equal((await world.fetch2('api.example', { ':authority': 'api.example', host: 'other.example' })).status, 400);
  assert.deepEqual(world.seen.map((seen) => seen.url), ['/one']);
});

test('a server name other than the name that was resolved is refused', async () => {
  const outcome = await world.guest.run<string>(`return new Promise((resolve) => { const s = tls.connect({ host: 'other.example', port: 443, servername: 'api.example', ca: args.ca, lookup }, () => resolve('connected')); s.on('error', (e) => resolve(e.code)); })`, { ca: world.authority.certificate });
  assert.equal(outcome, 'ECONNRESET');
});

test('servers that are not who they should be: expired, of an unknown authority, for another name', async () => {
  const stranger = await makeAuthority('nobody');
  const bad = { expired: await makeCertificate(world.internetAuthority, 'api.example', { expired: true }), stranger: await makeCertificate(stranger, 'api.example'), name: await makeCertificate(world.internetAuthority, 'elsewhere.example') };
  let port = 9443;
  for (const [what, options] of Object.entries(bad)) {
    let asked = '';
    const server = createTlsServer(options, (socket) => socket.on('data', (data) => (asked += data)).on('error', () => {}));
    server.on('tlsClientError', () => {});
    await new Promise<void>((resolve) => server.listen(world.lab.listen(++port), resolve));
    world.lab.keep(server);
    const said = await world.fetch(`https://api.example:${port}/`, { headers: bearer });
    assert.deepEqual([said.status, said.headers['x-paddock-error']], [502, 'upstream_certificate'], what);
    assert.equal(asked, '', `${what}: the server was told something`);
  }
});

test("an edited hosts file: the secret's name at an attacker's address gets the real host, or a server that cannot show its certificate", async () => {
  const evil = await makeAuthority('evil');
  let heard = '';
  const server = createTlsServer(await makeCertificate(evil, 'api.example'), (socket) => void socket.on('data', (data) => (heard += data)).on('error', () => {}));
  server.on('tlsClientError', () => {});
  await new Promise<void>((resolve) => server.listen(world.lab.listen(9500), resolve));
  world.lab.keep(server);
  const ask = (port: number): Promise<string> =>
    world.guest.run(
      `return new Promise((resolve) => { const s = tls.connect({ host: args.host, port: args.port, servername: 'api.example', ca: args.ca }, () => s.write('GET /hosts HTTP/1.1\\r\\nHost: api.example' + (args.port === 443 ? '' : ':' + args.port) + '\\r\\nConnection: close\\r\\nAuthorization: ' + args.auth + '\\r\\n\\r\\n')); let got = ''; s.on('data', (d) => got += d).on('end', () => resolve(got)).on('error', (e) => resolve(e.code)); })`,
      { host: world.lab.host(14), port, ca: world.authority.certificate, auth: bearer.Authorization },
    );
  // Without rules the name is resolved anew.
  assert.match(await ask(443), /^HTTP\/1\.1 200/);
  assert.equal(world.seen.at(-1)!.headers.authorization, `Bearer ${realValue}`);
  // Where addresses are allowed as addresses, the guest's choice is dialled, and has to prove its name.
  await world.admit([world.binding()], { allow: ['0.0.0.0/0'] });
  assert.match(await ask(9500), /^HTTP\/1\.1 502[^]*upstream_certificate/);
  assert.equal(heard, '');
  await refused(await world.fetch(`http://${world.lab.host(14)}/`, { headers: { ...bearer, Host: 'api.example' } }), 403, 'plain_http');
});

test('a server out of reach is an answer in words', async () => {
  world.lab.name('api.example', world.lab.host(200));
  world.lab.name('nowhere.example');
  await refused(await world.fetch('https://api.example:8444/', { headers: bearer }).finally(() => world.lab.name('api.example', world.lab.host(10))), 502, 'upstream_unreachable');
});

test('HTTP/2 without TLS and unknown upgrades are not taken for HTTP/1', async () => {
  assert.doesNotMatch(await world.converse('api.example', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), /200/);
  const upgraded = await world.converse('api.example', 'GET /up HTTP/1.1\r\nHost: api.example\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n');
  assert.doesNotMatch(upgraded, /101/);
  assert.ok(world.seen.every((seen) => seen.headers.upgrade === undefined && seen.headers['http2-settings'] === undefined));
  assert.match(await world.converse('api.example', 'CONNECT other.example:443 HTTP/1.1\r\nHost: other.example:443\r\n\r\n'), /^HTTP\/1\.1 405/);
});

test('paths: what is judged is what is sent, and what could be read in two ways is refused', async () => {
  await world.admit([world.binding({}, { paths: ['/v1/public'], methods: ['GET'] })]);
  for (const path of ['/v1/public/../private', '/v1/public/%2e%2e/private', '/v1/public/.%2E/private', '/v1/publicity', '/v1/private', '/v1/public/../../v1/private']) {
    const said = await world.converse('api.example', `GET ${path} HTTP/1.1\r\nHost: api.example\r\nConnection: close\r\nAuthorization: Bearer ${standIn}\r\n\r\n`);
    assert.match(said, /^HTTP\/1\.1 403[^]*credential_scope_mismatch/, path);
  }
  for (const path of ['/v1/public//x', '/v1/public\\..\\private', '/v1/public/..;/private', '/v1/public/%2f..%2fprivate', '/v1/public/%5c..', '/v1/public/%252e%252e/private', '/v1/public/%zz']) {
    const said = await world.converse('api.example', `GET ${path} HTTP/1.1\r\nHost: api.example\r\nConnection: close\r\nAuthorization: Bearer ${standIn}\r\n\r\n`);
    assert.match(said, /^HTTP\/1\.1 400[^]*(ambiguous_path|)/, path);
  }
  assert.equal(world.seen.length, 0);
  assert.match(await world.converse('api.example', `POST /v1/public HTTP/1.1\r\nHost: api.example\r\nConnection: close\r\nContent-Length: 0\r\nAuthorization: Bearer ${standIn}\r\n\r\n`), /^HTTP\/1\.1 403/);
  assert.match(await world.converse('api.example', `GET /v1/./x/../public/%7Eme?q=1 HTTP/1.1\r\nHost: api.example\r\nConnection: close\r\nAuthorization: Bearer ${standIn}\r\n\r\n`), /^HTTP\/1\.1 200/);
  assert.equal(world.seen[0]!.url, '/v1/public/~me?q=1');
});

test('bombs: an answer that unpacks to too much is cut off', async () => {
  for (const how of ['br', 'gzip']) {
    const said = await world.guest.run<{ size: number; outcome: string }>(
      `return new Promise((resolve) => { https.get('https://api.example/bomb/' + args.how, { lookup, ca: args.ca, headers: args.headers }, (res) => { let size = 0; res.on('data', (d) => size += d.length).on('end', () => resolve({ size, outcome: 'end' })).on('error', (e) => resolve({ size, outcome: e.code })); }).on('error', (e) => resolve({ size: 0, outcome: e.code })); })`,
      { ca: world.authority.certificate, headers: bearer, how },
    );
    assert.equal(said.outcome, 'ECONNRESET', `${how}: ${said.size} bytes`);
    assert.ok(said.size <= 66 << 20);
  }
});

test('endless heads and slow ones end', async () => {
  const endless = `GET / HTTP/1.1\r\nHost: api.example\r\n${Array.from({ length: 3000 }, (_, i) => `X-${i}: ${'y'.repeat(40)}\r\n`).join('')}`;
  assert.match(await world.converse('api.example', endless), /^HTTP\/1\.1 431/);
  assert.equal(world.seen.length, 0);
});

test('a secret is used at a port and host of its own: another port of the host is opened too, and the request must name it', async () => {
  assert.equal((await world.fetch('https://api.example:8443/', { headers: bearer })).status, 200);
  assert.equal(world.seen[0]!.headers.authorization, `Bearer ${realValue}`);
});

test('a client that offers a protocol that is not HTTP gets the server itself, without any value', async () => {
  const { issuer, got } = await world.guest.run<{ issuer: string; got: string }>(
    `return new Promise((resolve) => { const s = tls.connect({ host: 'api.example', port: 443, servername: 'api.example', rejectUnauthorized: false, lookup, ALPNProtocols: ['imap'] }, () => { resolve({ issuer: s.getPeerCertificate().issuer.CN, got: '' }); s.destroy(); }); s.on('error', (e) => resolve({ issuer: '', got: e.code })); })`,
  );
  assert.ok(issuer === 'the internet of a test' || got !== '', `${issuer} ${got}`);
});

test('what is in the memory of the proxy stays there: no core dumps, nothing in its words', async () => {
  const { readFileSync } = await import('node:fs');
  assert.match(readFileSync(`/proc/${world.lab.proxy.pid}/limits`, 'utf8'), /Max core file size\s+0\s+0/);
  assert.equal(world.lab.proxyErrors, '');
});
