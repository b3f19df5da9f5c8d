import type { Lap } from '../core/host.ts';

/** Collects the stages of one request for its `Server-Timing` header (https://www.w3.org/TR/server-timing/). */
export class ServerTiming {
  readonly #started = performance.now();
  #last = this.#started;
  readonly #stages: string[] = [];

  /** Ends a stage: its time runs from the end of the one before. */
  readonly lap: Lap = (stage) => {
    const now = performance.now();
    this.#stages.push(`${stage};dur=${(now - this.#last).toFixed(2)}`);
    this.#last = now;
  };

  /** The stages so far and the total, in milliseconds. */
  get header(): string {
    return [...this.#stages, `total;dur=${(performance.now() - this.#started).toFixed(2)}`].join(', ');
  }
}
