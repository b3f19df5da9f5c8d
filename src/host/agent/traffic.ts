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
  kind: RequestKind;
  readonly #cut = new AbortController();
  readonly #over: (passage: Passage) => void;

  constructor(kind: RequestKind, over: (passage: Passage) => void) {
    this.kind = kind;
    this.#over = over;
  }

  /** Aborted when the request must give its connection up; the reason says why. */
  get cut(): AbortSignal {
    return this.#cut.signal;
  }

  interrupt(reason: Error): void {
    this.#cut.abort(reason);
  }

  [Symbol.dispose](): void {
    this.#over(this);
  }
}

/** What is under way into one guest, and whether more may begin. */
export class Traffic {
  #holds = 0;
  #gate: PromiseWithResolvers<void> | null = null;
  readonly #passages = new Set<Passage>();
  #left: PromiseWithResolvers<void> | null = null;

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
    const passage = new Passage(kind, (one) => {
      if (this.#passages.delete(one)) this.#left?.resolve();
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

  /** Waits until no call is under way, but not for longer than that. */
  async settle(withinMs: number): Promise<void> {
    const late = AbortSignal.timeout(withinMs);
    while (!late.aborted && [...this.#passages].some(({ kind }) => kind === 'call')) {
      this.#left = Promise.withResolvers<void>();
      await untilAborted(this.#left.promise, late).catch(() => {});
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

/** The promise's outcome, unless the signal comes first: then its reason is thrown. */
async function untilAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted();
  const aborted = Promise.withResolvers<never>();
  const abort = (): void => aborted.reject(signal.reason as Error);
  signal.addEventListener('abort', abort, { once: true });
  try {
    return await Promise.race([promise, aborted.promise]);
  } finally {
    signal.removeEventListener('abort', abort);
  }
}
