import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { canonicalPath, isBelow } from './canonical-path.ts';

const table: [string, string | null][] = [
  ['/', '/'],
  ['/a/b?c=/../d', '/a/b'],
  ['/a/../b', '/b'],
  ['/a/./b/.', '/a/b/'],
  ['/a/b/..', '/a/'],
  ['/../../a', '/a'],
  ['/%61%2Db/%7e', '/a-b/~'],
  ['/a%20b/%c3%bc', '/a%20b/%C3%BC'],
  ['/a/%2e%2E/b', '/b'],
  ['/a//b', null],
  ['//a', null],
  ['/a/%2fb', null],
  ['/a%5cb', null],
  ['/a\\b', null],
  ['/a/%252e%252e', null],
  ['/a/..;x/b', null],
  ['/a/.;/b', null],
  ['/a/%2e%2e%3b/b', null],
  ['/a/%2', null],
  ['/a%00', null],
  ['/a%0d%0a', null],
  ['/ü', null],
  ['*', null],
  ['http://x/', null],
];
for (const [target, expected] of table) test(`${target} is ${expected ?? 'ambiguous'}`, () => assert.equal(canonicalPath(target), expected));

test('a canonical path stays as it is, and has no dots to climb with', () => {
  fc.assert(
    fc.property(fc.string({ unit: fc.constantFrom('/', '.', '%', '2', 'e', 'E', 'f', 'a', ';', '~'), maxLength: 20 }), (rest) => {
      const path = canonicalPath(`/${rest}`);
      if (path === null) return;
      assert.equal(canonicalPath(path), path);
      assert.doesNotMatch(path, /\/\.{1,2}(\/|$)|\/\//);
    }),
    { numRuns: 5000 },
  );
});

test('below a prefix means at a border of segments', () => {
  assert.deepEqual([isBelow('/v1', '/v1'), isBelow('/v1/x', '/v1'), isBelow('/v10', '/v1'), isBelow('/v1/x', '/v1/'), isBelow('/anything', '/')], [true, true, false, true, true]);
});
