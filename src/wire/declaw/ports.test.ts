import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { PortEntrance, parsePort, parsePortPath } from './ports.ts';

const paths: [string, [string, string, string] | null][] = [
  ['/sandboxes/sbx-1/ports/8000', ['sbx-1', '8000', '/']],
  ['/sandboxes/sbx-1/ports/8000/', ['sbx-1', '8000', '/']],
  ['/sandboxes/sbx-1/ports/8000?a=b', ['sbx-1', '8000', '/?a=b']],
  ['/sandboxes/sbx-1/ports/8000/a%2fb/../c//?x=%zz#y', ['sbx-1', '8000', '/a%2fb/../c//?x=%zz#y']],
  ['/sandboxes/sbx-1/ports/', ['sbx-1', '', '/']],
  ['/sandboxes/sbx-1/ports/80x/', ['sbx-1', '80x', '/']],
  ['/sandboxes/sbx-1/ports', null],
  ['/sandboxes//ports/80', null],
  ['/sandboxes/sbx-1/commands?x=/sandboxes/a/ports/1', null],
  ['/sandboxes/a?/ports/1', null],
  ['//sandboxes/a/ports/1', null],
];
for (const [url, expected] of paths) {
  test(`${url} is ${expected === null ? 'not a port' : 'taken apart'}`, () => {
    const target = parsePortPath(url);
    assert.deepEqual(target === null ? null : [target.sandbox, target.port, target.path], expected);
  });
}

test('whatever follows the port reaches the program as it is', () => {
  fc.assert(
    fc.property(fc.webPath(), fc.webQueryParameters(), (path, query) => {
      const rest = `${path === '' ? '/' : path}?${query}`;
      assert.equal(parsePortPath(`/sandboxes/sbx-1/ports/80${rest}`)?.path, rest);
    }),
  );
  fc.assert(
    fc.property(fc.string({ unit: 'binary', maxLength: 50 }), (rest) => {
      assert.equal(parsePortPath(`/sandboxes/sbx-1/ports/80/${rest}`)?.path, `/${rest}`);
    }),
  );
});

test('a port is plain digits from 1 to 65535 and nothing else', () => {
  for (const port of [1, 80, 65535]) assert.equal(parsePort(String(port)), port);
  for (const text of ['', '0', '080', '65536', '99999', '100000', '-1', '+80', '8e1', '80 ', '0x50', '8000x', '%38']) assert.throws(() => parsePort(text), /^PaddockError: port must be a whole number from 1 to 65535/, text);
});

test('the key never reaches the program, an Authorization of its own does', () => {
  const entrance = new PortEntrance({} as never);
  const withheld = (headers: Record<string, string>): string[] => [...entrance.privateHeaders(headers)].sort();
  assert.deepEqual(withheld({ authorization: 'Bearer dcl_key' }), ['authorization', 'x-api-key']);
  assert.deepEqual(withheld({ 'x-api-key': 'dcl_key' }), ['x-api-key']);
  assert.deepEqual(withheld({ 'x-api-key': 'dcl_key', authorization: 'Bearer the-program-s-own' }), ['x-api-key']);
  assert.deepEqual(withheld({ 'x-api-key': 'dcl_key', authorization: 'Bearer dcl_another' }), ['authorization', 'x-api-key']);
  assert.deepEqual(withheld({ 'x-api-key': 'own-key-0123456789', authorization: 'Bearer own-key-0123456789' }), ['authorization', 'x-api-key']);
});
