import type { Readable } from 'node:stream';
import type { VolumeId } from './ids.ts';
import type { VolumeEntry, VolumePath } from './volume.ts';

export interface VolumeUsage {
  readonly bytes: number;
  readonly entries: number;
}

export interface Unpacked extends VolumeUsage {
  /** Links and special files, which no volume keeps: how many were left out, and the first of them. */
  readonly skipped: number;
  readonly firstSkipped: string | null;
}

/** A file that has arrived whole and is in no place yet. Disposing removes it, unless it has been placed. */
export interface IncomingFile extends AsyncDisposable {
  readonly bytes: number;
}

/**
 * Where the files of volumes are. Sandboxes may write to them at any moment. Nothing here follows a link. Throws `not_found`, `conflict`, `no_space`, and `invalid_argument` for
 * what is a file where a directory is needed, or the other way round. Changes of one volume are made one after another by the caller.
 */
export interface VolumeStorage {
  /** Whether sandboxes can have volumes themselves mounted, and not only copies of their files. */
  readonly mountable: boolean;
  /** Throws `no_space` when the disk is nearly full. */
  assertRoom(): Promise<void>;
  create(id: VolumeId): Promise<void>;
  /** Removes all of it, whatever there is. */
  discard(id: VolumeId): Promise<void>;
  /** At the start: removes what is of no known volume, and what had not arrived whole when the server ended. */
  sweep(known: readonly VolumeId[]): Promise<void>;
  /** Counted anew. */
  usage(id: VolumeId): Promise<VolumeUsage>;
  /** What the volume's files take on its disk, in blocks: known at once, whoever writes to it. */
  occupied(id: VolumeId): Promise<VolumeUsage>;

  /** Reads a tar.gz into an empty volume; null when the archive has not one byte. Throws `too_large`, and `invalid_argument` naming the entry at fault. */
  unpack(id: VolumeId, archive: Readable, limit: VolumeUsage, signal: AbortSignal): Promise<Unpacked | null>;
  /** The same for a tar, which a sandbox has made of a directory: what cannot be kept is `unprocessable`. */
  unpackTree(id: VolumeId, tree: Readable, limit: VolumeUsage, signal: AbortSignal): Promise<Unpacked>;
  /** The volume as a tar.gz. */
  pack(id: VolumeId, signal: AbortSignal): Readable;
  /** What is below a directory of it as a tar, named from there. */
  packTree(id: VolumeId, path: VolumePath, signal: AbortSignal): Readable;

  /** `durable`: what has been awaited survives a power cut. */
  receive(id: VolumeId, body: Readable | Uint8Array, options: { readonly durable: boolean }): Promise<IncomingFile>;
  /** Replaces what is there, with parents made; resolves to what the volume has grown by. */
  put(id: VolumeId, path: VolumePath, file: IncomingFile, mode?: number): Promise<VolumeUsage>;
  get(id: VolumeId, path: VolumePath): Promise<{ readonly entry: VolumeEntry; readonly body: Readable }>;
  info(id: VolumeId, path: VolumePath): Promise<VolumeEntry>;
  /** By name. */
  list(id: VolumeId, path: VolumePath): Promise<readonly VolumeEntry[]>;
  /** Everything below, directories before what is in them. */
  walk(id: VolumeId, path: VolumePath): AsyncIterable<{ readonly path: VolumePath; readonly entry: VolumeEntry }>;
  /** Resolves to what the volume has grown by, which is not above zero. `conflict` for a directory with something in it, unless `recursive`. */
  remove(id: VolumeId, path: VolumePath, recursive: boolean): Promise<VolumeUsage>;
  rename(id: VolumeId, from: VolumePath, to: VolumePath): Promise<VolumeUsage>;
  makeDir(id: VolumeId, path: VolumePath): Promise<VolumeUsage>;
  /** Waits until all of it survives a power cut. */
  settle(id: VolumeId): Promise<void>;
}
