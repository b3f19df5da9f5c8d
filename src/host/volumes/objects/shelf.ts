import { PaddockError } from '../../../core/errors.ts';
import type { VolumeId } from '../../../core/ids.ts';
import type { Bucket } from './bucket.ts';
import { mayHaveArrived } from './faults.ts';
import { decodeManifest, encodeManifest, mostPackedBytes, type Manifest } from './manifest.ts';

interface Held extends Manifest {
  readonly etag: string | null;
  /** There is something newer in it than in the store. */
  readonly unsaved: boolean;
}

/** Entries of manifests that stay in memory, of all volumes together. */
const mostHeldEntries = 200_000;

/** The manifests of volumes, those used last in memory. A volume is what its manifest says, and changes when that is replaced. */
export class ManifestShelf {
  readonly #bucket: Bucket;
  readonly #keyOf: (id: VolumeId) => string;
  /** The one used last is at the end. */
  readonly #held = new Map<VolumeId, Held>();
  readonly #reading = new Map<VolumeId, Promise<Held>>();

  constructor(bucket: Bucket, keyOf: (id: VolumeId) => string) {
    this.#bucket = bucket;
    this.#keyOf = keyOf;
  }

  /** Throws `not_found` when there is no such volume. */
  async get(id: VolumeId): Promise<Manifest> {
    return this.#get(id);
  }

  hasUnsaved(id: VolumeId): boolean {
    return this.#held.get(id)?.unsaved === true;
  }

  async create(id: VolumeId, manifest: Manifest): Promise<void> {
    const written = await this.#bucket.put(this.#keyOf(id), await encodeManifest(manifest));
    this.#hold(id, { ...manifest, etag: written?.etag ?? null, unsaved: false });
  }

  /** In memory only, until it is saved. */
  async keepUnsaved(id: VolumeId, manifest: Manifest): Promise<void> {
    const { etag } = await this.#get(id);
    this.#hold(id, { ...manifest, etag, unsaved: true });
  }

  /**
   * Replaces the manifest in the store, and then in memory. When it cannot be told whether the store has it, the store is asked; `InDoubt`
   * says that it has not got this one now: it may still come, and nothing that either manifest needs may be removed.
   */
  async save(id: VolumeId, manifest: Manifest): Promise<void> {
    const { etag } = await this.#get(id);
    const packed = await encodeManifest(manifest);
    try {
      const written = await this.#bucket.put(this.#keyOf(id), packed, etag === null ? null : { etag });
      if (written !== null) return this.#hold(id, { ...manifest, etag: written.etag, unsaved: false });
    } catch (error) {
      this.#held.delete(id);
      if (!mayHaveArrived(error)) throw error;
      this.#reading.delete(id);
      const there = await this.#get(id).catch(() => null);
      if (there?.revision === manifest.revision) return;
      throw new InDoubt(error);
    }
    // It was another one than this server had read: its own, when an attempt had succeeded without an answer.
    this.#held.delete(id);
    if ((await this.#get(id)).revision === manifest.revision) return;
    throw new PaddockError('conflict', 'the volume was changed by another server; try again');
  }

  forget(id: VolumeId): void {
    this.#held.delete(id);
  }

  async #get(id: VolumeId): Promise<Held> {
    const held = this.#held.get(id);
    if (held !== undefined) {
      this.#held.delete(id);
      this.#held.set(id, held);
      return held;
    }
    const reading = this.#reading.get(id) ?? this.#read(id).finally(() => this.#reading.delete(id));
    this.#reading.set(id, reading);
    return reading;
  }

  async #read(id: VolumeId): Promise<Held> {
    const stored = await this.#bucket.get(this.#keyOf(id), mostPackedBytes);
    if (stored === null) throw new PaddockError('not_found', 'there is no such volume; it was deleted meanwhile', { reason: 'volume_not_found' });
    const read: Held = { ...(await decodeManifest(stored.body)), etag: stored.etag, unsaved: false };
    // Somebody may have replaced it since.
    const newer = this.#held.get(id);
    if (newer !== undefined) return newer;
    this.#hold(id, read);
    return read;
  }

  #hold(id: VolumeId, held: Held): void {
    this.#held.delete(id);
    this.#held.set(id, held);
    let entries = 0;
    for (const each of this.#held.values()) entries += each.usage.entries + 1;
    for (const [other, each] of this.#held) {
      if (entries <= mostHeldEntries) return;
      if (other === id || each.unsaved) continue;
      this.#held.delete(other);
      entries -= each.usage.entries + 1;
    }
  }
}

/** A change may have happened, or not. */
export class InDoubt extends PaddockError {
  constructor(cause: unknown) {
    const { code, message, detail } = PaddockError.from(cause);
    super(code, message, detail, { cause });
  }
}
