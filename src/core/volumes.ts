import type { Readable } from 'node:stream';
import { boundedTo } from './bounded.ts';
import type { Clock } from './clock.ts';
import { PaddockError } from './errors.ts';
import type { EventLog } from './events.ts';
import type { VolumeMount } from './host.ts';
import { newVolumeId, type SandboxId, type TeamId, type VolumeId } from './ids.ts';
import type { Principal } from './principal.ts';
import type { CoreSettings } from './settings.ts';
import { liveStates } from './sandbox.ts';
import type { Store } from './store.ts';
import { Turns } from './turns.ts';
import type { Volume } from './volume.ts';
import type { VolumeStorage, VolumeUsage } from './volume-storage.ts';

export interface VolumesDeps {
  readonly store: Pick<Store, 'volumes' | 'sandboxes' | 'snapshots'>;
  readonly storage: VolumeStorage;
  readonly clock: Clock;
  readonly events: EventLog;
  readonly settings: CoreSettings;
}

/** Files a volume begins with, and whatever is to be said of it. */
export interface VolumeContents extends VolumeUsage {
  readonly metadata: Readonly<Record<string, string>>;
}

const stallMs = 60_000;
const longestVolumeName = 128;
const mebibyte = 1_048_576;

/** Volumes as wholes: making, finding, deleting, packing. Files come first and rows second, so that a volume that can be seen is complete. */
export class Volumes {
  readonly #deps: VolumesDeps;
  readonly #turns = new Turns<VolumeId>();
  readonly #making = new Map<TeamId, number>();
  /** What volumes hold, counted once by this server: a row may be behind after a crash. */
  readonly #usage = new Map<VolumeId, VolumeUsage>();
  /** Sandboxes that may change volumes behind the server's back. */
  readonly #mounted = new Map<SandboxId, readonly VolumeId[]>();

  constructor(deps: VolumesDeps) {
    this.#deps = deps;
  }

  get storage(): VolumeStorage {
    return this.#deps.storage;
  }

  get settings(): CoreSettings {
    return this.#deps.settings;
  }

  /** Before any other. */
  async start(): Promise<void> {
    const { storage, store } = this.#deps;
    await storage.sweep(await store.volumes.ids());
    for (const { id, policy } of await store.sandboxes.inStates([...liveStates, 'killing'])) this.mountedIn(id, policy.volumes ?? []);
  }

  mountedIn(sandboxId: SandboxId, mounts: readonly VolumeMount[]): void {
    const writable = mounts.filter(({ readOnly }) => !readOnly);
    if (writable.length > 0) this.#mounted.set(sandboxId, writable.map(({ volumeId }) => volumeId));
  }

  /** What a sandbox that has ended left in its volumes is counted, beside everything else. */
  unmountedFrom(sandboxId: SandboxId): void {
    const ids = this.#mounted.get(sandboxId) ?? [];
    this.#mounted.delete(sandboxId);
    for (const id of new Set(ids)) if (!this.#isMounted(id)) this.#recount(id).catch(() => undefined); // deleted, or counted when it is changed
  }

  #isMounted(id: VolumeId): boolean {
    return [...this.#mounted.values()].some((ids) => ids.includes(id));
  }

  async #recount(id: VolumeId): Promise<void> {
    const { store, storage, clock } = this.#deps;
    await this.#turns.take(id, async () => {
      const usage = await storage.usage(id);
      await store.volumes.resize(id, usage, clock.now());
      if (!this.#isMounted(id)) this.#usage.set(id, usage);
    });
  }

  async create(principal: Principal, name: string): Promise<Volume> {
    return this.make(principal, name, async () => ({ bytes: 0, entries: 0, metadata: {} }));
  }

  /** With the files of a tar.gz. An archive of no bytes makes an empty volume, unless it is `required`. */
  async ingest(principal: Principal, name: string, archive: Readable, required: boolean, signal: AbortSignal): Promise<Volume> {
    const { storage, settings } = this.#deps;
    return this.make(principal, name, async (id) => {
      const limit = settings.maxVolumeBytes;
      const bounded = boundedTo(limit, archive, { tooLarge: () => tooLarge('the archive', limit), stallMs, signal });
      try {
        const unpacked = await storage.unpack(id, bounded, { bytes: limit, entries: settings.maxVolumeEntries }, signal);
        if (unpacked === null && required) throw new PaddockError('invalid_argument', 'the body must be a tar archive packed with gzip, but there is none');
        const { bytes, entries, skipped, firstSkipped } = unpacked ?? { bytes: 0, entries: 0, skipped: 0, firstSkipped: null };
        return { bytes, entries, metadata: skipped === 0 ? {} : { skipped_links_and_special_files: String(skipped), first_skipped: firstSkipped ?? '' } };
      } finally {
        bounded.destroy();
      }
    });
  }

  /** A volume that `fill` fills: all of it or nothing. */
  async make(principal: Principal, name: string, fill: (id: VolumeId) => Promise<VolumeContents>): Promise<Volume> {
    const { store, storage, clock, events } = this.#deps;
    assertName(name);
    using _counted = await this.#admit(principal.teamId);
    const id = newVolumeId();
    try {
      await storage.create(id);
      const contents = await fill(id);
      const now = clock.now();
      const volume: Volume = Object.freeze({ id, teamId: principal.teamId, name, ...contents, createdAt: now, updatedAt: now });
      await store.volumes.insert(volume);
      events.ofTeam(principal.teamId, 'volume_created', { volumeId: id, bytes: volume.bytes, entries: volume.entries });
      return volume;
    } catch (error) {
      await storage.discard(id).catch(() => undefined); // the next start sweeps it
      throw error;
    }
  }

  /** Newest first, at most `limit`; `after` is the last one of the page before. */
  async list(principal: Principal, page: { readonly limit: number; readonly after?: Pick<Volume, 'createdAt' | 'id'> } = { limit: 10_000 }): Promise<readonly Volume[]> {
    return Promise.all((await this.#deps.store.volumes.list(principal.teamId, page)).map((volume) => this.#asItIs(volume)));
  }

  /** `get`, with what it holds at this moment. */
  async describe(principal: Principal, id: VolumeId): Promise<Volume> {
    return this.#asItIs(await this.get(principal, id));
  }

  async #asItIs(volume: Volume): Promise<Volume> {
    if (!this.#isMounted(volume.id)) return volume;
    const usage = await this.#deps.storage.occupied(volume.id).catch(() => null); // deleted at this moment
    return usage === null ? volume : { ...volume, ...usage };
  }

  async exists(principal: Pick<Principal, 'teamId'>, id: VolumeId): Promise<boolean> {
    return (await this.#deps.store.volumes.find(principal.teamId, id)) !== null;
  }

  async get(principal: Principal, id: VolumeId): Promise<Volume> {
    const volume = await this.#deps.store.volumes.find(principal.teamId, id);
    if (volume === null) throw volumeNotFound();
    return volume;
  }

  /**
   * False when there is none. Throws `conflict` naming who needs it: sandboxes that have it mounted, paused ones too, and snapshots of such.
   * With `force` it goes all the same: what runs keeps it to its end, and what is saved cannot go on.
   */
  async delete(principal: Principal, id: VolumeId, { force = false } = {}): Promise<boolean> {
    const { store, storage, events } = this.#deps;
    return this.#turns.take(id, async () => {
      if (!force && (await this.exists(principal, id))) await this.#assertUnused(principal, id);
      if (!(await store.volumes.remove(principal.teamId, id))) return false;
      this.#usage.delete(id);
      await storage.discard(id);
      events.ofTeam(principal.teamId, 'volume_deleted', { volumeId: id });
      return true;
    });
  }

  async #assertUnused({ teamId }: Principal, id: VolumeId): Promise<void> {
    const { sandboxes, snapshots } = this.#deps.store;
    const needs = (each: { readonly teamId: TeamId; readonly policy: { readonly volumes?: readonly VolumeMount[] } }): boolean => each.teamId === teamId && each.policy.volumes?.some(({ volumeId }) => volumeId === id) === true;
    const users = (await sandboxes.inStates(liveStates)).filter(needs).map(({ shortId, state }) => `the sandbox ${shortId} (${state})`);
    for (const { id: name, source, teamId: owner, captured } of await snapshots.all()) if (source === 'manual' && needs({ teamId: owner, policy: captured.policy })) users.push(`the snapshot ${name}`);
    if (users.length === 0) return;
    const shown = users.length > 5 ? [...users.slice(0, 5), `${users.length - 5} more`] : users;
    throw new PaddockError('conflict', `the volume is mounted in ${shown.join(', ')}; end these first, or delete it with force=true: what runs keeps it to its end, and what is paused or saved cannot go on`, { reason: 'volume_in_use' });
  }

  /** The whole of it as a tar.gz. */
  async download(principal: Principal, id: VolumeId, signal: AbortSignal): Promise<Readable> {
    await this.get(principal, id);
    return this.#deps.storage.pack(id, signal);
  }

  /**
   * Changes a volume when nobody else does, but for sandboxes that have it mounted; `work` hears what it holds and says what it has grown by.
   * @param pending bytes that lie beside the files of the volume already.
   */
  async change<T>(principal: Principal, id: VolumeId, work: (usage: VolumeUsage) => Promise<{ readonly grown: VolumeUsage; readonly result: T }>, pending = 0): Promise<T> {
    const { store, storage, clock } = this.#deps;
    return this.#turns.take(id, async () => {
      await this.get(principal, id); // it may have been deleted while this waited
      if (this.#isMounted(id)) {
        this.#usage.delete(id);
        const { bytes, entries } = await storage.occupied(id);
        const { result } = await work({ bytes: Math.max(0, bytes - pending), entries });
        await store.volumes.resize(id, await storage.occupied(id), clock.now());
        return result;
      }
      const before = this.#usage.get(id) ?? (await storage.usage(id));
      // Until it is known how the change ended.
      this.#usage.delete(id);
      const { grown, result } = await work(before);
      const after = { bytes: before.bytes + grown.bytes, entries: before.entries + grown.entries };
      this.#usage.set(id, after);
      await store.volumes.resize(id, after, clock.now());
      return result;
    });
  }

  /** Counts a volume that is being made, so that many at once do not pass the limit together. */
  async #admit(teamId: TeamId): Promise<Disposable> {
    const { store, settings } = this.#deps;
    const making = (this.#making.get(teamId) ?? 0) + 1;
    this.#making.set(teamId, making);
    const leave = (): void => {
      const left = this.#making.get(teamId)! - 1;
      if (left === 0) this.#making.delete(teamId);
      else this.#making.set(teamId, left);
    };
    try {
      const count = await store.volumes.count(teamId);
      if (count + making > settings.maxVolumes) throw new PaddockError('concurrency_limit', `there are ${count} volumes, and the limit is ${settings.maxVolumes} (PADDOCK_MAX_VOLUMES); delete some`, { reason: 'too_many_volumes' });
    } catch (error) {
      leave();
      throw error;
    }
    return { [Symbol.dispose]: leave };
  }
}

export function tooLarge(what: string, limit: number): PaddockError {
  const shown = limit >= mebibyte ? `${limit / mebibyte} MiB` : `${limit} bytes`;
  return new PaddockError('too_large', `${what} is larger than a volume may be: ${shown} (PADDOCK_MAX_VOLUME_MB)`);
}

/** A saved sandbox needs a volume that has been deleted. */
export function volumeGone({ name, volumeId }: VolumeMount): PaddockError {
  return new PaddockError('conflict', `the sandbox needs the volume ${JSON.stringify(name)} (${volumeId}), which has been deleted`, { reason: 'volume_missing' });
}

export function volumeNotFound(): PaddockError {
  return new PaddockError('not_found', 'there is no such volume; it may have been deleted, or belong to another team', { reason: 'volume_not_found' });
}

function assertName(name: string): void {
  if (name.length < 1 || name.length > longestVolumeName || name.includes('\0')) throw new PaddockError('invalid_argument', `name must have 1 to ${longestVolumeName} characters, and no NUL`, { field: 'name' });
}
