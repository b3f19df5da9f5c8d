import { createHmac, timingSafeEqual } from 'node:crypto';
import type { Clock } from '../../core/clock.ts';
import type { SandboxId } from '../../core/ids.ts';

const hourMs = 3_600_000;

/**
 * The tokens of the data plane (contract, section 4.7): an HMAC over sandbox and hour, so that checking one needs no look at the store.
 * Good in the hour it was made in and in the next, so for one to two hours; clients activate the sandbox again then.
 */
export class AccessTokens {
  readonly #seed: Buffer;
  readonly #clock: Clock;

  /** @param seed at least 32 bytes, the same after a restart. */
  constructor(seed: Buffer, clock: Clock) {
    this.#seed = seed;
    this.#clock = clock;
  }

  issue(id: SandboxId): string {
    return this.#of(id, this.#hour()).toString('hex');
  }

  /** Compared in constant time. The hour to come counts too: the clock may have been set back since. */
  accepts(id: SandboxId, token: string): boolean {
    if (!/^[0-9a-f]{64}$/.test(token)) return false;
    const given = Buffer.from(token, 'hex');
    const hour = this.#hour();
    return [hour, hour - 1, hour + 1].some((each) => timingSafeEqual(given, this.#of(id, each)));
  }

  #hour(): number {
    return Math.floor(this.#clock.now() / hourMs);
  }

  #of(id: SandboxId, hour: number): Buffer {
    return createHmac('sha256', this.#seed).update(`${id}|${hour}`).digest();
  }
}
