import { readFileSync } from 'node:fs';
import { type Features, featuresOf } from '../../../src/egress/scanners/injection/features.ts';
import { normalise } from '../../../src/egress/scanners/injection/normalise.ts';
import { randomOf } from './random.ts';

/** A text of the data set, ready to be learned from. */
export interface Row {
  readonly raw: string;
  readonly text: string;
  readonly features: Features;
  /** 1 for an injection. */
  readonly target: 0 | 1;
  readonly kind: string;
  /** Which part it is in when the rows are divided; rows that share a sentence share the part. */
  readonly part: number;
}

export const BITS = 20;
export const PARTS = 4;

/** Share-alike licences: statistics of such texts are not used at all. */
const excluded = /CC-BY-SA/;

/** Reads a file of {text, label, kind, licence} a line; `dropped` counts the lines whose licence is not used. */
export function readRows(path: string): { rows: Row[]; dropped: number } {
  const found: { raw: string; text: string; target: 0 | 1; kind: string }[] = [];
  let dropped = 0;
  for (const [index, line] of readFileSync(path, 'utf8').split('\n').entries()) {
    if (line.trim() === '') continue;
    const { text, label, kind, licence } = JSON.parse(line) as Record<string, unknown>;
    if (typeof text !== 'string' || typeof kind !== 'string' || typeof licence !== 'string' || (label !== 'injection' && label !== 'benign'))
      throw new Error(`${path}, line ${index + 1}: text, kind, licence and label ("injection" or "benign") are needed`);
    if (excluded.test(licence)) dropped++;
    else found.push({ raw: text, text: normalise(text).text, target: label === 'injection' ? 1 : 0, kind });
  }
  return { rows: preparedRows(found), dropped };
}

/** Rows from sentences of our own. */
export function rowsOf(sentences: readonly string[], target: 0 | 1): Row[] {
  return preparedRows(sentences.map((raw) => ({ raw, text: normalise(raw).text, target, kind: 'sentence' })));
}

function preparedRows(found: readonly { raw: string; text: string; target: 0 | 1; kind: string }[]): Row[] {
  const parts = partsOf(found.map(({ text }) => text));
  return found.map((row, i) => ({ ...row, features: featuresOf(row.text, BITS), part: parts[i]! }));
}

const SHARED_WORDS = 6;
/** A sentence that very many rows have (a form letter, say) does not make them one group. */
const LARGEST_GROUP = 400;

/** Groups of texts that have six words in a row in common, dealt to PARTS parts. */
function partsOf(texts: readonly string[]): number[] {
  const parent = texts.map((_, i) => i);
  const size = texts.map(() => 1);
  const root = (i: number): number => {
    let at = i;
    while (parent[at] !== at) at = parent[at] = parent[parent[at]!]!;
    return at;
  };
  const first = new Map<string, number>();
  for (const [i, text] of texts.entries()) {
    const words = text.match(/[\p{L}\d]+/gu) ?? [];
    for (let at = 0; at + SHARED_WORDS <= words.length; at++) {
      const shared = words.slice(at, at + SHARED_WORDS).join(' ');
      const other = first.get(shared);
      if (other === undefined) {
        first.set(shared, i);
        continue;
      }
      const [a, b] = [root(other), root(i)];
      if (a === b || size[a]! + size[b]! > LARGEST_GROUP) continue;
      parent[a] = b;
      size[b] = size[b]! + size[a]!;
    }
  }
  const random = randomOf(12_345);
  const part = new Map<number, number>();
  return texts.map((_, i) => {
    const group = root(i);
    if (!part.has(group)) part.set(group, Math.floor(random() * PARTS));
    return part.get(group)!;
  });
}
