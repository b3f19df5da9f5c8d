import { PaddockError } from '../../../core/errors.ts';
import type { VolumeId } from '../../../core/ids.ts';
import type { Bucket } from './bucket.ts';
import type { Litter } from './litter.ts';
import type { ObjectNames } from './names.ts';
import type { Readers } from './readers.ts';
import type { ManifestShelf } from './shelf.ts';
import { below } from './tree.ts';

/** Volumes in the store that were not known at the start, and were not made since. */
export async function unknownVolumes(bucket: Bucket, names: ObjectNames, known: ReadonlySet<VolumeId>, created: ReadonlySet<VolumeId>): Promise<readonly VolumeId[]> {
  const unknown: VolumeId[] = [];
  for await (const name of bucket.list(names.volumes, true)) {
    const id = names.volumeIn(name);
    if (id !== null && !known.has(id) && !created.has(id)) unknown.push(id);
  }
  return unknown;
}

interface SweepOf {
  readonly shelf: ManifestShelf;
  readonly readers: Readers;
  readonly litter: Litter;
  readonly boot: string;
  readonly signal: AbortSignal;
}

const seenAtOnce = 10_000;

/** Removes the chunks of earlier processes that the manifest does not name: no later one will. */
export async function sweepChunks(bucket: Bucket, names: ObjectNames, id: VolumeId, { shelf, readers, litter, boot, signal }: SweepOf): Promise<void> {
  const prefix = names.chunks(id);
  let old: string[] = [];
  const look = async (): Promise<void> => {
    const needed = new Set<string>();
    try {
      for (const { node } of below((await shelf.get(id)).root)) if (node.type === 'file') for (const chunk of node.chunks) needed.add(names.chunk(id, chunk.id));
    } catch (error) {
      if (error instanceof PaddockError && error.code === 'not_found') return; // deleted
      throw error;
    }
    litter.add(old.filter((key) => !needed.has(key) && !readers.isNeeded(id, key)));
    old = [];
  };
  for await (const key of bucket.list(prefix)) {
    if (signal.aborted) return;
    if (key.startsWith(`${boot}-`, prefix.length)) continue;
    old.push(key);
    if (old.length >= seenAtOnce) await look();
  }
  if (old.length > 0) await look();
}
