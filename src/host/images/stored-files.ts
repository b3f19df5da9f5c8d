import { constants } from 'node:fs';
import { type FileHandle, open, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { BuildFailure } from '../../core/templates/build-host.ts';
import { readTarIndex } from './tar-index.ts';

const chunkBytes = 256 * 1024;

/** Part of a file. */
export interface FilePart {
  readonly path: string;
  readonly offset: number;
  readonly size: number;
}

/** Named files: a directory, or a tar of one. */
export interface StoredFiles {
  /** Null when there is none of this name. */
  find(name: string): Promise<FilePart | null>;
}

/**
 * A directory, or the tar at the path. Links are not followed below it.
 *
 * @throws BuildFailure `image_pull_failed` when it is neither
 */
export async function openStoredFiles(path: string, signal: AbortSignal): Promise<StoredFiles> {
  const info = await stat(path).catch((cause: unknown) => {
    throw new BuildFailure('image_pull_failed', `${path} cannot be read: ${(cause as NodeJS.ErrnoException).code}`, { cause });
  });
  if (info.isDirectory()) return { find: (name) => findFile(join(path, name)) };
  if (!info.isFile()) throw new BuildFailure('image_pull_failed', `${path} is neither a directory nor a file`);
  await using file = await openRegular(path);
  const index = await readTarIndex(file, path, signal);
  return {
    find: async (name) => {
      const found = index.get(name);
      return found === undefined ? null : { path, ...found };
    },
  };
}

/** The bytes of a part, in chunks. */
export async function* readPart({ path, offset, size }: FilePart, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  await using file = await openRegular(path);
  for (let at = 0; at < size; ) {
    signal.throwIfAborted();
    const { buffer, bytesRead } = await file.read(Buffer.allocUnsafe(Math.min(chunkBytes, size - at)), { position: offset + at });
    if (bytesRead === 0) return; // whoever wants them all counts them
    at += bytesRead;
    yield buffer.subarray(0, bytesRead);
  }
}

async function findFile(path: string): Promise<FilePart | null> {
  try {
    await using file = await openRegular(path);
    return { path, offset: 0, size: (await file.stat()).size };
  } catch (reason) {
    if ((reason as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw reason;
  }
}

/** Never a device, a pipe that nobody writes to, or what a link in its place names. */
async function openRegular(path: string): Promise<FileHandle> {
  const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK).catch((cause: unknown) => {
    const { code } = cause as NodeJS.ErrnoException;
    if (code === 'ENOENT') throw cause;
    throw new BuildFailure('image_pull_failed', `${path} cannot be read: ${code}`, { cause });
  });
  if ((await file.stat()).isFile()) return file;
  await file.close();
  throw new BuildFailure('image_pull_failed', `${path} is no file`);
}
