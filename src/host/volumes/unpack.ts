import { Transform, type Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGunzip } from 'node:zlib';
import { extract, type Extract, type Header } from 'tar-stream';
import { PaddockError } from '../../core/errors.ts';
import { volumePathProblem } from '../../core/volume.ts';
import type { Unpacked, VolumeUsage } from '../../core/volume-storage.ts';
import { codeOf, explained } from './tree.ts';

/** One file or whatever else of an archive; its content is read before the next one comes. */
type Entry = Extract extends AsyncIterable<infer E> ? E : never;

/** Bytes of headers and padding between two files. Archives have a few KiB there, bombs as much as they are allowed. */
const mostBetweenFiles = 8 * 1024 * 1024;
/** Headers and padding of one entry, on average. */
const mostPerEntry = 4096;
const roomCheckedEvery = 64 * 1024 * 1024;
const kinds: ReadonlySet<unknown> = new Set(['link', 'symlink', 'character-device', 'block-device', 'fifo']);

/** Where the files of an archive go: empty, and nobody else's. Missing parents are made, and `made` hears of each. Throws ENOTDIR for what is below a file. */
export interface UnpackTarget {
  makeDir(names: readonly string[], made: () => void): Promise<void>;
  /** Reads `content` to its end. Replaces an earlier file; resolves to what that one had, null when there was none. Throws EISDIR where a directory is. */
  putFile(names: readonly string[], attributes: FileAttributes, content: AsyncIterable<Buffer>, made: () => void): Promise<number | null>;
  /** Throws `no_space`. */
  assertRoom(): Promise<void>;
}

export interface FileAttributes {
  readonly mode: number;
  /** Milliseconds; null for now. */
  readonly modifiedAt: number | null;
}

/**
 * Reads a tar.gz. Only files and directories come out of it: no link is ever made, so that no later entry can be led elsewhere by one. Null when
 * it has not one byte.
 */
export async function unpack(target: UnpackTarget, archive: Readable, limit: VolumeUsage, signal: AbortSignal): Promise<Unpacked | null> {
  let began = false;
  const gate = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      if (!began && chunk[0] !== 0x1f) return done(badArchive('it is not gzip'));
      began = true;
      done(null, chunk);
    },
    // Nothing at all is no archive, and no bad one.
    flush: (done) => done(began ? null : new NoBytes()),
  });
  try {
    return await intake(archive, [gate, createGunzip()], new Intake(target, limit, 'archive'), signal);
  } catch (error) {
    if (error instanceof NoBytes) return null;
    throw error;
  }
}

/** The same for a tar that a sandbox has made of a directory. */
export async function unpackTree(target: UnpackTarget, tree: Readable, limit: VolumeUsage, signal: AbortSignal): Promise<Unpacked> {
  return intake(tree, [], new Intake(target, limit, 'tree'), signal);
}

async function intake(archive: Readable, unpacking: readonly Transform[], taker: Intake, signal: AbortSignal): Promise<Unpacked> {
  const tar = extract({ allowUnknownFormat: true } as object);
  let between = 0;
  let total = 0;
  const most = taker.limit.bytes + taker.limit.entries * mostPerEntry + mostBetweenFiles;
  const meter = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      between += chunk.length;
      total += chunk.length;
      if (total > most) return done(new PaddockError('too_large', `the archive unpacks to more than ${most} bytes, headers included`));
      if (between > mostBetweenFiles + chunk.length) done(badArchive(`it has more than ${mostBetweenFiles / 1_048_576} MiB between two files`));
      else done(null, chunk);
    },
  });
  const feeding = pipeline([archive, ...unpacking, meter, tar], { signal });
  feeding.catch(() => undefined); // told below
  const failed = feeding.then(
    () => null,
    (error: unknown) => error,
  );
  try {
    for await (const entry of tar) {
      between = 0;
      await taker.take(entry, () => (between = 0));
    }
    const error = await failed;
    if (error !== null) throw error;
  } catch (thrown) {
    tar.destroy();
    // What broke the archive says more than that it broke; a verdict on an entry more than either.
    const error = thrown instanceof PaddockError ? thrown : ((await failed) ?? thrown);
    if (error instanceof NoBytes) throw error;
    throw asFault(error, archive);
  }
  return taker.result;
}

class Intake {
  readonly #target: UnpackTarget;
  readonly limit: VolumeUsage;
  readonly #source: 'archive' | 'tree';
  /** Names of links and special files, below which nothing can be. */
  readonly #skipped = new Set<string>();
  #seen = 0;
  #written = 0;
  #checkedAt = 0;
  #bytes = 0;
  #entries = 0;

  constructor(target: UnpackTarget, limit: VolumeUsage, source: 'archive' | 'tree') {
    this.#target = target;
    this.limit = limit;
    this.#source = source;
  }

  get result(): Unpacked {
    const [first = null] = this.#skipped;
    return { bytes: this.#bytes, entries: this.#entries, skipped: this.#skipped.size, firstSkipped: first };
  }

  async take(entry: Entry, progress: () => void): Promise<void> {
    const { header } = entry;
    if (++this.#seen > this.limit.entries) throw new PaddockError('too_large', `the archive has more than ${this.limit.entries} entries, the limit of a volume`);
    const names = this.#namesOf(header);
    const path = names.join('/');
    if (kinds.has(header.type)) {
      // Whatever it carries is read all the same, and so it counts.
      this.#written += header.size;
      if (this.#written > this.limit.bytes) throw this.#tooLarge(header);
      this.#skipped.add(path);
      entry.on('data', progress);
      entry.resume();
      return;
    }
    for (let depth = 1; depth <= names.length; depth++) {
      if (this.#skipped.has(names.slice(0, depth).join('/'))) throw this.#bad(header, 'is below or in the place of a link or special file of the same archive');
    }
    if (header.type === 'directory') {
      entry.resume();
      await this.#target.makeDir(names, () => this.#count(header)).catch((error: unknown) => this.#fault(error, header));
      return;
    }
    if ((header.type !== 'file' && header.type !== 'contiguous-file') || Object.keys(header.pax ?? {}).some((key) => key.startsWith('GNU.sparse'))) throw this.#bad(header, 'is of a kind that cannot be read, a sparse file for example');
    await this.#file(entry, names, progress);
  }

  async #file(entry: Entry, names: readonly string[], progress: () => void): Promise<void> {
    const { header } = entry;
    if (names.length === 0) throw this.#bad(header, 'has no name');
    if (this.#written + header.size > this.limit.bytes) throw this.#tooLarge(header);
    const mode = (header.mode & 0o777) | 0o600; // never set-uid, and always readable for its owner
    const at = header.mtime.getTime();
    let bytes = 0;
    const metered = async function* (this: Intake): AsyncGenerator<Buffer> {
      for await (const chunk of entry as AsyncIterable<Buffer>) {
        if (this.#written + chunk.length > this.limit.bytes) throw this.#tooLarge(header);
        yield chunk;
        progress();
        bytes += chunk.length;
        this.#written += chunk.length;
        if (this.#written - this.#checkedAt < roomCheckedEvery) continue;
        this.#checkedAt = this.#written;
        await this.#target.assertRoom();
      }
    };
    const replaced = await this.#target
      .putFile(names, { mode, modifiedAt: Number.isFinite(at) ? at : null }, metered.call(this), () => this.#count(header))
      .catch((error: unknown) => this.#fault(error, header));
    this.#bytes += bytes - (replaced ?? 0);
    if (replaced !== null) this.#entries--; // the last of several counts
    this.#count(header);
  }

  #count(header: Header): void {
    if (++this.#entries > this.limit.entries) throw new PaddockError('too_large', `${named(header)} brings the volume above ${this.limit.entries} files and directories, the limit`);
  }

  #namesOf(header: Header): readonly string[] {
    const { name } = header;
    if (name.startsWith('/')) throw this.#bad(header, 'is absolute: pack with names from the directory itself, as tar -C DIR . does');
    if (name.includes('�')) throw this.#bad(header, 'is not UTF-8');
    const problem = volumePathProblem(name);
    if (problem !== null) throw this.#bad(header, problem);
    return name.split('/').filter((each) => each !== '' && each !== '.');
  }

  #fault(error: unknown, header: Header): never {
    const code = codeOf(error);
    if (code === 'EISDIR') throw this.#bad(header, 'is a file here and a directory elsewhere in the archive');
    if (code === 'ENOTDIR' || code === 'ELOOP') throw this.#bad(header, 'is below a file of the same archive');
    throw explained(error, named(header));
  }

  #bad(header: Header, problem: string): PaddockError {
    if (this.#source === 'tree') return new PaddockError('unprocessable', `${JSON.stringify(header.name.slice(0, 200))} ${problem}, and cannot be kept in a volume`);
    return new PaddockError('invalid_argument', `${named(header)} ${problem}; nothing of the archive was kept`);
  }

  #tooLarge(header: Header): PaddockError {
    return new PaddockError('too_large', `${named(header)} brings the volume above the limit of ${this.limit.bytes} bytes`);
  }
}

class NoBytes extends Error {}

function asFault(error: unknown, archive: Readable): unknown {
  if (error instanceof PaddockError) return error;
  if (archive.errored instanceof PaddockError) return archive.errored;
  if (codeOf(error) === 'ENOSPC') return explained(error, 'the archive');
  return badArchive(error instanceof Error ? error.message.slice(0, 200) : 'it cannot be read', error);
}

function badArchive(why: string, cause?: unknown): PaddockError {
  return new PaddockError('invalid_argument', `the body must be a tar archive packed with gzip, but cannot be read: ${why}`, {}, { cause });
}

function named(header: Header): string {
  return `the archive's entry ${JSON.stringify(header.name.slice(0, 200))}`;
}
