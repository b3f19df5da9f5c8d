import { lstat, unlink } from 'node:fs/promises';
import { Transform, type Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGunzip } from 'node:zlib';
import { extract, type Extract, type Header } from 'tar-stream';
import { PaddockError } from '../../core/errors.ts';
import { volumePathProblem } from '../../core/volume.ts';
import type { Unpacked, VolumeUsage } from '../../core/volume-storage.ts';
import { codeOf, explained, inDirectory } from './tree.ts';

/** One file or whatever else of an archive; its content is read before the next one comes. */
type Entry = Extract extends AsyncIterable<infer E> ? E : never;

/** Bytes of headers and padding between two files. Archives have a few KiB there, bombs as much as they are allowed. */
const mostBetweenFiles = 8 * 1024 * 1024;
/** Headers and padding of one entry, on average. */
const mostPerEntry = 4096;
const roomCheckedEvery = 64 * 1024 * 1024;
const kinds: ReadonlySet<unknown> = new Set(['link', 'symlink', 'character-device', 'block-device', 'fifo']);

/**
 * Reads a tar.gz into the directory `root`, which is empty and nobody else's. Only files and directories come out of it: no link is ever
 * made, so that no later entry can be led elsewhere by one. Null when it has not one byte.
 */
export async function unpack(root: string, archive: Readable, limit: VolumeUsage, signal: AbortSignal, assertRoom: () => Promise<void>): Promise<Unpacked | null> {
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
    return await intake(archive, [gate, createGunzip()], new Intake(root, limit, assertRoom, 'archive'), signal);
  } catch (error) {
    if (error instanceof NoBytes) return null;
    throw error;
  }
}

/** The same for a tar that a sandbox has made of a directory. */
export async function unpackTree(root: string, tree: Readable, limit: VolumeUsage, signal: AbortSignal, assertRoom: () => Promise<void>): Promise<Unpacked> {
  return intake(tree, [], new Intake(root, limit, assertRoom, 'tree'), signal);
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
  readonly #root: string;
  readonly limit: VolumeUsage;
  readonly #assertRoom: () => Promise<void>;
  readonly #source: 'archive' | 'tree';
  /** Names of links and special files, below which nothing can be. */
  readonly #skipped = new Set<string>();
  #seen = 0;
  #written = 0;
  #checkedAt = 0;
  #bytes = 0;
  #entries = 0;

  constructor(root: string, limit: VolumeUsage, assertRoom: () => Promise<void>, source: 'archive' | 'tree') {
    this.#root = root;
    this.limit = limit;
    this.#assertRoom = assertRoom;
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
      await inDirectory(this.#root, names, async () => undefined, { made: () => this.#count(header) }).catch((error: unknown) => this.#fault(error, header));
      return;
    }
    if ((header.type !== 'file' && header.type !== 'contiguous-file') || Object.keys(header.pax ?? {}).some((key) => key.startsWith('GNU.sparse'))) throw this.#bad(header, 'is of a kind that cannot be read, a sparse file for example');
    await this.#file(entry, names, progress);
  }

  async #file(entry: Entry, names: readonly string[], progress: () => void): Promise<void> {
    const { header } = entry;
    const name = names.at(-1);
    if (name === undefined) throw this.#bad(header, 'has no name');
    if (this.#written + header.size > this.limit.bytes) throw this.#tooLarge(header);
    const work = inDirectory(
      this.#root,
      names.slice(0, -1),
      async (directory) => {
        const mode = (header.mode & 0o777) | 0o600; // never set-uid, and always readable for its owner
        const handle = await directory.newFile(name, mode).catch(async (error: unknown) => {
          if (codeOf(error) !== 'EEXIST') throw error;
          const old = await lstat(directory.at(name));
          if (!old.isFile()) throw this.#bad(header, 'is a file here and a directory elsewhere in the archive');
          await unlink(directory.at(name)); // the last of several counts
          this.#bytes -= old.size;
          this.#entries--;
          return directory.newFile(name, mode);
        });
        await using file = handle;
        await file.chmod(mode);
        let bytes = 0;
        for await (const chunk of entry as AsyncIterable<Buffer>) {
          if (this.#written + chunk.length > this.limit.bytes) throw this.#tooLarge(header);
          for (let at = 0; at < chunk.length; ) at += (await file.write(chunk, at)).bytesWritten;
          progress();
          bytes += chunk.length;
          this.#written += chunk.length;
          if (this.#written - this.#checkedAt < roomCheckedEvery) continue;
          this.#checkedAt = this.#written;
          await this.#assertRoom();
        }
        const at = header.mtime.getTime();
        if (Number.isFinite(at)) await file.utimes(at / 1000, at / 1000);
        this.#bytes += bytes;
      },
      { made: () => this.#count(header) },
    );
    await work.catch((error: unknown) => this.#fault(error, header));
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
