import assert from 'node:assert/strict';
import { test } from 'node:test';
import { corpus } from '../../testing/guardrails/corpus.ts';
import { hardCases } from '../../testing/guardrails/hard-cases.ts';
import { quality } from '../../testing/guardrails/measure.ts';
import { findPii } from './find.ts';
import { type PiiType, piiTypes } from './types.ts';

const options = { types: new Set(piiTypes), phone: { region: 'US' } } as const;
const found = (text: string, types: readonly PiiType[] = piiTypes): string[] => findPii(text, { ...options, types: new Set(types) }).map(({ type, start, end }) => `${type} ${text.slice(start, end)}`);

/** What is promised in docs/guardrails.md for sentences that no scanner was tuned with. */
const structured: readonly PiiType[] = ['ssn', 'credit_card', 'email', 'phone', 'api_key', 'ip_address'];

for (const half of ['tuning', 'held-out'] as const) {
  test(`structured data is found and told from look-alikes in the ${half} half of the corpus`, () => {
    for (const { type, precision, recall, mistakes } of quality([...corpus(half), ...hardCases(half)], options)) {
      if (!structured.includes(type)) continue;
      assert.ok(precision >= 0.95, `precision of ${type} is ${precision}\n${mistakes.slice(0, 20).join('\n')}`);
      assert.ok(recall >= 0.95, `recall of ${type} is ${recall}\n${mistakes.slice(0, 20).join('\n')}`);
    }
  });
}

test('the corpus has several hundred lines of each kind, and its halves have no sentence in common', () => {
  const [tuning, heldOut] = [corpus('tuning'), corpus('held-out')];
  for (const type of piiTypes) assert.ok(heldOut.filter(({ about }) => about === type).length >= 500);
  const texts = new Set(tuning.map(({ text }) => text));
  // Look-alikes without anything random in them stand in one list only, as everything does.
  assert.deepEqual(heldOut.filter(({ text }) => texts.has(text)).map(({ text }) => text), []);
});

test('only the kinds that were asked for are found', () => {
  assert.deepEqual(found('joe@example.com 123-45-6789', ['ssn']), ['ssn 123-45-6789']);
  assert.deepEqual(found('joe@example.com 123-45-6789', []), []);
});

test('the values of the verification scripts of the protocol are found', () => {
  assert.deepEqual(found('SSN 123-45-6789, joe.doe@example.com, 4111-1111-1111-1111 with CVV 123, 555-123-4567'), ['ssn 123-45-6789', 'email joe.doe@example.com', 'credit_card 4111-1111-1111-1111', 'phone 555-123-4567']);
});

test('a kind that is surer has the characters that two claim', () => {
  assert.deepEqual(found('smtp://mailer: key-0123456789abcdef0123456789abcdef@example.com'), ['api_key key-0123456789abcdef0123456789abcdef']);
  assert.deepEqual(found('tel 4111111111111111'), ['credit_card 4111111111111111']);
});

test('numbers of another region are found when it is set', () => {
  const german = { types: new Set<PiiType>(['phone']), phone: { region: 'DE' } } as const;
  assert.equal(findPii('Rufen Sie 030 901820 an', german).length, 1);
  assert.equal(findPii('Rufen Sie 030 901820 an', { ...german, phone: { region: 'US' } }).length, 0);
});
