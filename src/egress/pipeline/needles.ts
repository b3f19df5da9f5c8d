import { Matcher } from './matcher.ts';
import { spellings, Unescaper } from './spellings.ts';
import type { BodyFilter } from './stage.ts';

/** A text to find in traffic, in each of its spellings. */
export interface Needle<T> {
  readonly owner: T;
  readonly text: string;
  /** Longer texts in which it also occurs whole, such as `user:password` in base64. */
  readonly besides?: readonly string[];
  /** What is put in the place of the text itself; other spellings become `[redacted]`. */
  readonly replacement: string;
}

const redacted = Buffer.from('[redacted]');

/** Texts that must not pass, found however they are written and however they are cut into pieces. */
export class Needles<T> {
  readonly #matcher: Matcher;
  readonly #owners: T[] = [];
  readonly #replacements: Buffer[] = [];

  constructor(needles: readonly Needle<T>[]) {
    const patterns: Buffer[] = [];
    const known = new Set<string>();
    for (const { owner, text, besides = [], replacement } of needles) {
      for (const [i, pattern] of [...spellings(text), ...besides.map((beside) => Buffer.from(beside))].entries()) {
        const key = pattern.toString('latin1');
        if (known.has(key)) continue;
        known.add(key);
        patterns.push(pattern);
        this.#owners.push(owner);
        this.#replacements.push(i === 0 ? Buffer.from(replacement) : redacted);
      }
    }
    this.#matcher = new Matcher(patterns);
  }

  get empty(): boolean {
    return this.#owners.length === 0;
  }

  /** Whose text is in there, also behind escapes of escapes. Null when none is. */
  ownerIn(text: string): T | null {
    let bytes: Buffer = Buffer.from(text);
    for (let depth = 0; depth < 3; depth++) {
      const found = this.#matcher.find(bytes);
      if (found !== null) return this.#owners[found.pattern]!;
      if (!/[%\\]/.test(bytes.toString('latin1'))) return null;
      bytes = new Unescaper().push(bytes);
    }
    return null;
  }

  /** The text with every occurrence replaced. */
  replaceIn(text: string, onFound: (owner: T) => void = () => {}): string {
    const bytes = Buffer.from(text, 'latin1');
    if (this.#matcher.find(bytes) === null) return text;
    const filter = this.replacer(onFound);
    return Buffer.concat([filter.push(bytes) as Buffer, filter.end() as Buffer]).toString('latin1');
  }

  /** Calls back with the owner of each text that goes by, and changes nothing. */
  searcher(onFound: (owner: T) => void): BodyFilter {
    const search = new Search(this.#matcher, (pattern) => onFound(this.#owners[pattern]!));
    const behindEscapes = new Search(this.#matcher, (pattern) => onFound(this.#owners[pattern]!));
    const unescaper = new Unescaper();
    return {
      changes: false,
      push: (chunk) => {
        search.push(chunk);
        behindEscapes.push(unescaper.push(chunk));
        return chunk;
      },
      end: () => Buffer.alloc(0),
    };
  }

  /** Passes bytes on with every occurrence replaced. Holds back only what may be the beginning of one. */
  replacer(onFound: (owner: T) => void): BodyFilter {
    let held: Buffer = Buffer.alloc(0);
    const run = (bytes: Buffer, last: boolean): Buffer => {
      const out: Buffer[] = [];
      for (let from = 0; ; ) {
        const found = this.#matcher.find(bytes, from);
        const cut = last ? bytes.length : this.#matcher.cutOff(bytes, from);
        if (found === null || found.start >= cut) {
          out.push(bytes.subarray(from, cut));
          held = cut < bytes.length ? Buffer.from(bytes.subarray(cut)) : Buffer.alloc(0);
          return out.length === 1 ? out[0]! : Buffer.concat(out);
        }
        out.push(bytes.subarray(from, found.start), this.#replacements[found.pattern]!);
        onFound(this.#owners[found.pattern]!);
        from = found.end;
      }
    };
    return {
      changes: true,
      push: (chunk) => run(held.length === 0 ? chunk : Buffer.concat([held, chunk]), false),
      end: () => run(held, true),
    };
  }
}

/** Looks for texts in pieces, over their borders too. */
class Search {
  readonly #matcher: Matcher;
  readonly #onFound: (pattern: number) => void;
  #tail: Buffer = Buffer.alloc(0);

  constructor(matcher: Matcher, onFound: (pattern: number) => void) {
    this.#matcher = matcher;
    this.#onFound = onFound;
  }

  push(chunk: Buffer): void {
    const reach = this.#matcher.longest - 1;
    if (this.#tail.length > 0) this.#look(Buffer.concat([this.#tail, chunk.subarray(0, reach)]));
    this.#look(chunk);
    this.#tail = chunk.length >= reach ? Buffer.from(chunk.subarray(chunk.length - reach)) : Buffer.from(Buffer.concat([this.#tail, chunk]).subarray(-reach));
  }

  #look(bytes: Buffer): void {
    const found = this.#matcher.find(bytes);
    if (found !== null) this.#onFound(found.pattern);
  }
}
