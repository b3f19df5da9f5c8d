import type { ConnectionEvent } from '../core/network/egress.ts';
import { EventQueue, mostBuffered } from './event-queue.ts';

const mergeWindowMs = 1000;

/** What happened to connections. */
export class ConnectionLog extends EventQueue<ConnectionEvent> {
  /** Equal refusals of the last second, which become one event. */
  readonly #merging = new Map<string, ConnectionEvent>();
  #mergeTimer: NodeJS.Timeout | null = null;

  /** As `record`, for what may happen many times a second. */
  recordRefusal(event: ConnectionEvent): void {
    const key = `${event.sandboxId} ${event.protocol} ${event.host} ${event.address} ${event.port} ${event.matchRule}`;
    const earlier = this.#merging.get(key);
    if (earlier === undefined && this.#merging.size >= mostBuffered) return this.drop(event.count);
    this.#merging.set(key, earlier === undefined ? event : { ...earlier, count: earlier.count + event.count });
    if (this.#mergeTimer === null) this.#mergeTimer = setTimeout(() => this.#settle(), mergeWindowMs);
    return undefined;
  }

  override get waiting(): number {
    return super.waiting + this.#merging.size;
  }

  #settle(): void {
    this.#mergeTimer = null;
    const events = [...this.#merging.values()];
    this.#merging.clear();
    for (const event of events) this.record(event);
  }
}
