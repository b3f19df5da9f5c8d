/** What can be said of a regular expression (RE2's syntax) without running it. */
export interface PatternShape {
  /** Characters of the longest text that it matches; Infinity without a bound. */
  readonly longest: number;
  /** A repetition without a bound within another one without: `(a+)*`. */
  readonly nested: boolean;
  /** It asks where a match stands: `^`, `$`, `\b`. */
  readonly anchored: boolean;
}

/** Reads a pattern that is known to compile. */
export function shapeOf(pattern: string): PatternShape {
  return new ShapeReader(pattern).read();
}

interface Part {
  readonly longest: number;
  /** Holds a repetition without a bound. */
  readonly repeats: boolean;
}

class ShapeReader {
  readonly #pattern: string;
  #at = 0;
  #nested = false;
  #anchored = false;

  constructor(pattern: string) {
    this.#pattern = pattern;
  }

  read(): PatternShape {
    let longest = 0;
    // A closing bracket too many would not have compiled; the loop ends whatever stands here.
    while (this.#at < this.#pattern.length) {
      longest = Math.max(longest, this.#alternatives().longest);
      this.#at++;
    }
    return { longest, nested: this.#nested, anchored: this.#anchored };
  }

  #alternatives(): Part {
    let longest = 0;
    let repeats = false;
    for (;;) {
      const part = this.#sequence();
      longest = Math.max(longest, part.longest);
      repeats ||= part.repeats;
      if (this.#pattern[this.#at] !== '|') return { longest, repeats };
      this.#at++;
    }
  }

  #sequence(): Part {
    let longest = 0;
    let repeats = false;
    while (this.#at < this.#pattern.length && this.#pattern[this.#at] !== '|' && this.#pattern[this.#at] !== ')') {
      const part = this.#repeated(this.#atom());
      longest += part.longest;
      repeats ||= part.repeats;
    }
    return { longest, repeats };
  }

  #repeated(atom: Part): Part {
    let part = atom;
    for (;;) {
      const rest = this.#pattern.slice(this.#at, this.#at + 16);
      const counted = /^\{(\d+)(?:(,)(\d*))?\}/.exec(rest);
      const sign = /^[*+?]/.exec(rest)?.[0] ?? null;
      if (sign === null && counted === null) return part;
      this.#at += counted === null ? 1 : counted[0].length;
      const most = counted === null ? (sign === '?' ? 1 : Infinity) : counted[2] === undefined ? Number(counted[1]) : counted[3] === '' ? Infinity : Number(counted[3]);
      if (this.#pattern[this.#at] === '?' || this.#pattern[this.#at] === '+') this.#at++;
      if (most === Infinity && part.repeats) this.#nested = true;
      part = { longest: part.longest === 0 || most === 0 ? 0 : part.longest * most, repeats: part.repeats || most === Infinity };
    }
  }

  #atom(): Part {
    const char = this.#pattern[this.#at++]!;
    if (char === '(') return this.#group();
    if (char === '[') return this.#class();
    if (char === '\\') return this.#escape();
    if (char === '^' || char === '$') {
      this.#anchored = true;
      return { longest: 0, repeats: false };
    }
    return { longest: 1, repeats: false };
  }

  #group(): Part {
    if (/^\?<?[=!]/.test(this.#pattern.slice(this.#at, this.#at + 3))) {
      this.#anchored = true;
      this.#at += this.#pattern[this.#at + 1] === '<' ? 3 : 2;
      const around = this.#alternatives();
      this.#at++;
      return { longest: 0, repeats: around.repeats };
    }
    const open = /^\?(?:P?<[^>]*>|[imsU-]*(?::|\)))/.exec(this.#pattern.slice(this.#at));
    this.#at += open?.[0].length ?? 0;
    if (open?.[0].endsWith(')') === true) return { longest: 0, repeats: false };
    const part = this.#alternatives();
    this.#at++;
    return part;
  }

  #class(): Part {
    if (this.#pattern[this.#at] === '^') this.#at++;
    for (let first = true; this.#at < this.#pattern.length && (first || this.#pattern[this.#at] !== ']'); first = false) {
      const named = /^\[:\^?\w+:\]/.exec(this.#pattern.slice(this.#at, this.#at + 16));
      this.#at += named?.[0].length ?? (this.#pattern[this.#at] === '\\' ? 2 : 1);
    }
    this.#at++;
    return { longest: 1, repeats: false };
  }

  #escape(): Part {
    const char = this.#pattern[this.#at++] ?? '';
    if ('bBAzZG'.includes(char)) {
      this.#anchored = true;
      return { longest: 0, repeats: false };
    }
    if (char === 'Q') {
      const end = this.#pattern.indexOf('\\E', this.#at);
      const stop = end < 0 ? this.#pattern.length : end;
      const longest = stop - this.#at;
      this.#at = end < 0 ? stop : end + 2;
      return { longest, repeats: false };
    }
    if (char === 'E') return { longest: 0, repeats: false };
    const rest = /^(?:\{[^}]*\})/.exec(this.#pattern.slice(this.#at));
    if ('pPx'.includes(char)) this.#at += rest?.[0].length ?? (char === 'x' ? 2 : 1);
    else if (/[0-7]/.test(char)) this.#at += /^[0-7]{0,2}/.exec(this.#pattern.slice(this.#at))![0].length;
    return { longest: 1, repeats: false };
  }
}
