import assert from 'node:assert/strict';
import { test } from 'node:test';
import { withheld } from './scopes.ts';

test('what a key that may only read must not have is taken out however deep it lies, and the rest stays', () => {
  const security = { pii: { enabled: true }, env_security: { mask_patterns: ['A*'], sensitive_vars: [{ name: 'A', value: 'x' }] }, policy_json: '{"a":"x"}' };
  assert.deepEqual(withheld({ sandboxes: [{ id: 1, envd_access_token: 'x', traffic_access_token: 'x', envs: { A: 'x' }, env_vars: null, security, end: null }], access_token: 'x', total: 1 }), {
    sandboxes: [{ id: 1, envs: { A: '***' }, env_vars: null, security: { pii: { enabled: true }, env_security: { mask_patterns: ['A*'] } }, end: null }],
    total: 1,
  });
  for (const plain of ['text', 7, null, [], {}]) assert.deepEqual(withheld(plain), plain);
});
