import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parsePolicy } from './parse.ts';
import { openPolicy } from './rules.ts';
import { explain, parseAuthority } from './target.ts';

describe('an authority', () => {
  const understood: [string, unknown][] = [
    ['X.com', { host: { kind: 'name', name: 'x.com' }, port: null }],
    ['x.com:8080', { host: { kind: 'name', name: 'x.com' }, port: 8080 }],
    ['x.com.:', { host: { kind: 'name', name: 'x.com' }, port: null }],
    ['0x7f.1:80', { host: { kind: 'address', address: 0x7f00_0001 }, port: 80 }],
    ['[::ffff:10.0.0.1]:80', { host: { kind: 'ipv6', embedded: 0x0a00_0001 }, port: 80 }],
    ['fd00::1', { host: { kind: 'ipv6', embedded: null }, port: null }],
  ];
  for (const [text, expected] of understood) it(`${text} is understood`, () => assert.deepEqual(parseAuthority(text), expected));
  for (const text of ['', ':80', 'x.com:0', 'x.com:65536', 'x.com:80:80', 'me@x.com', 'x.com/a', 'x.com, y.com', 'x.com y.com', 'x.com:8o', 'x.com\t', '[::1', 'x.com#', '[x.com]']) {
    it(`${JSON.stringify(text)} is none`, () => assert.equal(parseAuthority(text), null));
  }
});

describe('an explanation', () => {
  it('says what decides and what would be dialled', () => {
    const rules = parsePolicy({ allow: ['*.x.com'], deny: ['*'] });
    const { verdict, ...rest } = explain(rules, 'https://user:pw@A.x.com:8443/path?q#f');
    assert.deepEqual(rest, { host: 'a.x.com', address: null, port: 8443, dials: 'a.x.com:8443, at an address that the server itself resolves', notes: ['Blocked all the same if the name resolves to nothing but addresses outside the public internet.'] });
    assert.deepEqual(verdict, { allowed: true, matchRule: 'domain', rule: '*.x.com', reason: '' });
    assert.deepEqual(explain(rules, '1.2.3.4').verdict.matchRule, 'cidr');
    assert.equal(explain(openPolicy, '1.2.3.4:22').dials, '1.2.3.4:22');
  });

  it('knows the ports of schemes, and every spelling of an address', () => {
    assert.equal(explain(openPolicy, 'http://x.com').port, 80);
    assert.equal(explain(openPolicy, 'postgres://u:p@db.x.com/base').port, 5432);
    assert.equal(explain(openPolicy, 'x.com').port, 443);
    assert.deepEqual([explain(openPolicy, 'http://0xa9.254.43518/').address, explain(openPolicy, 'http://0xa9.254.43518/').verdict.matchRule], ['169.254.169.254', 'internal-ip']);
    assert.equal(explain(openPolicy, 'http://[::ffff:169.254.169.254]/').verdict.matchRule, 'internal-ip');
    assert.equal(explain(openPolicy, 'https://[2606:4700::1111]').verdict.matchRule, 'protocol');
  });

  it('names what could still change the verdict', () => {
    assert.deepEqual(explain(parsePolicy({ allow: [], deny: ['1.2.3.0/24', 'evil.com'] }), 'x.com').notes.slice(1), ['Blocked if it resolves to an address that deny_out has.']);
    assert.deepEqual(explain(parsePolicy({ allow: [], deny: ['1.2.3.0/24', 'evil.com'] }), '9.9.9.9').notes, ['Blocked if the connection names a host (in TLS or HTTP) that deny_out has.']);
  });

  for (const target of ['', 'not a host', 'foo://x.com', 'x.com:0', 'https://']) {
    it(`refuses ${JSON.stringify(target)}`, () => assert.throws(() => explain(openPolicy, target), { code: 'invalid_argument' }));
  }
});
