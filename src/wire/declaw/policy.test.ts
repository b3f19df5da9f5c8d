import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { createSecurityPolicy, securityPolicyToJSON } from '@declaw/sdk';
import { PaddockError } from '../../core/errors.ts';
import { readSecurity } from './policy.ts';

const off = { enabled: false };

test('a policy that the SDK builds is understood in both envelopes', () => {
  const policy = securityPolicyToJSON(createSecurityPolicy());
  const understood = readSecurity(policy);
  assert.deepEqual(understood, readSecurity({ policy_json: JSON.stringify(policy) }));
  assert.deepEqual([understood.pii?.enabled, understood.pii?.rehydrate, understood.audit, understood.transformations], [false, true, { enabled: true }, []]);
});

test('an empty policy asks for nothing', () => {
  assert.deepEqual(readSecurity({}), {
    pii: off, injectionDefense: off, transformations: [], audit: { enabled: true }, envSecurity: {}, toxicity: off, codeSecurity: off, invisibleText: off, contentGate: off, customPolicy: off,
  });
});

test('shorthands, aliases, nulls and unknown keys are taken apart', () => {
  const understood = readSecurity({ injection_defense: true, audit: false, pii: { enabled: true, types: ['phone_number'], domains: null }, network: { allow_out: null, deny_out: ['*'] }, future: { a: 1 } });
  assert.deepEqual([understood.injectionDefense, understood.audit, understood.pii, understood.network], [{ enabled: true }, off, { enabled: true, types: ['phone'] }, { denyOut: ['*'] }]);
});

describe('what is wrong is named with its path and with what is allowed', () => {
  const wrong: [unknown, string][] = [
    [{ policy_json: '{' }, 'security.policy_json must be the JSON text of a policy, but is not valid JSON.'],
    [{ policy_json: '"x"' }, 'security must be an object.'],
    [{ policy_json: 'null' }, 'security must be an object.'],
    [{ pii: 'on' }, 'security.pii must be an object.'],
    [{ pii: { enabled: 'yes' } }, 'security.pii.enabled must be true or false.'],
    [{ pii: { types: ['email', 'shoe_size'] } }, 'security.pii.types[1] must be one of ssn, credit_card, email, phone, phone_number, person_name, api_key, address, ip_address.'],
    [{ pii: { action: 'shout' } }, 'security.pii.action must be one of redact, block, log_only.'],
    [{ injection_defense: 5 }, 'security.injection_defense must be true or false or an object.'],
    [{ injection_defense: { threshold: 2 } }, 'security.injection_defense.threshold must be at most 1.'],
    [{ injection_defense: { threshold: '0.5' } }, 'security.injection_defense.threshold must be a number.'],
    [{ transformations: [{ replace: 'x' }] }, 'security.transformations[0].match is required.'],
    [{ transformations: [{ match: 'a', replace: 'b', direction: 'up' }] }, 'security.transformations[0].direction must be one of outbound, inbound, both, out, in.'],
    [{ transformations: [{ match: 'a'.repeat(1001), replace: '' }] }, 'security.transformations[0].match must have at most 1000 characters.'],
    [{ audit: 'off' }, 'security.audit must be true or false or an object.'],
    [{ toxicity: { threshold: -1 } }, 'security.toxicity.threshold must be at least 0.'],
    [{ custom_policy: { inline_modules: 'x' } }, 'security.custom_policy.inline_modules must be a list.'],
    [{ network: { allow_out: 'x' } }, 'security.network.allow_out must be a list.'],
  ];
  for (const [security, message] of wrong) {
    test(JSON.stringify(security).slice(0, 80), () => {
      assert.throws(() => readSecurity(security), (error: unknown) => {
        assert.ok(error instanceof PaddockError && error.code === 'invalid_argument');
        assert.equal(error.message, message);
        return true;
      });
    });
  }
});

test('a policy nested without end is refused instead of exhausting the stack', () => {
  const text = `${'{"a":'.repeat(100_000)}1${'}'.repeat(100_000)}`;
  assert.throws(() => readSecurity({ policy_json: text }), (error: unknown) => error instanceof PaddockError && /nested deeper/.test(error.message));
});
