import { PaddockError } from './errors.ts';
import type { SandboxId } from './ids.ts';

/** Counts the sandboxes that hold something on this server, from the create on until all is taken back. */
export class Admission {
  readonly #limit: number;
  readonly #holding = new Set<SandboxId>();

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Throws `concurrency_limit` when the server is full. Nothing is awaited between the check and the count. */
  enter(id: SandboxId): void {
    this.assertFree(1);
    this.#holding.add(id);
  }

  /** Throws `concurrency_limit` when so many more are too many. */
  assertFree(count: number): void {
    if (this.#holding.size + count <= this.#limit) return;
    throw new PaddockError('concurrency_limit', `this server has ${this.#holding.size} sandboxes, and its limit is ${this.#limit}; kill or pause some, or raise the limit`, {
      retryAfterSeconds: 5,
    });
  }

  /** Counts one that is there already, whatever the limit. */
  restore(id: SandboxId): void {
    this.#holding.add(id);
  }

  leave(id: SandboxId): void {
    this.#holding.delete(id);
  }

  get count(): number {
    return this.#holding.size;
  }
}
