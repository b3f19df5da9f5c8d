import { mixed, type Model } from '../../../src/egress/scanners/injection/model.ts';

export interface Scored {
  /** Logit of each view. */
  readonly scores: readonly number[];
  readonly target: 0 | 1;
}

const ROUNDS = 4000;
const RATE = 0.5;

/** Logistic regression over the views' scores (Platt scaling of their sum), full gradient descent on standardised scores. */
export function fitMix(scored: readonly Scored[]): Model['mix'] {
  const views = scored[0]!.scores.length;
  const mean = Array.from({ length: views }, (_, v) => scored.reduce((sum, { scores }) => sum + scores[v]!, 0) / scored.length);
  const deviation = mean.map((m, v) => Math.sqrt(scored.reduce((sum, { scores }) => sum + (scores[v]! - m) ** 2, 0) / scored.length));
  const weights = mean.map(() => 1);
  let bias = 0;
  for (let round = 0; round < ROUNDS; round++) {
    const slopes = weights.map(() => 0);
    let biasSlope = 0;
    for (const { scores, target } of scored) {
      let sum = bias;
      for (let v = 0; v < views; v++) sum += (weights[v]! * (scores[v]! - mean[v]!)) / deviation[v]!;
      const error = 1 / (1 + Math.exp(-sum)) - target;
      for (let v = 0; v < views; v++) slopes[v] = slopes[v]! + (error * (scores[v]! - mean[v]!)) / deviation[v]!;
      biasSlope += error;
    }
    for (let v = 0; v < views; v++) weights[v] = weights[v]! - (RATE * slopes[v]!) / scored.length;
    bias -= (RATE * biasSlope) / scored.length;
  }
  const scaled = weights.map((weight, v) => weight / deviation[v]!);
  return { weights: scaled, bias: scaled.reduce((sum, weight, v) => sum - weight * mean[v]!, bias) };
}

/** Rows a step of the curve averages at least, so that its ends are not decided by one row. */
const STEP_ROWS = 60;
/** Nothing is known better than this, however clear a text seems. */
const SUREST = 0.999;
/** Logits above the last measured step at which a text is as sure as can be. */
const BEYOND = 4;

/** Isotonic regression (pool adjacent violators) of the target over the mixed logit, as knots of a rising line. */
export function fitCalibration(mix: Model['mix'], scored: readonly Scored[]): Model['calibration'] {
  const points = scored.map(({ scores, target }) => ({ logit: mixed(mix, scores), target })).sort((a, b) => a.logit - b.logit);
  const blocks: { logits: number; targets: number; rows: number }[] = [];
  for (let at = 0; at < points.length; at += STEP_ROWS) {
    const step = points.slice(at, at + STEP_ROWS);
    blocks.push({ logits: step.reduce((sum, { logit }) => sum + logit, 0), targets: step.reduce((sum, { target }) => sum + target, 0), rows: step.length });
    while (blocks.length > 1) {
      const [below, last] = [blocks.at(-2)!, blocks.at(-1)!];
      if (below.targets / below.rows < last.targets / last.rows) break;
      blocks.splice(-2, 2, { logits: below.logits + last.logits, targets: below.targets + last.targets, rows: below.rows + last.rows });
    }
  }
  const knots = blocks.map(({ logits, targets, rows }): [number, number] => [logits / rows, Math.min(SUREST, Math.max(1 - SUREST, targets / rows))]);
  // Beyond the last step nothing was measured.
  return [...knots, [knots.at(-1)![0] + BEYOND, SUREST]];
}
