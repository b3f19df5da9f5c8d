import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { isNeverReachable, parseIpv4 } from './addresses.ts';
import { decide, hasNameRules, mayResolve, shape, type Destination } from './decide.ts';
import { parsePolicy } from './parse.ts';
import { openPolicy, ruleTexts, type NetworkPolicy } from './rules.ts';

function to(text: string, port = 443): Destination {
  const [name = '', at] = text.includes('@') ? text.split('@') : parseIpv4(text) === null ? [text] : ['', text];
  return { name: name || null, address: at === undefined ? null : parseIpv4(at), port };
}
function policy(allow: string[], deny: string[] = []): NetworkPolicy {
  return parsePolicy({ allow, deny });
}

/** allow · deny · where to (`name@address`) · verdict */
const cases: [string[], string[], string, string][] = [
  // The worked cases of the contracts.
  [['api.x.com'], [], 'api.x.com@1.2.3.4', 'allowed domain api.x.com'],
  [['api.x.com'], [], 'other.com@1.2.3.4', 'blocked implicit-deny'],
  [['api.x.com'], ['0.0.0.0/0'], 'api.x.com@1.2.3.4', 'allowed domain api.x.com'],
  [['api.x.com'], ['0.0.0.0/0'], 'other.com@1.2.3.4', 'blocked cidr 0.0.0.0/0'],
  [['8.8.8.0/24'], ['8.8.8.8/32'], '8.8.8.8', 'allowed cidr 8.8.8.0/24'],
  [[], ['1.2.3.0/24'], '1.2.3.4', 'blocked cidr 1.2.3.0/24'],
  [[], ['1.2.3.0/24'], '1.2.4.4', 'allowed default'],
  [['api.x.com'], [], '1.2.3.4', 'blocked implicit-deny'],
  [[], [], '1.2.3.4', 'allowed default'],
  [[], [], 'any.name@1.2.3.4', 'allowed default'],
  // Private addresses, whatever the rules say, by address and by name.
  [['0.0.0.0/0'], [], '169.254.169.254', 'blocked internal-ip'],
  [['169.254.169.254', '10.0.0.0/8'], [], '10.1.2.3', 'blocked internal-ip'],
  [['rebind.x.com'], [], 'rebind.x.com@10.0.0.1', 'blocked internal-ip'],
  [['*'], ['*'], 'metadata.google.internal@169.254.169.254', 'blocked internal-ip'],
  // The apex is another host; any depth below it is not.
  [['*.x.com'], [], 'a.x.com@1.2.3.4', 'allowed domain *.x.com'],
  [['*.x.com'], [], 'a.b.c.x.com@1.2.3.4', 'allowed domain *.x.com'],
  [['*.x.com'], [], 'x.com@1.2.3.4', 'blocked implicit-deny'],
  [['*.x.com'], [], 'evilx.com@1.2.3.4', 'blocked implicit-deny'],
  [['*.x.com'], [], 'x.com.evil.com@1.2.3.4', 'blocked implicit-deny'],
  [['x.com'], [], 'a.x.com@1.2.3.4', 'blocked implicit-deny'],
  // Denials, and what an allow rule takes out of them.
  [[], ['*.x.com'], 'a.x.com@1.2.3.4', 'blocked domain *.x.com'],
  [['good.x.com'], ['*.x.com'], 'good.x.com@1.2.3.4', 'allowed domain good.x.com'],
  [['1.2.3.4'], ['evil.com'], 'evil.com@1.2.3.4', 'allowed cidr 1.2.3.4'],
  [['*'], ['evil.com'], 'evil.com@1.2.3.4', 'allowed cidr *'],
  [[], ['ALL_TRAFFIC'], 'evil.com@1.2.3.4', 'blocked cidr ALL_TRAFFIC'],
  [[], ['0.0.0.0/0'], '1.2.3.4', 'blocked cidr 0.0.0.0/0'],
  // Regular expressions are about the whole name, in either case.
  [['~api\\d+\\.x\\.com'], [], 'api12.x.com@1.2.3.4', 'allowed domain ~api\\d+\\.x\\.com'],
  [['~API\\d+\\.X\\.com'], [], 'api12.x.com@1.2.3.4', 'allowed domain ~API\\d+\\.X\\.com'],
  [['~api\\d+\\.x\\.com'], [], 'api12.x.com.evil.com@1.2.3.4', 'blocked implicit-deny'],
  [['~x\\.com'], [], 'evil-x.com@1.2.3.4', 'blocked implicit-deny'],
  [['~^x\\.com$'], [], 'x.com@1.2.3.4', 'allowed domain ~^x\\.com$'],
  [['~.*'], [], '1.2.3.4', 'blocked implicit-deny'],
  // Host bits are cut, letters have no case, international names are one name.
  [['1.2.3.99/24'], [], '1.2.3.4', 'allowed cidr 1.2.3.99/24'],
  [['API.X.com.'], [], 'api.x.com@1.2.3.4', 'allowed domain API.X.com.'],
  [['*.Bücher.example'], [], 'a.xn--bcher-kva.example@1.2.3.4', 'allowed domain *.Bücher.example'],
  [['5.6.7.8/0'], [], '1.2.3.4', 'allowed cidr 5.6.7.8/0'],
  // A name that is not resolved yet.
  [[], ['1.2.3.0/24'], 'any.name', 'allowed default'],
  [['1.2.3.0/24'], [], 'any.name', 'blocked implicit-deny'],
  [[], ['*'], 'any.name', 'blocked cidr *'],
];

describe('the verdict', () => {
  for (const [allow, deny, where, expected] of cases) {
    it(`allow [${allow.join(', ')}] deny [${deny.join(', ')}]: ${where} is ${expected}`, () => {
      const destination = where.includes('@') || parseIpv4(where) === null ? to(where) : { name: null, address: parseIpv4(where), port: 443 };
      const verdict = decide(policy(allow, deny), destination);
      assert.equal([verdict.allowed ? 'allowed' : 'blocked', verdict.matchRule, ...(verdict.rule === null ? [] : [verdict.rule])].join(' '), expected);
      assert.equal(verdict.reason === '', verdict.allowed);
    });
  }

  it('says why in a sentence', () => {
    assert.equal(decide(policy([], ['*.x.com']), to('a.x.com@1.2.3.4')).reason, 'a.x.com (1.2.3.4) is denied by the rule "*.x.com" in deny_out.');
    assert.equal(decide(policy(['x.com']), to('y.com')).reason, 'y.com matches no rule in allow_out, and a sandbox with such rules reaches nothing else.');
    assert.equal(decide(openPolicy, to('y.com@127.0.0.1')).reason, 'y.com (127.0.0.1) is not on the public internet (loopback); no rule can open it.');
  });

  it('about a name before it is resolved is the resolver\'s', () => {
    assert.equal(mayResolve(policy(['x.com']), 'x.com'), true);
    assert.equal(mayResolve(policy(['x.com']), 'secret.evil.com'), false);
    assert.equal(mayResolve(policy([], ['0.0.0.0/0']), 'secret.evil.com'), false);
    assert.equal(mayResolve(policy([], ['*.evil.com']), 'secret.evil.com'), false);
    assert.equal(mayResolve(openPolicy, 'any.com'), true);
  });
});

const address = fc.integer({ min: 0, max: 0xffff_ffff });
const anyName = fc.array(fc.constantFrom('a', 'b', 'x', 'com', 'xn--bcher-kva'), { minLength: 1, maxLength: 4 }).map((labels) => labels.join('.'));
const anyRule = fc.oneof(fc.constantFrom('*', '0.0.0.0/0', '~.*', '~[ab]+\\.com', '10.0.0.0/8'), anyName, anyName.map((name) => `*.${name}`), fc.tuple(fc.ipV4(), fc.integer({ min: 0, max: 32 })).map(([base, prefix]) => `${base}/${prefix}`));
const anyPolicy = fc.record({ allow: fc.array(anyRule, { maxLength: 4 }), deny: fc.array(anyRule, { maxLength: 4 }) }).map((rules) => parsePolicy(rules));
const anyDestination = fc.record({ name: fc.option(anyName, { nil: null }), address, port: fc.constant(443) });

describe('whatever the rules', () => {
  it('an address outside the public internet is blocked', () => {
    fc.assert(fc.property(anyPolicy, anyDestination, (rules, destination) => !isNeverReachable(destination.address) || decide(rules, destination).matchRule === 'internal-ip'), { numRuns: 3000 });
  });

  it('a name that may not be resolved is blocked at every address that no rule allows', () => {
    fc.assert(
      fc.property(anyPolicy, anyDestination, (rules, destination) => {
        if (destination.name === null || mayResolve(rules, destination.name)) return;
        const verdict = decide(rules, destination);
        assert.ok(!verdict.allowed || (verdict.matchRule === 'cidr' && rules.allow.some((rule) => rule.text === verdict.rule)));
      }),
      { numRuns: 3000 },
    );
  });

  it('more rules to allow never block, more rules to deny never allow', () => {
    fc.assert(
      fc.property(anyPolicy, anyRule, anyDestination, (rules, extra, destination) => {
        const texts = ruleTexts(rules);
        const now = decide(rules, destination).allowed;
        if (rules.allow.length > 0 && now) assert.ok(decide(parsePolicy({ ...texts, allow: [...texts.allow, extra] }), destination).allowed);
        if (!now) assert.ok(!decide(parsePolicy({ ...texts, deny: [...texts.deny, extra] }), destination).allowed);
      }),
      { numRuns: 2000 },
    );
  });

  it('the packet filter refuses nothing that the verdict on the address alone allows, and lets through nothing that no name could allow', () => {
    fc.assert(
      fc.property(anyPolicy, address, (rules, value) => {
        if (isNeverReachable(value)) return;
        const { mode, allowCidrs, denyCidrs } = shape(rules);
        const within = (cidrs: typeof allowCidrs): boolean => cidrs.some(({ base, prefix }) => prefix === 0 || base >>> (32 - prefix) === value >>> (32 - prefix));
        const passes = within(allowCidrs) || (!within(denyCidrs) && mode === 'open');
        assert.equal(passes, decide(rules, { name: null, address: value, port: 443 }).allowed);
      }),
      { numRuns: 3000 },
    );
  });
});

describe('what the packet filter is told', () => {
  it('follows the rules', () => {
    assert.deepEqual(shape(openPolicy), { mode: 'open', allowCidrs: [], denyCidrs: [], names: false });
    assert.deepEqual(shape(policy(['x.com', '1.0.0.0/8', '1.2.0.0/16'], ['*'])), { mode: 'strict', allowCidrs: [{ base: 0x0100_0000, prefix: 8 }], denyCidrs: [], names: true });
    assert.deepEqual(shape(policy([], ['x.com', '1.0.0.0/8'])), { mode: 'open', allowCidrs: [], denyCidrs: [{ base: 0x0100_0000, prefix: 8 }], names: true });
    assert.deepEqual(shape(policy(['*'], ['x.com'])), { mode: 'open', allowCidrs: [], denyCidrs: [], names: false });
    assert.equal(hasNameRules(policy(['1.2.3.4'], ['*'])), false);
  });
});

describe('a regular expression made to be slow', () => {
  it('backtracks in other engines, and is linear here', () => {
    const rules = policy(['~(a+)+$']);
    const begun = performance.now();
    assert.equal(decide(rules, { name: `${'a'.repeat(100_000)}!`, address: null, port: 443 }).allowed, false);
    assert.equal(decide(rules, { name: 'a'.repeat(100_000), address: null, port: 443 }).allowed, true);
    assert.ok(performance.now() - begun < 1000);
  });

  it('is bounded together with the others', () => {
    const rules = policy(Array.from({ length: 9 }, (_, i) => `~(.{0,900}){1}${'a'.repeat(i)}!`));
    const begun = performance.now();
    for (let i = 0; i < 10; i++) decide(rules, { name: 'a.b-'.repeat(63), address: null, port: 443 });
    assert.ok(performance.now() - begun < 2000);
  });
});
