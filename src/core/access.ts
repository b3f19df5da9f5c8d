import { createHash, randomBytes, randomUUID, timingSafeEqual } from 'node:crypto';
import type { Clock } from './clock.ts';
import { PaddockError } from './errors.ts';
import type { EventLog } from './events.ts';
import type { TeamId } from './ids.ts';
import type { Principal } from './principal.ts';
import type { ApiKey, KeyScope, Store } from './store.ts';

const rememberedMs = 1000;
/** How often the keys of open requests are looked at. */
const followedEveryMs = 1000;
/** How exact the last use is. */
const usedEveryMs = 60_000;
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

  /** What is to be cut when a key becomes invalid, by key. */
  readonly #followed = new Map<string, Set<() => void>>();
  #looking: NodeJS.Timeout | null = null;

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
    if (key === null || key.revokedAt !== null || (key.expiresAt !== null && key.expiresAt <= now) || !timingSafeEqual(Buffer.from(key.hash, 'hex'), Buffer.from(hash, 'hex'))) {
      this.#remembered.delete(hash);
      throw unauthenticated();
    }
    const principal: Principal = Object.freeze({ teamId: key.teamId, keyId: key.id, scope: key.scope });
    // Nobody waits for it, and a server that cannot write says so elsewhere.
    if (key.lastUsedAt === null || key.lastUsedAt <= now - usedEveryMs) this.#store.keys.used(key.id, now).catch(() => undefined);
    if (this.#remembered.size >= mostRemembered) this.#remembered.clear();
    this.#remembered.set(hash, { principal, until: Math.min(now + rememberedMs, key.expiresAt ?? Number.MAX_SAFE_INTEGER) });
    return principal;
  }

  /** Calls `cut` when the key is revoked or expires, within a second and whoever does it; no more once the function returned has been called. */
  follow({ keyId }: Principal, cut: () => void): () => void {
    let cuts = this.#followed.get(keyId);
    if (cuts === undefined) this.#followed.set(keyId, (cuts = new Set()));
    cuts.add(cut);
    this.#looking ??= setInterval(() => void this.#look(), followedEveryMs).unref();
    return () => {
      cuts.delete(cut);
      if (cuts.size === 0 && this.#followed.get(keyId) === cuts) this.#followed.delete(keyId);
    };
  }

  /** A failure is tried again a second later. */
  async #look(): Promise<void> {
    if (this.#followed.size === 0) {
      if (this.#looking !== null) clearInterval(this.#looking);
      this.#looking = null;
      return;
    }
    const invalid = await this.#store.keys.invalid([...this.#followed.keys()], this.#clock.now()).catch(() => []);
    if (invalid.length > 0) this.#remembered.clear();
    for (const keyId of invalid) {
      const cuts = this.#followed.get(keyId) ?? [];
      this.#followed.delete(keyId);
      for (const cut of cuts) cut();
    }
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
  async createKey(name: string, { scope = 'admin', expiresAt = null }: { readonly scope?: KeyScope; readonly expiresAt?: number | null } = {}): Promise<{ readonly key: ApiKey; readonly raw: string }> {
    if (name === '' || name.length > 128) throw new PaddockError('invalid_argument', 'the name of an API key must have 1 to 128 characters', { field: 'name' });
    const raw = newRawKey();
    return { key: await this.#insert(await this.#store.keys.defaultTeam(), name, hashOf(raw), scope, expiresAt), raw };
  }

  /** Oldest first, revoked ones included. */
  async listKeys(): Promise<readonly ApiKey[]> {
    return this.#store.keys.list(await this.#store.keys.defaultTeam());
  }

  /** False when there is no such key, or it was revoked before. What is open with it is cut; other servers on the same data do that within a second. */
  async revokeKey(keyId: string): Promise<boolean> {
    const teamId = await this.#store.keys.defaultTeam();
    const revoked = await this.#store.keys.revoke(teamId, keyId, this.#clock.now());
    this.#remembered.clear();
    await this.#look();
    if (revoked) this.#events?.ofTeam(teamId, 'key_revoked', { keyId });
    return revoked;
  }

  async #insert(teamId: TeamId, name: string, hash: string, scope: KeyScope = 'admin', expiresAt: number | null = null): Promise<ApiKey> {
    const key: ApiKey = Object.freeze({ id: `key-${randomUUID()}`, teamId, name, createdAt: this.#clock.now(), revokedAt: null, scope, expiresAt, lastUsedAt: null });
    await this.#store.keys.insert(key, hash);
    this.#events?.ofTeam(teamId, 'key_created', { keyId: key.id, scope });
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
  const { id, teamId, name, createdAt, revokedAt, scope, expiresAt, lastUsedAt } = key;
  return Object.freeze({ id, teamId, name, createdAt, revokedAt, scope, expiresAt, lastUsedAt });
}

function unauthenticated(): PaddockError {
  return new PaddockError('unauthenticated', 'the API key is missing or not valid; make one with `paddock keys create`');
}
