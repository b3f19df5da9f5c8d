import type { ConnectionEvent } from '../core/network/egress.ts';

/** The oldest are dropped beyond this many. */
const mostBuffered = 8192;
const mostPerBatch = 128;
const longestDelayMs = 500;
const mergeWindowMs = 1000;

/** Where batches go: the server that is connected. `deliver` is called again with the same batch on a new connection until it is acknowledged. */
export interface LogReader {
  deliver(batch: LogBatch): void;
}

export interface LogBatch {
  readonly k: number;
  readonly items: readonly ConnectionEvent[];
  /** How many were dropped before these because nobody read them. */
  readonly dropped: number;
}

/** What happened to connections, kept in bounded memory until the server has taken it. Never waits for the server. */
export class ConnectionLog {
  #events: ConnectionEvent[] = [];
  #dropped = 0;
  #reader: LogReader | null = null;
  #inFlight: LogBatch | null = null;
  #nextBatch = 1;
  #timer: NodeJS.Timeout | null = null;
  /** Equal refusals of the last second, which become one event. */
  readonly #merging = new Map<string, ConnectionEvent>();
  #mergeTimer: NodeJS.Timeout | null = null;

  record(event: ConnectionEvent): void {
    this.#events.push(event);
    if (this.#events.length > mostBuffered) {
      // Rarely and many at once: removing from the front moves all the others.
      const excess = mostBuffered / 8;
      this.#events.splice(0, excess);
      this.#dropped += excess;
    }
    this.#schedule();
  }

  /** As `record`, for what may happen many times a second. */
  recordRefusal(event: ConnectionEvent): void {
    const key = `${event.sandboxId} ${event.protocol} ${event.host} ${event.address} ${event.port} ${event.matchRule}`;
    const earlier = this.#merging.get(key);
    if (earlier === undefined && this.#merging.size >= mostBuffered) {
      this.#dropped += event.count;
      return;
    }
    this.#merging.set(key, earlier === undefined ? event : { ...earlier, count: earlier.count + event.count });
    if (this.#mergeTimer === null) this.#mergeTimer = setTimeout(() => this.#settle(), mergeWindowMs);
  }

  get waiting(): number {
    return this.#events.length + (this.#inFlight?.items.length ?? 0) + this.#merging.size;
  }

  /** A server connected and reads from now on; what an earlier one did not acknowledge comes first. */
  attach(reader: LogReader): void {
    this.#reader = reader;
    if (this.#inFlight !== null) reader.deliver(this.#inFlight);
    else this.#schedule();
  }

  detach(reader: LogReader): void {
    if (this.#reader === reader) this.#reader = null;
  }

  acknowledge(reader: LogReader, k: number): void {
    if (this.#reader !== reader || this.#inFlight?.k !== k) return;
    this.#inFlight = null;
    this.#schedule();
  }

  #settle(): void {
    this.#mergeTimer = null;
    const events = [...this.#merging.values()];
    this.#merging.clear();
    for (const event of events) this.record(event);
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
