import { pipeline, Transform, type Readable } from 'node:stream';
import { boundedTo } from './bounded.ts';
import { PaddockError } from './errors.ts';
import type { VolumeId } from './ids.ts';
import type { Principal } from './principal.ts';
import { parseVolumePath, type VolumeEntry, type VolumePath } from './volume.ts';
import type { VolumeUsage } from './volume-storage.ts';
import { tooLarge, type Volumes } from './volumes.ts';

const stallMs = 60_000;

/** A length that has been promised is kept, or the answer breaks off: a sandbox may cut the file while it is read. */
function exactly(size: number, body: Readable, path: string): Readable {
  let left = size;
  const checked = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      left -= chunk.length;
      done(null, chunk);
    },
    flush: (done) => done(left === 0 ? null : new PaddockError('conflict', `${path} was changed while it was read; try again`)),
  });
  pipeline(body, checked, () => undefined); // whoever reads it is told by the stream
  return checked;
}

/** Single files of a volume, without a sandbox. Changes of one volume happen one after another; a file is replaced whole or not at all. */
export class VolumeFiles {
  readonly #volumes: Volumes;

  constructor(volumes: Volumes) {
    this.#volumes = volumes;
  }

  /** With `ifVersion`, only while the file has that version: `conflict` otherwise. */
  async write(principal: Principal, id: VolumeId, path: string, body: Readable, ifVersion: string | null, signal: AbortSignal): Promise<VolumeEntry> {
    const names = parseVolumePath('path', path);
    await this.#volumes.get(principal, id);
    const { storage, settings } = this.#volumes;
    const limit = settings.maxVolumeBytes;
    const bounded = boundedTo(limit, body, { tooLarge: () => tooLarge('the file', limit), stallMs, signal });
    try {
      await using file = await storage.receive(id, bounded, { durable: true });
      return await this.#volumes.change(principal, id, async (usage) => {
        const old = await this.#present(id, names);
        if (ifVersion !== null && old?.version !== ifVersion) throw new PaddockError('conflict', old === null ? `${path} is not there any more` : `${path} has been changed: its version is ${old.version}, not ${ifVersion}; read it again`, { field: 'if_version' });
        if (usage.bytes - (old?.size ?? 0) + file.bytes > limit) throw tooLarge('the volume with this file', limit);
        this.#assertEntries(usage, old === null ? names.length : 0);
        const grown = await storage.put(id, names, file);
        return { grown, result: await storage.info(id, names) };
      }, file.bytes);
    } catch (error) {
      // The storage only sees a body that broke off; this says why.
      throw bounded.errored instanceof PaddockError ? bounded.errored : error;
    } finally {
      bounded.destroy();
    }
  }

  async read(principal: Principal, id: VolumeId, path: string): Promise<{ readonly entry: VolumeEntry; readonly body: Readable }> {
    const names = parseVolumePath('path', path);
    await this.#volumes.get(principal, id);
    const { entry, body } = await this.#volumes.storage.get(id, names);
    return { entry, body: exactly(entry.size, body, path) };
  }

  async list(principal: Principal, id: VolumeId, path: string): Promise<readonly VolumeEntry[]> {
    const names = parseVolumePath('path', path);
    await this.#volumes.get(principal, id);
    return this.#volumes.storage.list(id, names);
  }

  async info(principal: Principal, id: VolumeId, path: string): Promise<VolumeEntry> {
    const names = parseVolumePath('path', path);
    await this.#volumes.get(principal, id);
    return this.#volumes.storage.info(id, names);
  }

  async exists(principal: Principal, id: VolumeId, path: string): Promise<boolean> {
    const names = parseVolumePath('path', path);
    await this.#volumes.get(principal, id);
    return (await this.#present(id, names)) !== null;
  }

  /** False when there was nothing. */
  async remove(principal: Principal, id: VolumeId, path: string, recursive: boolean): Promise<boolean> {
    const names = parseVolumePath('path', path);
    return this.#volumes.change(principal, id, async () => {
      if ((await this.#present(id, names)) === null) return { grown: { bytes: 0, entries: 0 }, result: false };
      return { grown: await this.#volumes.storage.remove(id, names, recursive), result: true };
    });
  }

  async rename(principal: Principal, id: VolumeId, from: string, to: string): Promise<void> {
    const source = parseVolumePath('old_path', from);
    const target = parseVolumePath('new_path', to);
    await this.#volumes.change(principal, id, async (usage) => {
      this.#assertEntries(usage, target.length - 1);
      return { grown: await this.#volumes.storage.rename(id, source, target), result: undefined };
    });
  }

  /** With its parents; nothing happens when it is there. */
  async makeDir(principal: Principal, id: VolumeId, path: string): Promise<void> {
    const names = parseVolumePath('path', path);
    await this.#volumes.change(principal, id, async (usage) => {
      this.#assertEntries(usage, names.length);
      return { grown: await this.#volumes.storage.makeDir(id, names), result: undefined };
    });
  }

  async #present(id: VolumeId, names: VolumePath): Promise<VolumeEntry | null> {
    try {
      return await this.#volumes.storage.info(id, names);
    } catch (error) {
      if (error instanceof PaddockError && error.code === 'not_found') return null;
      throw error;
    }
  }

  #assertEntries(usage: VolumeUsage, most: number): void {
    const limit = this.#volumes.settings.maxVolumeEntries;
    if (usage.entries + most > limit) throw new PaddockError('too_large', `the volume has ${usage.entries} files and directories, and the limit is ${limit}`);
  }
}
