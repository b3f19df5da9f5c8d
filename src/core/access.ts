import { createHash, randomBytes, randomUUID, timingSafeEqual } from 'node:crypto';
import type { Clock } from './clock.ts';
import { PaddockError } from './errors.ts';
import type { EventLog } from './events.ts';
import type { TeamId } from './ids.ts';
import type { Principal } from './principal.ts';
import type { ApiKey, Store } from './store.ts';

const rememberedMs = 5000;
const mostRemembered = 1000;
const longestKey = 512;
const shortestKey = 8;

/** API keys: who asks. Only hashes are stored; a key is shown once, when it is made. */
export class Access {
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #events: EventLog | null;
  /** Keys that were good a moment ago, by hash. */
  readonly #remembered = new Map<string, { readonly principal: Principal; readonly until: number }>();

  constructor(deps: { readonly store: Store; readonly clock: Clock; readonly events?: EventLog }) {
    this.#store = deps.store;
    this.#clock = deps.clock;
    this.#events = deps.events ?? null;
  }

  /** Throws `unauthenticated` for a key that is missing, unknown or revoked, without saying which. */
  async authenticate(rawKey: string): Promise<Principal> {
    if (rawKey === '' || rawKey.length > longestKey) throw unauthenticated();
    const hash = hashOf(rawKey);
    const now = this.#clock.now();
    const known = this.#remembered.get(hash);
    if (known !== undefined && known.until > now && known.until <= now + rememberedMs) return known.principal;
    const key = await this.#store.keys.findByHash(hash);
    if (key === null || key.revokedAt !== null || !timingSafeEqual(Buffer.from(key.hash, 'hex'), Buffer.from(hash, 'hex'))) {
      this.#remembered.delete(hash);
      throw unauthenticated();
    }
    const principal: Principal = Object.freeze({ teamId: key.teamId, keyId: key.id });
    if (this.#remembered.size >= mostRemembered) this.#remembered.clear();
    this.#remembered.set(hash, { principal, until: now + rememberedMs });
    return principal;
  }

  /**
   * Makes a key that the operator has chosen valid for the default team, if it is not yet. Throws `conflict` for one that
   * was revoked.
   */
  async ensureKey(rawKey: string, name = 'default'): Promise<ApiKey> {
    if (rawKey.length < shortestKey || rawKey.length > longestKey || /\s/.test(rawKey)) {
      throw new PaddockError('invalid_argument', `an API key must have ${shortestKey} to ${longestKey} characters and no spaces`);
    }
    const hash = hashOf(rawKey);
    const known = await this.#store.keys.findByHash(hash);
    if (known?.revokedAt === null) return withoutHash(known);
    if (known !== null) throw new PaddockError('conflict', 'this API key was revoked and cannot come back; choose another one');
    return this.#insert(await this.#store.keys.defaultTeam(), name, hash);
  }

  /** A new key for the default team; `raw` cannot be shown again. */
  async createKey(name: string): Promise<{ readonly key: ApiKey; readonly raw: string }> {
    if (name === '' || name.length > 128) throw new PaddockError('invalid_argument', 'the name of an API key must have 1 to 128 characters', { field: 'name' });
    const raw = newRawKey();
    return { key: await this.#insert(await this.#store.keys.defaultTeam(), name, hashOf(raw)), raw };
  }

  /** Oldest first, revoked ones included. */
  async listKeys(): Promise<readonly ApiKey[]> {
    return this.#store.keys.list(await this.#store.keys.defaultTeam());
  }

  /** False when there is no such key, or it was revoked before. Other servers on the same data notice within 5 s. */
  async revokeKey(keyId: string): Promise<boolean> {
    const teamId = await this.#store.keys.defaultTeam();
    const revoked = await this.#store.keys.revoke(teamId, keyId, this.#clock.now());
    this.#remembered.clear();
    if (revoked) this.#events?.ofTeam(teamId, 'key_revoked', { keyId });
    return revoked;
  }

  async #insert(teamId: TeamId, name: string, hash: string): Promise<ApiKey> {
    const key: ApiKey = Object.freeze({ id: `key-${randomUUID()}`, teamId, name, createdAt: this.#clock.now(), revokedAt: null });
    await this.#store.keys.insert(key, hash);
    this.#events?.ofTeam(teamId, 'key_created', { keyId: key.id });
    return key;
  }
}

/** A key as clients expect one: `dcl_` and 40 characters, 238 bits. */
export function newRawKey(): string {
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789';
  let key = 'dcl_';
  while (key.length < 44) {
    // Only bytes below 4 × 62, so that every letter is as likely as any other.
    for (const byte of randomBytes(48)) if (byte < 248 && key.length < 44) key += alphabet[byte % 62];
  }
  return key;
}

function hashOf(rawKey: string): string {
  return createHash('sha256').update(rawKey).digest('hex');
}

function withoutHash(key: ApiKey): ApiKey {
  return Object.freeze({ id: key.id, teamId: key.teamId, name: key.name, createdAt: key.createdAt, revokedAt: key.revokedAt });
}

function unauthenticated(): PaddockError {
  return new PaddockError('unauthenticated', 'the API key is missing or not valid; make one with `paddock keys create`');
}
