import type { Readable } from 'node:stream';
import { boundedTo } from './bounded.ts';
import type { Clock } from './clock.ts';
import { PaddockError } from './errors.ts';
import type { EventLog } from './events.ts';
import { newVolumeId, type TeamId, type VolumeId } from './ids.ts';
import type { Principal } from './principal.ts';
import type { CoreSettings } from './settings.ts';
import type { VolumeStore } from './store.ts';
import { Turns } from './turns.ts';
import type { Volume } from './volume.ts';
import type { VolumeStorage, VolumeUsage } from './volume-storage.ts';

export interface VolumesDeps {
  readonly store: { readonly volumes: VolumeStore };
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
    await this.#deps.storage.sweep(await this.#deps.store.volumes.ids());
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

  /** Newest first. */
  async list(principal: Principal): Promise<readonly Volume[]> {
    return this.#deps.store.volumes.list(principal.teamId);
  }

  async get(principal: Principal, id: VolumeId): Promise<Volume> {
    const volume = await this.#deps.store.volumes.find(principal.teamId, id);
    if (volume === null) throw volumeNotFound();
    return volume;
  }

  /** False when there is none. */
  async delete(principal: Principal, id: VolumeId): Promise<boolean> {
    const { store, storage, events } = this.#deps;
    return this.#turns.take(id, async () => {
      if (!(await store.volumes.remove(principal.teamId, id))) return false;
      this.#usage.delete(id);
      await storage.discard(id);
      events.ofTeam(principal.teamId, 'volume_deleted', { volumeId: id });
      return true;
    });
  }

  /** The whole of it as a tar.gz. */
  async download(principal: Principal, id: VolumeId, signal: AbortSignal): Promise<Readable> {
    await this.get(principal, id);
    return this.#deps.storage.pack(id, signal);
  }

  /** Changes a volume when nobody else does; `work` hears what it holds and says what it has grown by. */
  async change<T>(principal: Principal, id: VolumeId, work: (usage: VolumeUsage) => Promise<{ readonly grown: VolumeUsage; readonly result: T }>): Promise<T> {
    const { store, storage, clock } = this.#deps;
    return this.#turns.take(id, async () => {
      await this.get(principal, id); // it may have been deleted while this waited
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

export function volumeNotFound(): PaddockError {
  return new PaddockError('not_found', 'there is no such volume; it may have been deleted, or belong to another team', { reason: 'volume_not_found' });
}

function assertName(name: string): void {
  if (name.length < 1 || name.length > longestVolumeName || name.includes('\0')) throw new PaddockError('invalid_argument', `name must have 1 to ${longestVolumeName} characters, and no NUL`, { field: 'name' });
}
