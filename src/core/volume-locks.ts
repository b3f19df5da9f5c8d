import { createHash, randomBytes } from 'node:crypto';
import type { Clock } from './clock.ts';
import { PaddockError } from './errors.ts';
import type { VolumeId } from './ids.ts';
import type { Principal } from './principal.ts';
import type { VolumeLockStore } from './store.ts';
import { parseVolumePath } from './volume.ts';
import type { Volumes } from './volumes.ts';

export interface VolumeLease {
  readonly token: string;
  readonly ttlSeconds: number;
  readonly expiresAt: number;
}

export const defaultLockSeconds = 60;
const longestLockSeconds = 86_400;
const mostLocks = 10_000;

/** Leases on paths of volumes, for programs that agree to ask for them: nothing else is kept from the path. They survive a restart. */
export class VolumeLocks {
  readonly #store: VolumeLockStore;
  readonly #volumes: Volumes;
  readonly #clock: Clock;

  constructor(deps: { readonly store: { readonly volumeLocks: VolumeLockStore }; readonly volumes: Volumes; readonly clock: Clock }) {
    this.#store = deps.store.volumeLocks;
    this.#volumes = deps.volumes;
    this.#clock = deps.clock;
  }

  /** `conflict` while somebody else has it. */
  async acquire(principal: Principal, id: VolumeId, path: string, ttlSeconds = defaultLockSeconds): Promise<VolumeLease> {
    const name = await this.#name(principal, id, path);
    const lease = this.#lease(randomBytes(24).toString('base64url'), ttlSeconds);
    const outcome = await this.#store.acquire({ volumeId: id, path: name, tokenHash: hashOf(lease.token), expiresAt: lease.expiresAt }, this.#clock.now(), mostLocks);
    if (outcome === 'too_many') throw new PaddockError('concurrency_limit', `the volume has ${mostLocks} locks, the limit; release some`);
    if (outcome === 'held') throw new PaddockError('conflict', `${path} is locked by somebody else; its lease ends by itself when it is not renewed`);
    return lease;
  }

  /** From now on; `conflict` when it has expired or is somebody else's. */
  async renew(principal: Principal, id: VolumeId, path: string, token: string, ttlSeconds = defaultLockSeconds): Promise<VolumeLease> {
    const name = await this.#name(principal, id, path);
    const lease = this.#lease(token, ttlSeconds);
    if (!(await this.#store.renew({ volumeId: id, path: name, tokenHash: hashOf(token), expiresAt: lease.expiresAt }, this.#clock.now()))) throw lost(path);
    return lease;
  }

  /** False when nobody has it any more; `conflict` when somebody else does. */
  async release(principal: Principal, id: VolumeId, path: string, token: string): Promise<boolean> {
    const name = await this.#name(principal, id, path);
    if (await this.#store.release(id, name, hashOf(token))) return true;
    if ((await this.#store.find(id, name, this.#clock.now())) !== null) throw lost(path);
    return false;
  }

  /** Milliseconds until it ends, or null when nobody has it. */
  async status(principal: Principal, id: VolumeId, path: string): Promise<number | null> {
    const lock = await this.#store.find(id, await this.#name(principal, id, path), this.#clock.now());
    return lock === null ? null : Math.max(1, lock.expiresAt - this.#clock.now());
  }

  async #name(principal: Principal, id: VolumeId, path: string): Promise<string> {
    const names = parseVolumePath('path', path);
    await this.#volumes.get(principal, id);
    return `/${names.join('/')}`;
  }

  #lease(token: string, ttlSeconds: number): VolumeLease {
    if (!Number.isInteger(ttlSeconds) || ttlSeconds < 1 || ttlSeconds > longestLockSeconds) {
      throw new PaddockError('invalid_argument', `ttl_seconds must be whole seconds from 1 to ${longestLockSeconds}, not ${ttlSeconds}`, { field: 'ttl_seconds' });
    }
    return { token, ttlSeconds, expiresAt: this.#clock.now() + ttlSeconds * 1000 };
  }
}

/** A token has 192 random bits: its hash needs no salt, and comparing it in the database tells nothing. */
function hashOf(token: string): string {
  return createHash('sha256').update(token).digest('hex');
}

function lost(path: string): PaddockError {
  return new PaddockError('conflict', `the lock on ${path} is not held with this token: it has expired, or somebody else has it`);
}
