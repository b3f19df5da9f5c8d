import type { PaddockError } from './errors.ts';
import type { SandboxId } from './ids.ts';

/** One sandbox that is being created. */
export interface Birth {
  /** Aborts when somebody ends the sandbox before it runs; the reason is a PaddockError. */
  readonly signal: AbortSignal;
  /** The host is done with it, whether there is a guest now or not. */
  provisioned(): void;
  /** The create has been answered. */
  over(): void;
}

/** The creates under way, so that an end that comes early finds them. */
export class Births {
  readonly #open = new Map<SandboxId, { readonly abort: AbortController; readonly provisioned: Promise<void>; readonly over: Promise<void> }>();

  begin(id: SandboxId): Birth {
    const abort = new AbortController();
    const provisioned = Promise.withResolvers<void>();
    const over = Promise.withResolvers<void>();
    this.#open.set(id, { abort, provisioned: provisioned.promise, over: over.promise });
    return {
      signal: abort.signal,
      provisioned: provisioned.resolve,
      over: () => {
        provisioned.resolve();
        this.#open.delete(id);
        over.resolve();
      },
    };
  }

  /** Makes the create of this sandbox fail; false when none is under way. */
  fail(id: SandboxId, reason: PaddockError): boolean {
    const birth = this.#open.get(id);
    birth?.abort.abort(reason);
    return birth !== undefined;
  }

  /** Waits until the host has let go of the guest it was making, if it was. */
  async abandoned(id: SandboxId): Promise<void> {
    await this.#open.get(id)?.provisioned;
  }

  /** Makes every create fail. */
  failAll(reason: PaddockError): void {
    for (const birth of this.#open.values()) birth.abort.abort(reason);
  }

  /** Resolves when every create under way has been answered. */
  async settled(): Promise<void> {
    await Promise.all([...this.#open.values()].map((birth) => birth.over));
  }
}
