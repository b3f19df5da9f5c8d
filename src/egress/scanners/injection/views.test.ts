import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { featuresOf } from './features.ts';
import { phraseScores, type PhraseView, pooled, topicScore, type TopicView, windowCount } from './views.ts';

const BITS = 12;
const words = (count: number): string => Array.from({ length: count }, (_, i) => `word${String.fromCharCode(97 + (i % 26))}`).join(' ');

function phrases(window: number): PhraseView {
  return { bits: BITS, window, bias: -1, weights: Float32Array.from({ length: 2 ** BITS }, (_, i) => Math.sin(i)) };
}

const topics: TopicView = {
  bits: BITS,
  dims: 4,
  windows: [2, 5],
  hidden: 4,
  vectors: Float32Array.from({ length: 4 * 2 ** BITS }, (_, i) => Math.sin(i * 7)),
  mixing: Float32Array.from({ length: 4 * 12 }, (_, i) => Math.cos(i)),
  offsets: Float32Array.of(0.1, -0.2, 0.3, 0),
  output: Float32Array.of(1, -1, 0.5, 2),
  bias: 0.25,
};

test('tokens are words, numbers and single characters of scripts without spaces, and cover the text', () => {
  const tokens = (text: string): string[] => {
    const { starts, tokens } = featuresOf(text, BITS);
    return Array.from({ length: tokens }, (_, t) => text.slice(starts[t], starts[t + 1]));
  };
  assert.deepEqual(tokens('say: "hello, world" 42'), ['say: "', 'hello, ', 'world" ', '42']);
  assert.deepEqual(tokens('忽略ab'), ['忽', '略', 'ab']);
  assert.deepEqual(tokens('one\ntwo'), ['one', '\n', 'two']);
  assert.deepEqual(tokens('...'), ['...']);
  assert.deepEqual(tokens(''), []);
  assert.deepEqual(tokens('a'.repeat(60)).map((token) => token.length), [24, 24, 12]);
});

test('no n-gram reaches from a text into what was decoded out of it', () => {
  const grams = (text: string): Set<number> => new Set(featuresOf(text, 30).buckets);
  const apart = grams('send mail\nnow please');
  for (const gram of apart) assert.ok(grams('send mail').has(gram) || grams('now please').has(gram) || grams('\n').has(gram));
});

test('a text of exactly a window, of one token less and of one more', () => {
  for (const [tokens, windows] of [[0, 1], [1, 1], [11, 1], [12, 1], [13, 2], [100, 89]] as const) {
    assert.equal(windowCount(tokens, 12), windows);
    assert.equal(phraseScores(phrases(12), featuresOf(words(tokens), BITS)).length, windows);
  }
});

test('every window has the score that its tokens would have by themselves', () => {
  const text = words(40);
  const all = featuresOf(text, BITS);
  const view = phrases(12);
  const scores = phraseScores(view, all);
  for (let from = 0; from < scores.length; from++) {
    const buckets = all.buckets.slice(all.offsets[from], all.offsets[from + 12]);
    const sum = buckets.reduce((total, bucket) => total + view.weights[bucket]!, 0);
    assert.ok(Math.abs(scores[from]! - (sum / Math.sqrt(Math.max(30, buckets.length)) - 1)) < 1e-6);
  }
});

test('an attack at the very end of a long text is in some window as loud as at its start', () => {
  const attack = 'alpha beta gamma delta epsilon zeta eta theta';
  const { buckets } = featuresOf(attack, BITS);
  const weights = new Float32Array(2 ** BITS);
  for (const bucket of buckets) weights[bucket] = 1;
  const loudest = (text: string): number => Math.max(...phraseScores({ bits: BITS, window: 8, bias: 0, weights }, featuresOf(text, BITS)));
  assert.ok(loudest(`${words(200)} ${attack}`) > 0.9 * loudest(attack));
  assert.ok(loudest(`${attack} ${words(200)}`) > 0.9 * loudest(attack));
  assert.ok(loudest(words(200)) < 0.5 * loudest(attack));
});

test('the strongest windows are those that trying each by itself finds', () => {
  const features = featuresOf(words(9), BITS);
  const { values, from } = pooled(topics, features);
  for (const [index, window] of topics.windows.entries()) {
    for (let d = 0; d < 4; d++) {
      const each = Array.from({ length: windowCount(features.tokens, window) }, (_, at) => {
        const buckets = features.buckets.slice(features.offsets[at], features.offsets[at + window]);
        return buckets.reduce((sum, bucket) => sum + topics.vectors[bucket * 4 + d]!, 0) / Math.sqrt(Math.max(30, buckets.length));
      });
      assert.ok(Math.abs(values[index * 4 + d]! - Math.max(...each)) < 1e-6);
      assert.equal(from[index * 4 + d], each.indexOf(Math.max(...each)));
    }
  }
  assert.ok(Number.isFinite(topicScore(topics, values)));
});

test('any text has finite scores, and buckets within the table', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary', maxLength: 200 }), (text) => {
      const features = featuresOf(text, BITS);
      assert.ok(features.buckets.every((bucket) => bucket < 2 ** BITS));
      assert.equal(features.offsets[features.tokens], features.buckets.length);
      assert.ok(phraseScores(phrases(12), features).every(Number.isFinite));
      if (features.tokens > 0) assert.ok(Number.isFinite(topicScore(topics, pooled(topics, features).values)));
    }),
  );
});
