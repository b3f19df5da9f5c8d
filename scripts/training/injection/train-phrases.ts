import { type PhraseView, phraseScores, windowScale } from '../../../src/egress/scanners/injection/views.ts';
import { randomOf, shuffle } from './random.ts';
import { BITS, type Row } from './rows.ts';

export interface PhraseOptions {
  /** Tokens. */
  readonly window: number;
  readonly epochs: number;
  readonly rate: number;
  readonly decay: number;
  /** How sharply a row's loudest windows are preferred over its others. */
  readonly sharpness: number;
  /** Weight of an injection beside a benign row's 1. */
  readonly positives: number;
  readonly seed: number;
}

/** A row whose prediction is this close teaches nothing. */
const LEARNT = 0.002;

/**
 * Logistic regression over bags of windows: a row's score is the mean of its windows' scores, weighted towards the loudest, so that an
 * injection needs one loud window and a benign row none. AdaGrad, one row at a time.
 */
export function trainPhrases(rows: readonly Row[], { window, epochs, rate, decay, sharpness, positives, seed }: PhraseOptions): PhraseView {
  const weights = new Float32Array(2 ** BITS);
  const squares = new Float32Array(2 ** BITS).fill(0.01);
  let bias = -2;
  const random = randomOf(seed);
  const order = [...rows];
  for (let epoch = 0; epoch < epochs; epoch++) {
    shuffle(order, random);
    for (const { features, target } of order) {
      const scores = phraseScores({ bits: BITS, window, bias, weights }, features);
      const loudest = scores.reduce((most, score) => Math.max(most, score), -Infinity);
      const shares = scores.map((score) => Math.exp(sharpness * (score - loudest)));
      const total = shares.reduce((sum, share) => sum + share, 0);
      let score = 0;
      for (let i = 0; i < scores.length; i++) score += (shares[i] = shares[i]! / total) * scores[i]!;
      const error = (1 / (1 + Math.exp(-score)) - target) * (target === 1 ? positives : 1);
      if (Math.abs(error) < LEARNT) continue;
      const { tokens, offsets, buckets } = features;
      // What each window contributes, as differences, so that overlapping windows cost one pass.
      const changes = new Float64Array(tokens + 1);
      for (let from = 0; from < scores.length; from++) {
        if (shares[from]! < 1e-3) continue;
        const to = Math.min(tokens, from + window);
        const change = shares[from]! * windowScale(features, from, to);
        changes[from] = changes[from]! + change;
        changes[to] = changes[to]! - change;
      }
      let share = 0;
      for (let t = 0; t < tokens; t++) {
        share += changes[t]!;
        if (share < 1e-6) continue;
        const slope = error * share;
        for (let k = offsets[t]!, end = offsets[t + 1]!; k < end; k++) {
          const j = buckets[k]!;
          const weight = weights[j]!;
          const gradient = slope + decay * weight;
          const square = squares[j]! + gradient * gradient;
          squares[j] = square;
          weights[j] = weight - (rate * gradient) / Math.sqrt(square);
        }
      }
      bias -= rate * 0.02 * error;
    }
  }
  return { bits: BITS, window, bias, weights };
}
