import { longestToken, tokenPattern } from './tokens.ts';

/** How an answer is written, as far as it matters for what is put into it. */
export type AnswerSyntax = 'plain' | 'json' | 'sse' | 'form';

export interface RehydratorOptions {
  readonly syntax: AnswerSyntax;
  /** What a token stands for; null leaves it. */
  readonly valueFor: (token: string) => string | null;
}

/** Ways to write the bracket before a token, with those to write the one behind it. */
const brackets: readonly (readonly [open: string, close: string])[] = [['[', ']'], ['%5B', '%5D'], ['%5b', '%5d'], ['\\u005b', '\\u005d'], ['\\u005B', '\\u005D'], ['&#91;', '&#93;'], ['&lsqb;', '&rsqb;'], ['\\[', '\\]']];
const name = 'REDACTED_';
/** Bytes of a token in its longest spelling. */
const longestSpelling = longestToken + 12;

/**
 * Puts values back in the place of their tokens in an answer that comes in pieces, escaped as the place asks for. Gives on everything at once
 * but what may be the beginning of a token: an event stream is not held up.
 */
export class Rehydrator {
  readonly #options: RehydratorOptions;
  readonly #strings: StringTracker;
  #held = '';
  #count = 0;

  constructor(options: RehydratorOptions) {
    this.#options = options;
    this.#strings = new StringTracker();
  }

  /** How many tokens were turned back. */
  get count(): number {
    return this.#count;
  }

  write(chunk: Buffer): Buffer {
    return this.#run(this.#held + chunk.toString('latin1'), false);
  }

  end(): Buffer {
    return this.#run(this.#held, true);
  }

  /** The text has a character for each byte. */
  #run(text: string, last: boolean): Buffer {
    const out: string[] = [];
    let from = 0;
    for (let at = nextOpening(text, 0); at >= 0; at = nextOpening(text, at + 1)) {
      const end = tokenEnd(text, at);
      if (end === 'open' && !last) {
        out.push(this.#passed(text.slice(from, at)));
        this.#held = text.slice(at);
        return Buffer.from(out.join(''), 'latin1');
      }
      if (typeof end !== 'number') continue;
      out.push(this.#passed(text.slice(from, at)));
      const token = text.slice(at, end);
      out.push(this.#turned(token));
      from = end;
      at = end - 1;
    }
    out.push(this.#passed(text.slice(from)));
    this.#held = '';
    return Buffer.from(out.join(''), 'latin1');
  }

  #passed(text: string): string {
    if (this.#options.syntax === 'json' || this.#options.syntax === 'sse') this.#strings.pass(text);
    return text;
  }

  #turned(token: string): string {
    const plain = plainToken(token);
    const value = plain === null ? null : this.#options.valueFor(plain);
    if (value === null) return this.#passed(token);
    this.#count++;
    const utf8 = this.#escaped(value, token);
    return Buffer.from(utf8).toString('latin1');
  }

  #escaped(value: string, token: string): string {
    if (token.startsWith('%') || this.#options.syntax === 'form') return encodeURIComponent(value);
    if (token.startsWith('&')) return value.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');
    if (this.#options.syntax === 'plain') return value;
    let escaped = value;
    for (let level = this.#strings.depth; level > 0; level--) escaped = JSON.stringify(escaped).slice(1, -1);
    // A line of an event begins with the name of its field.
    return this.#strings.depth === 0 && this.#options.syntax === 'sse' ? value.replaceAll(/\r\n|\r|\n/g, '\ndata: ') : escaped;
  }
}

/** Where a token may begin, from here on; -1 when nowhere. */
function nextOpening(text: string, from: number): number {
  for (let at = from; at < text.length; at++) {
    const unit = text.charCodeAt(at);
    if (unit === 0x5b || unit === 0x25 || unit === 0x5c || unit === 0x26) return at;
  }
  return -1;
}

/** The end of the token that begins here; `open` when the text ends before that can be said; null when none begins here. */
function tokenEnd(text: string, start: number): number | 'open' | null {
  let open = false;
  for (const [opening, close] of brackets) {
    const head = opening + name;
    const seen = text.slice(start, start + head.length);
    if (seen !== head) {
      open ||= start + seen.length === text.length && head.startsWith(seen);
      continue;
    }
    let at = start + head.length;
    while (at < text.length && at - start < longestSpelling && isTokenUnit(text.charCodeAt(at))) at++;
    if (text.startsWith(close, at)) return at + close.length;
    if (at === text.length || (close.startsWith(text.slice(at)) && text.length - at < close.length)) open ||= at - start < longestSpelling;
  }
  return open ? 'open' : null;
}

function isTokenUnit(unit: number): boolean {
  return (unit >= 0x41 && unit <= 0x5a) || unit === 0x5f || (unit >= 0x30 && unit <= 0x39);
}

function plainToken(spelled: string): string | null {
  const inner = /REDACTED_[A-Z0-9_]+/.exec(spelled)?.[0];
  const token = `[${inner ?? ''}]`;
  return tokenPattern.test(token) ? token : null;
}

const [quote, backslash, newline] = [0x22, 0x5c, 0x0a];

/**
 * In how many strings of JSON a place lies: a string of JSON in a string has its quotes escaped, and that string begins as JSON does; in any
 * other, escaped quotes are quotes in a text. Deeper than two counts as two.
 */
class StringTracker {
  #within = false;
  #nested = false;
  /** Whether the string holds JSON; null before its first character. */
  #document: boolean | null = null;
  #slashes = 0;

  get depth(): number {
    return this.#within ? (this.#nested ? 2 : 1) : 0;
  }

  pass(text: string): void {
    for (let at = 0; at < text.length; at++) {
      const unit = text.charCodeAt(at);
      if (this.#within && this.#document === null) this.#document = unit === 0x7b || unit === 0x5b;
      if (unit === backslash) {
        this.#slashes++;
        continue;
      }
      if (unit === newline) this.#within = this.#nested = false;
      else if (unit === quote) {
        if (this.#slashes % 2 === 0) {
          this.#within = !this.#within;
          this.#nested = false;
          this.#document = null;
        } else if (this.#slashes === 1 && this.#document === true) this.#nested = !this.#nested;
      }
      this.#slashes = 0;
    }
  }
}
