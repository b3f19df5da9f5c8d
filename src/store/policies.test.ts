import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decide } from '../core/network/decide.ts';
import { parsePolicy } from '../core/network/parse.ts';
import { Policies } from './policies.ts';

const policy = { allowPublicTraffic: true, audit: false, network: parsePolicy({ allow: ['*.X.com', '~a+', '1.2.3.4/8'], deny: ['*'] }), maskRequestHost: 'a:${PORT}', previews: 'public' as const };

test('a policy comes back as it was stored, and the same text as the same value', () => {
  const policies = new Policies();
  const text = policies.write(policy);
  assert.deepEqual(policies.read(text), policy);
  assert.equal(policies.read(text), policies.read(text));
});

test('a row from before sandboxes had a network still reaches nothing', () => {
  const { network, maskRequestHost } = new Policies().read('{"allowPublicTraffic":true,"audit":true}');
  assert.equal(decide(network, { name: 'x.com', address: null, port: 443 }).allowed, false);
  assert.equal(maskRequestHost, null);
});

test('rules that cannot be read open nothing', () => {
  assert.throws(() => new Policies().read('{"allowPublicTraffic":true,"audit":true,"network":{"allow":["::1"],"deny":[]}}'), { code: 'internal', message: /^the stored network rules cannot be read: / });
});
