import type { HostLog } from '../../log.ts';
import type { Bucket } from './bucket.ts';

const removedAtOnce = 16;
const againAfterMs = 30_000;

/** Objects that nobody needs any more. What cannot be removed now is tried again, and found by the next start after a crash. */
export class Litter {
  readonly #bucket: Bucket;
  readonly #log: HostLog;
  readonly #keys = new Set<string>();
  readonly #prefixes = new Set<string>();
  #working: Promise<void> | null = null;
  #again: NodeJS.Timeout | null = null;
  #closed = false;

  constructor(bucket: Bucket, log: HostLog) {
    this.#bucket = bucket;
    this.#log = log;
  }

  /** Begins to remove them. */
  add(keys: Iterable<string>): void {
    for (const key of keys) this.#keys.add(key);
    void this.#work();
  }

  /** Removes all objects whose names begin so; `first` before the others. Resolves when they are gone, or cannot be removed now. */
  async removeBelow(prefix: string, first: string): Promise<void> {
    try {
      await this.#bucket.remove(first);
      await this.#empty(prefix);
    } catch (err) {
      this.#log.warn({ err, prefix }, 'a deleted volume is still in the object store; removing it is tried again');
      this.#prefixes.add(prefix);
      this.#later();
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    if (this.#again !== null) clearTimeout(this.#again);
    await this.#working;
  }

  #work(): Promise<void> {
    this.#working ??= this.#round().finally(() => {
      this.#working = null;
      if (this.#keys.size + this.#prefixes.size > 0) this.#later();
    });
    return this.#working;
  }

  async #round(): Promise<void> {
    try {
      for (const prefix of this.#prefixes) {
        await this.#empty(prefix);
        this.#prefixes.delete(prefix);
      }
      while (this.#keys.size > 0 && !this.#closed) await this.#remove([...this.#keys].slice(0, removedAtOnce));
    } catch (err) {
      this.#log.warn({ err, objects: this.#keys.size }, 'objects that no volume needs could not be removed; it is tried again');
    }
  }

  async #empty(prefix: string): Promise<void> {
    let keys: string[] = [];
    for await (const key of this.#bucket.list(prefix)) {
      keys.push(key);
      if (keys.length < removedAtOnce) continue;
      await Promise.all(keys.map((each) => this.#bucket.remove(each)));
      keys = [];
    }
    await Promise.all(keys.map((each) => this.#bucket.remove(each)));
  }

  async #remove(keys: readonly string[]): Promise<void> {
    await Promise.all(
      keys.map(async (key) => {
        await this.#bucket.remove(key);
        this.#keys.delete(key);
      }),
    );
  }

  #later(): void {
    if (this.#closed || this.#again !== null) return;
    this.#again = setTimeout(() => {
      this.#again = null;
      void this.#work();
    }, againAfterMs);
    this.#again.unref();
  }
}
