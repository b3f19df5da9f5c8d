import { randomBytes } from 'node:crypto';
import { Readable } from 'node:stream';
import { PaddockError } from '../../../core/errors.ts';
import type { VolumeId } from '../../../core/ids.ts';
import { deepestVolumePath, type VolumeEntry, type VolumePath } from '../../../core/volume.ts';
import type { IncomingFile, Unpacked, VolumeStorage, VolumeUsage } from '../../../core/volume-storage.ts';
import type { HostLog } from '../../log.ts';
import type { TreeItem } from '../contents.ts';
import { packed, packedTree } from '../pack.ts';
import { onPath, placeOf } from '../tree.ts';
import { unpack, unpackTree } from '../unpack.ts';
import type { Bucket } from './bucket.ts';
import { ChunkUploads, readChunks, type ChunkPlace } from './chunks.ts';
import { contentsOf } from './contents.ts';
import { Litter } from './litter.ts';
import type { Manifest } from './manifest.ts';
import { ObjectNames } from './names.ts';
import { Readers } from './readers.ts';
import { InDoubt, ManifestShelf } from './shelf.ts';
import { sweepChunks, unknownVolumes } from './sweep.ts';
import { below, dirAt, emptyDir, entryOf, nodeAt, TreeEdit, type Chunk, type FileNode, type Stamp } from './tree.ts';
import { UnpackTree } from './unpack-tree.ts';

/** A file whose chunks are in the store, and in no manifest yet. */
interface IncomingChunks extends IncomingFile {
  readonly chunks: readonly Chunk[];
  readonly durable: boolean;
  placed: boolean;
}

/**
 * Volumes in an object store. A volume is one manifest, which names its files and directories, and objects with the bytes of the files, in chunks,
 * which are written once under names of their own and never changed. A change writes new chunks, then replaces the manifest, which the store
 * does whole or not at all, and then removes what the new one does not name. So a rename costs one small write however much is below, nobody sees half
 * a change, and whatever a crash leaves is an object that no manifest names. Chunks bound what is in memory, need no multipart uploads, which
 * would stay behind, and are checked by their SHA-256 before a byte of them is given out. No name that comes from outside is part of the name of an object.
 */
export class ObjectVolumes implements VolumeStorage {
  readonly mountable = false;
  readonly #bucket: Bucket;
  readonly #names: ObjectNames;
  readonly #log: HostLog;
  readonly #litter: Litter;
  readonly #shelf: ManifestShelf;
  readonly #readers: Readers;
  /** In the names of everything that this process writes: the sweep of what is older leaves that alone. */
  readonly #boot = randomBytes(6).toString('hex');
  #count = 0;
  /** By this process, while the sweep looks for what nobody knows. */
  #created: Set<VolumeId> | null = null;
  readonly #closing = new AbortController();
  #sweeping: Promise<void> = Promise.resolve();

  constructor(bucket: Bucket, prefix: string, log: HostLog) {
    this.#bucket = bucket;
    this.#names = new ObjectNames(prefix);
    this.#log = log;
    this.#litter = new Litter(bucket, log);
    this.#shelf = new ManifestShelf(bucket, (id) => this.#names.manifest(id));
    this.#readers = new Readers((keys) => this.#litter.add(keys));
  }

  /** The store says itself when it is full. */
  async assertRoom(): Promise<void> {}

  async create(id: VolumeId): Promise<void> {
    this.#created?.add(id);
    await this.#shelf.create(id, { root: emptyDir(this.#stamp()), usage: { bytes: 0, entries: 0 }, revision: this.#newId() });
  }

  async discard(id: VolumeId): Promise<void> {
    this.#shelf.forget(id);
    await this.#litter.removeBelow(this.#names.volume(id), this.#names.manifest(id));
  }

  /** Beside the first requests: what there is to be looked through takes its time. */
  async sweep(known: readonly VolumeId[]): Promise<void> {
    this.#created = new Set();
    const { signal } = this.#closing;
    this.#sweeping = this.#sweep(known, signal).catch((err: unknown) => {
      if (!signal.aborted) this.#log.warn({ err }, 'what a crash may have left in the object store could not be looked for; the next start tries again');
    });
  }

  async #sweep(known: readonly VolumeId[], signal: AbortSignal): Promise<void> {
    const unknown = await unknownVolumes(this.#bucket, this.#names, new Set(known), this.#created!);
    this.#created = null;
    for (const id of unknown) await this.discard(id);
    for (const id of known) {
      if (signal.aborted) return;
      await sweepChunks(this.#bucket, this.#names, id, { shelf: this.#shelf, readers: this.#readers, litter: this.#litter, boot: this.#boot, signal });
    }
  }

  async usage(id: VolumeId): Promise<VolumeUsage> {
    return (await this.#shelf.get(id)).usage;
  }

  occupied(id: VolumeId): Promise<VolumeUsage> {
    return this.usage(id);
  }

  async unpack(id: VolumeId, archive: Readable, limit: VolumeUsage, signal: AbortSignal): Promise<Unpacked | null> {
    return this.#filling(id, (target) => unpack(target, archive, limit, signal));
  }

  async unpackTree(id: VolumeId, tree: Readable, limit: VolumeUsage, signal: AbortSignal): Promise<Unpacked> {
    return this.#filling(id, (target) => unpackTree(target, tree, limit, signal));
  }

  /** What arrives before a failure goes with the volume, which its maker discards. */
  async #filling<T>(id: VolumeId, work: (target: UnpackTree) => Promise<T>): Promise<T> {
    const manifest = await this.#shelf.get(id);
    const edit = new TreeEdit(manifest.root, () => this.#stamp());
    const uploads = new ChunkUploads(this.#placeOf(id), () => this.#newId());
    try {
      const result = await work(new UnpackTree(edit, uploads, () => this.#stamp()));
      await uploads.arrived();
      if (result !== null) await this.#commit(id, manifest, edit);
      return result;
    } finally {
      await uploads.ended();
    }
  }

  pack(id: VolumeId, signal: AbortSignal): Readable {
    return packed(this.#contents(id, []), signal);
  }

  packTree(id: VolumeId, path: VolumePath, signal: AbortSignal): Readable {
    return packedTree(this.#contents(id, path), signal);
  }

  /** As the volume is when it begins. */
  async *#contents(id: VolumeId, path: VolumePath): AsyncGenerator<TreeItem> {
    using _reading = this.#readers.enter(id);
    const { root } = await this.#shelf.get(id);
    const dir = await onPath(path, async () => dirAt(root, path));
    yield* contentsOf(this.#placeOf(id), dir);
  }

  async receive(id: VolumeId, body: Readable | Uint8Array, { durable }: { readonly durable: boolean }): Promise<IncomingFile> {
    await this.#shelf.get(id);
    const uploads = new ChunkUploads(this.#placeOf(id), () => this.#newId());
    const remove = (): void => this.#litter.add(this.#keysOf(id, uploads.begun));
    try {
      const chunks = await uploads.addFile(body instanceof Uint8Array ? [body] : body);
      await uploads.arrived();
      const file: IncomingChunks = {
        bytes: chunks.reduce((sum, { bytes }) => sum + bytes, 0),
        chunks,
        durable,
        placed: false,
        [Symbol.asyncDispose]: async () => {
          if (!file.placed) remove();
        },
      };
      return file;
    } catch (error) {
      await uploads.ended();
      remove();
      throw error;
    }
  }

  async put(id: VolumeId, path: VolumePath, file: IncomingFile, mode = 0o644): Promise<VolumeUsage> {
    placeOf(path);
    const incoming = file as IncomingChunks;
    const node: FileNode = Object.freeze({ type: 'file', chunks: incoming.chunks, size: incoming.bytes, mode: mode & 0o777, ...this.#stamp() });
    try {
      const grown = await this.#change(id, path, (edit) => edit.put(path, node), !incoming.durable);
      incoming.placed = true;
      return grown;
    } catch (error) {
      // Perhaps the manifest in the store names them; the next start knows.
      if (error instanceof InDoubt) incoming.placed = true;
      throw error;
    }
  }

  async get(id: VolumeId, path: VolumePath): Promise<{ entry: VolumeEntry; body: Readable }> {
    const { name } = placeOf(path);
    const reading = this.#readers.enter(id);
    try {
      const { root } = await this.#shelf.get(id);
      const node = await onPath(path, async () => nodeAt(root, path));
      if (node.type === 'dir') throw new PaddockError('invalid_argument', `/${path.join('/')} is a directory`, { field: 'path' });
      const body = Readable.from(readChunks(this.#placeOf(id), node), { objectMode: false });
      body.once('close', () => reading[Symbol.dispose]());
      return { entry: entryOf(name, node), body };
    } catch (error) {
      reading[Symbol.dispose]();
      throw error;
    }
  }

  async info(id: VolumeId, path: VolumePath): Promise<VolumeEntry> {
    const { root } = await this.#shelf.get(id);
    return entryOf(path.at(-1) ?? '', await onPath(path, async () => nodeAt(root, path)));
  }

  async list(id: VolumeId, path: VolumePath): Promise<readonly VolumeEntry[]> {
    const { root } = await this.#shelf.get(id);
    const { children } = await onPath(path, async () => dirAt(root, path));
    return [...children].map(([name, node]) => entryOf(name, node)).sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  async *walk(id: VolumeId, path: VolumePath): AsyncIterable<{ path: VolumePath; entry: VolumeEntry }> {
    const { root } = await this.#shelf.get(id);
    const dir = await onPath(path, async () => dirAt(root, path));
    for (const { path: at, node } of below(dir, path)) yield { path: at, entry: entryOf(at.at(-1)!, node) };
  }

  async remove(id: VolumeId, path: VolumePath, recursive: boolean): Promise<VolumeUsage> {
    placeOf(path);
    return this.#change(id, path, (edit) => edit.remove(path, recursive));
  }

  async rename(id: VolumeId, from: VolumePath, to: VolumePath): Promise<VolumeUsage> {
    placeOf(from);
    placeOf(to);
    const { root } = await this.#shelf.get(id);
    const node = await onPath(from, async () => nodeAt(root, from));
    if (node.type === 'dir') {
      for (const { path } of below(node, to)) {
        if (path.length > deepestVolumePath) throw new PaddockError('invalid_argument', `new_path is so deep that what is in the directory would be more than ${deepestVolumePath} levels down`, { field: 'new_path' });
      }
    }
    return this.#change(id, to, (edit) => edit.rename(from, to));
  }

  async makeDir(id: VolumeId, path: VolumePath): Promise<VolumeUsage> {
    return this.#change(id, path, (edit) => edit.makeDir(path));
  }

  async settle(id: VolumeId): Promise<void> {
    if (this.#shelf.hasUnsaved(id)) await this.#shelf.save(id, await this.#shelf.get(id));
  }

  async close(): Promise<void> {
    this.#closing.abort();
    this.#bucket.close();
    await Promise.all([this.#sweeping, this.#litter.close()]);
  }

  /** With `later`, and while that of an earlier change is, it is only in memory until the volume is settled. */
  async #change(id: VolumeId, path: VolumePath, work: (edit: TreeEdit) => void, later = false): Promise<VolumeUsage> {
    const manifest = await this.#shelf.get(id);
    const edit = new TreeEdit(manifest.root, () => this.#stamp());
    await onPath(path, async () => work(edit));
    await this.#commit(id, manifest, edit, later || this.#shelf.hasUnsaved(id));
    return edit.grown;
  }

  async #commit(id: VolumeId, { usage }: Manifest, edit: TreeEdit, later = false): Promise<void> {
    const { bytes, entries } = edit.grown;
    const next: Manifest = Object.freeze({ root: edit.root, usage: Object.freeze({ bytes: usage.bytes + bytes, entries: usage.entries + entries }), revision: this.#newId() });
    if (later) return this.#shelf.keepUnsaved(id, next);
    await this.#shelf.save(id, next);
    this.#readers.free(id, this.#keysOf(id, edit.freed));
  }

  #placeOf(id: VolumeId): ChunkPlace {
    return { bucket: this.#bucket, keyOf: (chunk) => this.#names.chunk(id, chunk) };
  }

  #keysOf(id: VolumeId, chunks: readonly Chunk[]): string[] {
    return chunks.map((chunk) => this.#names.chunk(id, chunk.id));
  }

  #newId(): string {
    return `${this.#boot}-${(this.#count++).toString(36)}`;
  }

  #stamp(): Stamp {
    return { modifiedAt: Date.now(), version: this.#newId() };
  }
}
