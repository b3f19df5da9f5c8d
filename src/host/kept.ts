import type { SandboxId } from '../core/ids.ts';
import type { HostLog } from './log.ts';
import type { Runtime, RuntimeHandle } from './runtime.ts';
import type { Slot } from './slots.ts';

/** A paused guest whose checkpoint is on disk, still in memory: paused by its kernel and frozen by the host. Its address leads nowhere. */
export interface KeptGuest {
  readonly sandboxId: SandboxId;
  readonly checkpointId: string;
  readonly slot: Slot;
  readonly handle: RuntimeHandle;
  readonly memoryBytes: number;
}

export interface KeepingLimits {
  /** Memory that all of them may hold; 0 keeps none. */
  readonly memoryBytes: number;
  readonly seconds: number;
}

interface Entry extends KeptGuest {
  readonly until: number;
}

/** Guests that are kept after a pause for as long as memory is to spare, because waking one takes milliseconds. The oldest goes first. */
export class KeptGuests {
  readonly #runtime: Runtime;
  readonly #limits: KeepingLimits;
  readonly #dispose: (guest: KeptGuest) => Promise<void>;
  readonly #log: HostLog;
  /** In the order of their coming. */
  readonly #entries = new Map<string, Entry>();

  constructor(runtime: Runtime, limits: KeepingLimits, dispose: (guest: KeptGuest) => Promise<void>, log: HostLog) {
    this.#runtime = runtime;
    this.#limits = limits;
    this.#dispose = dispose;
    this.#log = log;
  }

  /** Takes a paused guest that nobody uses any more: keeps it within the limits, or ends it. */
  async keep(guest: KeptGuest): Promise<void> {
    const { memoryBytes, seconds } = this.#limits;
    if (guest.memoryBytes > memoryBytes || seconds === 0 || !this.#runtime.isAlive(guest.handle)) return this.#dispose(guest);
    try {
      await this.#runtime.freeze(guest.handle.container);
    } catch (reason) {
      this.#log.warn({ err: reason, sandbox: guest.sandboxId }, 'a paused guest cannot be frozen, and is not kept in memory');
      return this.#dispose(guest);
    }
    this.#entries.set(guest.checkpointId, { ...guest, until: Date.now() + seconds * 1000 });
    while (this.held > memoryBytes) await this.evictOldest();
  }

  /** The guest of this checkpoint, if it is kept and alive; it is the caller's from now on, paused and frozen still. */
  take(checkpointId: string, sandboxId: SandboxId): KeptGuest | null {
    const entry = this.#entries.get(checkpointId);
    if (entry === undefined || entry.sandboxId !== sandboxId || !this.#runtime.isAlive(entry.handle)) return null;
    this.#entries.delete(checkpointId);
    return entry;
  }

  /** Ends the one that has been kept longest; false when there is none. */
  async evictOldest(): Promise<boolean> {
    const [oldest] = this.#entries.values();
    if (oldest === undefined) return false;
    await this.#evict(oldest);
    return true;
  }

  async evict(which: { readonly sandboxId: SandboxId } | { readonly checkpointId: string }): Promise<void> {
    const chosen = [...this.#entries.values()].filter((entry) => ('sandboxId' in which ? entry.sandboxId === which.sandboxId : entry.checkpointId === which.checkpointId));
    await Promise.all(chosen.map((entry) => this.#evict(entry)));
  }

  /** Ends, in the background, those whose time is over or who are dead, and the oldest when memory is short. */
  prune(memoryIsTight: () => boolean): void {
    if (this.#entries.size === 0) return;
    const now = Date.now();
    const over = [...this.#entries.values()].filter((entry) => entry.until <= now || !this.#runtime.isAlive(entry.handle));
    const [oldest] = this.#entries.values();
    if (over.length === 0 && oldest !== undefined && memoryIsTight()) over.push(oldest);
    for (const entry of over) this.#evict(entry).catch((reason: unknown) => this.#log.error({ err: reason, sandbox: entry.sandboxId }, 'a kept guest could not be ended'));
  }

  async evictAll(): Promise<void> {
    await Promise.all([...this.#entries.values()].map((entry) => this.#evict(entry)));
  }

  get count(): number {
    return this.#entries.size;
  }

  /** Memory that all of them hold, in bytes. */
  get held(): number {
    return [...this.#entries.values()].reduce((sum, entry) => sum + entry.memoryBytes, 0);
  }

  async #evict(entry: Entry): Promise<void> {
    this.#entries.delete(entry.checkpointId);
    await this.#dispose(entry);
  }
}
