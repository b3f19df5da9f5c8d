import { abandoned } from './abandoned.ts';
import type { SandboxId } from './ids.ts';
import type { CommandResult } from './output.ts';

interface Wait {
  readonly result: Promise<CommandResult | null>;
  readonly abort: AbortController;
  waiters: number;
}

/** Several callers may wait for one process: its output is read once, and all get the result. */
export class Waits {
  readonly #waits = new Map<string, Wait>();

  has(sandboxId: SandboxId, processId: string): boolean {
    return this.#waits.has(keyOf(sandboxId, processId));
  }

  /** `collect` is called by the first one; its signal aborts when the last one has left. */
  async join(sandboxId: SandboxId, processId: string, caller: AbortSignal, collect: (signal: AbortSignal) => Promise<CommandResult | null>): Promise<CommandResult | null> {
    if (caller.aborted) throw abandoned(caller);
    const key = keyOf(sandboxId, processId);
    const wait = this.#waits.get(key) ?? this.#begin(key, collect);
    wait.waiters += 1;
    const left = Promise.withResolvers<never>();
    const onLeft = (): void => left.reject(abandoned(caller));
    caller.addEventListener('abort', onLeft, { once: true });
    try {
      return await Promise.race([wait.result, left.promise]);
    } finally {
      caller.removeEventListener('abort', onLeft);
      wait.waiters -= 1;
      if (wait.waiters === 0) {
        if (this.#waits.get(key) === wait) this.#waits.delete(key);
        wait.abort.abort();
      }
    }
  }

  #begin(key: string, collect: (signal: AbortSignal) => Promise<CommandResult | null>): Wait {
    const abort = new AbortController();
    const wait: Wait = { abort, result: collect(abort.signal), waiters: 0 };
    // Every waiter may have left before it fails.
    wait.result.catch(() => undefined);
    this.#waits.set(key, wait);
    return wait;
  }
}

function keyOf(sandboxId: SandboxId, processId: string): string {
  return `${sandboxId} ${processId}`;
}
