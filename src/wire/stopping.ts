/**
 * How a server that stops treats what is still going on. Both signals fire once, in this order.
 */
export interface Stopping {
  /** The server has begun to stop: streams say so and end now. */
  readonly draining: AbortSignal;
  /** The grace for ordinary requests is over: what still runs is broken off with an answer that no client retries. */
  readonly expired: AbortSignal;
}
