import { existsSync, mkdirSync } from 'node:fs';
import { mkdir, open, readFile, readdir, rename, rm, stat, statfs, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { PaddockError } from '../core/errors.ts';
import type { CheckpointRef } from '../core/host.ts';
import { Hashing } from './hashing.ts';
import type { HostLog } from './log.ts';
import { formatManifest, manifestName, parseManifest, type Manifest, type SavedFile } from './manifest.ts';
import type { SavedVolume } from './volumes/open-files.ts';

const partialSuffix = '.partial';
const idShape = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
/** What stays free on the disk of the data directory. */
const diskFloorBytes = 2 * 1024 * 1024 * 1024;
/** Files that were found sound are not read again within this time: a fork reads one checkpoint many times over. */
const soundForMs = 60_000;
const verifyWithinMs = 10 * 60_000;
/** For hashes that are still missing when the server stops; the next start computes the rest, of files that may have changed by then. */
const hashOnWithinMs = 5_000;

/** A checkpoint that is being written. */
export interface Draft {
  /** An empty directory. */
  readonly dir: string;
  /** Makes it a checkpoint that survives a power cut. */
  finish(facts: Omit<CheckpointRef, 'id' | 'bytes'>, volumes?: readonly SavedVolume[]): Promise<CheckpointRef>;
  /** Removes it. */
  discard(): Promise<void>;
}

/**
 * The checkpoints of this host: one directory each, which has its name only when everything in it is on the disk. Hashes of the files
 * follow later, because reading them takes as long as writing them did.
 */
export class Checkpoints {
  readonly #dir: string;
  readonly #log: HostLog;
  readonly #hashing = new Hashing();
  readonly #closed = new AbortController();
  /** Bytes that drafts under way may still write. */
  #promised = 0;
  readonly #sound = new Map<string, { readonly until: number; readonly verdict: Promise<void> }>();
  #background: Promise<void> = Promise.resolve();

  constructor(dir: string, log: HostLog) {
    this.#dir = dir;
    this.#log = log;
    mkdirSync(dir, { recursive: true, mode: 0o700 });
  }

  /** Removes what was not finished when the server ended, and computes the hashes that are missing. */
  async recover(): Promise<void> {
    const names = await readdir(this.#dir);
    for (const name of names) if (name.endsWith(partialSuffix)) await this.#erase(join(this.#dir, name));
    for (const name of names) {
      if (!idShape.test(name)) continue;
      const manifest = await this.#read(name).catch(() => null); // reported when somebody wants it
      if (manifest?.files.some((file) => file.sha256 === null)) this.#hashLater(manifest);
    }
  }

  /** Whether there is one, or one is being written. */
  has(id: string): boolean {
    return idShape.test(id) && ['', partialSuffix].some((suffix) => existsSync(join(this.#dir, `${id}${suffix}`)));
  }

  /** Begins one of at most this size. Throws `no_space` when the disk has no room for it. */
  async begin(id: string, bytes: number): Promise<Draft> {
    if (!idShape.test(id)) throw new PaddockError('invalid_argument', `"${id}" is no id of a checkpoint.`);
    const { bavail, bsize } = await statfs(this.#dir);
    const free = bavail * bsize - this.#promised;
    if (free < bytes + diskFloorBytes) {
      throw new PaddockError(
        'no_space',
        `Saving the sandbox takes up to ${toMb(bytes)} MiB on the server's disk, which has ${toMb(Math.max(0, free))} MiB left and keeps ${toMb(diskFloorBytes)} MiB free: remove snapshots or paused sandboxes that are not needed.`,
      );
    }
    this.#promised += bytes;
    const dir = join(this.#dir, `${id}${partialSuffix}`);
    let open = true;
    const close = (): void => {
      if (open) this.#promised -= bytes;
      open = false;
    };
    try {
      await mkdir(dir, { mode: 0o700 });
    } catch (reason) {
      close();
      throw reason;
    }
    return {
      dir,
      finish: async (facts, volumes = []) => {
        const ref = await this.#finish(id, dir, facts, volumes);
        close();
        return ref;
      },
      discard: async () => {
        await this.#erase(dir);
        await this.#erase(join(this.#dir, id));
        close();
      },
    };
  }

  async #finish(id: string, dir: string, facts: Omit<CheckpointRef, 'id' | 'bytes'>, volumes: readonly SavedVolume[]): Promise<CheckpointRef> {
    const files: SavedFile[] = [];
    for (const name of (await readdir(dir)).sort()) files.push({ name, size: await flush(join(dir, name)), sha256: null });
    const ref: CheckpointRef = Object.freeze({ id, ...facts, bytes: files.reduce((sum, file) => sum + file.size, 0) });
    const manifest: Manifest = { version: 1, ref, createdAt: Date.now(), files, ...(volumes.length === 0 ? {} : { volumes }) };
    await writeFile(join(dir, manifestName), formatManifest(manifest), { mode: 0o600 });
    await flush(join(dir, manifestName));
    await flush(dir);
    await rename(dir, join(this.#dir, id));
    await flush(this.#dir);
    this.#hashLater(manifest);
    return ref;
  }

  /**
   * A checkpoint of which every file is there in its full length. Throws `not_found`, or `unprocessable` when it is damaged; whether the
   * content is right is for `verify`.
   */
  async open(id: string): Promise<{ readonly dir: string; readonly manifest: Manifest }> {
    const manifest = await this.#read(id);
    if (manifest === null) throw new PaddockError('not_found', 'the saved state of the sandbox is no longer on this server');
    const dir = join(this.#dir, id);
    for (const { name, size } of manifest.files) {
      const found = await sizeOf(join(dir, name));
      if (found !== size) throw damaged(id, found === null ? `${name} is missing` : `${name} has ${found} bytes instead of ${size}`);
    }
    return { dir, manifest };
  }

  /** Rejects with `unprocessable` when a file does not have the hash that was computed after it was written. */
  verify({ ref, files }: Manifest): Promise<void> {
    const known = this.#sound.get(ref.id);
    if (known !== undefined && known.until > Date.now()) return known.verdict;
    const verdict = this.#compare(ref.id, files);
    this.#remember(ref.id, verdict);
    return verdict;
  }

  async #compare(id: string, files: readonly SavedFile[]): Promise<void> {
    const limit = AbortSignal.any([AbortSignal.timeout(verifyWithinMs), this.#closed.signal]);
    for (const { name, sha256 } of files) {
      if (sha256 === null) continue;
      const found = await this.#hashing.sha256(join(this.#dir, id, name), true, limit);
      if (found !== sha256) throw damaged(id, `the content of ${name} has changed`);
    }
  }

  #remember(id: string, verdict: Promise<void>): void {
    this.#sound.set(id, { until: Date.now() + soundForMs, verdict });
    verdict.catch(() => this.#sound.delete(id));
  }

  /** What a checkpoint keeps of volumes; nothing when it cannot be read. */
  async volumesOf(id: string): Promise<readonly SavedVolume[]> {
    const manifest = await this.#read(id).catch(() => null);
    return manifest?.volumes ?? [];
  }

  /** Succeeds when there is nothing. */
  async remove(id: string): Promise<void> {
    if (!idShape.test(id)) return;
    this.#sound.delete(id);
    // First its name, so that half of one is never taken for a whole.
    const doomed = join(this.#dir, `${id}.removed${partialSuffix}`);
    try {
      await rename(join(this.#dir, id), doomed);
    } catch (reason) {
      if ((reason as NodeJS.ErrnoException).code !== 'ENOENT') throw reason;
    }
    await this.#erase(doomed);
  }

  async list(): Promise<readonly CheckpointRef[]> {
    const refs: CheckpointRef[] = [];
    for (const name of await readdir(this.#dir)) {
      if (!idShape.test(name)) continue;
      try {
        const manifest = await this.#read(name);
        if (manifest !== null) refs.push(manifest.ref);
      } catch (reason) {
        this.#log.warn({ err: reason, checkpoint: name }, 'a checkpoint cannot be read');
      }
    }
    return refs;
  }

  async close(): Promise<void> {
    await Promise.race([this.#background, sleep(hashOnWithinMs, undefined, { ref: false })]);
    this.#closed.abort(new Error('the server is stopping'));
    await this.#background;
    await this.#hashing.close();
  }

  #hashLater(manifest: Manifest): void {
    this.#background = this.#background.then(() => this.#hash(manifest)).catch(async (reason: unknown) => {
      const removed = (await this.#read(manifest.ref.id).catch(() => manifest)) === null;
      if (!removed && !this.#closed.signal.aborted) this.#log.warn({ err: reason, checkpoint: manifest.ref.id }, 'a checkpoint has no hashes: damage to it would not be noticed');
    });
  }

  async #hash(manifest: Manifest): Promise<void> {
    const { id } = manifest.ref;
    const dir = join(this.#dir, id);
    const files: SavedFile[] = [];
    for (const file of manifest.files) files.push({ ...file, sha256: file.sha256 ?? (await this.#hashing.sha256(join(dir, file.name), false, this.#closed.signal)) });
    const fresh = join(dir, `${manifestName}.new`);
    await writeFile(fresh, formatManifest({ ...manifest, files }), { mode: 0o600 });
    await flush(fresh);
    await rename(fresh, join(dir, manifestName));
    await flush(dir);
    this.#remember(id, Promise.resolve());
  }

  async #read(id: string): Promise<Manifest | null> {
    if (!idShape.test(id)) return null;
    let text: string;
    try {
      text = await readFile(join(this.#dir, id, manifestName), 'utf8');
    } catch (reason) {
      if ((reason as NodeJS.ErrnoException).code === 'ENOENT') return null;
      throw reason;
    }
    const manifest = parseManifest(text);
    if (manifest === null || manifest.ref.id !== id) throw damaged(id, 'its manifest cannot be read');
    return manifest;
  }

  async #erase(dir: string): Promise<void> {
    await rm(dir, { recursive: true, force: true, maxRetries: 3 });
  }
}

function damaged(id: string, how: string): PaddockError {
  return new PaddockError('unprocessable', `the saved state ${id} of the sandbox is damaged: ${how}`, { reason: 'checkpoint_damaged' });
}

/** Waits until a file or directory is on the disk; resolves to its size. */
async function flush(path: string): Promise<number> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
    return (await handle.stat()).size;
  } finally {
    await handle.close();
  }
}

async function sizeOf(path: string): Promise<number | null> {
  try {
    return (await stat(path)).size;
  } catch (reason) {
    if ((reason as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw reason;
  }
}

function toMb(bytes: number): number {
  return Math.ceil(bytes / 1024 / 1024);
}
