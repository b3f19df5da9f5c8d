import assert from 'node:assert/strict';
import { test } from 'node:test';
import { newSandboxId } from '../../core/ids.ts';
import { AccessTokens } from './access-token.ts';

const hour = 3_600_000;

test('a token opens one sandbox, in its hour and the next, and not in the one after', () => {
  const clock = { at: 1000 * hour, now: () => clock.at };
  const tokens = new AccessTokens(Buffer.alloc(32, 1), clock);
  const [mine, other] = [newSandboxId(), newSandboxId()];
  const token = tokens.issue(mine);
  assert.match(token, /^[0-9a-f]{64}$/);
  assert.equal(tokens.issue(mine), token);
  assert.equal(tokens.accepts(mine, token), true);
  assert.equal(tokens.accepts(other, token), false);
  clock.at += hour;
  assert.equal(tokens.accepts(mine, token), true);
  clock.at += hour - 1;
  assert.equal(tokens.accepts(mine, token), true);
  clock.at += 1;
  assert.equal(tokens.accepts(mine, token), false);
});

test('another seed, an empty token and what is no token open nothing', () => {
  const clock = { now: () => 0 };
  const id = newSandboxId();
  const token = new AccessTokens(Buffer.alloc(32, 1), clock).issue(id);
  assert.equal(new AccessTokens(Buffer.alloc(32, 2), clock).accepts(id, token), false);
  for (const text of ['', 'x', token.slice(1), `${token}0`, token.toUpperCase()]) assert.equal(new AccessTokens(Buffer.alloc(32, 1), clock).accepts(id, text), false);
});
