import { type InvisibleKind, invisibleKind, isIdeograph, isPictographic, isPictureModifier, isRightToLeft, joins } from './invisible-characters.ts';
import { type Syntax, writtenCharacters } from './view.ts';

export interface InvisibleTextOptions {
  readonly syntax: Syntax;
  /** Whether what is found is taken out. */
  readonly strip: boolean;
  /** Whether characters without width count (U+200B, joiners, soft hyphens, a byte order mark within text). */
  readonly detectZeroWidth: boolean;
}

export interface InvisibleFinding {
  readonly kind: InvisibleKind;
  readonly count: number;
}

/** The flags that are written with tags (England, Scotland, Wales). */
const tagFlags: ReadonlySet<string> = new Set(['gbeng', 'gbsct', 'gbwls']);
const blackFlag = 0x1f3f4;
const cancelTag = 0xe007f;
/** Bytes that wait for what follows: a flag of tags, each written as two escapes, is shorter. */
const lookAhead = 128;
const pieceSize = 16 << 10;

/**
 * Finds, and takes out, characters that nobody sees and programs read. Left alone is what scripts and emoji need: joiners between letters of
 * Arabic, Persian and Indic scripts and in sequences of emoji, one variation selector behind what it can vary, marks of direction beside
 * letters from right to left, the flags of England, Scotland and Wales, and a byte order mark at the beginning.
 */
export class InvisibleTextFilter {
  readonly #options: InvisibleTextOptions;
  readonly #counts = new Map<InvisibleKind, number>();
  #waiting: Buffer[] = [];
  #size = 0;
  /** The last characters that were kept, latest first; 0 at the beginning. */
  #previous = 0;
  #beforePrevious = 0;

  constructor(options: InvisibleTextOptions) {
    this.#options = options;
  }

  get findings(): readonly InvisibleFinding[] {
    return [...this.#counts].map(([kind, count]) => ({ kind, count }));
  }

  write(chunk: Buffer): Buffer {
    this.#waiting.push(Buffer.from(chunk));
    this.#size += chunk.length;
    return this.#size < pieceSize ? Buffer.alloc(0) : this.#take(false);
  }

  end(): Buffer {
    return this.#take(true);
  }

  #take(last: boolean): Buffer {
    const bytes = Buffer.concat(this.#waiting);
    const { text, starts, ends } = writtenCharacters(bytes, this.#options.syntax);
    const from = (at: number): number => (at >= text.length ? bytes.length : (starts?.[at] ?? at));
    const until = last ? bytes.length : bytes.length - lookAhead;
    const out: Buffer[] = [];
    let kept = 0;
    let at = 0;
    for (; at < text.length && from(at) < until; ) {
      const code = text.codePointAt(at)!;
      const length = code > 0xffff ? 2 : 1;
      const kind = code < 0x80 ? null : invisibleKind(code);
      if (kind === 'tag' && this.#previous === blackFlag) {
        const flag = flagLength(text, at);
        if (flag > 0) {
          at += flag;
          this.#remember(cancelTag);
          continue;
        }
      }
      if (kind === null || this.#belongs(code, kind, text, at + length, at === 0)) this.#remember(code);
      else {
        this.#counts.set(kind, (this.#counts.get(kind) ?? 0) + 1);
        if (this.#options.strip) {
          out.push(bytes.subarray(kept, from(at)));
          kept = ends === null ? at + length : ends[at + length - 1]!;
        }
      }
      at += length;
    }
    const border = last ? bytes.length : from(at);
    const rest = Buffer.from(bytes.subarray(border));
    this.#waiting = [rest];
    this.#size = rest.length;
    return out.length === 0 ? bytes.subarray(0, border) : Buffer.concat([...out, bytes.subarray(kept, border)]);
  }

  #remember(code: number): void {
    this.#beforePrevious = this.#previous;
    this.#previous = code;
  }

  #belongs(code: number, kind: InvisibleKind, text: string, after: number, first: boolean): boolean {
    const previous = this.#previous;
    const next = text.codePointAt(after) ?? 0;
    if (kind === 'zero_width') {
      if (!this.#options.detectZeroWidth) return true;
      if (code === 0xfeff) return first && previous === 0;
      if (code === 0x200c) return joins(previous) && joins(next);
      if (code === 0x200d) return (joins(previous) && (joins(next) || !isWordLike(next))) || ((isPictographic(previous) || (isPictureModifier(previous) && (isPictographic(this.#beforePrevious) || isPictureModifier(this.#beforePrevious)))) && isPictographic(next));
      return code === 0x180e && joins(previous);
    }
    if (kind === 'variation_selector') {
      if (code === 0xfe0e || code === 0xfe0f) return isPictographic(previous) || /^[\d#*]$/.test(String.fromCodePoint(previous)) || (previous >= 0x2000 && previous < 0x3300 && invisibleKind(previous) === null) || (previous >= 0x1f000 && previous < 0x20000);
      if (code < 0x2000) return previous >= 0x1820 && previous < 0x18ab;
      if (code < 0xfe0e) return isIdeograph(previous) || (previous >= 0x2200 && previous < 0x2b00) || (previous >= 0x1000 && previous < 0x10a0);
      return isIdeograph(previous);
    }
    if (kind === 'bidi') return (code === 0x200e || code === 0x200f || code === 0x61c) && (isRightToLeft(previous) || isRightToLeft(next) || isRightToLeft(this.#beforePrevious));
    return (code === 0x115f || code === 0x1160) && ((previous >= 0x1100 && previous < 0x1200) || (next >= 0x1100 && next < 0x1200));
  }
}

/** Units of the tags of a flag that begin here, with the one that ends them; 0 when they are none. */
function flagLength(text: string, start: number): number {
  let name = '';
  for (let at = start; at < start + 14; at += 2) {
    const code = text.codePointAt(at) ?? 0;
    if (code === cancelTag) return tagFlags.has(name) ? at + 2 - start : 0;
    if (code < 0xe0020 || code > cancelTag) return 0;
    name += String.fromCharCode(code - 0xe0000);
  }
  return 0;
}

function isWordLike(code: number): boolean {
  return code > 0x7f || /[A-Za-z0-9]/.test(String.fromCharCode(code));
}
