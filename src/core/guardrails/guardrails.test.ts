import assert from 'node:assert/strict';
import { test } from 'node:test';
import { guardrailsRequest, parseGuardrails, piiTypes } from './guardrails.ts';

test('what is enabled and says nothing else has the defaults of the clients', () => {
  const on = { enabled: true };
  assert.deepEqual(parseGuardrails({ pii: on, injectionDefense: { ...on, domains: ['*'] }, toxicity: on, codeSecurity: on, invisibleText: on }), {
    invisibleText: { action: 'strip', detectZeroWidth: true, hosts: [] },
    transformations: [],
    pii: { types: piiTypes, action: 'redact', rehydrate: true, hosts: [] },
    injection: { action: 'log_only', threshold: 0.95, sensitivity: 'medium', mode: 'balanced', hosts: [{ kind: 'all', text: '*' }] },
    toxicity: { action: 'block', threshold: 0.9, hosts: [] },
    codeSecurity: { action: 'log_only', threshold: 0.6, excludedLanguages: [], detectSuspiciousImports: true, hosts: [] },
  });
});

test('what is off, or has no domains where those are needed, is nothing', () => {
  assert.equal(parseGuardrails({}), null);
  assert.equal(parseGuardrails({ pii: { enabled: false, types: ['email'] }, injectionDefense: { enabled: true, domains: [] }, transformations: [] }), null);
  assert.equal(parseGuardrails({ injectionDefense: { enabled: true } }), null);
});

test('no types are all types, and directions have their short names', () => {
  assert.deepEqual(parseGuardrails({ pii: { enabled: true, types: [] } })?.pii?.types, piiTypes);
  assert.deepEqual(parseGuardrails({ transformations: [{ match: 'a', replace: '', direction: 'in' }] })?.transformations, [{ match: 'a', replace: '', direction: 'inbound' }]);
});

test('what is stored is read as what it was', () => {
  const request = {
    pii: { enabled: true, types: ['ssn' as const], action: 'block' as const, rehydrate: false, domains: ['*.a.example', '~x+'] },
    injectionDefense: { enabled: true, domains: ['b.example'], sensitivity: 'high' as const, mode: 'strict' as const, threshold: 0.5, action: 'block' as const },
    codeSecurity: { enabled: true, excludedLanguages: ['go'], detectSuspiciousImports: false, threshold: 0.1, action: 'block' as const },
    invisibleText: { enabled: true, detectZeroWidth: false, action: 'log_only' as const },
    transformations: [{ match: 'a(b)', replace: '$1', direction: 'both' as const }],
  };
  const guardrails = parseGuardrails(request)!;
  assert.deepEqual(parseGuardrails(JSON.parse(JSON.stringify(guardrailsRequest(guardrails)))), guardrails);
});
