import type { Excerpt, InjectionScore, InjectionScorer, Scanned, ScoreOptions } from './scorer.ts';

export interface JudgeOptions {
  /** Ask about every text, not only where the first scorer is unsure. */
  readonly always?: boolean;
  /** Scores of the first scorer in [from, to) are unsure. */
  readonly unsure?: { readonly from: number; readonly to: number };
  /** Code units: of a longer text the judge gets this much around the suspicious stretch. */
  readonly context?: number;
}

const UNSURE = { from: 0.3, to: 0.97 };
const CONTEXT = 16_384;

/**
 * A fast scorer and a slow one that knows better. The judge's score counts where it was asked and answered; where it did not answer, the
 * first score stands, marked as `unjudged`, and the caller decides what that is worth.
 */
export class JudgedScorer implements InjectionScorer {
  readonly #first: InjectionScorer;
  readonly #judge: InjectionScorer;
  readonly #always: boolean;
  readonly #unsure: { readonly from: number; readonly to: number };
  readonly #context: number;

  constructor(first: InjectionScorer, judge: InjectionScorer, { always = false, unsure = UNSURE, context = CONTEXT }: JudgeOptions = {}) {
    if (!(unsure.from >= 0 && unsure.from <= unsure.to && unsure.to <= 1)) throw new Error(`the unsure scores must lie between 0 and 1, not from ${unsure.from} to ${unsure.to}`);
    this.#first = first;
    this.#judge = judge;
    this.#always = always;
    this.#unsure = unsure;
    this.#context = context;
  }

  async score(text: string, options: ScoreOptions = {}): Promise<InjectionScore> {
    const first = await this.#first.score(text, options);
    // What the first could not scan as a whole is not judged by a part of it.
    if (!first.scanned || !this.#isAsked(first)) return first;
    const [shown, offset] = this.#shown(text, first.excerpt);
    const judged = await this.#judge.score(shown, options);
    if (judged.scanned) return { ...judged, excerpt: judged.excerpt ? moved(judged.excerpt, offset) : first.excerpt, by: 'judge' };
    return { ...first, unjudged: judged.reason };
  }

  async close(): Promise<void> {
    await Promise.all([this.#first.close(), this.#judge.close()]);
  }

  #isAsked({ score }: Scanned): boolean {
    return this.#always || (score >= this.#unsure.from && score < this.#unsure.to);
  }

  /** As much of the text as the judge gets, and where that begins. */
  #shown(text: string, around: Excerpt | null): readonly [string, number] {
    if (text.length <= this.#context) return [text, 0];
    const middle = around === null ? 0 : Math.floor((around.start + around.end) / 2);
    const start = Math.max(0, Math.min(text.length - this.#context, middle - Math.floor(this.#context / 2)));
    return [text.slice(start, start + this.#context), start];
  }
}

function moved({ start, end }: Excerpt, by: number): Excerpt {
  return { start: start + by, end: end + by };
}
