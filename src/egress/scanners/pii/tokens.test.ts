import assert from 'node:assert/strict';
import { test } from 'node:test';
import { defaultTokenLimits, TokenTable } from './tokens.ts';

test('a value has one token per kind, and keeps it for every host', () => {
  const table = new TokenTable();
  assert.equal(table.tokenFor('email', 'a', 'one'), '[REDACTED_EMAIL_1]');
  assert.equal(table.tokenFor('phone', 'a', 'one'), '[REDACTED_PHONE_1]');
  assert.equal(table.tokenFor('email', 'b', 'one'), '[REDACTED_EMAIL_2]');
  assert.equal(table.tokenFor('email', 'a', 'two'), '[REDACTED_EMAIL_1]');
});

test('only hosts that were sent a token get its value', () => {
  const table = new TokenTable();
  const token = table.tokenFor('email', 'a', 'one');
  assert.equal(table.valueFor(token, 'one'), 'a');
  assert.equal(table.valueFor(token, 'two'), null);
  table.tokenFor('email', 'a', 'two');
  assert.equal(table.valueFor(token, 'two'), 'a');
});

test('attack: a sandbox that sends ever new values does not fill memory, and old tokens are not given to new values', () => {
  const table = new TokenTable({ ...defaultTokenLimits, values: 10 });
  for (let i = 1; i <= 100; i++) assert.equal(table.tokenFor('email', `${i}`, 'h'), `[REDACTED_EMAIL_${i}]`);
  assert.equal(table.size, 10);
  assert.equal(table.valueFor('[REDACTED_EMAIL_90]', 'h'), null);
  assert.equal(table.valueFor('[REDACTED_EMAIL_91]', 'h'), '91');
  assert.equal(table.tokenFor('email', '1', 'h'), '[REDACTED_EMAIL_101]');
});

test('what is used stays, what is not used for longest goes', () => {
  const table = new TokenTable({ ...defaultTokenLimits, values: 2 });
  table.tokenFor('email', 'a', 'h');
  table.tokenFor('email', 'b', 'h');
  table.valueFor('[REDACTED_EMAIL_1]', 'h');
  table.tokenFor('email', 'c', 'h');
  assert.equal(table.valueFor('[REDACTED_EMAIL_1]', 'h'), 'a');
  assert.equal(table.valueFor('[REDACTED_EMAIL_2]', 'h'), null);
});

test('characters of all values and hosts of one value are bounded, too', () => {
  const table = new TokenTable({ values: 100, characters: 1000, hostsPerValue: 2 });
  for (let i = 0; i < 50; i++) table.tokenFor('api_key', `${i}`.padEnd(100), 'h');
  assert.equal(table.size, 10);
  for (const host of ['a', 'b', 'c']) table.tokenFor('email', 'x', host);
  assert.deepEqual(['a', 'b', 'c'].map((host) => table.valueFor('[REDACTED_EMAIL_1]', host)), [null, 'x', 'x']);
});
