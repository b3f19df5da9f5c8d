import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseChallenges } from './challenge.ts';

const read = (header: string): unknown => parseChallenges(header).map(({ scheme, parameters }) => [scheme, { ...parameters }]);

test('challenges are read with their parameters, however they are written', () => {
  assert.deepEqual(read('Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push"'), [
    ['bearer', { realm: 'https://auth.example/token', service: 'registry.example', scope: 'repository:a/b:pull,push' }],
  ]);
  assert.deepEqual(read('basic REALM = "a \\"quoted\\" one" , charset=UTF-8'), [['basic', { realm: 'a "quoted" one', charset: 'UTF-8' }]]);
  assert.deepEqual(read('Negotiate, Basic realm="x", Bearer realm="y"'), [['negotiate', {}], ['basic', { realm: 'x' }], ['bearer', { realm: 'y' }]]);
});

test('the first of two parameters of one name counts, and the name of a property is no parameter', () => {
  assert.deepEqual(read('Bearer realm="first",realm="second"'), [['bearer', { realm: 'first' }]]);
  assert.equal(parseChallenges('Bearer x=1')[0]!.parameters['constructor'], undefined);
});

test('anything else ends the reading, without an error and in time', () => {
  assert.deepEqual(read('Bearer "'), [['bearer', {}]]);
  assert.deepEqual(read(''), []);
  parseChallenges('a="\\'.repeat(100_000));
  fc.assert(fc.property(fc.string(), (text) => Array.isArray(parseChallenges(text))));
});
