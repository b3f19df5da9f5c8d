import assert from 'node:assert/strict';
import { test } from 'node:test';
import { contentOf } from './content.ts';
import { MalformedMultipart, MultipartFilter } from './multipart.ts';
import { StreamRedactor } from './pii/stream-redactor.ts';

function filtered(body: string, step = Infinity): string {
  const filter = new MultipartFilter({
    boundary: 'xyz',
    filterFor: (headers) => {
      const content = contentOf(headers.get('content-type') ?? 'text/plain', Buffer.alloc(0));
      return content.kind === 'text' ? new StreamRedactor({ syntax: content.syntax, types: new Set(['email']), phone: { region: 'US' }, replace: () => '[E]' }) : null;
    },
  });
  const bytes = Buffer.from(body, 'latin1');
  const out: Buffer[] = [];
  for (let from = 0; from < bytes.length; from += step) out.push(filter.write(bytes.subarray(from, from + step)));
  out.push(filter.end());
  return Buffer.concat(out).toString('latin1');
}

const body = '--xyz\r\nContent-Disposition: form-data; name="a"\r\n\r\njoe@example.com\r\n--xyz\r\nContent-Disposition: form-data; name="b"; filename="b.png"\r\nContent-Type: image/png\r\n\r\n\x89PNG joe@example.com\r\n--xyz\r\nContent-Type: application/json\r\n\r\n{"m":"joe\\u0040example.com"}\r\n--xyz\r\n\r\n\r\n--xyz--\r\n';
const expected = body.replace('joe@example.com', '[E]').replace('joe\\u0040example.com', '[E]');

test('text parts are filtered, others pass, cut at every byte', () => {
  for (let step = 1; step < body.length; step++) assert.equal(filtered(body, step), expected, `pieces of ${step}`);
});

test('a preamble and an epilogue pass', () => {
  assert.equal(filtered(`hello\r\n${body}bye`), `hello\r\n${expected}bye`);
});

test('attack: a body that ends within a part is refused', () => {
  for (const cut of ['--xyz', '--xyz\r\nA: b\r\n', '--xyz\r\n\r\njoe@example.com', 'none at all']) assert.throws(() => filtered(cut), MalformedMultipart);
});

test('attack: headers of a part without an end are refused', () => {
  assert.throws(() => filtered(`--xyz\r\n${'A: b\r\n'.repeat(10_000)}`), /16384 bytes/);
});

test('the kind of a body is told by its type, and by its beginning where that says nothing', () => {
  const none = Buffer.alloc(0);
  assert.deepEqual(contentOf('application/json; charset=utf-8', none), { kind: 'text', syntax: 'json' });
  assert.deepEqual(contentOf('application/vnd.api+json', none), { kind: 'text', syntax: 'json' });
  assert.deepEqual(contentOf('application/x-www-form-urlencoded', none), { kind: 'text', syntax: 'form' });
  assert.deepEqual(contentOf('text/html', none), { kind: 'text', syntax: 'plain' });
  assert.deepEqual(contentOf('', Buffer.from(' {"a":1}')), { kind: 'text', syntax: 'json' });
  assert.deepEqual(contentOf('', Buffer.from([1, 0, 2])), { kind: 'binary' });
  assert.deepEqual(contentOf('image/png', Buffer.from([0x89, 0x50, 0x4e, 0x47, 13, 10])), { kind: 'binary' });
  assert.deepEqual(contentOf('image/png', Buffer.from('no picture: é').subarray(0, 13)), { kind: 'text', syntax: 'plain' });
  assert.deepEqual(contentOf('multipart/form-data; boundary="a b"', none), { kind: 'multipart', boundary: 'a b' });
  assert.equal(contentOf('multipart/form-data', none).kind, 'unreadable');
  assert.deepEqual(contentOf('text/plain; charset=UTF-16', none), { kind: 'unreadable', why: 'its characters are in utf-16' });
  assert.equal(contentOf('', Buffer.from([0xff, 0xfe, 0x41, 0])).kind, 'unreadable');
});
