import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { test } from 'node:test';
import { connect, type ConnectionOptions } from 'node:tls';
import fc from 'fast-check';
import { readClientHello } from './client-hello.ts';

/** What OpenSSL sends first. */
async function capture(options: ConnectionOptions): Promise<Buffer> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const client = connect({ port: (server.address() as { port: number }).port, host: '127.0.0.1', rejectUnauthorized: false, ...options });
  client.on('error', () => {});
  const [socket] = (await once(server, 'connection')) as [import('node:net').Socket];
  const [bytes] = (await once(socket, 'data')) as [Buffer];
  socket.destroy();
  client.destroy();
  server.close();
  return bytes;
}

/** A ClientHello with these extensions, in one record of this version. */
function hello(extensions: Buffer | null, { version = 0x0301 } = {}): Buffer {
  const body = Buffer.concat([Buffer.from([3, 3]), Buffer.alloc(32, 7), Buffer.from([0, 0, 2, 0x13, 0x01, 1, 0]), ...(extensions === null ? [] : [prefixed(2, extensions)])]);
  return record(Buffer.concat([Buffer.from([1]), prefixed(3, body)]), version);
}

function record(message: Buffer, version = 0x0301): Buffer {
  return Buffer.concat([Buffer.from([22, version >> 8, version & 255]), prefixed(2, message)]);
}

function prefixed(size: number, bytes: Buffer): Buffer {
  const length = Buffer.alloc(size);
  length.writeUIntBE(bytes.length, 0, size);
  return Buffer.concat([length, bytes]);
}

function extension(type: number, content: Buffer): Buffer {
  return Buffer.concat([Buffer.from([type >> 8, type & 255]), prefixed(2, content)]);
}

function serverName(name: string | Buffer): Buffer {
  return extension(0, prefixed(2, Buffer.concat([Buffer.from([0]), prefixed(2, Buffer.from(name))])));
}

const grease = extension(0x0a0a, Buffer.alloc(0));
const encryptedHello = extension(0xfe0d, Buffer.alloc(200, 1));

for (const [what, options, expected] of [
  ['TLS 1.3 with a name', { servername: 'Files.Example.ORG', minVersion: 'TLSv1.3' }, 'files.example.org'],
  ['TLS 1.2 with a name', { servername: 'a.example', maxVersion: 'TLSv1.2' }, 'a.example'],
  ['no name', {}, null],
  ['many protocols', { servername: 'a.example', ALPNProtocols: Array.from({ length: 200 }, (_, i) => `protocol-${i}`) }, 'a.example'],
] as [string, ConnectionOptions, string | null][]) {
  test(`reads what OpenSSL sends: ${what}`, async () => {
    assert.deepEqual(readClientHello(await capture(options)), { kind: 'hello', serverName: expected, protocols: options.ALPNProtocols ?? null });
  });
}

test('however the message is cut into records and packets, the name is the same, and never read too early', () => {
  const message = hello(Buffer.concat([grease, encryptedHello, serverName('outer.example'), extension(21, Buffer.alloc(3000))])).subarray(5);
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: message.length - 1 }), { maxLength: 12 }), fc.nat(), (cuts, at) => {
      const edges = [0, ...new Set(cuts)].sort((a, b) => a - b);
      const bytes = Buffer.concat(edges.map((edge, i) => record(message.subarray(edge, edges[i + 1] ?? message.length))));
      assert.deepEqual(readClientHello(bytes), { kind: 'hello', serverName: 'outer.example', protocols: null });
      assert.deepEqual(readClientHello(bytes.subarray(0, at % bytes.length)), { kind: 'more' });
    }),
  );
});

test('whatever bytes come, it says one of three things', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), fc.nat(400), fc.nat(255), (bytes, at, value) => {
      assert.ok(['more', 'hello', 'broken'].includes(readClientHello(Buffer.from([22, 3, 1, ...bytes])).kind));
      const bent = Buffer.from(hello(serverName('a.example')));
      bent[at % bent.length] = value;
      assert.ok(['more', 'hello', 'broken'].includes(readClientHello(bent).kind));
    }),
  );
});

for (const [what, bytes] of [
  ['two names', hello(extension(0, prefixed(2, Buffer.concat([Buffer.from([0]), prefixed(2, Buffer.from('a.example')), Buffer.from([0]), prefixed(2, Buffer.from('b.example'))]))))],
  ['two lists of names', hello(Buffer.concat([serverName('a.example'), serverName('b.example')]))],
  ['an empty name', hello(serverName(''))],
  ['a NUL in the name', hello(serverName('a.example\0.b.example'))],
  ['letters outside ASCII', hello(serverName('bücher.example'))],
  ['something behind the extensions', record(Buffer.concat([Buffer.from([1]), prefixed(3, Buffer.concat([hello(serverName('a.example')).subarray(9), Buffer.from([0])]))]))],
  ['an alert between two halves', Buffer.concat([record(hello(serverName('a.example')).subarray(5, 40)), Buffer.from([21, 3, 1, 0, 2, 1, 0])])],
  ['another first message', record(Buffer.from([2, 0, 0, 1, 0]))],
  ['an empty record', Buffer.from([22, 3, 1, 0, 0])],
  ['a record that is too long', Buffer.from([22, 3, 1, 0xff, 0xff])],
] as [string, Buffer][]) {
  test(`is broken: ${what}`, () => {
    assert.equal(readClientHello(bytes).kind, 'broken');
  });
}

test('odd versions and no extensions are read all the same; an address is no name', () => {
  for (const version of [0x0300, 0x0303, 0x03ff]) assert.deepEqual(readClientHello(hello(serverName('a.example'), { version })), { kind: 'hello', serverName: 'a.example', protocols: null });
  assert.deepEqual(readClientHello(hello(null)), { kind: 'hello', serverName: null, protocols: null });
  assert.deepEqual(readClientHello(hello(serverName('198.51.100.7'))), { kind: 'hello', serverName: null, protocols: null });
});
