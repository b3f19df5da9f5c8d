import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { HostLog } from '../../log.ts';
import { HostSetupError } from '../../setup-error.ts';
import { Bucket, type BucketOptions } from './bucket.ts';
import { whyUnusable } from './faults.ts';
import { ObjectNames } from './names.ts';
import { ObjectVolumes } from './storage.ts';

const longestOwner = 1000;

/**
 * Volumes in a bucket, tried out: objects can be written, read, listed and removed, and nobody else has the prefix.
 *
 * @param prefix empty, or ending with a slash
 * @param owner whose volumes they are: another server would take them for leftovers of its own and remove them.
 * @throws HostSetupError with a sentence for the operator
 */
export async function openObjectVolumes(options: BucketOptions, prefix: string, owner: string, log: HostLog): Promise<ObjectVolumes> {
  const bucket = new Bucket(options);
  const place = `s3://${options.bucket}/${prefix}`;
  try {
    const holder = await tried(place, () => tryOut(bucket, new ObjectNames(prefix), owner));
    if (holder !== owner) {
      throw new HostSetupError(`PADDOCK_VOLUME_STORE: ${place} has the volumes of another server, or of another data directory (${holder}). Choose another prefix; or, if that one is no more and its volumes are to go, remove the objects below ${place} first.`);
    }
    return new ObjectVolumes(bucket, prefix, log);
  } catch (error) {
    bucket.close();
    throw error;
  }
}

/** Resolves to whose the prefix is. */
async function tryOut(bucket: Bucket, names: ObjectNames, owner: string): Promise<string> {
  const probe = names.probe(randomUUID());
  await bucket.put(probe, Buffer.from(owner));
  try {
    if ((await bucket.get(probe, longestOwner))?.body.toString() !== owner) throw new Error('an object that was written is not there');
    for await (const _name of bucket.list(names.volumes, true)) break;
  } finally {
    await bucket.remove(probe);
  }
  const holder = await readOwner(bucket, names);
  if (holder !== null) return holder;
  // Of two that begin at once, one is first.
  await bucket.put(names.owner, Buffer.from(owner), 'absent');
  return (await readOwner(bucket, names)) ?? '';
}

/** Nobody writes an empty one: a store that shows it is in the middle of writing another server's. */
async function readOwner(bucket: Bucket, names: ObjectNames): Promise<string | null> {
  for (let attempt = 0; ; attempt++) {
    const object = await bucket.get(names.owner, longestOwner);
    if (object === null) return null;
    const owner = object.body.toString();
    if (owner !== '' || attempt >= 10) return owner;
    await sleep(100);
  }
}

async function tried<T>(place: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw new HostSetupError(`PADDOCK_VOLUME_STORE: ${place} cannot be used: ${whyUnusable(error)}.`, { cause: error });
  }
}
