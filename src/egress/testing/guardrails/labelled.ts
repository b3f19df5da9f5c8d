import type { PiiType } from '../../scanners/pii/types.ts';

/** A text with what is to be found in it, and the kind of data that it is a test of. */
export interface Labelled {
  readonly about: PiiType;
  readonly text: string;
  readonly labels: readonly { readonly type: PiiType; readonly start: number; readonly end: number }[];
}

/** Reads `mail {{email:a@b.com}} now`. */
export function labelled(about: PiiType, marked: string): Labelled {
  const labels: { type: PiiType; start: number; end: number }[] = [];
  let text = '';
  let from = 0;
  for (const match of marked.matchAll(/\{\{(\w+):(.*?)\}\}/gs)) {
    text += marked.slice(from, match.index);
    labels.push({ type: match[1] as PiiType, start: text.length, end: text.length + match[2]!.length });
    text += match[2]!;
    from = match.index + match[0].length;
  }
  return { about, text: text + marked.slice(from), labels };
}

/** Small, seeded, the same everywhere (mulberry32). */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** From 0 up to, not including, 1. */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  }

  /** A whole number, both ends included. */
  int(from: number, to: number): number {
    return from + Math.floor(this.next() * (to - from + 1));
  }

  pick<T>(list: readonly T[]): T {
    return list[this.int(0, list.length - 1)]!;
  }

  digits(count: number): string {
    return this.chars('0123456789', count);
  }

  chars(alphabet: string, count: number): string {
    return Array.from({ length: count }, () => alphabet[this.int(0, alphabet.length - 1)]).join('');
  }
}
