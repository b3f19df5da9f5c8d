/** What a scorer says of one text. "Not scanned" is an answer, too: whether it lets the text pass is the caller's decision. */
export type InjectionScore = Scanned | { readonly scanned: false; readonly reason: string };

export interface Scanned {
  readonly scanned: true;
  /** Probability that the text holds an injection, 0 to 1. */
  readonly score: number;
  /** The likelier of the two. Whether to act is a matter of the policy's threshold, not of this. */
  readonly label: 'injection' | 'benign';
  /** The most suspicious stretch, code units of the text [start, end); null where the scorer names none. */
  readonly excerpt: Excerpt | null;
  readonly by: 'model' | 'server' | 'judge';
  /** Why the judge, who should have been asked, gave no answer; the score is then that of the first scorer. */
  readonly unjudged?: string;
}

export interface Excerpt {
  readonly start: number;
  readonly end: number;
}

export interface ScoreOptions {
  readonly signal?: AbortSignal;
  /** What the owner tells the judge about what is allowed; passed on as it is. */
  readonly policy?: string;
}

export interface InjectionScorer {
  /** Never rejects but for an aborted signal, whose reason it then is. Each scorer bounds length and number of the texts it takes. */
  score(text: string, options?: ScoreOptions): Promise<InjectionScore>;
  /** Lets go of what it holds; scores that are under way end as "not scanned". */
  close(): Promise<void>;
}

export function labelOf(score: number): 'injection' | 'benign' {
  return score >= 0.5 ? 'injection' : 'benign';
}
