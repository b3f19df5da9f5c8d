import { findPii, type PiiOptions } from '../../scanners/pii/find.ts';
import { type PiiType, piiTypes } from '../../scanners/pii/types.ts';
import type { Scorer } from '../../scanners/scorer.ts';
import type { Half } from './corpus.ts';
import type { Labelled } from './labelled.ts';

export interface Quality {
  readonly type: PiiType;
  readonly lines: number;
  readonly precision: number;
  readonly recall: number;
  /** What was found and should not have been (`+`), or the other way round (`-`). */
  readonly mistakes: readonly string[];
}

/** Kinds whose borders are a matter of taste count when half of them was found; the others must be found exactly. */
const loose: ReadonlySet<PiiType> = new Set(['address', 'person_name']);

/** Precision and recall of each kind over all lines, also those that are about other kinds. */
export function quality(lines: readonly Labelled[], options: PiiOptions): Quality[] {
  const tallies = new Map(piiTypes.map((type) => [type, { right: 0, found: 0, wanted: 0, lines: 0, mistakes: [] as string[] }]));
  for (const { about, text, labels } of lines) {
    tallies.get(about)!.lines++;
    const hits = findPii(text, options);
    for (const label of labels) {
      const tally = tallies.get(label.type)!;
      tally.wanted++;
      if (hits.some((hit) => hit.type === label.type && matches(hit, label))) tally.right++;
      else tally.mistakes.push(`- ${text.slice(label.start, label.end)}   in   ${text.slice(0, 160)}`);
    }
    // Names and addresses are not marked in lines about something else.
    for (const hit of hits) {
      if (loose.has(hit.type) && hit.type !== about) continue;
      const tally = tallies.get(hit.type)!;
      tally.found++;
      if (!labels.some((label) => hit.type === label.type && matches(hit, label))) {
        tally.mistakes.push(`+ ${text.slice(hit.start, hit.end)}   in   ${text.slice(0, 160)}`);
      }
    }
  }
  return [...tallies].map(([type, { right, found, wanted, lines, mistakes }]) => ({ type, lines, precision: found === 0 ? 1 : (found - mistakes.filter((line) => line.startsWith('+')).length) / found, recall: wanted === 0 ? 1 : right / wanted, mistakes }));
}

function matches(hit: { start: number; end: number; type: PiiType }, label: { start: number; end: number }): boolean {
  if (!loose.has(hit.type)) return hit.start === label.start && hit.end === label.end;
  return Math.min(hit.end, label.end) - Math.max(hit.start, label.start) >= (Math.max(hit.end, label.end) - Math.min(hit.start, label.start)) / 2;
}

/** Precision and recall of a judge at a threshold, over one half of labelled texts. */
export function accuracy(samples: readonly (readonly [bad: boolean, text: string])[], scorer: Scorer, threshold: number, half: Half): { precision: number; recall: number; mistakes: readonly string[] } {
  const mine = samples.filter((_, i) => i % 2 === (half === 'tuning' ? 0 : 1));
  const judged = mine.map(([bad, text]) => ({ bad, text, found: scorer.score(text).score >= threshold }));
  const right = judged.filter(({ bad, found }) => bad && found).length;
  return {
    precision: right / Math.max(1, judged.filter(({ found }) => found).length),
    recall: right / judged.filter(({ bad }) => bad).length,
    mistakes: judged.filter(({ bad, found }) => bad !== found).map(({ bad, text }) => `${bad ? '-' : '+'} ${text}`),
  };
}
