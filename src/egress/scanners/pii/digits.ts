import { isDigit } from './characters.ts';

/** Runs of ASCII digits in a text, found once for all that look for numbers. */
export class DigitRuns {
  readonly text: string;
  readonly #borders: number[] = [];

  constructor(text: string) {
    this.text = text;
    for (let at = 0; at < text.length; at++) {
      if (!isDigit(text.charCodeAt(at))) continue;
      this.#borders.push(at);
      while (at < text.length && isDigit(text.charCodeAt(at))) at++;
      this.#borders.push(at);
    }
  }

  get count(): number {
    return this.#borders.length / 2;
  }

  start(run: number): number {
    return this.#borders[run * 2]!;
  }

  end(run: number): number {
    return this.#borders[run * 2 + 1]!;
  }

  length(run: number): number {
    return this.end(run) - this.start(run);
  }

  /** What stands between this run and the next. Null at the end of the text, or when it is longer than four characters. */
  gap(run: number): string | null {
    if (run + 1 >= this.count || this.start(run + 1) - this.end(run) > 4) return null;
    return this.text.slice(this.end(run), this.start(run + 1));
  }

  /** Only the digits of these runs. */
  digits(first: number, last: number): string {
    let digits = '';
    for (let run = first; run <= last; run++) digits += this.text.slice(this.start(run), this.end(run));
    return digits;
  }
}
