import { calibrated, mixed, type Model, scoreNormalised, viewScores } from '../../../src/egress/scanners/injection/model.ts';
import { normalise } from '../../../src/egress/scanners/injection/normalise.ts';
import { injectionModes, sensitivities, tabledThreshold } from '../../../src/egress/scanners/injection/thresholds.ts';
import type { Scored } from './calibrate.ts';
import { featureFingerprint } from './fingerprint.ts';
import type { Row } from './rows.ts';

interface Judged {
  readonly row: Row;
  readonly score: number;
}

/** Words that say openly that something is to be overridden or given away. Benign texts with them are the hard ones. */
const overt =
  /\b(?:ignor|disregard|forget|overrid|overrul|bypass|circumvent|jailbr|unrestrict|unfilter|no longer bound|prompt|instruction|guideline|restriction|developer mode|dan\b|pretend|act as|you are now|reveal|secret|system)/;

/** Figures of a model over rows it never saw. Probabilities are rounded to four digits. */
export function report(model: Model, held: readonly Scored[], valid: readonly Row[], facts: { bytes: number; trained: number; dropped: { train: number; valid: number } }) {
  const judged = valid.map((row): Judged => ({ row, score: scoreNormalised(model, normalise(row.raw)).score }));
  // For figures about order, the logit: the calibration has steps.
  const logits = new Map(judged.map(({ row }) => [row, mixed(model.mix, viewScores(model, row.text).scores)]));
  const ranked = (rows: readonly Judged[]): Ranked[] => rows.map(({ row }) => ({ score: logits.get(row)!, target: row.target }));
  const injections = judged.filter(({ row }) => row.target === 1);
  const benign = judged.filter(({ row }) => row.target === 0);
  const hard = benign.filter(({ row }) => overt.test(row.text));
  const bar = barAt(ranked(benign), 0.01);
  const recall = (rows: readonly Judged[]) => ({ rows: rows.length, recallAt1PercentFpr: share(rows, ({ row }) => logits.get(row)! > bar), recallAt095: share(rows, ({ score }) => score >= 0.95) });
  const kinds = [...new Set(injections.map(({ row }) => row.kind))].sort();
  const crossed = held.map(({ scores, target }): Ranked => ({ score: mixed(model.mix, scores), target }));
  return {
    model: { name: model.name, bytes: facts.bytes, trainedOn: facts.trained, leftOutForLicence: facts.dropped, features: featureFingerprint() },
    crossValidation: { rows: crossed.length, ...ranking(crossed) },
    validation: {
      all: { rows: judged.length, injections: injections.length, ...ranking(ranked(judged)) },
      overt: recall(injections.filter(({ row }) => overt.test(row.text))),
      covert: recall(injections.filter(({ row }) => !overt.test(row.text))),
      byKind: Object.fromEntries(kinds.map((kind) => [kind, recall(injections.filter(({ row }) => row.kind === kind))])),
      benignWithOvertWords: { rows: hard.length, ...ranking(ranked([...injections, ...hard])) },
      thresholds: injectionModes.flatMap((mode) =>
        sensitivities.map((sensitivity) => {
          const threshold = tabledThreshold(sensitivity, mode);
          const reached = ({ score }: Judged): boolean => score >= threshold;
          return { mode, sensitivity, threshold, recall: share(injections, reached), falsePositives: share(benign, reached), falsePositivesOfHard: share(hard, reached) };
        }),
      ),
      calibration: calibrationTable(judged),
      calibrationOfTrain: calibrationTable(held.map(({ scores, target }) => ({ row: { target }, score: calibrated(model.calibration, mixed(model.mix, scores)) }))),
    },
  };
}

interface Ranked {
  readonly score: number;
  readonly target: 0 | 1;
}

function ranking(rows: readonly Ranked[]): { auc: number; recallAt1PercentFpr: number } {
  const bar = barAt(
    rows.filter(({ target }) => target === 0),
    0.01,
  );
  return {
    auc: rounded(aucOf(rows)),
    recallAt1PercentFpr: share(
      rows.filter(({ target }) => target === 1),
      ({ score }) => score > bar,
    ),
  };
}

/** The share of pairs in the right order; ties count half. */
function aucOf(rows: readonly Ranked[]): number {
  const sorted = rows.toSorted((a, b) => a.score - b.score);
  let [ranks, positives] = [0, 0];
  for (let at = 0; at < sorted.length; ) {
    let end = at;
    while (end < sorted.length && sorted[end]!.score === sorted[at]!.score) end++;
    for (let i = at; i < end; i++) {
      if (sorted[i]!.target === 0) continue;
      ranks += (at + 1 + end) / 2;
      positives++;
    }
    at = end;
  }
  return (ranks - (positives * (positives + 1)) / 2) / (positives * (rows.length - positives));
}

/** The score that only this share of the benign rows exceeds. */
function barAt(benign: readonly Ranked[], rate: number): number {
  return benign.map(({ score }) => score).sort((a, b) => b - a)[Math.floor(benign.length * rate)]!;
}

function calibrationTable(rows: readonly { row: { target: 0 | 1 }; score: number }[]) {
  const edges = [0, 0.05, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.99, 1.01];
  return edges.slice(0, -1).map((from, i) => {
    const inside = rows.filter(({ score }) => score >= from && score < edges[i + 1]!);
    return { from, to: Math.min(1, edges[i + 1]!), rows: inside.length, meanScore: rounded(inside.reduce((sum, { score }) => sum + score, 0) / (inside.length || 1)), injections: share(inside, ({ row }) => row.target === 1) };
  });
}

function share<T>(rows: readonly T[], is: (row: T) => boolean): number {
  return rows.length === 0 ? 0 : rounded(rows.filter(is).length / rows.length);
}

function rounded(value: number): number {
  return Math.round(value * 10_000) / 10_000;
}
