import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseHostPattern, parseHostRegex } from './hosts.ts';
import { applicability, ruleForHost, secretHostMatches } from './matching.ts';
import { secretRule } from './rules.ts';

const matchesRegex = (pattern: string, name: string): boolean => parseHostRegex(pattern, 'domain_regex').some((host) => secretHostMatches(host, name));
const fields = { hosts: 'hosts', header: 'header', prefix: 'prefix', username: 'username', headers: 'headers', query: 'query' };

test('a host is an exact name or one level below a domain of its owner', () => {
  for (const [pattern, name, expected] of [
    ['api.openai.com', 'api.openai.com', true],
    ['API.OpenAI.com.', 'api.openai.com', true],
    ['api.openai.com', 'xapi.openai.com', false],
    ['api.openai.com', 'api.openai.com.evil.example', false],
    ['*.openai.com', 'api.openai.com', true],
    ['*.openai.com', 'openai.com', false],
    ['*.openai.com', 'a.b.openai.com', false],
    ['*.openai.com', 'evilopenai.com', false],
    ['*.api.example.co.uk', 'x.api.example.co.uk', true],
  ] as const) {
    assert.equal(secretHostMatches(parseHostPattern(pattern, 'hosts[0]'), name), expected, `${pattern} and ${name}`);
  }
});

test('a wildcard below which anybody gets a name is refused, and so is what is no host', () => {
  for (const pattern of ['*.com', '*.co.uk', '*.github.io', '*.s3.amazonaws.com', '*.herokuapp.com', '*.example']) {
    assert.throws(() => parseHostPattern(pattern, 'hosts[0]'), { code: 'invalid_argument', message: /^hosts\[0\] ".*" is too broad: anybody can get a name below/ }, pattern);
  }
  for (const pattern of ['', '*', '*.', '**.a.com', 'a.*.com', 'https://a.com', 'a.com/x', 'a.com:443', '10.0.0.1', '127.1', 'a b.com', 'a\r\nb.com', 'a..com', '*.*.com', '[::1]', 'x'.repeat(300)]) {
    assert.throws(() => parseHostPattern(pattern, 'hosts[0]'), { code: 'invalid_argument', message: /^hosts\[0\] / }, pattern);
  }
});

test('a regular expression matches whole names of one registered domain', () => {
  for (const [pattern, name, expected] of [
    ['^api\\.openai\\.com$', 'api.openai.com', true],
    ['api\\.openai\\.com', 'xapi.openai.com', false],
    ['api.openai.com', 'api.openai.com', true],
    ['api.openai.com', 'apixopenai.com', false],
    ['.*\\.openai\\.com', 'a.b.openai.com', true],
    ['.*\\.openai\\.com', 'openai.com', false],
    ['.*.openai.com', 'a.openai.com', true],
    ['.*.openai.com', 'evilopenai.com', false],
    ['(.*\\.)?openai\\.com', 'openai.com', true],
    ['(.*\\.)?openai\\.com', 'evilopenai.com', false],
    ['(?:[a-z0-9-]+\\.)*openai\\.com', 'a.b.openai.com', true],
    ['(api|files)\\.openai\\.com', 'files.openai.com', true],
    ['^(api\\.openai\\.com|api\\.anthropic\\.com)$', 'api.anthropic.com', true],
    ['^api\\.openai\\.com$|^api\\.x\\.ai$', 'api.x.ai', true],
    ['(?i)API\\.OpenAI\\.com', 'api.openai.com', true],
    ['[^.]+\\.api\\.example\\.co\\.uk', 'x.api.example.co.uk', true],
    ['eu-\\d+\\.api\\.example\\.com', 'eu-12.api.example.com', true],
    ['eu-\\d+\\.api\\.example\\.com', 'eu-12.apiXexample.com', false],
    ['\\w+\\.api-x\\.example\\.com', 'a.api-x.example.com', true],
  ] as const) {
    assert.equal(matchesRegex(pattern, name), expected, `${pattern} and ${name}`);
  }
});

test('a regular expression that would match somebody else’s host is refused with what to write', () => {
  for (const pattern of [
    '.*', '.+', '^.*$', '', '(.*)', '.*\\.com', '.*\\.co\\.uk', '.*\\.github\\.io', '.*openai\\.com', '\\w*openai\\.com', 'x?openai\\.com', 'api\\.(openai|evil)\\.com', 'api\\.openai\\.[a-z]+', 'api\\.openai\\.com.*',
    'api\\.openai\\.com?', 'api\\.openai\\.com\\.?x*', '(a|b\\.)?openai\\.com', '(.*\\.|x)openai\\.com', '[a-z.]*openai\\.com', '(.*)openai\\.com', 'api\\.openai\\.com|.*', '(?:api\\.openai\\.com|.*)', '.*[.]com', '.*\\x2ecom',
    'api[.]openai[.]com|evil', '(', 'a**', '(?=a)openai\\.com', '\\Q.*\\E\\.openai\\.com', '(.\\b)openai\\.com', 'a b', 'ä\\.openai\\.com', 'x'.repeat(257), '(a{1,30}){1,30}\\.openai\\.com', '.*\\.localhost', '\\.openai\\.com', '10.0.0.1', '.*\\.0\\.1',
  ]) {
    let hosts;
    try {
      hosts = parseHostRegex(pattern, 'scopes[0].domain_regex');
    } catch (error) {
      assert.match((error as Error).message, /^scopes\[0\]\.domain_regex ./, pattern);
      continue;
    }
    // What is taken must be one host by name, and nothing beside it.
    for (const host of hosts) assert.equal(host.kind, 'name', pattern);
  }
  assert.throws(() => parseHostRegex('.*openai\\.com', 'f'), { message: 'f ".*openai\\\\.com" is too broad: it would match anybody\'s evilopenai.com too; write a dot before it, as in .*\\.openai\\.com' });
});

test('whatever is taken never matches a name outside the domains that its text ends in', () => {
  const piece = fc.constantFrom('.*', '.', '\\.', 'a', 'b', '[a-z]', '(', ')', '|', '?', '*', '+', '^', '$', 'openai\\.com', 'openai.com', '\\.openai\\.com', '(?:', '\\w', '[.]', '-');
  const label = fc.stringMatching(/^[a-z]{1,6}$/);
  fc.assert(
    fc.property(fc.array(piece, { minLength: 1, maxLength: 8 }), fc.array(label, { minLength: 1, maxLength: 3 }), fc.constantFrom('evilopenai.com', 'openaixcom.net', 'evil.com', 'ab.ba', 'com'), (pieces, labels, end) => {
      let hosts;
      try {
        hosts = parseHostRegex(pieces.join(''), 'f');
      } catch {
        return;
      }
      for (const host of hosts) {
        if (host.kind !== 'regex') continue;
        for (const name of [end, `${labels.join('.')}.${end}`, `${labels.join('')}openai.com`, labels.join('.')]) {
          if (name !== 'openai.com' && !name.endsWith('.openai.com')) assert.ok(!secretHostMatches(host, name), `${pieces.join('')} matches ${name}`);
        }
      }
    }),
    { numRuns: 5000 },
  );
});

test('the first rule for a host applies, and only over https with a secret that is there', () => {
  const rule = (host: string, kind: 'bearer' | 'basic') => secretRule({ hosts: [parseHostPattern(host, 'hosts[0]')], place: kind === 'bearer' ? { kind } : { kind, username: null } }, fields);
  const rules = [rule('api.example.com', 'bearer'), rule('*.example.com', 'basic')];
  assert.equal(ruleForHost(rules, 'api.example.com'), rules[0]);
  assert.equal(ruleForHost(rules, 'git.example.com'), rules[1]);
  const target = { secure: true, host: 'api.example.com', method: 'GET', path: '/' };
  const binding = { secretName: 'KEY', value: 'v', rules };
  const code = (result: ReturnType<typeof applicability>): string => (result.applies ? 'applies' : result.code);
  assert.equal(code(applicability(binding, target)), 'applies');
  assert.equal(code(applicability(binding, { ...target, secure: false })), 'plain_http');
  assert.equal(code(applicability({ ...binding, value: null }, target)), 'credential_revoked');
  assert.equal(code(applicability({ ...binding, value: null }, { ...target, host: 'evil.example' })), 'credential_host_mismatch');
  const narrow = { ...binding, rules: [{ ...rules[0]!, methods: ['POST'], paths: ['/v1'] }] };
  assert.equal(code(applicability(narrow, target)), 'credential_scope_mismatch');
  assert.equal(code(applicability(narrow, { ...target, method: 'POST', path: '/v1evil' })), 'credential_scope_mismatch');
  assert.equal(code(applicability(narrow, { ...target, method: 'POST', path: '/v1/x' })), 'applies');
});
