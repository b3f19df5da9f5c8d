/** The oldest are dropped beyond this many. */
export const mostBuffered = 8192;
const mostPerBatch = 128;
const longestDelayMs = 500;

/** Where batches go: the server that is connected. `deliver` is called again with the same batch on a new connection until it is acknowledged. */
export interface QueueReader<T> {
  deliver(batch: Batch<T>): void;
}

export interface Batch<T> {
  readonly k: number;
  readonly items: readonly T[];
  /** How many were dropped before these because nobody read them. */
  readonly dropped: number;
}

/** Events, kept in bounded memory until the server has taken them. Never waits for the server. */
export class EventQueue<T> {
  #events: T[] = [];
  #dropped = 0;
  #reader: QueueReader<T> | null = null;
  #inFlight: Batch<T> | null = null;
  #nextBatch = 1;
  #timer: NodeJS.Timeout | null = null;

  record(event: T): void {
    this.#events.push(event);
    if (this.#events.length > mostBuffered) {
      // Rarely and many at once: removing from the front moves all the others.
      const excess = mostBuffered / 8;
      this.#events.splice(0, excess);
      this.#dropped += excess;
    }
    this.#schedule();
  }

  /** Counts events that could not even be recorded. */
  drop(count: number): void {
    this.#dropped += count;
  }

  get waiting(): number {
    return this.#events.length + (this.#inFlight?.items.length ?? 0);
  }

  /** A server connected and reads from now on; what an earlier one did not acknowledge comes first. */
  attach(reader: QueueReader<T>): void {
    this.#reader = reader;
    if (this.#inFlight !== null) reader.deliver(this.#inFlight);
    else this.#schedule();
  }

  detach(reader: QueueReader<T>): void {
    if (this.#reader === reader) this.#reader = null;
  }

  acknowledge(reader: QueueReader<T>, k: number): void {
    if (this.#reader !== reader || this.#inFlight?.k !== k) return;
    this.#inFlight = null;
    this.#schedule();
  }

  #schedule(): void {
    if (this.#reader === null || this.#inFlight !== null || (this.#events.length === 0 && this.#dropped === 0)) return;
    if (this.#events.length >= mostPerBatch) this.#deliver();
    else this.#timer ??= setTimeout(() => this.#deliver(), longestDelayMs);
  }

  #deliver(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    if (this.#reader === null || this.#inFlight !== null) return;
    this.#inFlight = { k: this.#nextBatch++, items: this.#events.splice(0, mostPerBatch), dropped: this.#dropped };
    this.#dropped = 0;
    this.#reader.deliver(this.#inFlight);
  }
}
