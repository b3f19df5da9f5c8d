import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { PaddockError } from './errors.ts';
import { newVolumeId } from './ids.ts';
import { openPolicy, ruleTexts, type NetworkRules } from './network/rules.ts';
import { assertEnforceable, defaultMaskPatterns, enforcedPolicy, globMatches, maskEnvs, type PolicyRequest } from './policy.ts';

const volume = { volumeId: newVolumeId(), mountPath: '/data', mode: 'copy' } as const;

describe('a policy that asks for nothing more than what holds', () => {
  const accepted: [string, PolicyRequest][] = [
    ['nothing', {}],
    ['empty parts', { network: {}, security: {}, volumes: [] }],
    ['everything off', { security: { pii: { enabled: false }, injectionDefense: { enabled: false, domains: ['a.example'] }, transformations: [], toxicity: { enabled: false }, codeSecurity: { enabled: false }, invisibleText: { enabled: false }, contentGate: { enabled: false }, customPolicy: { enabled: false } } }],
    ['guards without domains, which scan nothing', { security: { injectionDefense: { enabled: true }, contentGate: { enabled: true, domains: [] } } }],
    ['a judge of injections that nothing is scanned for', { security: { injectionDefense: { enabled: true }, injectionJudge: { enabled: true } } }],
    ['guardrails', { security: { pii: { enabled: true, domains: ['*.a.example', '~b+\\.example', 'c.example', '*'] }, injectionDefense: { enabled: true, domains: ['*'] }, toxicity: { enabled: true }, codeSecurity: { enabled: true }, invisibleText: { enabled: true }, transformations: [{ match: 'a', replace: 'b' }] } }],
    ['audit on or off', { security: { audit: { enabled: false } } }],
    ['patterns for the echo', { security: { envSecurity: { maskPatterns: ['*_PIN'] } } }],
    ['volumes to be mounted', { volumes: [{ ...volume, mode: 'mount' }, { ...volume, mountPath: '/data2', mode: 'mount-ro' }] }],
    ['copies of volumes', { volumes: [volume, { ...volume, mountPath: '/home/user/other', subpath: 'a/b' }] }],
    ['no network', { network: { denyOut: ['0.0.0.0/0'] } }],
    ['rules of every form', { network: { allowOut: ['*', '10.0.0.0/8', 'a.example'], denyOut: ['*', 'ALL_TRAFFIC', '10.0.0.0/8', '1.2.3.4', 'evil.example', '*.evil.example', '~^x+$'] } }],
    ['an empty allow list', { network: { allowOut: [] } }],
    ['public traffic or none', { network: { allowPublicTraffic: false } }],
    ['the usual host for programs inside', { network: { maskRequestHost: false }, security: { network: { maskRequestHost: true } } }],
    ['another host for programs inside', { network: { maskRequestHost: 'app.example:${PORT}' } }],
  ];
  for (const [what, request] of accepted) it(`is accepted: ${what}`, () => assertEnforceable(request));
});

describe('a policy that cannot be read or not be enforced yet', () => {
  const refused: [string, PolicyRequest][] = [
    ['network.mask_request_host', { network: { maskRequestHost: 'http://a.example' } }],
    ['network.mask_request_host', { network: { maskRequestHost: 'a.example\r\nX-Evil: 1' } }],
    ['network.mask_request_host', { network: { maskRequestHost: 'a.example:${PORT}${PORT}' } }],
    ['security.network.mask_request_host', { security: { network: { maskRequestHost: '${HOST}' } } }],
    ['network.allow_out[1]', { network: { allowOut: ['a.example', '::1'] } }],
    ['network.deny_out[1]', { network: { denyOut: ['*', 'not a host'] } }],
    ['network.deny_out[0]', { network: { denyOut: ['1.2.3.4/33'] } }],
    ['network.deny_out[0]', { network: { denyOut: [''] } }],
    ['network.deny_out[0]', { network: { denyOut: ['~'] } }],
    ['security.network.deny_out[0]', { network: { denyOut: ['1.2.3.4'] }, security: { network: { denyOut: ['https://a.example'] } } }],
    ['network.deny_out', { network: { denyOut: Array.from({ length: 1001 }, () => '*') } }],
    ['security.network.allow_out[0]', { security: { network: { allowOut: ['a b'] } } }],
    ['security.injection_defense.judge.enabled', { security: { injectionDefense: { enabled: true, domains: ['*'] }, injectionJudge: { enabled: true } } }],
    ['security.injection_defense.domains[1]', { security: { injectionDefense: { enabled: true, domains: ['a.example', '10.0.0.0/8'] } } }],
    ['security.pii.domains[0]', { security: { pii: { enabled: true, domains: ['https://a.example'] } } }],
    ['security.invisible_text.domains[0]', { security: { invisibleText: { enabled: true, domains: ['~('] } } }],
    ['security.transformations[0].match', { security: { transformations: [{}] } }],
    ['security.transformations[1].match', { security: { transformations: [{ match: 'a', replace: 'b' }, { match: '(a+)+', replace: 'b' }] } }],
    ['security.content_gate.domains', { security: { contentGate: { enabled: true, domains: ['a.example'] } } }],
    ['security.custom_policy.enabled', { security: { customPolicy: { enabled: true } } }],
    ['security.env_security.sensitive_vars', { security: { envSecurity: { sensitiveVars: [{}] } } }],
    ['security.env_security.mask_patterns[0]', { security: { envSecurity: { maskPatterns: [''] } } }],
    ['volumes[1].mount_path', { volumes: [volume, { ...volume, mountPath: '/data/inner', mode: 'mount-ro' }] }],
    ['volumes[1].mount_path', { volumes: [{ ...volume, mountPath: '/data/inner', mode: 'mount' }, volume] }],
    ['volumes', { volumes: Array.from({ length: 17 }, (_, i) => ({ ...volume, mountPath: `/data${i}`, mode: 'mount' as const })) }],
    ...['/', '/etc', '/usr/local', '/proc/self', '//dev', '/lib64/', '/./var', '/a/../etc', '/data\0', 'relative'].map((mountPath): [string, PolicyRequest] => ['volumes[0].mount_path', { volumes: [{ ...volume, mountPath }] }]),
    ['volumes[1].mount_path', { volumes: [volume, { ...volume, mountPath: '/data/' }] }],
    ['volumes[0].subpath', { volumes: [{ ...volume, subpath: '../other' }] }],
  ];
  for (const [field, request] of refused) {
    it(`is refused by its name: ${field}`, () => {
      assert.throws(() => assertEnforceable(request), (error: PaddockError) => {
        assert.equal(error.code, 'invalid_argument');
        assert.equal(error.detail.field, field);
        assert.ok(error.message.startsWith(`${field} `), error.message);
        return true;
      });
    });
  }

  it('is refused with a sentence', () => {
    assert.throws(() => assertEnforceable({ security: { customPolicy: { enabled: true } } }), { message: 'security.custom_policy.enabled is not available yet, and is refused rather than ignored; leave it out' });
  });
});

describe('what is in force', () => {
  it('is open to visitors and audited unless the request says otherwise', () => {
    assert.deepEqual(enforcedPolicy({}), { allowPublicTraffic: true, audit: true, network: openPolicy, previews: 'private', maskRequestHost: null });
    const { network, ...rest } = enforcedPolicy({ network: { allowPublicTraffic: false, allowOut: ['A.example'], maskRequestHost: 'b.example' }, security: { audit: { enabled: false } } });
    assert.deepEqual(rest, { allowPublicTraffic: false, audit: false, previews: 'private', maskRequestHost: 'b.example' });
    assert.deepEqual(network, { allow: [{ kind: 'name', text: 'A.example', name: 'a.example' }], deny: [] });
  });

  it('takes from the policy what the network beside it leaves open', () => {
    assert.equal(enforcedPolicy({ security: { network: { allowPublicTraffic: false } } }).allowPublicTraffic, false);
    assert.equal(enforcedPolicy({ network: {}, security: { network: { allowPublicTraffic: false } } }).allowPublicTraffic, false);
    assert.equal(enforcedPolicy({ network: { allowPublicTraffic: true }, security: { network: { allowPublicTraffic: false } } }).allowPublicTraffic, true);
    const rules = (request: PolicyRequest): NetworkRules => ruleTexts(enforcedPolicy(request).network);
    assert.deepEqual(rules({ security: { network: { allowOut: ['a.example'] } } }), { allow: ['a.example'], deny: [] });
    assert.deepEqual(rules({ network: { denyOut: ['*'] }, security: { network: { allowOut: ['a.example'], denyOut: ['b.example'] } } }), { allow: ['a.example'], deny: ['*'] });
    assert.deepEqual(rules({ network: { allowOut: [] }, security: { network: { allowOut: ['a.example'] } } }), { allow: [], deny: [] });
  });
});

describe('masking', () => {
  it('hides the values of names that match, in either case', () => {
    const envs = { OPENAI_API_KEY: 'a', api_key: 'b', DB_PASSWORD: 'c', Github_Token: 'd', MODE: 'e', KEYBOARD: 'f' };
    assert.deepEqual(maskEnvs(envs, defaultMaskPatterns), { OPENAI_API_KEY: '***', api_key: '***', DB_PASSWORD: '***', Github_Token: '***', MODE: 'e', KEYBOARD: 'f' });
    assert.deepEqual(maskEnvs({ PIN: '1', PINS: '2', SPIN: '3' }, ['p?n', '*ns']), { PIN: '***', PINS: '***', SPIN: '3' });
    assert.deepEqual(maskEnvs({ A: '1' }, []), { A: '1' });
  });

  it('matches globs as a regular expression would', () => {
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom('a', 'b', '*', '?'), maxLength: 8 }), fc.string({ unit: fc.constantFrom('a', 'b'), maxLength: 10 }), (glob, text) => {
        const expression = new RegExp(`^${glob.replaceAll('*', '.*').replaceAll('?', '.')}$`);
        assert.equal(globMatches(glob, text), expression.test(text));
      }),
      { numRuns: 2000 },
    );
  });

  it('is not slowed down by patterns made to be slow', () => {
    const begun = performance.now();
    assert.equal(globMatches(`${'*a'.repeat(100)}b`, 'a'.repeat(5000)), false);
    assert.ok(performance.now() - begun < 200);
  });
});
