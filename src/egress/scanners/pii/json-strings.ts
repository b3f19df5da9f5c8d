/** A string value in a text of JSON. */
export interface JsonString {
  /** Names and numbers on the way to it. */
  readonly path: string;
  /** Between its quotes. */
  readonly start: number;
  readonly end: number;
}

const mostDepth = 64;
/** Longer keys are told apart by their beginning and length: a path is made for every value below them. */
const longestKey = 100;

/** The string values of a text of JSON, with where they stand. Null when it is not JSON. */
export function jsonStrings(text: string): JsonString[] | null {
  const found: JsonString[] = [];
  const reader = new Reader(text, found);
  return reader.value('', 0) && reader.atEnd() ? found : null;
}

class Reader {
  readonly #text: string;
  readonly #found: JsonString[];
  #at = 0;

  constructor(text: string, found: JsonString[]) {
    this.#text = text;
    this.#found = found;
  }

  atEnd(): boolean {
    this.#space();
    return this.#at === this.#text.length;
  }

  value(path: string, depth: number): boolean {
    this.#space();
    const char = this.#text[this.#at];
    if (char === '{' || char === '[') return depth < mostDepth && this.#list(path, depth, char === '{');
    if (char === '"') {
      const start = this.#at + 1;
      if (!this.#string()) return false;
      this.#found.push({ path, start, end: this.#at - 1 });
      return true;
    }
    const start = this.#at;
    while (this.#at < this.#text.length && !/[\s,\]}:"]/.test(this.#text[this.#at]!)) this.#at++;
    return this.#at > start;
  }

  #list(path: string, depth: number, named: boolean): boolean {
    const close = named ? '}' : ']';
    this.#at++;
    this.#space();
    if (this.#text[this.#at] === close) {
      this.#at++;
      return true;
    }
    for (let i = 0; ; i++) {
      let key = String(i);
      if (named) {
        this.#space();
        const start = this.#at;
        if (this.#text[this.#at] !== '"' || !this.#string()) return false;
        key = this.#at - start <= longestKey ? this.#text.slice(start, this.#at) : `${this.#text.slice(start, start + longestKey)}…${this.#at - start}`;
        this.#space();
        if (this.#text[this.#at++] !== ':') return false;
      }
      if (!this.value(`${path}/${key}`, depth + 1)) return false;
      this.#space();
      const next = this.#text[this.#at++];
      if (next === close) return true;
      if (next !== ',') return false;
    }
  }

  #string(): boolean {
    for (this.#at++; this.#at < this.#text.length; this.#at++) {
      if (this.#text[this.#at] === '\\') this.#at++;
      else if (this.#text[this.#at] === '"') {
        this.#at++;
        return true;
      }
    }
    return false;
  }

  #space(): void {
    while (/[ \t\r\n]/.test(this.#text[this.#at] ?? '')) this.#at++;
  }
}
