import { pooled, topicScore, type TopicView, windowScale } from '../../../src/egress/scanners/injection/views.ts';
import { randomOf, shuffle } from './random.ts';
import type { Row } from './rows.ts';

export interface TopicOptions {
  readonly bits: number;
  readonly dims: number;
  readonly windows: readonly number[];
  readonly hidden: number;
  readonly epochs: number;
  readonly rate: number;
  readonly decay: number;
  /** Share of the pooled values left out of each step. */
  readonly dropped: number;
  readonly positives: number;
  readonly seed: number;
}

const SPREAD = 0.03;
const LEARNT = 0.003;
const HEAD_DECAY = 1e-5;

/** Gradient descent (AdaGrad, one row at a time) through the maxima: only the strongest window of each direction learns. */
export function trainTopics(rows: readonly Row[], options: TopicOptions): TopicView {
  const { bits, dims, windows, hidden, epochs, rate, decay, dropped, positives, seed } = options;
  const inputs = dims * (windows.length + 1);
  const random = randomOf(seed);
  const spread = (): number => (random() + random() + random() - 1.5) * 2;
  const filled = (length: number, scale: number): Float32Array => Float32Array.from({ length }, () => spread() * scale);
  const vectors = filled(2 ** bits * dims, SPREAD);
  const mixing = filled(hidden * inputs, 1 / Math.sqrt(inputs));
  const output = filled(hidden, 1 / Math.sqrt(hidden));
  const offsets = new Float32Array(hidden);
  let [bias, biasSquares] = [-1, 0.01];
  const squaresOf = (length: number): Float32Array => new Float32Array(length).fill(0.01);
  const [vectorSquares, mixingSquares, outputSquares, offsetSquares] = [squaresOf(2 ** bits), squaresOf(mixing.length), squaresOf(hidden), squaresOf(hidden)];
  const descend = (values: Float32Array, squares: Float32Array, i: number, gradient: number): void => {
    squares[i] = squares[i]! + gradient * gradient;
    values[i] = values[i]! - (rate * gradient) / Math.sqrt(squares[i]!);
  };
  const mask = 2 ** bits - 1;
  const active = new Float64Array(hidden);
  const order = [...rows];
  for (let epoch = 0; epoch < epochs; epoch++) {
    shuffle(order, random);
    for (const { features, target } of order) {
      const view: TopicView = { bits, dims, windows, hidden, vectors, mixing, offsets, output, bias };
      const { values, from } = pooled(view, features);
      const kept = Float64Array.from(values, () => (random() < dropped ? 0 : 1 / (1 - dropped)));
      const seen = values.map((value, i) => value * kept[i]!);
      const error = (1 / (1 + Math.exp(-topicScore(view, seen, active))) - target) * (target === 1 ? positives : 1);
      if (Math.abs(error) < LEARNT) continue;

      const slopes = new Float64Array(inputs);
      for (let j = 0; j < hidden; j++) {
        if (active[j]! <= 0) continue;
        const slope = error * output[j]!;
        descend(output, outputSquares, j, error * active[j]!);
        descend(offsets, offsetSquares, j, slope);
        for (let i = 0; i < inputs; i++) {
          const at = j * inputs + i;
          slopes[i] = slopes[i]! + slope * mixing[at]! * kept[i]!;
          descend(mixing, mixingSquares, at, slope * seen[i]! + HEAD_DECAY * mixing[at]!);
        }
      }
      biasSquares += error * error;
      bias -= (rate * error) / Math.sqrt(biasSquares);

      const { tokens, offsets: grams, buckets } = features;
      const tokenSlopes = new Float64Array(tokens * dims);
      const mean = windowScale(features, 0, tokens);
      for (let t = 0; t < tokens; t++) for (let d = 0; d < dims; d++) tokenSlopes[t * dims + d] = slopes[windows.length * dims + d]! * mean;
      for (const [w, window] of windows.entries()) {
        for (let d = 0; d < dims; d++) {
          const start = from[w * dims + d]!;
          const end = Math.min(tokens, start + window);
          const slope = slopes[w * dims + d]! * windowScale(features, start, end);
          if (slope === 0) continue;
          for (let t = start; t < end; t++) tokenSlopes[t * dims + d] = tokenSlopes[t * dims + d]! + slope;
        }
      }
      for (let t = 0; t < tokens; t++) {
        let square = 0;
        for (let d = 0; d < dims; d++) square += tokenSlopes[t * dims + d]! ** 2;
        if (square < 1e-14) continue;
        for (let k = grams[t]!, end = grams[t + 1]!; k < end; k++) {
          const bucket = buckets[k]! & mask;
          const sum = vectorSquares[bucket]! + square;
          vectorSquares[bucket] = sum;
          const step = rate / Math.sqrt(sum);
          for (let d = 0, at = bucket * dims; d < dims; d++, at++) vectors[at] = vectors[at]! - step * (tokenSlopes[t * dims + d]! + decay * vectors[at]!);
        }
      }
    }
  }
  return { bits, dims, windows, hidden, vectors, mixing, offsets, output, bias };
}
