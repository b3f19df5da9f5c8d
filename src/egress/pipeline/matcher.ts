/** Shorter patterns are found in innocent text. */
export const shortestPattern = 6;

export interface Found {
  readonly start: number;
  readonly end: number;
  /** Index of the pattern. */
  readonly pattern: number;
}

const tableSize = 4096;

/**
 * Finds many texts in bytes at once (Wu and Manber, "A fast algorithm for multi-pattern searching", 1994): a look at two bytes mostly tells
 * how far the next text can begin at the earliest, so that most bytes are never looked at.
 */
export class Matcher {
  readonly longest: number;
  readonly #patterns: readonly Buffer[];
  readonly #window: number;
  readonly #shift = new Uint8Array(tableSize);
  readonly #buckets = new Map<number, number[]>();
  readonly #byFirst: (readonly number[] | undefined)[] = [];

  /** @param patterns each at least `shortestPattern` bytes. */
  constructor(patterns: readonly Buffer[]) {
    this.#patterns = patterns;
    this.longest = Math.max(0, ...patterns.map((pattern) => pattern.length));
    this.#window = Math.min(255, ...patterns.map((pattern) => pattern.length));
    this.#shift.fill(this.#window - 1);
    for (const [index, pattern] of patterns.entries()) {
      for (let at = 1; at < this.#window; at++) {
        const block = blockAt(pattern, at);
        this.#shift[block] = Math.min(this.#shift[block]!, this.#window - 1 - at);
      }
      const last = blockAt(pattern, this.#window - 1);
      this.#buckets.set(last, [...(this.#buckets.get(last) ?? []), index]);
      this.#byFirst[pattern[0]!] = [...(this.#byFirst[pattern[0]!] ?? []), index];
    }
  }

  /** The first that begins at or after `from`; of several that begin there the longest. */
  find(bytes: Buffer, from = 0): Found | null {
    if (this.#patterns.length === 0) return null;
    const window = this.#window;
    for (let at = from + window - 1; at < bytes.length; ) {
      const block = blockAt(bytes, at);
      const shift = this.#shift[block]!;
      if (shift > 0) {
        at += shift;
        continue;
      }
      const start = at - window + 1;
      let best: Found | null = null;
      for (const index of this.#buckets.get(block) ?? []) {
        const pattern = this.#patterns[index]!;
        const end = start + pattern.length;
        if (end <= bytes.length && end > (best?.end ?? 0) && bytes.compare(pattern, 0, pattern.length, start, end) === 0) best = { start, end, pattern: index };
      }
      if (best !== null) return best;
      at++;
    }
    return null;
  }

  /** Where the first text may begin, at or after `from`, that is cut off by the end; the length of the bytes when none is. */
  cutOff(bytes: Buffer, from = 0): number {
    for (let at = Math.max(from, bytes.length - this.longest + 1); at < bytes.length; at++) {
      const left = bytes.length - at;
      for (const index of this.#byFirst[bytes[at]!] ?? []) {
        const pattern = this.#patterns[index]!;
        if (pattern.length > left && bytes.compare(pattern, 0, left, at, bytes.length) === 0) return at;
      }
    }
    return bytes.length;
  }
}

function blockAt(bytes: Buffer, at: number): number {
  return ((bytes[at - 1]! << 5) ^ bytes[at]!) & (tableSize - 1);
}
