import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer, request as sendRequest } from 'node:http';
import { connect, type AddressInfo, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { connect as connectTls } from 'node:tls';
import { ensureCertificates, type Certificates } from './certificates.ts';
import { openGateway, refusalOf, type Gateway } from './gateway.ts';

const names = ['sandbox.example', '*.sandbox.example'];

describe('a gateway', () => {
  const directory = mkdtempSync(join(tmpdir(), 'paddock-gateway-'));
  const server = createServer((request, response) => response.end(`${request.headers.host} ${request.url}`));
  let certificates: Certificates;
  let gateway: Gateway;

  before(async () => {
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    certificates = await ensureCertificates(directory, names);
    gateway = await openGateway({ server: new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}`), certificates, names, proxyPort: 0, tls: { host: '127.0.0.1', port: 0 } });
  });
  after(async () => {
    await gateway.close();
    server.close();
    rmSync(directory, { recursive: true });
  });

  /** The status line of a CONNECT, and the connection behind it. */
  function tunnel(target: string): Promise<{ readonly status: number; readonly text: string; readonly socket: Socket }> {
    return new Promise((resolve, reject) => {
      const request = sendRequest({ host: '127.0.0.1', port: gateway.proxyPort, method: 'CONNECT', path: target });
      request.on('connect', (answer, socket, head) => {
        if (answer.statusCode === 200) return resolve({ status: 200, text: '', socket });
        let text = head.toString();
        socket.on('data', (chunk: Buffer) => (text += chunk.toString()));
        return socket.on('end', () => resolve({ status: answer.statusCode ?? 0, text, socket }));
      });
      request.on('error', reject);
      request.end();
    });
  }

  function get(socket: Socket, host: string): Promise<string> {
    const secure = connectTls({ socket, servername: host, ca: readFileSync(certificates.authorityFile) });
    return new Promise((resolve, reject) => {
      let text = '';
      secure.on('error', reject);
      secure.on('data', (chunk: Buffer) => (text += chunk.toString()));
      secure.on('end', () => resolve(text));
      secure.write(`GET /x HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`);
    });
  }

  test('brings both kinds of names to the server, host and all', async () => {
    for (const host of ['sandbox.example', 'boxd-1.sandbox.example']) assert.match(await get((await tunnel(`${host}:443`)).socket, host), new RegExp(`\r\n\r\n.*${host} /x`, 's'));
  });

  test('takes TLS without a proxy too', async () => {
    assert.match(await get(connect({ host: '127.0.0.1', port: gateway.tlsPort! }), 'sandbox.example'), /sandbox\.example \/x/);
  });

  for (const target of ['example.com:443', 'sandbox.example:80', 'a.b.sandbox.example:443', 'evilsandbox.example:443', '127.0.0.1:22', '.sandbox.example:443', 'sandbox.example']) {
    test(`refuses ${target} with a sentence`, async () => {
      const { status, text } = await tunnel(target);
      assert.equal(status, 403);
      assert.match(text, /^This is Paddock's gateway: it leads to sandbox\.example, \*\.sandbox\.example on port 443 and nowhere else/);
    });
  }

  test('refuses plain requests with a sentence', async () => {
    const { status, text } = await new Promise<{ status: number; text: string }>((resolve) => {
      sendRequest({ host: '127.0.0.1', port: gateway.proxyPort, path: 'http://example.com/' }, (answer) => {
        let text = '';
        answer.on('data', (chunk: Buffer) => (text += chunk.toString())).on('end', () => resolve({ status: answer.statusCode ?? 0, text }));
      }).end();
    });
    assert.equal(status, 405);
    assert.match(text, /takes CONNECT to sandbox\.example/);
  });

  test('says so when the server is not there', async () => {
    const nobody = await openGateway({ server: new URL('http://127.0.0.1:1'), certificates, names, proxyPort: 0, tls: { host: '127.0.0.1', port: 0 } });
    assert.match(await get(connect({ host: '127.0.0.1', port: nobody.tlsPort! }), 'sandbox.example'), /^HTTP\/1\.1 502 .*"service_unavailable".*cannot reach the Paddock server at http:\/\/127\.0\.0\.1:1/s);
    await nobody.close();
  });

  test('keeps its keys to their owner, its authority for good, and makes a new leaf when the names change', async () => {
    for (const name of ['ca.key', 'leaf.key']) assert.equal(statSync(join(directory, name)).mode & 0o777, 0o600);
    const [authority, leaf] = ['ca.pem', 'leaf.pem'].map((name) => readFileSync(join(directory, name), 'utf8'));
    assert.equal((await ensureCertificates(directory, names)).certificate, leaf);
    const more = await ensureCertificates(directory, [...names, 'other.example']);
    assert.notEqual(more.certificate, leaf);
    assert.equal(readFileSync(more.authorityFile, 'utf8'), authority);
    const certificate = new X509Certificate(more.certificate);
    assert.ok(certificate.verify(new X509Certificate(authority!).publicKey));
    assert.ok(certificate.checkHost('other.example') && certificate.checkHost('x.sandbox.example') && !certificate.checkHost('example.com'));
  });

  test('says what is wrong with certificates that are none', async () => {
    const broken = mkdtempSync(join(tmpdir(), 'paddock-gateway-'));
    writeFileSync(join(broken, 'ca.pem'), 'nonsense');
    writeFileSync(join(broken, 'ca.key'), 'nonsense');
    await assert.rejects(ensureCertificates(broken, names));
    rmSync(broken, { recursive: true });
  });
});

test('a wildcard stands for exactly one label', () => {
  assert.equal(refusalOf('a.sandbox.example:443', names), null);
  assert.notEqual(refusalOf('a.b.sandbox.example:443', names), null);
});
