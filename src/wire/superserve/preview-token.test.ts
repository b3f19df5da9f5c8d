import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { newSandboxId } from '../../core/ids.ts';
import { PreviewTokens } from './preview-token.ts';
import { takeParameter } from './preview-entrance.ts';
import { presentedCookie, withoutCookie } from './preview-cookie.ts';

const clock = { at: 1_700_000_000_000, now: () => clock.at };
const tokens = new PreviewTokens(Buffer.alloc(32, 7), clock);
const grant = { id: newSandboxId(), port: 3000, tokenVersion: 2 };

test('a token opens its sandbox, port and version until it ends', () => {
  const { token, expiresAt } = tokens.issue(grant, 60);
  assert.match(token, /^spv1\.[\w-]+\.[\w-]+$/);
  assert.ok(token.length <= 512);
  assert.equal(tokens.accepts(grant, token), expiresAt);
  assert.equal(tokens.accepts({ ...grant, port: 3001 }, token), null);
  assert.equal(tokens.accepts({ ...grant, tokenVersion: 3 }, token), null);
  assert.equal(tokens.accepts({ ...grant, id: newSandboxId() }, token), null);
  clock.at += 60_000;
  assert.equal(tokens.accepts(grant, token), null);
});

test('a token without an end lives as long as its version', () => {
  const { token, expiresAt } = tokens.issue(grant, null);
  assert.equal(expiresAt, null);
  clock.at += 10 * 365 * 86_400_000;
  assert.equal(tokens.accepts(grant, token), Number.POSITIVE_INFINITY);
});

test('nothing but what was issued opens anything', () => {
  const { token } = tokens.issue(grant, null);
  fc.assert(fc.property(fc.nat(token.length - 1), fc.constantFrom('A', 'B', '.', '_', '0'), (at, letter) => {
    const forged = token.slice(0, at) + letter + token.slice(at + 1);
    // The last letter of base64url carries bits that mean nothing.
    return forged === token || at === token.length - 1 || tokens.accepts(grant, forged) === null;
  }));
  for (const text of ['', 'spv1..', `${token}.x`, token.replace('spv1', 'spv2'), 'x'.repeat(600)]) assert.equal(tokens.accepts(grant, text), null);
});

test('the token is taken out of a query, and the rest stays byte for byte', () => {
  const name = 'superserve_preview_token';
  assert.deepEqual(takeParameter(`/a?${name}=t`), { path: '/a', token: 't' });
  assert.deepEqual(takeParameter(`/a?x=%41+b&${name}=t&&y`), { path: '/a?x=%41+b&&y', token: 't' });
  assert.deepEqual(takeParameter('/a?x=1'), { path: '/a?x=1', token: null });
  assert.deepEqual(takeParameter(`/${name}=t`), { path: `/${name}=t`, token: null });
});

test('one cookie is taken out of many', () => {
  assert.equal(presentedCookie('a=1; b=2;c = 3', 'c'), '3');
  assert.equal(presentedCookie('aa=1', 'a'), null);
  assert.equal(withoutCookie('a=1; b=2; c=3', 'b'), 'a=1; c=3');
  assert.equal(withoutCookie('b=2', 'b'), null);
  assert.equal(withoutCookie(undefined, 'b'), null);
});
