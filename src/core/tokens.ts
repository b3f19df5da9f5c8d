import { createHmac, timingSafeEqual } from 'node:crypto';
import { PaddockError } from './errors.ts';
import type { Sandbox } from './sandbox.ts';

type Identity = Pick<Sandbox, 'id' | 'generation'>;

/**
 * The tokens of a sandbox, derived instead of stored: the same ones come back on every read and after a restart, and a
 * fork, being another generation or id, gets its own.
 */
export class Tokens {
  readonly #key: Buffer;

  constructor(key: Buffer) {
    if (key.length < 32) throw new PaddockError('internal', `the token key must have at least 32 bytes, not ${key.length}`);
    this.#key = Buffer.from(key);
  }

  /** Opens the agent inside the sandbox. */
  agent(sandbox: Identity): string {
    return `envd-${this.#derive(sandbox, 'agent')}`;
  }

  /** For inbound traffic to the sandbox's ports. */
  traffic(sandbox: Identity): string {
    return `traffic-${this.#derive(sandbox, 'traffic')}`;
  }

  /** Whether a text is the traffic token of this sandbox; compared in constant time. */
  opensTraffic(sandbox: Identity, text: string): boolean {
    const [expected, given] = [Buffer.from(this.traffic(sandbox)), Buffer.from(text)];
    return expected.length === given.length && timingSafeEqual(expected, given);
  }

  #derive(sandbox: Identity, kind: string): string {
    return createHmac('sha256', this.#key).update(`${sandbox.id}:${kind}:${sandbox.generation}`).digest('base64url');
  }
}
