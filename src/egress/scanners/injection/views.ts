import type { Features } from './features.ts';

/** A weight for each n-gram: how much a stretch of `window` tokens sounds like an attack. Sees a short attack in a long text. */
export interface PhraseView {
  readonly bits: number;
  readonly window: number;
  readonly bias: number;
  /** 2 ** bits. */
  readonly weights: Float32Array;
}

/**
 * A vector for each n-gram. Of each direction the strongest stretch of each window size and the mean of the text go through one
 * hidden layer. Sees what a text is about: it tells writing about attacks from attacks.
 */
export interface TopicView {
  readonly bits: number;
  /** A multiple of four. */
  readonly dims: number;
  /** Tokens. */
  readonly windows: readonly number[];
  readonly hidden: number;
  /** dims for each of 2 ** bits buckets. */
  readonly vectors: Float32Array;
  /** hidden rows of dims * (windows.length + 1). */
  readonly mixing: Float32Array;
  readonly offsets: Float32Array;
  readonly output: Float32Array;
  readonly bias: number;
}

/** Fewer n-grams than this count as this many, so that one word alone is no loud window. */
const FEWEST_GRAMS = 30;

/** 1 / sqrt of the n-grams of tokens [from, to): a sum times this is comparable between windows. */
export function windowScale(features: Features, from: number, to: number): number {
  return 1 / Math.sqrt(Math.max(FEWEST_GRAMS, features.offsets[to]! - features.offsets[from]!));
}

/** How many windows of so many tokens, one starting at each token; a text shorter than the window is one. */
export function windowCount(tokens: number, window: number): number {
  return Math.max(1, tokens - window + 1);
}

/** The score of each window, a logit. Of a bucket as many bits count as the view has, so that views of several sizes share the features. */
export function phraseScores({ bits, weights, window, bias }: PhraseView, features: Features): Float64Array {
  const { tokens, offsets, buckets } = features;
  const mask = 2 ** bits - 1;
  const sums = new Float64Array(tokens + 1);
  let sum = 0;
  for (let t = 0, k = 0; t < tokens; t++) {
    for (const end = offsets[t + 1]!; k < end; k++) sum += weights[buckets[k]! & mask]!;
    sums[t + 1] = sum;
  }
  const scores = new Float64Array(windowCount(tokens, window));
  for (let from = 0; from < scores.length; from++) {
    const to = Math.min(tokens, from + window);
    scores[from] = (sums[to]! - sums[from]!) * windowScale(features, from, to) + bias;
  }
  return scores;
}

export interface Pooled {
  /** dims for each window size, then dims for the mean. */
  readonly values: Float64Array;
  /** At which token the strongest window begins, for each of `values` but the mean. */
  readonly from: Int32Array;
}

/** What the strongest windows and the mean amount to in each direction. Of a bucket as many bits count as the view has. */
export function pooled({ bits, dims, windows, vectors }: TopicView, features: Features): Pooled {
  const { tokens, offsets, buckets } = features;
  const mask = 2 ** bits - 1;
  const sums = new Float64Array((tokens + 1) * dims);
  // Four directions at a time, whose sums stay in registers.
  for (let first = 0; first < dims; first += 4) {
    let [a, b, c, d] = [0, 0, 0, 0];
    for (let t = 0, k = 0; t < tokens; t++) {
      for (const end = offsets[t + 1]!; k < end; k++) {
        const at = (buckets[k]! & mask) * dims + first;
        a += vectors[at]!;
        b += vectors[at + 1]!;
        c += vectors[at + 2]!;
        d += vectors[at + 3]!;
      }
      const at = (t + 1) * dims + first;
      sums[at] = a;
      sums[at + 1] = b;
      sums[at + 2] = c;
      sums[at + 3] = d;
    }
  }
  const values = new Float64Array(dims * (windows.length + 1)).fill(-Infinity, 0, dims * windows.length);
  const start = new Int32Array(dims * windows.length);
  for (const [index, window] of windows.entries()) {
    const base = index * dims;
    for (let from = 0, count = windowCount(tokens, window); from < count; from++) {
      const to = Math.min(tokens, from + window);
      const scale = windowScale(features, from, to);
      for (let d = 0; d < dims; d++) {
        const value = (sums[to * dims + d]! - sums[from * dims + d]!) * scale;
        if (value <= values[base + d]!) continue;
        values[base + d] = value;
        start[base + d] = from;
      }
    }
  }
  const scale = windowScale(features, 0, tokens);
  for (let d = 0; d < dims; d++) values[windows.length * dims + d] = sums[tokens * dims + d]! * scale;
  return { values, from: start };
}

/** The score, a logit. `activations`, when given, receives the hidden layer's. */
export function topicScore({ hidden, mixing, offsets, output, bias }: TopicView, values: Float64Array, activations?: Float64Array): number {
  let score = bias;
  for (let j = 0; j < hidden; j++) {
    let sum = offsets[j]!;
    for (let i = 0, at = j * values.length; i < values.length; i++) sum += mixing[at + i]! * values[i]!;
    const active = sum > 0 ? sum : 0;
    if (activations !== undefined) activations[j] = active;
    score += output[j]! * active;
  }
  return score;
}
