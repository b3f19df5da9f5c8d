import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Matcher } from './matcher.ts';
import { Needles } from './needles.ts';
import { spellings, Unescaper } from './spellings.ts';

/** Few letters, so that texts overlap. */
const text = (minLength: number, maxLength: number): fc.Arbitrary<string> => fc.string({ unit: fc.constantFrom('a', 'b', '%', '/'), minLength, maxLength });

test('of many texts the first is found, and of those the longest', () => {
  fc.assert(
    fc.property(fc.array(text(6, 9), { minLength: 1, maxLength: 6 }), text(0, 60), fc.nat(10), (patterns, hay, from) => {
      const starts = patterns.map((pattern) => hay.indexOf(pattern, from)).filter((at) => at >= 0);
      const found = new Matcher(patterns.map((pattern) => Buffer.from(pattern))).find(Buffer.from(hay), from);
      if (starts.length === 0) return assert.equal(found, null);
      const start = Math.min(...starts);
      const longest = Math.max(...patterns.filter((pattern) => hay.startsWith(pattern, start)).map((pattern) => pattern.length));
      return assert.deepEqual([found?.start, found?.end], [start, start + longest]);
    }),
    { numRuns: 3000 },
  );
});

/** The body in pieces of these sizes, through the filter. */
function pass(filter: { push(chunk: Buffer): unknown; end(): unknown }, body: Buffer, sizes: readonly number[]): string {
  const out: Buffer[] = [];
  let at = 0;
  for (const size of [...sizes, body.length]) {
    out.push(filter.push(body.subarray(at, at + size)) as Buffer);
    at += size;
  }
  out.push(filter.end() as Buffer);
  return Buffer.concat(out).toString();
}

test('however a body is cut, what comes out is the same, and holds no value', () => {
  fc.assert(
    fc.property(text(6, 8), text(0, 40), text(0, 40), fc.array(fc.integer({ min: 1, max: 5 }), { maxLength: 40 }), (value, before, after, sizes) => {
      const needles = new Needles([{ owner: 'x', text: value, replacement: '<>' }]);
      const body = Buffer.from(before + value + after);
      let counted = 0;
      const whole = pass(needles.replacer(() => counted++), body, []);
      assert.ok(counted >= 1);
      assert.equal(pass(needles.replacer(() => {}), body, sizes), whole);
      assert.ok(!whole.includes(value));
      const seen: string[] = [];
      pass(needles.searcher((owner) => seen.push(owner)), body, sizes);
      assert.ok(seen.length >= 1);
    }),
    { numRuns: 2000 },
  );
});

test('what is no beginning of a value is not held back', () => {
  const filter = new Needles([{ owner: 1, text: 'secret-value', replacement: 'x' }]).replacer(() => {});
  assert.equal(String(filter.push(Buffer.from('data: 1\n\n'))), 'data: 1\n\n');
  assert.equal(String(filter.push(Buffer.from('data: sec'))), 'data: ');
  assert.equal(String(filter.push(Buffer.from('ond\n\n'))), 'second\n\n');
});

test('a value that begins as another one does: the longer one goes as a whole', () => {
  const filter = new Needles([{ owner: 1, text: 'token-123', replacement: 'A' }, { owner: 2, text: 'token-123-and-more', replacement: 'B' }]).replacer(() => {});
  assert.equal(pass(filter, Buffer.from('x token-123-and-more y token-123-and z'), [12, 3, 9, 9]), 'x B y A-and z');
});

test('every spelling that programs use is among the spellings', () => {
  const value = 'p@ss/w+rd "<é>&\'x=';
  const forms = new Set(spellings(value).map(String));
  for (const form of [value, encodeURIComponent(value), new URLSearchParams({ v: value }).toString().slice(2), JSON.stringify(value).slice(1, -1), Buffer.from(value).toString('hex'), value.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;').replaceAll("'", '&#x27;')]) assert.ok(forms.has(form), form);
});

test('base64 of any text that holds the value holds one of its spellings', () => {
  fc.assert(
    fc.property(fc.string({ minLength: 8, maxLength: 30 }), fc.string({ maxLength: 5 }), fc.string({ maxLength: 5 }), fc.boolean(), (value, before, after, url) => {
      const packed = Buffer.from(before + value + after).toString(url ? 'base64url' : 'base64');
      assert.ok(spellings(value).some((form) => packed.includes(String(form))));
    }),
  );
});

test('escapes of all kinds are undone, wherever they are cut', () => {
  fc.assert(
    fc.property(fc.stringMatching(/^[ -~]{0,30}$/), fc.array(fc.integer({ min: 1, max: 4 }), { maxLength: 60 }), (plain, sizes) => {
      const escaped = Buffer.from([...plain].map((char, i) => (i % 3 === 0 || char === '%' || char === '\\' ? `%${char.charCodeAt(0).toString(16).padStart(2, '0')}` : i % 3 === 1 ? `\\u00${char.charCodeAt(0).toString(16).padStart(2, '0')}` : char)).join(''));
      const unescaper = new Unescaper();
      let out = '';
      let at = 0;
      for (const size of [...sizes, escaped.length]) {
        out += unescaper.push(escaped.subarray(at, at + size)).toString();
        at += size;
      }
      assert.equal(out, plain);
    }),
  );
});
