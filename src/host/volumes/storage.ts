import { randomUUID } from 'node:crypto';
import type { BigIntStats } from 'node:fs';
import { lstat, mkdir, readdir, rename, rm, rmdir, statfs, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { PaddockError } from '../../core/errors.ts';
import { parseVolumeId, type VolumeId } from '../../core/ids.ts';
import { deepestVolumePath, type VolumeEntry, type VolumePath } from '../../core/volume.ts';
import type { IncomingFile, Unpacked, VolumeStorage, VolumeUsage } from '../../core/volume-storage.ts';
import { runTool } from '../tool.ts';
import { packed } from './pack.ts';
import { codeOf, Directory, explained, inDirectory, onPath } from './tree.ts';
import { unpack } from './unpack.ts';

/** Below it nothing more is taken: what runs must not suffer for what is kept. */
const diskFloorBytes = 2 * 1024 * 1024 * 1024;
const floorCheckedEveryBytes = 64 * 1024 * 1024;
const nothing: VolumeUsage = Object.freeze({ bytes: 0, entries: 0 });

/** Volumes in a directory of this machine: `<id>/files` is the tree, `<id>/incoming` what has not arrived whole. */
export class LocalVolumes implements VolumeStorage {
  readonly #root: string;
  /** Of the last file placed: no two of this server have the same time, so that no two versions are the same. */
  #lastStamp = 0;

  constructor(root: string) {
    this.#root = root;
  }

  async assertRoom(): Promise<void> {
    await mkdir(this.#root, { recursive: true, mode: 0o700 });
    const { bavail, bsize } = await statfs(this.#root);
    if (bavail * bsize < diskFloorBytes) {
      throw new PaddockError('no_space', `the disk of the server has ${Math.floor((bavail * bsize) / 1_048_576)} MiB left, below the ${diskFloorBytes / 1_048_576} MiB it keeps free; delete some volumes or snapshots`);
    }
  }

  async create(id: VolumeId): Promise<void> {
    await this.assertRoom();
    await mkdir(this.#files(id), { recursive: true, mode: 0o700 });
    await mkdir(this.#incoming(id), { mode: 0o700 });
  }

  async discard(id: VolumeId): Promise<void> {
    await rm(join(this.#root, id), { recursive: true, force: true });
  }

  async sweep(known: readonly VolumeId[]): Promise<void> {
    const wanted = new Set<string>(known);
    for (const name of await readdir(this.#root).catch(() => [])) {
      if (parseVolumeId(name) === null) continue; // not ours
      const unfinished = wanted.has(name) ? await readdir(join(this.#root, name, 'incoming')).catch(() => []) : null;
      if (unfinished === null) await rm(join(this.#root, name), { recursive: true, force: true });
      else for (const each of unfinished) await rm(join(this.#root, name, 'incoming', each), { force: true });
    }
  }

  async usage(id: VolumeId): Promise<VolumeUsage> {
    return this.#usageBelow(id, []);
  }

  async unpack(id: VolumeId, archive: Readable, limit: VolumeUsage, signal: AbortSignal): Promise<Unpacked | null> {
    const result = await unpack(this.#files(id), archive, limit, signal, () => this.assertRoom());
    if (result !== null) await this.settle(id);
    return result;
  }

  pack(id: VolumeId, signal: AbortSignal): Readable {
    return packed(this, id, signal);
  }

  async receive(id: VolumeId, body: Readable | Uint8Array, { durable }: { readonly durable: boolean }): Promise<IncomingFile> {
    await this.assertRoom();
    const path = join(this.#incoming(id), randomUUID());
    const directory = await Directory.open(this.#incoming(id)).catch((error: unknown) => {
      throw codeOf(error) === 'ENOENT' ? new PaddockError('not_found', 'there is no such volume; it was deleted meanwhile') : error;
    });
    await using _open = directory;
    await using handle = await directory.newFile(path.slice(path.lastIndexOf('/') + 1), 0o644);
    let bytes = 0;
    try {
      const source = body instanceof Uint8Array ? Readable.from([body]) : body;
      await pipeline(source, async (chunks: AsyncIterable<Buffer>) => {
        for await (const chunk of chunks) {
          if (Math.floor(bytes / floorCheckedEveryBytes) !== Math.floor((bytes + chunk.length) / floorCheckedEveryBytes)) await this.assertRoom();
          for (let at = 0; at < chunk.length; ) at += (await handle.write(chunk, at)).bytesWritten;
          bytes += chunk.length;
        }
      });
      if (durable) await handle.datasync();
    } catch (error) {
      await unlink(path).catch(() => undefined); // with its volume, perhaps
      throw explained(error, 'the file');
    }
    return new Incoming(path, bytes, durable);
  }

  async put(id: VolumeId, path: VolumePath, file: IncomingFile, mode = 0o644): Promise<VolumeUsage> {
    const { parent, name } = placeOf(path);
    const { path: from } = file as Incoming;
    let made = 0;
    return onPath(path, () =>
      inDirectory(
        this.#files(id),
        parent,
        async (directory) => {
          const old = await statIn(directory, name);
          if (old?.isDirectory() === true) throw Object.assign(new Error('is a directory'), { code: 'EISDIR' });
          await using arrived = await inDirectory(this.#incoming(id), [], (incoming) => incoming.openFile(from.slice(from.lastIndexOf('/') + 1)));
          await arrived.chmod(mode & 0o777);
          const stamp = (this.#lastStamp = Math.max(Date.now(), this.#lastStamp + 0.01)) / 1000;
          await arrived.utimes(stamp, stamp);
          await rename(from, directory.at(name));
          if ((file as Incoming).durable) await directory.sync();
          return { bytes: file.bytes - Number(old?.size ?? 0n), entries: made + (old === null ? 1 : 0) };
        },
        { made: () => made++ },
      ),
    );
  }

  async get(id: VolumeId, path: VolumePath): Promise<{ entry: VolumeEntry; body: Readable }> {
    const { parent, name } = placeOf(path);
    return onPath(path, () =>
      inDirectory(this.#files(id), parent, async (directory) => {
        const handle = await directory.openFile(name);
        try {
          const stat = await handle.stat({ bigint: true });
          if (!stat.isFile()) throw Object.assign(new Error('is a directory'), { code: 'EISDIR' });
          // Not further than its size now: the length has been promised by then.
          const body = stat.size === 0n ? Readable.from([]) : handle.createReadStream({ start: 0, end: Number(stat.size) - 1 });
          if (stat.size === 0n) await handle.close();
          return { entry: entryOf(name, stat)!, body };
        } catch (error) {
          await handle.close();
          throw error;
        }
      }),
    );
  }

  async info(id: VolumeId, path: VolumePath): Promise<VolumeEntry> {
    return onPath(path, async () => {
      const name = path.at(-1);
      const entry = await inDirectory(this.#files(id), path.slice(0, -1), async (directory) => entryOf(name ?? '', await lstat(directory.at(name ?? '.'), { bigint: true })));
      if (entry === null) throw Object.assign(new Error('neither file nor directory'), { code: 'ENOENT' });
      return entry;
    });
  }

  async list(id: VolumeId, path: VolumePath): Promise<readonly VolumeEntry[]> {
    return onPath(path, () => inDirectory(this.#files(id), path, entriesOf));
  }

  async *walk(id: VolumeId, path: VolumePath): AsyncIterable<{ path: VolumePath; entry: VolumeEntry }> {
    for (const entry of await this.list(id, path)) {
      const below = [...path, entry.name];
      yield { path: below, entry };
      if (entry.type === 'dir') yield* this.walk(id, below);
    }
  }

  async remove(id: VolumeId, path: VolumePath, recursive: boolean): Promise<VolumeUsage> {
    const { parent, name } = placeOf(path);
    return onPath(path, async () => {
      const old = await this.info(id, path);
      const below = old.type === 'dir' && recursive ? await this.#usageBelow(id, path) : nothing;
      await inDirectory(this.#files(id), parent, async (directory) => {
        if (old.type === 'file') await unlink(directory.at(name));
        else if (!recursive) await rmdir(directory.at(name));
        else await removeTree(directory, name);
      });
      return { bytes: -below.bytes - (old.type === 'file' ? old.size : 0), entries: -below.entries - 1 };
    });
  }

  async rename(id: VolumeId, from: VolumePath, to: VolumePath): Promise<VolumeUsage> {
    const [source, target] = [placeOf(from), placeOf(to)];
    const entry = await this.info(id, from);
    if (entry.type === 'dir') {
      for await (const { path } of this.walk(id, from)) {
        if (path.length - from.length + to.length > deepestVolumePath) throw new PaddockError('invalid_argument', `new_path is so deep that what is in the directory would be more than ${deepestVolumePath} levels down`, { field: 'new_path' });
      }
    }
    let made = 0;
    return onPath(to, () =>
      inDirectory(this.#files(id), source.parent, (directory) =>
        inDirectory(
          this.#files(id),
          target.parent,
          async (other) => {
            const old = await statIn(other, target.name);
            const same = old !== null && entryOf('', old)?.version === entry.version;
            await rename(directory.at(source.name), other.at(target.name));
            return { bytes: same || old === null || old.isDirectory() ? 0 : -Number(old.size), entries: made - (same || old === null ? 0 : 1) };
          },
          { made: () => made++ },
        ),
      ),
    );
  }

  async makeDir(id: VolumeId, path: VolumePath): Promise<VolumeUsage> {
    let made = 0;
    await onPath(path, () => inDirectory(this.#files(id), path, async () => undefined, { made: () => made++ }));
    return { bytes: 0, entries: made };
  }

  async settle(id: VolumeId): Promise<void> {
    await runTool('sync', ['-f', this.#files(id)]);
  }

  async #usageBelow(id: VolumeId, path: VolumePath): Promise<VolumeUsage> {
    let [bytes, entries] = [0, 0];
    for await (const { entry } of this.walk(id, path)) {
      entries++;
      if (entry.type === 'file') bytes += entry.size;
    }
    return { bytes, entries };
  }

  #files(id: VolumeId): string {
    return join(this.#root, id, 'files');
  }

  #incoming(id: VolumeId): string {
    return join(this.#root, id, 'incoming');
  }
}

class Incoming implements IncomingFile {
  readonly path: string;
  readonly bytes: number;
  readonly durable: boolean;

  constructor(path: string, bytes: number, durable: boolean) {
    this.path = path;
    this.bytes = bytes;
    this.durable = durable;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.path, { force: true });
  }
}

function placeOf(path: VolumePath): { readonly parent: VolumePath; readonly name: string } {
  const name = path.at(-1);
  if (name === undefined) throw new PaddockError('invalid_argument', 'path is the root of the volume, which is a directory and stays', { field: 'path' });
  return { parent: path.slice(0, -1), name };
}

async function statIn(directory: Directory, name: string): Promise<BigIntStats | null> {
  return lstat(directory.at(name), { bigint: true }).catch((error: unknown) => {
    if (codeOf(error) === 'ENOENT') return null;
    throw error;
  });
}

async function entriesOf(directory: Directory): Promise<VolumeEntry[]> {
  const entries: VolumeEntry[] = [];
  for await (const name of directory.names()) {
    const stat = await statIn(directory, name);
    const entry = stat === null ? null : entryOf(name, stat);
    if (entry !== null) entries.push(entry);
  }
  return entries.sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** Null for what is neither file nor directory: a volume has nothing else to show. */
function entryOf(name: string, stat: BigIntStats): VolumeEntry | null {
  if (!stat.isFile() && !stat.isDirectory()) return null;
  return {
    name,
    type: stat.isFile() ? 'file' : 'dir',
    size: stat.isFile() ? Number(stat.size) : 0,
    mode: Number(stat.mode & 0o777n),
    modifiedAt: Number(stat.mtimeMs),
    version: [stat.ino, stat.mtimeNs, stat.size].map((part) => part.toString(36)).join('-'),
  };
}

async function removeTree(parent: Directory, name: string): Promise<void> {
  {
    await using directory = await parent.enter(name);
    for await (const each of directory.names()) {
      const stat = await statIn(directory, each);
      if (stat?.isDirectory() === true) await removeTree(directory, each);
      else if (stat !== null) await unlink(directory.at(each));
    }
  }
  await rmdir(parent.at(name));
}
