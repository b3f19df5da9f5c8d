import { randomUUID } from 'node:crypto';
import { lstat, mkdir, rename, rmdir, statfs, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { PaddockError } from '../../core/errors.ts';
import type { VolumeId } from '../../core/ids.ts';
import { deepestVolumePath, type VolumeEntry, type VolumePath } from '../../core/volume.ts';
import type { IncomingFile, Unpacked, VolumeStorage, VolumeUsage } from '../../core/volume-storage.ts';
import { runTool } from '../tool.ts';
import { PlainDisks, type VolumeDisks, type VolumePlace } from './disks.ts';
import { contentsBelow, type TreeItem } from './contents.ts';
import { entriesOf, entryOf, statIn } from './entries.ts';
import { Incoming } from './incoming.ts';
import { packed, packedTree } from './pack.ts';
import { codeOf, Directory, explained, inDirectory, isGone, onPath, openDirectory, placeOf } from './tree.ts';
import { UnpackDirectory } from './unpack-directory.ts';
import { unpack, unpackTree } from './unpack.ts';

/** Below it nothing more is taken: what runs must not suffer for what is kept. */
const diskFloorBytes = 2 * 1024 * 1024 * 1024;
const floorCheckedEveryBytes = 64 * 1024 * 1024;
const removeWithinMs = 10 * 60_000;
const nothing: VolumeUsage = Object.freeze({ bytes: 0, entries: 0 });

/**
 * Volumes on this machine. Sandboxes may write to a volume at any moment: every step goes through the descriptor of a directory, one name
 * at a time, and what is found is looked at after it has been opened.
 */
export class LocalVolumes implements VolumeStorage {
  readonly mountable = true;
  readonly #root: string;
  readonly #disks: VolumeDisks;
  /** Of the last file placed: no two of this server have the same time, so that no two versions are the same. */
  #lastStamp = 0;

  constructor(root: string, disks: VolumeDisks = new PlainDisks(root)) {
    this.#root = root;
    this.#disks = disks;
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
    await this.#disks.make(id);
  }

  discard(id: VolumeId): Promise<void> {
    return this.#disks.remove(id);
  }

  async sweep(known: readonly VolumeId[]): Promise<void> {
    await this.#disks.sweep(new Set(known));
  }

  async usage(id: VolumeId): Promise<VolumeUsage> {
    return this.#usageBelow(id, []);
  }

  async occupied(id: VolumeId): Promise<VolumeUsage> {
    using place = await this.#hold(id);
    if (place.aside === null) return this.usage(id);
    const { blocks, bfree, bsize, files, ffree } = await statfs(place.files);
    // What a new file system has of its own: an inode each for its directories and for those that it reserves.
    return { bytes: Math.max(0, (blocks - bfree) * bsize - 32_768), entries: Math.max(0, files - ffree - 14) };
  }

  async unpack(id: VolumeId, archive: Readable, limit: VolumeUsage, signal: AbortSignal): Promise<Unpacked | null> {
    using place = await this.#hold(id);
    const result = await unpack(new UnpackDirectory(place.files, () => this.assertRoom()), archive, limit, signal);
    if (result !== null) await this.#settle(place);
    return result;
  }

  async unpackTree(id: VolumeId, tree: Readable, limit: VolumeUsage, signal: AbortSignal): Promise<Unpacked> {
    using place = await this.#hold(id);
    const result = await unpackTree(new UnpackDirectory(place.files, () => this.assertRoom()), tree, limit, signal);
    await this.#settle(place);
    return result;
  }

  pack(id: VolumeId, signal: AbortSignal): Readable {
    return packed(this.#contents(id, []), signal);
  }

  packTree(id: VolumeId, path: VolumePath, signal: AbortSignal): Readable {
    return packedTree(this.#contents(id, path), signal);
  }

  async *#contents(id: VolumeId, path: VolumePath): AsyncGenerator<TreeItem> {
    using place = await this.#hold(id);
    const root = await onPath(path, () => openDirectory(place.files, path));
    await using opened = root;
    yield* contentsBelow(opened, [], path.length);
  }

  async receive(id: VolumeId, body: Readable | Uint8Array, { durable }: { readonly durable: boolean }): Promise<IncomingFile> {
    await this.assertRoom();
    using place = await this.#hold(id);
    const path = join(place.incoming, randomUUID());
    const directory = await Directory.open(place.incoming).catch((error: unknown) => {
      throw codeOf(error) === 'ENOENT' ? deleted() : error;
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
    using place = await this.#hold(id);
    return onPath(path, () =>
      inDirectory(
        place.files,
        parent,
        async (directory) => {
          const old = await statIn(directory, name);
          if (old?.isDirectory() === true) throw Object.assign(new Error('is a directory'), { code: 'EISDIR' });
          await using arrived = await inDirectory(place.incoming, [], (incoming) => incoming.openFile(from.slice(from.lastIndexOf('/') + 1)));
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
    using place = await this.#hold(id);
    return onPath(path, () =>
      inDirectory(place.files, parent, async (directory) => {
        const handle = await directory.openFile(name);
        try {
          const stat = await handle.stat({ bigint: true });
          if (!stat.isFile()) throw Object.assign(new Error('is a directory'), { code: stat.isDirectory() ? 'EISDIR' : 'ENXIO' });
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
    using place = await this.#hold(id);
    return onPath(path, async () => {
      const name = path.at(-1);
      const entry = await inDirectory(place.files, path.slice(0, -1), async (directory) => entryOf(name ?? '', await lstat(directory.at(name ?? '.'), { bigint: true })));
      if (entry === null) throw Object.assign(new Error('neither file nor directory'), { code: 'ENOENT' });
      return entry;
    });
  }

  async list(id: VolumeId, path: VolumePath): Promise<readonly VolumeEntry[]> {
    using place = await this.#hold(id);
    return onPath(path, () => inDirectory(place.files, path, entriesOf));
  }

  async *walk(id: VolumeId, path: VolumePath): AsyncIterable<{ path: VolumePath; entry: VolumeEntry }> {
    yield* this.#below(id, path, await this.list(id, path));
  }

  async *#below(id: VolumeId, path: VolumePath, entries: readonly VolumeEntry[]): AsyncGenerator<{ path: VolumePath; entry: VolumeEntry }> {
    for (const entry of entries) {
      const below = [...path, entry.name];
      yield { path: below, entry };
      // A sandbox makes directories of any depth; nobody can name what is further down through here.
      if (entry.type !== 'dir' || below.length >= deepestVolumePath) continue;
      yield* this.#below(id, below, await this.list(id, below).catch(noneIfGone));
    }
  }

  async remove(id: VolumeId, path: VolumePath, recursive: boolean): Promise<VolumeUsage> {
    const { parent, name } = placeOf(path);
    using place = await this.#hold(id);
    return onPath(path, async () => {
      const old = await this.info(id, path);
      const below = old.type === 'dir' && recursive ? await this.#usageBelow(id, path) : nothing;
      await inDirectory(place.files, parent, async (directory) => {
        if (old.type === 'file') await unlink(directory.at(name));
        else if (!recursive) await rmdir(directory.at(name));
        else await this.#removeTree(place, directory, name);
      });
      return { bytes: -below.bytes - (old.type === 'file' ? old.size : 0), entries: -below.entries - 1 };
    });
  }

  /** First out of everybody's sight, in one step; then as deep as it goes. */
  async #removeTree(place: VolumePlace, parent: Directory, name: string): Promise<void> {
    const doomed = join(place.incoming, randomUUID());
    await rename(parent.at(name), doomed);
    await runTool('rm', ['-rf', '--one-file-system', '--', doomed], { timeoutMs: removeWithinMs });
  }

  async rename(id: VolumeId, from: VolumePath, to: VolumePath): Promise<VolumeUsage> {
    const [source, target] = [placeOf(from), placeOf(to)];
    using place = await this.#hold(id);
    const entry = await this.info(id, from);
    if (entry.type === 'dir') {
      for await (const { path } of this.walk(id, from)) {
        if (path.length - from.length + to.length > deepestVolumePath) throw new PaddockError('invalid_argument', `new_path is so deep that what is in the directory would be more than ${deepestVolumePath} levels down`, { field: 'new_path' });
      }
    }
    let made = 0;
    return onPath(to, () =>
      inDirectory(place.files, source.parent, (directory) =>
        inDirectory(
          place.files,
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
    using place = await this.#hold(id);
    await onPath(path, () => inDirectory(place.files, path, async () => undefined, { made: () => made++ }));
    return { bytes: 0, entries: made };
  }

  async settle(id: VolumeId): Promise<void> {
    using place = await this.#hold(id);
    await this.#settle(place);
  }

  async close(): Promise<void> {
    await this.#disks.close();
  }

  async #settle({ files }: VolumePlace): Promise<void> {
    await runTool('sync', ['-f', files], { timeoutMs: removeWithinMs });
  }

  async #usageBelow(id: VolumeId, path: VolumePath): Promise<VolumeUsage> {
    let [bytes, entries] = [0, 0];
    for await (const { entry } of this.walk(id, path)) {
      entries++;
      if (entry.type === 'file') bytes += entry.size;
    }
    return { bytes, entries };
  }

  async #hold(id: VolumeId): Promise<VolumePlace> {
    try {
      return await this.#disks.hold(id);
    } catch (error) {
      throw codeOf(error) === 'ENOENT' ? deleted(error) : error;
    }
  }
}

function deleted(cause?: unknown): PaddockError {
  return new PaddockError('not_found', 'there is no such volume; it was deleted meanwhile', { reason: 'volume_not_found' }, { cause });
}

function noneIfGone(error: unknown): readonly VolumeEntry[] {
  if (isGone(error)) return [];
  throw error;
}
