import { BuildFailure } from './build-host.ts';

/** What a variable is; undefined when it is not set. */
export type Lookup = (name: string) => string | undefined;

const longestResult = 128 * 1024;

/**
 * A word of a Dockerfile with its quotes taken off and its variables put in: `$NAME`, `${NAME}`, `${NAME:-x}`, `${NAME-x}`, `${NAME:+x}`,
 * `${NAME+x}`, `${NAME:?x}`. Single quotes keep everything; a backslash keeps what follows it. Linear in the word and its result.
 */
export function resolveWord(word: string, lookup: Lookup): string {
  const reader = new WordReader(word, lookup);
  const text = reader.read(null);
  return text;
}

class WordReader {
  readonly #word: string;
  readonly #lookup: Lookup;
  #at = 0;
  #depth = 0;

  constructor(word: string, lookup: Lookup) {
    this.#word = word;
    this.#lookup = lookup;
  }

  /** Up to `end`, which is taken too; null is the end of the word. */
  read(end: string | null): string {
    const parts: string[] = [];
    let length = 0;
    const add = (text: string): void => {
      length += text.length;
      if (length > longestResult) throw new BuildFailure('invalid_spec', `a value has more than ${longestResult} characters once its variables are put in`);
      parts.push(text);
    };
    let quoted = false;
    while (this.#at < this.#word.length) {
      const character = this.#word[this.#at]!;
      if (character === end && !quoted) {
        this.#at++;
        return parts.join('');
      }
      if (character === '\\') add(this.#escaped(quoted));
      else if (character === "'" && !quoted) add(this.#single());
      else if (character === '"') {
        quoted = !quoted;
        this.#at++;
      } else if (character === '$') add(this.#variable());
      else {
        add(character);
        this.#at++;
      }
    }
    if (quoted) throw new BuildFailure('invalid_spec', `a double quote is not closed in ${shown(this.#word)}`);
    if (end !== null) throw new BuildFailure('invalid_spec', `a brace is not closed in ${shown(this.#word)}`);
    return parts.join('');
  }

  #escaped(quoted: boolean): string {
    const next = this.#word[this.#at + 1];
    this.#at += 2;
    if (next === undefined) return '\\';
    // Within quotes the backslash means something only before these.
    return quoted && !'"$\\'.includes(next) ? `\\${next}` : next;
  }

  #single(): string {
    const close = this.#word.indexOf("'", this.#at + 1);
    if (close < 0) throw new BuildFailure('invalid_spec', `a single quote is not closed in ${shown(this.#word)}`);
    const text = this.#word.slice(this.#at + 1, close);
    this.#at = close + 1;
    return text;
  }

  #variable(): string {
    this.#at++;
    if (this.#word[this.#at] === '{') {
      this.#at++;
      return this.#braced();
    }
    const name = this.#name();
    return name === '' ? '$' : (this.#lookup(name) ?? '');
  }

  #braced(): string {
    const name = this.#name();
    if (name === '') throw new BuildFailure('invalid_spec', `there is no name after \${ in ${shown(this.#word)}`);
    if (this.#word[this.#at] === '}') {
      this.#at++;
      return this.#lookup(name) ?? '';
    }
    const colon = this.#word[this.#at] === ':';
    if (colon) this.#at++;
    const operator = this.#word[this.#at];
    if (operator !== '-' && operator !== '+' && operator !== '?') throw new BuildFailure('invalid_spec', `\${${name}… in ${shown(this.#word)} is not understood; there are :-, :+, :?, -, + and ?`);
    this.#at++;
    if (++this.#depth > 16) throw new BuildFailure('invalid_spec', `variables are nested deeper than 16 in ${shown(this.#word)}`);
    const other = this.read('}');
    this.#depth--;
    const value = this.#lookup(name);
    const there = value !== undefined && !(colon && value === '');
    if (operator === '-') return there ? value : other;
    if (operator === '+') return there ? other : '';
    if (!there) throw new BuildFailure('invalid_spec', `${name} is not set: ${other}`);
    return value;
  }

  #name(): string {
    const start = this.#at;
    while (this.#at < this.#word.length && /[A-Za-z0-9_]/.test(this.#word[this.#at]!)) this.#at++;
    const name = this.#word.slice(start, this.#at);
    if (/^[0-9]/.test(name)) {
      this.#at = start + 1; // $1 is a parameter, and there are none
      return name[0]!;
    }
    return name;
  }
}

function shown(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}…` : text);
}
