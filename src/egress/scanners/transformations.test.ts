import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { shapeOf } from '../../core/guardrails/pattern-shape.ts';
import { BodyTransformer, defaultTransformLimits, isTransformable, TransformationRefused, type TransformLimits } from './transformations.ts';
import { InvalidTransformation, parseTransformations } from '../../core/guardrails/transformations.ts';

function transformed(rules: readonly object[], body: string | Buffer, step = Infinity, limits: TransformLimits = defaultTransformLimits): Buffer {
  const transformer = new BodyTransformer(parseTransformations(rules), limits);
  const bytes = Buffer.from(body);
  const out: Buffer[] = [];
  for (let from = 0; from < bytes.length; from += step) out.push(transformer.write(bytes.subarray(from, from + step)));
  out.push(transformer.end());
  return Buffer.concat(out);
}

test('a match is replaced, also within JSON', () => {
  assert.equal(transformed([{ match: '[A-Z]{5}[0-9]{4}[A-Z]', replace: '<tax id>' }], '{"id":"ABCDE1234F"}').toString(), '{"id":"<tax id>"}');
});

test('a replacement may name groups of the match', () => {
  assert.equal(transformed([{ match: '(\\w+)@(\\w+)', replace: '${2} at $1 for $$5' }], 'joe@home').toString(), 'home at joe for $5');
});

test('rules are applied one after the other', () => {
  assert.equal(transformed([{ match: 'a', replace: 'b' }, { match: 'b', replace: 'c' }], 'ab').toString(), 'cc');
});

test('a match is found however the body is cut, and whatever stands before it', () => {
  const word = 'é €uro';
  for (const [match, text] of [['k-[0-9]{6}', 'k-123456'], ['(?:ab|c{3}){2}', 'abccc'], ['ünïcödé', 'ünïcödé']] as const) {
    for (let before = 32_700; before < 32_790; before += 5) {
      const body = `${word.repeat(before / 6)}${text}${word.repeat(9000)}`;
      assert.equal(transformed([{ match, replace: '#' }], body, 1000).toString(), body.replace(text, '#'));
    }
  }
  for (let step = 1; step < 12; step++) assert.equal(transformed([{ match: 'k-[0-9]{6}', replace: '#' }], 'ék-123456é', step).toString(), 'é#é');
});

test('bytes that are not UTF-8 stay what they are', () => {
  const body = Buffer.from([0xff, 0x00, 0x41, 0xc3, 0x28, 0x41]);
  assert.deepEqual(transformed([{ match: 'A', replace: 'B' }], body), Buffer.from([0xff, 0x00, 0x42, 0xc3, 0x28, 0x42]));
});

test('types of bodies that are text are told from those that are not', () => {
  for (const type of ['text/plain; charset=utf-8', 'application/json', 'application/problem+json', 'image/svg+xml', '']) assert.ok(isTransformable(type, Buffer.from('x')), type);
  for (const type of ['image/png', 'application/zip', 'video/mp4', 'application/pdf', 'application/grpc']) assert.ok(!isTransformable(type, Buffer.from('x')), type);
  assert.ok(!isTransformable('application/octet-stream', Buffer.from([1, 0])));
});

for (const [rule, field, message] of [
  [{ match: '(', replace: '' }, '[0].match', /not a valid regular expression/],
  [{ match: '(a+)+', replace: '' }, '[0].match', /repetition within a repetition/],
  [{ match: '(?:x*y){2,}', replace: '' }, '[0].match', /repetition within a repetition/],
  [{ match: 'x'.repeat(1001), replace: '' }, '[0].match', /has 1001 characters; the limit is 1000/],
  [{ match: 'a*', replace: '' }, '[0].match', /matches the empty text/],
  [{ match: '(?=a)', replace: '' }, '[0].match', /look-ahead/],
  [{ match: '(a)\\1', replace: '' }, '[0].match', /references back/],
  [{ match: '(?:[a-z]{1,900}[0-9]{1,900}){1}', replace: '' }, '[0].match', /too heavy|too large/],
  [{ match: 'a', replace: '$1' }, '[0].replace', /names group 1, and match has 0/],
  [{ match: 'a', replace: 'x'.repeat(10_001) }, '[0].replace', /limit is 10000/],
  [{ match: 'a', replace: '', direction: 'up' }, '[0].direction', /outbound, inbound or both/],
  [{ match: 1, replace: '' }, '[0].match', /must be a regular expression/],
  [{ match: 'a' }, '[0].replace', /must be a text/],
] as const) {
  test(`refused by name: ${JSON.stringify(rule).slice(0, 60)}`, () => {
    assert.throws(() => parseTransformations([rule]), (reason) => reason instanceof InvalidTransformation && reason.field === field && message.test(reason.message));
  });
}

test('counted repetitions within each other are no nested ones', () => {
  assert.equal(transformed([{ match: '(?:\\d{4}-){3}\\d{4}', replace: '#' }], '1111-2222-3333-4444').toString(), '#');
});

test('short names of directions mean the long ones', () => {
  assert.deepEqual(parseTransformations([{ match: 'a', replace: '', direction: 'in' }, { match: 'a', replace: '', direction: 'out' }, { match: 'a', replace: '' }]).map(({ direction }) => direction), ['inbound', 'outbound', 'outbound']);
});

test('the longest match that is foretold is never exceeded', () => {
  const pieces = fc.constantFrom('a', '[a-c]', '\\d', '.', 'b{2,4}', '(?:ab|c)', 'a?', '(b|cd){2}', '\\x61', '\\Qa+\\E', '\\pL');
  fc.assert(
    fc.property(fc.array(pieces, { minLength: 1, maxLength: 6 }), fc.string({ unit: fc.constantFrom('a', 'b', 'c', 'd', '1', '+'), maxLength: 200 }), (parts, text) => {
      const [rule] = parseTransformations([{ match: `x?${parts.join('')}a`, replace: '' }]);
      const matcher = rule!.pattern.matcher(text);
      while (matcher.find()) assert.ok(matcher.end() - matcher.start() <= shapeOf(rule!.match).longest);
    }),
  );
});

function refusal(code: TransformationRefused['code']): (reason: unknown) => boolean {
  return (reason) => reason instanceof TransformationRefused && reason.code === code;
}

test('attack: a rule that makes a body grow a thousandfold is refused before the memory is taken', () => {
  for (const step of [1000, Infinity]) assert.throws(() => transformed([{ match: 'a', replace: 'x'.repeat(1000) }], 'a'.repeat(1 << 20), step), refusal('transformation_too_large'));
  const doubling = Array.from({ length: 40 }, () => ({ match: 'a', replace: 'aa' }));
  assert.throws(() => transformed(doubling, 'a'.repeat(1000)), refusal('transformation_too_large'));
});

test('attack: a pattern that looks to the end of the body for every match is refused, not run', () => {
  assert.throws(() => transformed([{ match: 'a.*b|a', replace: '' }], 'a'.repeat(1 << 20)), refusal('transformation_too_slow'));
});

test('attack: a body that a rule needs as a whole is bounded', () => {
  assert.throws(() => transformed([{ match: 'a+', replace: '' }], 'b'.repeat(1001), 10, { ...defaultTransformLimits, wholeBody: 1000 }), refusal('body_too_large'));
});

test('attack: a bounded rule passes a long body in bounded memory', () => {
  const transformer = new BodyTransformer(parseTransformations([{ match: 'secret', replace: 'public' }]));
  const chunk = Buffer.from(' the secret is here'.repeat(1000));
  let size = 0;
  let matches = 0;
  for (let i = 1; i <= 500; i++) {
    const out = transformer.write(chunk);
    size += out.length;
    matches += out.toString().split('public').length - 1;
    assert.ok(i * chunk.length - size < 200_000);
  }
  matches += transformer.end().toString().split('public').length - 1;
  assert.ok(Math.abs(matches - 500_000) < 500, `${matches}`); // a few are cut by the borders of what was given back
  assert.equal(transformer.count, 500_000);
});
