import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { PaddockError } from '../errors.ts';
import { canonicalName } from './names.ts';
import { parsePolicy, type RuleForms } from './parse.ts';
import type { DestinationRule } from './rules.ts';

function one(text: string, forms?: RuleForms): DestinationRule {
  const [rule] = parsePolicy({ allow: [text], deny: [] }, { allow: 'network.allow_out', deny: 'network.deny_out' }, forms === undefined ? {} : { allow: forms }).allow;
  assert.ok(rule);
  return rule;
}

describe('a rule is understood', () => {
  const understood: [string, object][] = [
    ['1.2.3.4', { kind: 'cidr', base: 0x0102_0304, prefix: 32 }],
    ['1.2.3.4/8', { kind: 'cidr', base: 0x0100_0000, prefix: 8 }],
    ['255.255.255.255/1', { kind: 'cidr', base: 0x8000_0000, prefix: 1 }],
    ['0.0.0.0/0', { kind: 'all' }],
    ['*', { kind: 'all' }],
    ['ALL_TRAFFIC', { kind: 'all' }],
    ['PyPI.org', { kind: 'name', name: 'pypi.org' }],
    ['pypi.org.', { kind: 'name', name: 'pypi.org' }],
    ['_dmarc.x.com', { kind: 'name', name: '_dmarc.x.com' }],
    ['intranet', { kind: 'name', name: 'intranet' }],
    ['1password.com', { kind: 'name', name: '1password.com' }],
    ['bücher.example', { kind: 'name', name: 'xn--bcher-kva.example' }],
    ['BÜCHER.example', { kind: 'name', name: 'xn--bcher-kva.example' }],
    ['例え。テスト', { kind: 'name', name: 'xn--r8jz45g.xn--zckzah' }],
    ['*.Example.com', { kind: 'suffix', suffix: 'example.com' }],
    ['*.com', { kind: 'suffix', suffix: 'com' }],
    ['~^api-[0-9]+\\.x\\.com$', { kind: 'regex', pattern: '^api-[0-9]+\\.x\\.com$' }],
  ];
  for (const [text, expected] of understood) it(text, () => assert.deepEqual(one(text), { ...expected, text }));
});

describe('a rule is refused with what to write instead', () => {
  const refused: [string, string][] = [
    ['', '"" is empty; leave it out'],
    [' x.com', '" x.com" has spaces around it'],
    ['https://x.com/a', '"https://x.com/a" is a URL; give only the host'],
    ['x.com:443', '"x.com:443" has a port; give only the host: rules hold for every port'],
    ['1.2.3.4:443', '"1.2.3.4:443" has a port; give only the host: rules hold for every port'],
    ['x.com/path', '"x.com/path" has a path; give only the host'],
    ['x.com/8', '"x.com/8" is not an IPv4 address of four decimal numbers from 0 to 255'],
    ['me@x.com', '"me@x.com" has a user name; give only the host'],
    ['::1', '"::1" is an IPv6 address; IPv6 is not supported, and sandboxes have none: nothing needs to be denied'],
    ['::ffff:10.0.0.1', '"::ffff:10.0.0.1" is an IPv6 address; IPv6 is not supported, and sandboxes have none: nothing needs to be denied'],
    ['2001:db8::/32', '"2001:db8::/32" is an IPv6 address; IPv6 is not supported, and sandboxes have none: nothing needs to be denied'],
    ['[::1]:80', '"[::1]:80" is an IPv6 address; IPv6 is not supported, and sandboxes have none: nothing needs to be denied'],
    ['.x.com', '".x.com" starts with a dot; write *.x.com for every host below it'],
    ['a.*.x.com', '"a.*.x.com" has a * in another place than a leading *.; use ~regex for other patterns'],
    ['*x.com', '"*x.com" has a * in another place than a leading *.; use ~regex for other patterns'],
    ['*.*.x.com', '"*.*.x.com" has a * in another place than a leading *.; use ~regex for other patterns'],
    ['**', '"**" has a * in another place than a leading *.; use ~regex for other patterns'],
    ['1.2.3.4/33', '"1.2.3.4/33" has a prefix above 32'],
    ['1.2.3', '"1.2.3" is not an IPv4 address of four decimal numbers from 0 to 255; write 1.2.0.3, if that is what it means'],
    ['1.2.3.256', '"1.2.3.256" is not an IPv4 address of four decimal numbers from 0 to 255'],
    ['0177.0.0.1', '"0177.0.0.1" is not an IPv4 address of four decimal numbers from 0 to 255; write 127.0.0.1, if that is what it means'],
    ['2130706433', '"2130706433" is not an IPv4 address of four decimal numbers from 0 to 255; write 127.0.0.1, if that is what it means'],
    ['0x7f.1', '"0x7f.1" is not an IPv4 address of four decimal numbers from 0 to 255; write 127.0.0.1, if that is what it means'],
    ['*.1.2.3', '"*.1.2.3" is not an IPv4 address of four decimal numbers from 0 to 255'],
    ['１２７.0.0.1', '"１２７.0.0.1" is not an IPv4 address of four decimal numbers from 0 to 255'],
    ['not a host', '"not a host" is not a host name: labels of letters, digits, - and _, at most 63 characters each and 253 together'],
    ['-x.com', '"-x.com" is not a host name: labels of letters, digits, - and _, at most 63 characters each and 253 together'],
    ['a..b', '"a..b" is not a host name: labels of letters, digits, - and _, at most 63 characters each and 253 together'],
    ['x.com\0', '"x.com\\u0000" is not a host name: labels of letters, digits, - and _, at most 63 characters each and 253 together'],
    ['*.', '"*." is not a host name: labels of letters, digits, - and _, at most 63 characters each and 253 together'],
    ['~', '"~" has no pattern behind the ~'],
    ['~(', '"~(" is not a regular expression of RE2 (missing closing ): `(`); look-around and back references are not supported'],
    ['~(?=a)', '"~(?=a)" is not a regular expression of RE2 (invalid or unsupported Perl syntax: `(?=`); look-around and back references are not supported'],
    ['~(a)\\1', '"~(a)\\\\1" is not a regular expression of RE2 (invalid escape sequence: `\\1`); look-around and back references are not supported'],
    [`~${'.{0,1000}'.repeat(3)}`, '"~.{0,1000}.{0,1000}.{0,1000}" repeats too much; use smaller counts in braces, or * and +'],
  ];
  for (const [text, message] of refused) {
    it(message, () => {
      assert.throws(() => one(text), (error: PaddockError) => {
        assert.equal(error.code, 'invalid_argument');
        assert.equal(error.detail.field, 'network.allow_out[0]');
        assert.equal(error.message, `network.allow_out[0] ${message}`);
        return true;
      });
    });
  }

  it('a long pattern, many rules and patterns that are heavy together', () => {
    assert.throws(() => one(`~${'a'.repeat(1001)}`), { message: /has a pattern of 1001 characters; the limit is 1000$/ });
    assert.throws(() => parsePolicy({ allow: [], deny: Array.from({ length: 1001 }, () => '*') }), { message: 'deny_out has 1001 entries; the limit is 1000' });
    const heavy = Array.from({ length: 8 }, () => '~.{0,900}');
    assert.throws(() => parsePolicy({ allow: heavy, deny: heavy }), { message: /^deny_out\[\d\] "~\.\{0,900\}" is one too many/ });
  });

  it('in a wire that takes fewer forms', () => {
    const addresses: RuleForms = { everything: false, names: false, patterns: false };
    assert.equal(one('0.0.0.0/0', addresses).kind, 'all');
    assert.throws(() => one('*', addresses), { message: 'network.allow_out[0] "*" does not stand for everything here; write 0.0.0.0/0' });
    assert.throws(() => one('x.com', addresses), { message: 'network.allow_out[0] "x.com" is not an IPv4 address or CIDR, and this list takes nothing else' });
    assert.throws(() => one('~x', addresses), { message: /is a regular expression, which is not taken here/ });
  });
});

describe('whatever is written', () => {
  it('it is a rule or an error of one kind, at once', () => {
    const text = fc.oneof(fc.string(), fc.string({ unit: 'binary' }), fc.domain(), fc.ipV6(), fc.webUrl(), fc.string({ unit: fc.constantFrom('a', '.', '*', '~', '/', ':', '1', '0', '(', '[', '{', '+', 'ü') }));
    fc.assert(
      fc.property(text, (rule) => {
        try {
          assert.equal(one(rule).text, rule);
        } catch (error) {
          assert.ok(error instanceof PaddockError && error.code === 'invalid_argument', String(error));
        }
      }),
      { numRuns: 5000 },
    );
  });

  it('a name has one form', () => {
    fc.assert(fc.property(fc.domain(), (name) => {
      const canonical = canonicalName(name);
      if (canonical === null) return;
      assert.equal(canonicalName(canonical), canonical);
      assert.equal(canonicalName(`${name.toUpperCase()}.`), canonical);
    }));
  });
});
