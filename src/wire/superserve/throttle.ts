import type { FastifyReply } from 'fastify';
import { SuperserveError } from './errors.ts';
import { RateLimits } from './rate-limits.ts';
import type { Rate } from './settings.ts';

/** Takes one request out of a bucket, and tells the client what is left (the `RateLimit` header fields). */
export class Throttle {
  readonly #limits: RateLimits | null;
  readonly #what: string;

  /** @param what whose requests are counted, for the message. */
  constructor(rate: Rate | null, what: string) {
    this.#limits = rate === null ? null : new RateLimits(rate, () => performance.now());
    this.#what = what;
  }

  /** @throws SuperserveError 429 when the bucket is empty. */
  take(name: string, reply: FastifyReply): void {
    if (this.#limits === null) return;
    const { allowed, limit, remaining, resetSeconds, retryAfterSeconds } = this.#limits.take(name);
    reply.headers({ 'ratelimit-limit': limit, 'ratelimit-remaining': remaining, 'ratelimit-reset': resetSeconds });
    if (!allowed) {
      throw new SuperserveError(429, 'rate_limited', `too many requests of ${this.#what}: at most ${limit} at once; try again in ${retryAfterSeconds} s`, { headers: { 'retry-after': String(retryAfterSeconds) } });
    }
  }
}
