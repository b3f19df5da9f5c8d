import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseHostPattern } from '../../core/secrets/hosts.ts';
import { secretHostMatches } from '../../core/secrets/matching.ts';
import { secretRule } from '../../core/secrets/rules.ts';
import { regexOf, ruleOf, scopesOf, type ScopeBody } from './scopes.ts';

const at = { domain_regex: 'api\\.example\\.com' };

test('each injection type becomes a place, and is shown as it was asked for', () => {
  const cases: [ScopeBody, object, Partial<ScopeBody>][] = [
    [at, { kind: 'bearer' }, { injection_type: 'bearer' }],
    [{ ...at, injection_type: 'bearer', header_name: 'Authorization', value_prefix: 'Bearer ' }, { kind: 'bearer' }, { injection_type: 'bearer' }],
    [{ ...at, injection_type: 'bearer', value_prefix: 'Token ' }, { kind: 'header', name: 'authorization', prefix: 'Token ' }, { injection_type: 'header', value_prefix: 'Token ' }],
    [{ ...at, header_name: 'X-Key' }, { kind: 'header', name: 'x-key', prefix: '' }, { injection_type: 'header', header_name: 'x-key' }],
    [{ ...at, basic_username: 'me' }, { kind: 'basic', username: 'me' }, { injection_type: 'basic', basic_username: 'me' }],
    [{ ...at, injection_type: 'basic' }, { kind: 'basic', username: null }, { injection_type: 'basic' }],
    [{ ...at, injection_type: 'query', query_params: { key: '', alt: 'json' } }, { kind: 'query', name: 'key' }, { query_params: { key: '{{ value }}', alt: 'json' } }],
    [{ ...at, injection_type: 'query', header_name: 'key' }, { kind: 'query', name: 'key' }, { query_params: { key: '{{ value }}' } }],
    [{ ...at, injection_type: 'header', extra_headers: { 'X-A': 'k={{value}}', 'X-B': 'plain' } }, { kind: 'headers', headers: { 'x-a': 'k={{ value }}' } }, { extra_headers: { 'x-a': 'k={{ value }}', 'x-b': 'plain' } }],
  ];
  for (const [scope, place, shown] of cases) {
    const rule = ruleOf(scope, 'scopes[0]');
    assert.deepEqual(rule.place, place, JSON.stringify(scope));
    const [again] = scopesOf([rule]);
    for (const [field, value] of Object.entries({ ...at, ...shown })) assert.deepEqual(again![field as keyof ScopeBody], value, `${field} of ${JSON.stringify(scope)}`);
    assert.deepEqual(ruleOf(again!, 'scopes[0]').place, rule.place);
    assert.deepEqual(scopesOf([ruleOf(again!, 'scopes[0]')]), [again]);
  }
});

test('hosts of another wire are shown as expressions that match the same names', () => {
  const fields = { hosts: 'h', header: 'h', prefix: 'h', username: 'h', headers: 'h', query: 'h' };
  for (const [host, yes, no] of [['api.example.com', 'api.example.com', 'xapi.example.com'], ['*.example.com', 'a.example.com', 'a.b.example.com']] as const) {
    const [scope] = scopesOf([secretRule({ hosts: [parseHostPattern(host, 'h')], place: { kind: 'bearer' } }, fields)]);
    const { hosts } = ruleOf(scope!, 'scopes[0]');
    assert.ok(hosts.some((each) => secretHostMatches(each, yes)) && !hosts.some((each) => secretHostMatches(each, no)), regexOf(hosts[0]!));
  }
});

test('alternatives of one expression are one scope again', () => {
  const scope = { domain_regex: '^(a\\.example\\.com|b\\.example\\.org)$', injection_type: 'bearer' };
  assert.deepEqual(scopesOf([ruleOf(scope, 'scopes[0]')]).map((each) => each.domain_regex), [scope.domain_regex]);
});
