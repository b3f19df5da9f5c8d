import { type InvisibleFinding, InvisibleTextFilter } from './invisible-text.ts';
import type { PartFilter } from './multipart.ts';
import { type Score, type Scorer, StreamScorer } from './scorer.ts';
import { textFilter } from './text-filter.ts';
import { type Syntax, viewOf } from './view.ts';

/** Why a body does not pass. */
export class TextRefused extends Error {
  readonly code: 'hidden_text_found' | 'score_too_high' | 'text_unreadable';

  constructor(code: TextRefused['code'], reason: string) {
    super(reason);
    this.name = 'TextRefused';
    this.code = code;
  }
}

export interface InvisibleTextPolicy {
  readonly action: 'strip' | 'block' | 'log_only';
  readonly detectZeroWidth: boolean;
  /** Called with why a text cannot be read; it passes when this returns. Without it, it is refused unless it is only looked at. */
  readonly unreadable?: (why: string) => void;
  readonly binary?: () => void;
}

/** What one body goes through that is searched for hidden text. */
export class InvisibleTextGuard implements PartFilter {
  readonly #filters: InvisibleTextFilter[] = [];
  readonly #body: PartFilter;

  constructor(contentType: string, { action, detectZeroWidth, unreadable, binary }: InvisibleTextPolicy) {
    this.#body = textFilter(contentType, {
      make: (syntax) => {
        const filter = new InvisibleTextFilter({ syntax, strip: action === 'strip', detectZeroWidth });
        this.#filters.push(filter);
        return action === 'block' ? checked(filter, () => refuseHidden(filter.findings)) : filter;
      },
      unreadable: unreadable ?? ((why) => refuseUnreadable(why, action)),
      ...(binary === undefined ? {} : { binary }),
    });
  }

  get findings(): readonly InvisibleFinding[] {
    return this.#filters.flatMap(({ findings }) => findings);
  }

  /** @throws TextRefused */
  write(chunk: Buffer): Buffer {
    return this.#body.write(chunk);
  }

  /** @throws TextRefused */
  end(): Buffer {
    return this.#body.end();
  }
}

export interface ScorePolicy {
  readonly action: 'block' | 'log_only';
  /** A score of this or more is too high. */
  readonly threshold: number;
  /** What was judged, in words for the program inside: `toxicity`. */
  readonly what: string;
}

/** A body that may be blocked waits until it was judged; a longer one goes on in pieces, each after its judgement. */
const mostHeld = 1 << 20;
const pieceSize = 16 << 10;

/** What one body goes through that is judged. */
export class ScoreGuard implements PartFilter {
  readonly #policy: ScorePolicy;
  readonly #judges: StreamScorer[] = [];
  readonly #body: PartFilter;
  #held: Buffer[] = [];
  #size = 0;

  constructor(contentType: string, scorer: Scorer, policy: ScorePolicy) {
    this.#policy = policy;
    this.#body = textFilter(contentType, {
      make: (syntax) => {
        const judge = new StreamScorer(scorer);
        this.#judges.push(judge);
        return new Judged(judge, syntax);
      },
      unreadable: (why) => refuseUnreadable(why, policy.action),
    });
  }

  get highest(): Score {
    return this.#judges.reduce<Score>((highest, { highest: score }) => (score.score > highest.score ? score : highest), { score: 0, label: null });
  }

  /** @throws TextRefused */
  write(chunk: Buffer): Buffer {
    const out = this.#checked(this.#body.write(chunk));
    if (this.#policy.action === 'log_only') return out;
    this.#held.push(out);
    this.#size += out.length;
    return this.#size > mostHeld ? this.#released() : Buffer.alloc(0);
  }

  /** @throws TextRefused */
  end(): Buffer {
    this.#held.push(this.#checked(this.#body.end()));
    return this.#released();
  }

  #released(): Buffer {
    const out = Buffer.concat(this.#held);
    // Beyond the bound nothing is held back any more.
    this.#held = [];
    return out;
  }

  #checked(out: Buffer): Buffer {
    const { score, label } = this.highest;
    if (this.#policy.action === 'log_only' || score < this.#policy.threshold || label === null) return out;
    throw new TextRefused('score_too_high', `The ${this.#policy.what} of the body is ${score} (${label}); the policy of this sandbox allows less than ${this.#policy.threshold}.`);
  }
}

/** Passes bytes on after their text was given to a judge. */
class Judged implements PartFilter {
  readonly #judge: StreamScorer;
  readonly #syntax: Syntax;
  #waiting: Buffer[] = [];
  #size = 0;

  constructor(judge: StreamScorer, syntax: Syntax) {
    this.#judge = judge;
    this.#syntax = syntax;
  }

  write(chunk: Buffer): Buffer {
    this.#waiting.push(Buffer.from(chunk));
    this.#size += chunk.length;
    return this.#size < pieceSize ? Buffer.alloc(0) : this.#take();
  }

  end(): Buffer {
    return this.#take();
  }

  #take(): Buffer {
    const bytes = Buffer.concat(this.#waiting);
    this.#waiting = [];
    this.#size = 0;
    // Borders of strings are no borders of what is said; escapes are undone, so that lines of code are lines.
    this.#judge.write(viewOf(bytes, this.#syntax).text);
    // Before they go on.
    this.#judge.end();
    return bytes;
  }
}

function checked(filter: PartFilter, check: () => void): PartFilter {
  const through = (out: Buffer): Buffer => {
    check();
    return out;
  };
  return { write: (chunk) => through(filter.write(chunk)), end: () => through(filter.end()) };
}

function refuseHidden(findings: readonly InvisibleFinding[]): void {
  if (findings.length === 0) return;
  throw new TextRefused('hidden_text_found', `The body has characters that nobody sees (${findings.map(({ kind, count }) => `${count} × ${kind}`).join(', ')}), which the policy of this sandbox does not let pass.`);
}

function refuseUnreadable(why: string, action: string): void {
  if (action !== 'log_only') throw new TextRefused('text_unreadable', `The body cannot be looked into: ${why}. Send it as UTF-8.`);
}
