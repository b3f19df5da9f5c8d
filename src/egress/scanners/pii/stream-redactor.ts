import { closing, inside, type Syntax, viewOf } from '../view.ts';
import { edited, editsOf, type Replace } from './edits.ts';
import type { PiiOptions } from './find.ts';
import { farthestLook, type Finding, longestHit, type PiiType } from './types.ts';

export interface RedactorOptions extends PiiOptions {
  readonly syntax: Syntax;
  readonly replace: Replace;
}

/** Bytes are looked at in pieces of about this size, so that what a body costs does not depend on how it is cut. */
const pieceSize = 32 << 10;
/** Characters that wait for what follows: a value that begins before them ends within them. */
const overlap = longestHit + farthestLook;
/** Bytes that wait at most, whatever their characters: beyond, invisible characters and escapes may hide a value. */
const mostHeld = 128 << 10;
/** Bytes before that are looked at again, for what stands in front of a value. */
const context = 1024;

/**
 * Finds personal data in a body that comes in pieces, and replaces it. What is given back lags behind what came in, by at most
 * `pieceSize + mostHeld` bytes; memory is bounded by the same.
 */
export class StreamRedactor {
  readonly #options: RedactorOptions;
  readonly #counts = new Map<PiiType, number>();
  #waiting: Buffer[] = [];
  #waitingSize = 0;
  /** Bytes given back already, for context, and those that are not. */
  #held: Buffer = Buffer.alloc(0);
  #given = 0;
  #inString = false;

  constructor(options: RedactorOptions) {
    this.#options = options;
  }

  /** What was found so far, and is in what was given back. */
  get findings(): readonly Finding[] {
    return [...this.#counts].map(([type, count]) => ({ type, count }));
  }

  write(chunk: Buffer): Buffer {
    const out: Buffer[] = [];
    for (let from = 0; from < chunk.length; ) {
      const piece = chunk.subarray(from, from + pieceSize - this.#waitingSize);
      // A copy: who gave the bytes may use their memory again.
      this.#waiting.push(Buffer.from(piece));
      this.#waitingSize += piece.length;
      from += piece.length;
      if (this.#waitingSize >= pieceSize) out.push(this.#take(false));
    }
    return out.length === 1 ? out[0]! : Buffer.concat(out);
  }

  end(): Buffer {
    return this.#take(true);
  }

  #take(last: boolean): Buffer {
    const bytes = this.#waiting.length === 0 ? this.#held : Buffer.concat([this.#held, ...this.#waiting]);
    this.#waiting = [];
    this.#waitingSize = 0;
    const view = viewOf(bytes, this.#options.syntax, this.#inString);
    let cut = last ? bytes.length : Math.max(this.#given, bytes.length - mostHeld, view.startOf(Math.max(0, view.text.length - overlap)));
    const made = editsOf(view, this.#options, this.#options.replace).filter(({ start }) => start >= this.#given && start < cut);
    cut = Math.max(cut, made.at(-1)?.end ?? 0);
    for (const { types } of made) for (const type of types) this.#counts.set(type, (this.#counts.get(type) ?? 0) + 1);
    const given = this.#given;
    const out = edited(bytes.subarray(given, cut), made.map((edit) => ({ ...edit, start: edit.start - given, end: edit.end - given })));
    if (!last) this.#keep(bytes, cut, view.places, view.text.length, view.startOf);
    return out;
  }

  #keep(bytes: Buffer, cut: number, places: Uint8Array | null, characters: number, startOf: (at: number) => number): void {
    // From the beginning of a character, which may be written in several bytes.
    let [low, high] = [0, characters];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (startOf(middle) < cut - context) low = middle + 1;
      else high = middle;
    }
    const from = Math.min(cut, startOf(low));
    this.#inString = places !== null && from < places.length ? places[from] === inside || places[from] === closing : false;
    this.#held = bytes.subarray(from);
    this.#given = cut - from;
  }
}
