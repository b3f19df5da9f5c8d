import { featuresOf } from './features.ts';
import { type Normalised } from './normalise.ts';
import { type PhraseView, phraseScores, pooled, topicScore, type TopicView } from './views.ts';

/** Everything that a score depends on; made by the training program, read from one file. */
export interface Model {
  /** Names the training run, for logs. */
  readonly name: string;
  readonly phrases: readonly PhraseView[];
  readonly topics: readonly TopicView[];
  /** Weight of each view (phrases first) and the constant, in one logit. */
  readonly mix: { readonly weights: readonly number[]; readonly bias: number };
  /** Probability by logit, rising, measured on texts that the model had not seen; straight lines between. */
  readonly calibration: readonly (readonly [logit: number, probability: number])[];
}

export interface ModelScore {
  /** Calibrated probability that the text holds an injection, 0 to 1. */
  readonly score: number;
  /** The most suspicious stretch, as code units of the original text [start, end); null for an empty text. */
  readonly excerpt: { readonly start: number; readonly end: number } | null;
}

/** Takes time in proportion to the length of the text. */
export function scoreNormalised(model: Model, { text, origins }: Normalised): ModelScore {
  if (text.trim() === '') return { score: 0, excerpt: null };
  const { scores, tokens, at } = viewScores(model, text);
  const score = probabilityOf(model, scores);
  const window = model.phrases[0]!.window;
  const [from, to] = [tokens[at]!, tokens[Math.min(tokens.length - 1, at + window)]!];
  // Decoded parts come after the text, and with origins inside it.
  let [start, end] = [Infinity, 0];
  for (let i = from; i < to; i++) {
    start = Math.min(start, origins[i]!);
    end = Math.max(end, origins[i]! + 1);
  }
  return { score, excerpt: end > start ? { start, end } : null };
}

/** Logit of each view, phrases first; where tokens begin and at which the loudest window of the first phrase view begins. */
export function viewScores(model: Pick<Model, 'phrases' | 'topics'>, text: string): { scores: number[]; tokens: Uint32Array; at: number } {
  const scores: number[] = [];
  const bits = Math.max(...model.phrases.map((view) => view.bits), ...model.topics.map((view) => view.bits));
  const widest = featuresOf(text, bits);
  let at = 0;
  for (const [index, view] of model.phrases.entries()) {
    const windows = phraseScores(view, widest);
    let best = 0;
    for (let i = 1; i < windows.length; i++) if (windows[i]! > windows[best]!) best = i;
    if (index === 0) at = best;
    scores.push(windows[best]!);
  }
  for (const view of model.topics) scores.push(topicScore(view, pooled(view, widest).values));
  return { scores, tokens: widest.starts, at };
}

export function mixed({ weights, bias }: Model['mix'], scores: readonly number[]): number {
  return scores.reduce((sum, score, i) => sum + score * weights[i]!, bias);
}

export function probabilityOf(model: Pick<Model, 'mix' | 'calibration'>, scores: readonly number[]): number {
  return calibrated(model.calibration, mixed(model.mix, scores));
}

export function calibrated(knots: Model['calibration'], logit: number): number {
  const above = knots.findIndex(([x]) => x >= logit);
  if (above === 0) return knots[0]![1];
  if (above < 0) return knots.at(-1)![1];
  const [[x0, y0], [x1, y1]] = [knots[above - 1]!, knots[above]!];
  return y0 + ((y1 - y0) * (logit - x0)) / (x1 - x0);
}
