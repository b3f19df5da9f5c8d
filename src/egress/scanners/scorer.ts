/** What a text was judged to be: from 0 (harmless) to 1, and which rule or class weighed most; null when none did. */
export interface Score {
  readonly score: number;
  readonly label: string | null;
}

/** Judges a text. Rules of this folder are one kind of judge; a model behind the same interface is another. */
export interface Scorer {
  score(text: string): Score;
}

/** Takes weights for what they are taken to be: chances that are independent of one another. */
export function combined(weights: readonly { readonly label: string; readonly weight: number }[]): Score {
  let [rest, most, label] = [1, 0, null as string | null];
  for (const one of weights) {
    rest *= 1 - one.weight;
    if (one.weight > most) [most, label] = [one.weight, one.label];
  }
  return { score: Math.round((1 - rest) * 1000) / 1000, label };
}

/** A body that comes in pieces is judged in parts of this size, with a part of the one before: the highest score counts. */
const partSize = 16 << 10;
const partOverlap = 1 << 10;

/** Judges a text that comes in pieces, in bounded memory. */
export class StreamScorer {
  readonly #scorer: Scorer;
  #held = '';
  #fresh = 0;
  #highest: Score = { score: 0, label: null };

  constructor(scorer: Scorer) {
    this.#scorer = scorer;
  }

  get highest(): Score {
    return this.#highest;
  }

  write(text: string): void {
    for (let from = 0; from < text.length; from += partSize) {
      const piece = text.slice(from, from + partSize);
      this.#held += piece;
      this.#fresh += piece.length;
      if (this.#fresh >= partSize) this.#judge();
    }
  }

  /** Judges what came since the last part, too. More may follow. */
  end(): Score {
    if (this.#fresh > 0) this.#judge();
    return this.#highest;
  }

  #judge(): void {
    const score = this.#scorer.score(this.#held);
    if (score.score > this.#highest.score) this.#highest = score;
    this.#held = this.#held.slice(-partOverlap);
    this.#fresh = 0;
  }
}
