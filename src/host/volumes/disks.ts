import { mkdir, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { parseVolumeId, type VolumeId } from '../../core/ids.ts';

/** Where the parts of one volume are, for as long as this is not disposed of. */
export interface VolumePlace extends Disposable {
  /** The tree of its files. */
  readonly files: string;
  /** What has not arrived whole, on the same file system. */
  readonly incoming: string;
  /** Names of files that a checkpoint needs, on the same file system; null where volumes cannot be mounted. */
  readonly aside: string | null;
}

/** What volumes lie on, one directory for each. */
export interface VolumeDisks {
  make(id: VolumeId): Promise<void>;
  /** Throws ENOENT when there is none. */
  hold(id: VolumeId): Promise<VolumePlace>;
  /** Succeeds when there is nothing. */
  remove(id: VolumeId): Promise<void>;
  /** At the start: removes what is of no known volume, and what had not arrived whole when the server ended. */
  sweep(known: ReadonlySet<VolumeId>): Promise<void>;
  close(): Promise<void>;
}

/** Volumes as plain directories of the file system that is there: nothing but the server bounds them, and so no sandbox can write to them. */
export class PlainDisks implements VolumeDisks {
  readonly #root: string;

  constructor(root: string) {
    this.#root = root;
  }

  async make(id: VolumeId): Promise<void> {
    await mkdir(join(this.#root, id, 'files'), { recursive: true, mode: 0o700 });
    await mkdir(join(this.#root, id, 'incoming'), { mode: 0o700 });
  }

  async hold(id: VolumeId): Promise<VolumePlace> {
    const directory = join(this.#root, id);
    return { files: join(directory, 'files'), incoming: join(directory, 'incoming'), aside: null, [Symbol.dispose]: () => {} };
  }

  async remove(id: VolumeId): Promise<void> {
    await rm(join(this.#root, id), { recursive: true, force: true });
  }

  async sweep(known: ReadonlySet<VolumeId>): Promise<void> {
    for (const id of await idsIn(this.#root)) {
      if (!known.has(id)) await this.remove(id);
      else await empty(join(this.#root, id, 'incoming'));
    }
  }

  async close(): Promise<void> {}
}

/** Whatever else is in the directory is not ours. */
export async function idsIn(root: string): Promise<readonly VolumeId[]> {
  const names = await readdir(root).catch(() => []);
  return names.map(parseVolumeId).filter((id, i) => id !== null && id === names[i]) as VolumeId[];
}

/** Removes what is in a directory, if there is one. */
export async function empty(directory: string): Promise<void> {
  for (const name of await readdir(directory).catch(() => [])) await rm(join(directory, name), { recursive: true, force: true });
}
