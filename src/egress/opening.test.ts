import assert from 'node:assert/strict';
import { test } from 'node:test';
import { classify, namedHost } from './opening.ts';

for (const [bytes, kind] of [
  ['', undefined],
  ['G', undefined],
  ['GET ', undefined],
  ['GET / HTTP/1.1\r\n', 'http'],
  ['GET / HTTP/1.1', 'http'],
  ['\r\n\r\nGET / HTTP/1.1\r\n', 'http'],
  ['get\t/\thttp/1.0\n', 'http'],
  ['PROPFIND /x HTTP/1.1\r\n', 'http'],
  ['PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'broken'],
  ['PRI * H', undefined],
  ['PRINT / HTTP/1.1\r\n', 'http'],
  ['EHLO client.example\r\n', 'opaque'],
  ['SSH-2.0-OpenSSH_9.6\r\n', 'opaque'],
  ['SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n', 'opaque'],
  ['\0\0\0\u0008\u0004\u00d2\u0016/', 'opaque'],
  ['AMQP\0\0\t\u0001', 'opaque'],
  ['*1\r\n$4\r\nPING\r\n', 'opaque'],
  ['\u0016', undefined],
  ['\u0016\u0004', 'opaque'],
  ['\u0016\u0003\u0001\0\0', 'broken'],
  ['x'.repeat(65), 'opaque'],
] as [string, string | undefined][]) {
  test(`${JSON.stringify(bytes.slice(0, 30))} is ${kind ?? 'not known yet'}`, () => {
    assert.equal(classify(Buffer.from(bytes, 'latin1'))?.kind, kind);
  });
}

test('the log learns the host from a Host line', () => {
  assert.equal(namedHost(Buffer.from('GET / HTTP/1.1\r\nAccept: */*\r\nHost: Files.example:8080\r\n\r\n')), 'files.example');
  assert.equal(namedHost(Buffer.from('GET / HTTP/1.1\r\n\r\n')), null);
  assert.equal(namedHost(Buffer.from([0, 1, 2])), null);
});
