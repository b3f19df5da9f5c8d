import assert from 'node:assert/strict';
import { test } from 'node:test';
import { agrees } from './node-modules.mjs';

const one = { version: '1.0.0', integrity: 'sha512-a' };
const foreign = { version: '1.0.0', integrity: 'sha512-b', optional: true };
const lock = { packages: { '': { name: 'paddock' }, 'node_modules/one': one, 'node_modules/foreign': foreign } };

const cases = [
  ['all packages of the lock file are installed', { 'node_modules/one': one, 'node_modules/foreign': foreign }, true],
  ['one for another processor is left out', { 'node_modules/one': one }, true],
  ['a package is missing', { 'node_modules/foreign': foreign }, false],
  ['a package has another version', { 'node_modules/one': { ...one, version: '1.0.1' } }, false],
  ['a package has another content', { 'node_modules/one': { ...one, integrity: 'sha512-c' } }, false],
  ['a package is there that the lock file does not have', { 'node_modules/one': one, 'node_modules/two': one }, false],
];
for (const [name, packages, expected] of cases) {
  test(`node_modules ${expected ? 'agrees' : 'does not agree'} when ${name}`, () =>
    assert.equal(agrees(lock, { packages }), expected));
}

test('an installation without npm’s record of it does not agree', () => assert.equal(agrees(lock, undefined), false));
