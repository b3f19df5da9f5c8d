import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PaddockError } from '../../core/errors.ts';
import type { TeamId } from '../../core/ids.ts';
import { Idempotency } from './idempotency.ts';

const team = 'team' as TeamId;
const code = (expected: string) => (error: unknown) => error instanceof PaddockError && error.code === expected;

function counting(): { action: () => Promise<number>; count: () => number } {
  let count = 0;
  return { action: async () => ++count, count: () => count };
}

test('a repeated key gives the first answer and does nothing', async () => {
  const idempotency = new Idempotency(Date.now);
  const { action, count } = counting();
  assert.equal(await idempotency.once(team, 'k', { a: 1 }, action), 1);
  assert.equal(await idempotency.once(team, 'k', { a: 1 }, action), 1);
  assert.equal(count(), 1);
});

test('without a key, with another key or for another team it runs', async () => {
  const idempotency = new Idempotency(Date.now);
  const { action, count } = counting();
  await idempotency.once(team, undefined, {}, action);
  await idempotency.once(team, undefined, {}, action);
  await idempotency.once(team, 'k', {}, action);
  await idempotency.once(team, 'l', {}, action);
  await idempotency.once('other' as TeamId, 'k', {}, action);
  assert.equal(count(), 5);
});

test('another body under the same key is refused, while it runs and afterwards', async () => {
  const idempotency = new Idempotency(Date.now);
  const first = idempotency.once(team, 'k', { a: 1 }, async () => 1);
  await assert.rejects(idempotency.once(team, 'k', { a: 2 }, async () => 2), code('idempotency_key_reused'));
  await first;
  await assert.rejects(idempotency.once(team, 'k', { a: 2 }, async () => 2), code('idempotency_key_reused'));
});

test('while the first one runs, the second is told to come back', async () => {
  const idempotency = new Idempotency(Date.now);
  const { promise, resolve } = Promise.withResolvers<number>();
  const first = idempotency.once(team, 'k', {}, () => promise);
  await assert.rejects(idempotency.once(team, 'k', {}, async () => 2), (error: unknown) => code('idempotency_in_progress')(error) && (error as PaddockError).detail.retryAfterSeconds === 1);
  resolve(1);
  assert.equal(await first, 1);
});

test('a failed one is forgotten, so that trying again does something', async () => {
  const idempotency = new Idempotency(Date.now);
  await assert.rejects(idempotency.once(team, 'k', {}, () => Promise.reject(new Error('no'))), /no/);
  assert.equal(await idempotency.once(team, 'k', {}, async () => 2), 2);
});

test('an answer is kept for a day', async () => {
  let now = 0;
  const idempotency = new Idempotency(() => now);
  const { action } = counting();
  await idempotency.once(team, 'k', {}, action);
  now = 24 * 3600 * 1000 - 1;
  assert.equal(await idempotency.once(team, 'k', {}, action), 1);
  now += 2;
  assert.equal(await idempotency.once(team, 'k', {}, action), 2);
});

test('keys that nobody bounds do not fill the memory', async () => {
  const idempotency = new Idempotency(Date.now);
  const { action, count } = counting();
  for (let i = 0; i < 10_001; i++) await idempotency.once(team, String(i), {}, action);
  await idempotency.once(team, '0', {}, action);
  assert.equal(count(), 10_002);
  await assert.rejects(idempotency.once(team, 'k'.repeat(256), {}, action), code('invalid_argument'));
});
