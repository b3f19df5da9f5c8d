import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Turnstile } from './guests.ts';

const never = new AbortController().signal;

test('a turnstile lets its width through and the others in their order', async () => {
  const turnstile = new Turnstile(2);
  const inside: number[] = [];
  const first = await turnstile.enter(never);
  const second = await turnstile.enter(never);
  const waiting = [3, 4].map(async (n) => {
    const turn = await turnstile.enter(never);
    inside.push(n);
    return turn;
  });
  await Promise.resolve();
  assert.deepEqual(inside, []);
  first[Symbol.dispose]();
  first[Symbol.dispose](); // leaving twice frees one place
  await waiting[0];
  assert.deepEqual(inside, [3]);
  second[Symbol.dispose]();
  await waiting[1];
  assert.deepEqual(inside, [3, 4]);
});

test('who stops waiting leaves the queue and takes no place with him', async () => {
  const turnstile = new Turnstile(1);
  const holder = await turnstile.enter(never);
  const quitter = new AbortController();
  const quits = assert.rejects(turnstile.enter(quitter.signal), /given up/);
  const next = turnstile.enter(never);
  quitter.abort(new Error('given up'));
  await quits;
  holder[Symbol.dispose]();
  (await next)[Symbol.dispose]();
  (await turnstile.enter(never))[Symbol.dispose]();
});
