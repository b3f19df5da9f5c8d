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
