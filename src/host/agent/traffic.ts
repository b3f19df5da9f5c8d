import { untilAborted } from '../until-aborted.ts';

/**
 * What a request is to a hold. A call is waited for. A follower is cut and comes back. A transfer or a tunnel is broken off. What the host
 * asks for itself goes through.
 */
export type RequestKind = 'call' | 'follow' | 'transfer' | 'tunnel' | 'host';

/** Why a request that may simply be made again was cut: the guest is being saved. */
export class HeldBack extends Error {
  constructor() {
    super('held back while the sandbox is being saved');
    this.name = 'HeldBack';
  }
}

/** One request, from its admission until its connection is free or closed. */
export class Passage implements Disposable {
  #kind: RequestKind;
  #isAnswered = false;
  #isOver = false;
  readonly #cut = new AbortController();
  readonly #changed: () => void;

  constructor(kind: RequestKind, changed: () => void) {
    this.#kind = kind;
    this.#changed = changed;
  }

  get kind(): RequestKind {
    return this.#kind;
  }

  /** Whether the agent has begun to answer. */
  get isAnswered(): boolean {
    return this.#isAnswered;
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  /** Whether it will come to its end, or to a point where it may be cut, within a moment. */
  get isBrief(): boolean {
    return this.#kind === 'call' || (this.#kind === 'follow' && !this.#isAnswered);
  }

  /** Aborted when the request must give its connection up; the reason says why. */
  get cut(): AbortSignal {
    return this.#cut.signal;
  }

  answered(): void {
    this.#isAnswered = true;
    this.#changed();
  }

  becomes(kind: RequestKind): void {
    this.#kind = kind;
    this.#changed();
  }

  interrupt(reason: Error): void {
    this.#cut.abort(reason);
  }

  [Symbol.dispose](): void {
    this.#isOver = true;
    this.#changed();
  }
}

/** What is under way into one guest, and whether more may begin. */
export class Traffic {
  #holds = 0;
  #gate: PromiseWithResolvers<void> | null = null;
  readonly #passages = new Set<Passage>();
  #change: PromiseWithResolvers<void> | null = null;

  get isHeld(): boolean {
    return this.#gate !== null;
  }

  /** How often it was held so far: whoever finds it changed was perhaps cut by a hold that is over. */
  get holds(): number {
    return this.#holds;
  }

  /** Resolves when the request may be made; rejects with the signal's reason when that comes first. */
  async admit(kind: RequestKind, signal: AbortSignal): Promise<Passage> {
    while (this.#gate !== null && kind !== 'host') await untilAborted(this.#gate.promise, signal);
    const passage = new Passage(kind, () => {
      if (passage.isOver) this.#passages.delete(passage);
      this.#change?.resolve();
    });
    this.#passages.add(passage);
    return passage;
  }

  hold(): void {
    this.#holds++;
    this.#gate ??= Promise.withResolvers<void>();
  }

  release(): void {
    this.#gate?.resolve();
    this.#gate = null;
  }

  /** Waits until nothing brief is under way, but not for longer than that. */
  async settle(withinMs: number): Promise<void> {
    const late = AbortSignal.timeout(withinMs);
    while (!late.aborted && [...this.#passages].some(({ isBrief }) => isBrief)) {
      this.#change = Promise.withResolvers<void>();
      await untilAborted(this.#change.promise, late).catch(() => {});
    }
  }

  /** Cuts whatever the function has a reason for. */
  interrupt(reasonFor: (passage: Passage) => Error | null): void {
    for (const passage of this.#passages) {
      const reason = reasonFor(passage);
      if (reason !== null) passage.interrupt(reason);
    }
  }
}
