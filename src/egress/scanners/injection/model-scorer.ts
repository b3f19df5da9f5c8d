import { type Model, type ModelScore, scoreNormalised } from './model.ts';
import { normalise, type Normalised } from './normalise.ts';
import { type InjectionScore, type InjectionScorer, labelOf, type ScoreOptions } from './scorer.ts';

export interface ModelScorerLimits {
  /** Code units; a longer text is not scanned. */
  readonly longestText: number;
  /** Code units of all texts that wait or are being scored. */
  readonly mostWaiting: number;
}

export const defaultLimits: ModelScorerLimits = { longestText: 8 * 2 ** 20, mostWaiting: 32 * 2 ** 20 };

/** About what the model was trained on; longer texts are scored in pieces, and the highest score counts. */
export const PIECE = 4096;
/** Normalised. An attack on the border of two pieces is whole in one of them. */
export const OVERLAP = 512;
/** Of a piece that is mostly padding so much must be left after normalising; else it is made longer, up to a span. */
const FEWEST_LEFT = 1024;
const LONGEST_SPAN = 65_536;
/** How long scoring may hold the event loop at a time. All scores of the process share it. */
const TURN_MS = 4;

interface Job {
  readonly text: string;
  /** Where the next piece begins. */
  next: number;
  /** What was left of pieces that were padding only. */
  carried: Normalised;
  best: ModelScore;
  done(score: InjectionScore): void;
}

/**
 * Scores with the model, in this process: small texts take well under a millisecond, and large ones let others run in between, so
 * that no worker (and no copy of the text for it) is needed.
 */
export class ModelScorer implements InjectionScorer {
  readonly #model: Model;
  readonly #limits: ModelScorerLimits;
  readonly #jobs: Job[] = [];
  #waiting = 0;
  #running = false;
  #closed = false;

  constructor(model: Model, limits: ModelScorerLimits = defaultLimits) {
    this.#model = model;
    this.#limits = limits;
  }

  async score(text: string, { signal }: ScoreOptions = {}): Promise<InjectionScore> {
    signal?.throwIfAborted();
    const { longestText, mostWaiting } = this.#limits;
    if (this.#closed) return { scanned: false, reason: 'the scorer is closed' };
    if (text.length > longestText) return { scanned: false, reason: `the text has ${text.length} characters, ${longestText} can be scanned` };
    if (this.#waiting + text.length > mostWaiting) return { scanned: false, reason: 'too much text is waiting to be scanned' };
    const { promise, resolve, reject } = Promise.withResolvers<InjectionScore>();
    const job: Job = { text, next: 0, carried: nothing, best: { score: -1, excerpt: null }, done: resolve };
    const abort = (): void => {
      this.#remove(job);
      reject(signal!.reason as Error);
    };
    this.#jobs.push(job);
    this.#waiting += text.length;
    signal?.addEventListener('abort', abort, { once: true });
    this.#run();
    try {
      return await promise;
    } finally {
      signal?.removeEventListener('abort', abort);
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    while (this.#jobs[0] !== undefined) this.#end(this.#jobs[0], { scanned: false, reason: 'the scorer was closed' });
  }

  #run(): void {
    if (this.#running) return;
    this.#running = true;
    setImmediate(() => this.#turn());
  }

  /** A piece of each text in turn, so that a small one does not wait for a large one. */
  #turn(): void {
    const until = performance.now() + TURN_MS;
    do {
      const job = this.#jobs.shift();
      if (job === undefined) break;
      try {
        this.#piece(job);
      } catch (error) {
        this.#jobs.unshift(job);
        this.#end(job, { scanned: false, reason: `the model failed: ${(error as Error).message}` });
        continue;
      }
      this.#jobs.push(job);
      if (job.next < job.text.length) continue;
      const { score, excerpt } = job.best;
      this.#end(job, { scanned: true, score, label: labelOf(score), excerpt, by: 'model' });
    } while (performance.now() < until);
    this.#running = false;
    if (this.#jobs.length > 0) this.#run();
  }

  #piece(job: Job): void {
    const { text, next, carried } = job;
    // Padding that the normaliser takes out must not tear an attack apart: a piece is measured by what is left of it.
    let length = PIECE;
    let piece = normalise(text.slice(next, next + length));
    while (next + length < text.length && ownLength(piece) < FEWEST_LEFT && length < LONGEST_SPAN) {
      length *= 4;
      piece = normalise(text.slice(next, next + length));
    }
    const whole = { text: carried.text + piece.text, origins: joined(carried.origins, piece.origins, next) };
    const scored = scoreNormalised(this.#model, whole);
    if (scored.score > job.best.score) job.best = scored;

    const own = ownLength(whole);
    const isThin = ownLength(piece) < FEWEST_LEFT;
    const tail = Math.max(0, own - OVERLAP);
    job.carried = isThin ? { text: whole.text.slice(tail, own), origins: whole.origins.slice(tail, own) } : nothing;
    job.next = next + length >= text.length ? text.length : isThin ? next + length : whole.origins[tail]!;
  }

  #end(job: Job, score: InjectionScore): void {
    this.#remove(job);
    job.done(score);
  }

  #remove(job: Job): void {
    const at = this.#jobs.indexOf(job);
    if (at < 0) return;
    this.#jobs.splice(at, 1);
    this.#waiting -= job.text.length;
  }
}

const nothing: Normalised = { text: '', origins: new Uint32Array() };

/** Without what was decoded out of it. */
function ownLength({ text }: Normalised): number {
  const end = text.indexOf('\n');
  return end < 0 ? text.length : end;
}

function joined(first: Uint32Array, second: Uint32Array, moved: number): Uint32Array {
  const all = new Uint32Array(first.length + second.length);
  all.set(first);
  for (let i = 0; i < second.length; i++) all[first.length + i] = second[i]! + moved;
  return all;
}
