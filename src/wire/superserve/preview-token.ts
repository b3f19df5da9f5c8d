import { createHmac, timingSafeEqual } from 'node:crypto';
import type { Clock } from '../../core/clock.ts';
import type { SandboxId } from '../../core/ids.ts';

const longest = 512;

/** What a token opens: one port of one sandbox, as long as the version is the port's own. */
export interface PreviewGrant {
  readonly id: SandboxId;
  readonly port: number;
  readonly tokenVersion: number;
}

/**
 * Tokens for private previews (contract, section 12): `spv1.<payload>.<seal>`, where the payload names sandbox, port, version and end. The end is
 * in whole seconds.
 */
export class PreviewTokens {
  readonly #seed: Buffer;
  readonly #clock: Clock;

  /** @param seed at least 32 bytes, the same after a restart. */
  constructor(seed: Buffer, clock: Clock) {
    this.#seed = seed;
    this.#clock = clock;
  }

  /** @param expiresInSeconds null for a token that ends with its version. */
  issue({ id, port, tokenVersion }: PreviewGrant, expiresInSeconds: number | null): { readonly token: string; readonly expiresAt: number | null } {
    const expiresAt = expiresInSeconds === null ? null : Math.floor(this.#clock.now() / 1000) + expiresInSeconds;
    const payload = Buffer.from(JSON.stringify({ sid: id, p: port, v: tokenVersion, ...(expiresAt === null ? {} : { exp: expiresAt }) })).toString('base64url');
    return { token: `spv1.${payload}.${this.#seal(payload).toString('base64url')}`, expiresAt: expiresAt === null ? null : expiresAt * 1000 };
  }

  /** When a token that opens this ends, in milliseconds, `Infinity` for never; null when it does not open it. */
  accepts(grant: PreviewGrant, token: string): number | null {
    if (token.length > longest) return null;
    const [version, payload, seal, ...more] = token.split('.');
    if (version !== 'spv1' || !payload || !seal || more.length > 0) return null;
    const [given, expected] = [Buffer.from(seal, 'base64url'), this.#seal(payload)];
    if (given.length !== expected.length || !timingSafeEqual(given, expected)) return null;
    const { sid, p, v, exp } = JSON.parse(Buffer.from(payload, 'base64url').toString()) as { sid: string; p: number; v: number; exp?: number };
    if (sid !== grant.id || p !== grant.port || v !== grant.tokenVersion) return null;
    const end = exp === undefined ? Number.POSITIVE_INFINITY : exp * 1000;
    return end > this.#clock.now() ? end : null;
  }

  #seal(payload: string): Buffer {
    return createHmac('sha256', this.#seed).update(`superserve-preview.v1|${payload}`).digest();
  }
}
