import { defaultMaskPatterns, globMatches } from '../../core/policy.ts';

const mask = '***';
/** Shorter values would mask ordinary words. */
const shortestValue = 6;
const longestName = 128;
const longestValue = 4096;

export interface EnvMaskOptions {
  /** Globs of names, letters of either case. */
  readonly patterns?: readonly string[];
  /** The variables of a sandbox: values of those whose names match are masked wherever they stand. */
  readonly envs?: Readonly<Record<string, string>>;
  /** Values to be masked whatever their names. */
  readonly sensitive?: readonly { readonly name: string; readonly value: string }[];
}

/**
 * Masks secrets of the environment in texts for a log: values that are known, and whatever is assigned to a name that matches
 * (`API_KEY=…`, `"API_KEY": "…"`, `API_KEY: …`).
 */
export class EnvMask {
  readonly #patterns: readonly string[];
  readonly #values: readonly string[];

  constructor({ patterns = defaultMaskPatterns, envs = {}, sensitive = [] }: EnvMaskOptions) {
    this.#patterns = patterns.map((pattern) => pattern.toLowerCase());
    const values = [...Object.entries(envs).filter(([name]) => this.#matches(name)).map(([, value]) => value), ...sensitive.map(({ value }) => value)];
    // Longest first: one may be a part of another.
    this.#values = [...new Set(values)].filter((value) => value.length >= shortestValue).sort((a, b) => b.length - a.length);
  }

  apply(text: string): string {
    return this.#assignments(this.#values.reduce((text, value) => text.replaceAll(value, mask), text));
  }

  #matches(name: string): boolean {
    return this.#patterns.some((pattern) => globMatches(pattern, name.toLowerCase()));
  }

  #assignments(text: string): string {
    const out: string[] = [];
    let from = 0;
    for (const match of text.matchAll(/[A-Za-z_][A-Za-z0-9_]*/g)) {
      if (match.index < from || match[0].length > longestName) continue;
      const end = match.index + match[0].length;
      const sign = /^["']?[ ]{0,2}(?:=|:)[ ]{0,2}/.exec(text.slice(end, end + 8));
      if (sign === null || !this.#matches(match[0])) continue;
      const start = end + sign[0].length;
      const length = valueLength(text.slice(start, start + longestValue));
      if (length === 0) continue;
      const quoted = /["']/.test(text[start]!) ? text[start]! : '';
      out.push(text.slice(from, start), quoted, mask, quoted);
      from = start + length;
    }
    return from === 0 ? text : out.join('') + text.slice(from);
  }
}

/** Characters of the value that begins here, with its quotes. */
function valueLength(text: string): number {
  const quote = text[0];
  if (quote !== '"' && quote !== "'") return /^[^\s,;&"'}\])]*/.exec(text)![0].length;
  for (let at = 1; at < text.length; at++) {
    if (text[at] === '\\') at++;
    else if (text[at] === quote) return at + 1;
  }
  return text.length;
}
