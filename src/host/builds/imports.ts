import { chmod, lstat, mkdir, unlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { PaddockError } from '../../core/errors.ts';
import { BuildFailure, type ImageRequest, type ImportedImage } from '../../core/templates/build-host.ts';
import type { FoundImage, ImageSource } from '../images/source.ts';
import { assertDiskRoom } from '../room.ts';
import { untilAborted } from '../until-aborted.ts';
import { removeTree } from './durable.ts';
import { keptOpen } from './layer-tree.ts';
import type { KnownImage, Layers } from './layers.ts';

/** How often the room on the disk is looked at while an image is unpacked. */
const roomEveryMs = 1000;
/** How long one that was called off is waited for. */
const endsWithinMs = 30_000;

interface Unpacking {
  readonly image: Promise<KnownImage>;
  readonly stop: AbortController;
  waiting: number;
}

/** Brings images onto this machine, each digest once. */
export class Imports {
  readonly #source: ImageSource | null;
  readonly #layers: Layers;
  readonly #dir: string;
  readonly #unpacking = new Map<string, Unpacking>();

  constructor(source: ImageSource | null, layers: Layers, dir: string) {
    this.#source = source;
    this.#layers = layers;
    this.#dir = dir;
  }

  async import(request: ImageRequest, signal: AbortSignal): Promise<ImportedImage> {
    if (this.#source === null) throw new PaddockError('unprocessable', 'this server cannot fetch images: start the template from one of the built-in ones', { field: 'from' });
    // Always asked first: whoever may not fetch it does not get the copy that is here either.
    const found = await this.#source.find(request, signal);
    const known = (await this.#layers.findImage(found.digest)) ?? (await this.#unpacked(found, request, signal));
    if (known.layer.bytes > request.maxBytes) throw new BuildFailure('image_too_large', `the image takes ${megabytes(known.layer.bytes)} MiB unpacked, and ${megabytes(request.maxBytes)} MiB are the most that are allowed`);
    return { layer: known.layer, config: known.config, digest: found.digest };
  }

  /** Those that want the same image at once share the work, which ends early only when none of them waits any more. */
  async #unpacked(found: FoundImage, request: ImageRequest, signal: AbortSignal): Promise<KnownImage> {
    // Not with one who allows less: what is refused to them may do here.
    const key = `${found.digest} ${request.maxBytes}`;
    let unpacking = this.#unpacking.get(key);
    if (unpacking === undefined) {
      const stop = new AbortController();
      const image = this.#unpack(found, stop.signal).finally(() => this.#unpacking.delete(key));
      image.catch(() => undefined); // told to those who wait
      unpacking = { image, stop, waiting: 0 };
      this.#unpacking.set(key, unpacking);
    } else request.onProgress('the same image is being unpacked for another build');
    unpacking.waiting++;
    try {
      return await untilAborted(unpacking.image, signal);
    } finally {
      if (--unpacking.waiting === 0) {
        unpacking.stop.abort(signal.aborted ? signal.reason : new PaddockError('conflict', 'nobody waits for the image any more'));
        this.#unpacking.delete(key);
        // What it began is removed before anybody is told that it has ended.
        await Promise.race([unpacking.image.catch(() => undefined), sleep(endsWithinMs, undefined, { ref: false })]);
      }
    }
  }

  async #unpack(found: FoundImage, stop: AbortSignal): Promise<KnownImage> {
    const full = new AbortController();
    const look = setInterval(() => void assertDiskRoom(this.#dir, 0, 'The image').catch((reason: unknown) => full.abort(reason)), roomEveryMs);
    const limit = AbortSignal.any([stop, full.signal]);
    try {
      const fill = async (tree: string): Promise<void> => {
        await found.unpack(tree, limit);
        limit.throwIfAborted();
        await complete(tree);
      };
      const image: KnownImage = { layer: await this.#layers.keepImage(fill, limit), config: found.config };
      await this.#layers.recordImage(found.digest, image);
      return image;
    } catch (reason) {
      throw limit.aborted ? limit.reason : (reason as NodeJS.ErrnoException).code === 'ENOSPC' ? new PaddockError('no_space', 'the disk of the server is full: the image could not be unpacked', {}, { cause: reason }) : reason;
    } finally {
      clearInterval(look);
    }
  }
}

/**
 * Puts in what every guest relies on. Nobody else writes to the tree, and each name that it goes through is looked at without following a
 * link: an image may call anything by any name.
 */
async function complete(tree: string): Promise<void> {
  // The agent is mounted over this file, and volumes over the directory.
  const place = join(tree, '.paddock');
  await removeTree(place);
  await mkdir(place, { mode: 0o755 });
  await writeFile(join(place, 'agent'), '', { flag: 'wx', mode: 0o755 });
  await mkdir(join(place, 'volumes'), { mode: 0o755 });
  // Something is mounted there too, which a link in the place would make impossible.
  for (const name of ['proc', 'sys', 'dev', 'tmp']) if ((await kindOf(join(tree, name))) === 'other') await unlink(join(tree, name));
  for (const dir of [join(tree, 'tmp'), join(tree, keptOpen)]) {
    if ((await kindOf(dir)) === 'other') await unlink(dir);
    if ((await kindOf(dir)) === 'nothing') await mkdir(dir);
    await chmod(dir, 0o1777);
  }
}

async function kindOf(path: string): Promise<'directory' | 'other' | 'nothing'> {
  try {
    return (await lstat(path)).isDirectory() ? 'directory' : 'other';
  } catch (reason) {
    if ((reason as NodeJS.ErrnoException).code === 'ENOENT') return 'nothing';
    throw reason;
  }
}

function megabytes(bytes: number): number {
  return Math.ceil(bytes / 1_048_576);
}
