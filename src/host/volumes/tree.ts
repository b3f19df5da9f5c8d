import { constants } from 'node:fs';
import { lchown, lstat, mkdir, open, opendir, type FileHandle } from 'node:fs/promises';
import { PaddockError } from '../../core/errors.ts';
import type { VolumePath } from '../../core/volume.ts';

const { O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, O_WRONLY } = constants;

/** Who the files of a volume belong to when no sandbox has said: the user that sandboxes have. */
export const volumeOwner = 1000;

/**
 * A directory that is held open. What is done in it goes through its descriptor, one name at a time, so that a link or a directory that
 * somebody moves meanwhile leads nowhere else.
 */
export class Directory implements AsyncDisposable {
  readonly #handle: FileHandle;

  private constructor(handle: FileHandle) {
    this.#handle = handle;
  }

  static async open(path: string): Promise<Directory> {
    return new Directory(await open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
  }

  /** For programs that are to use this very directory, whatever its name leads to by now. */
  get path(): string {
    return `/proc/${process.pid}/fd/${this.#handle.fd}`;
  }

  /** Path of a name in it, for calls that do not follow the last part. */
  at(name: string): string {
    return `/proc/self/fd/${this.#handle.fd}/${name}`;
  }

  enter(name: string): Promise<Directory> {
    return Directory.open(this.at(name));
  }

  /** True when it is new. */
  async make(name: string): Promise<boolean> {
    try {
      await mkdir(this.at(name), 0o755);
      await lchown(this.at(name), volumeOwner, volumeOwner);
      return true;
    } catch (error) {
      if (codeOf(error) !== 'EEXIST') throw error;
      if (!(await lstat(this.at(name))).isDirectory()) throw Object.assign(new Error('not a directory'), { code: 'ENOTDIR' });
      return false;
    }
  }

  /** A regular file for reading; a FIFO that somebody left does not hang it. */
  openFile(name: string): Promise<FileHandle> {
    return open(this.at(name), O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  }

  async newFile(name: string, mode: number): Promise<FileHandle> {
    const file = await open(this.at(name), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode);
    try {
      await file.chown(volumeOwner, volumeOwner);
      return file;
    } catch (reason) {
      await file.close();
      throw reason;
    }
  }

  /** What has been done in it survives a power cut from now on. */
  sync(): Promise<void> {
    return this.#handle.sync();
  }

  async *names(): AsyncIterable<string> {
    for await (const { name } of await opendir(this.at('.'))) yield name;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#handle.close();
  }
}

/** The directory that the names lead to from `root`. */
export async function openDirectory(root: string, names: readonly string[]): Promise<Directory> {
  let directory = await Directory.open(root);
  for (const name of names) {
    await using before = directory;
    directory = await before.enter(name);
  }
  return directory;
}

/** Works in the directory that the names lead to from `root`; with `make`, missing ones are made, and `made` hears of each. */
export async function inDirectory<T>(root: string, names: readonly string[], work: (directory: Directory) => Promise<T>, make?: { readonly made: () => void }): Promise<T> {
  let directory = await Directory.open(root);
  try {
    for (const name of names) {
      if (make !== undefined && (await directory.make(name))) make.made();
      const next = await directory.enter(name);
      await directory[Symbol.asyncDispose]();
      directory = next;
    }
    return await work(directory);
  } finally {
    await directory[Symbol.asyncDispose]();
  }
}

export function codeOf(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException | null)?.code;
}

/** Runs work on a path of a volume; what the file system throws leaves as a PaddockError that names the path. */
export async function onPath<T>(names: readonly string[], work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw explained(error, `/${names.join('/')}`);
  }
}

export function explained(error: unknown, path: string): unknown {
  switch (codeOf(error)) {
    case 'ENOENT':
      return new PaddockError('not_found', `there is no ${path} in the volume`, {}, { cause: error });
    case 'ENOTDIR':
    case 'ELOOP':
      return new PaddockError('invalid_argument', `${path}: a directory is needed where a file is`, { field: 'path' }, { cause: error });
    case 'EISDIR':
      return new PaddockError('invalid_argument', `${path} is a directory`, { field: 'path' }, { cause: error });
    case 'ENOTEMPTY':
    case 'EEXIST':
      return new PaddockError('conflict', `${path} is a directory that is not empty`, {}, { cause: error });
    case 'ENXIO':
    case 'EACCES':
      return new PaddockError('invalid_argument', `${path} is neither file nor directory`, { field: 'path' }, { cause: error });
    case 'EINVAL':
    case 'ENAMETOOLONG':
      return new PaddockError('invalid_argument', `${path} cannot be used here`, { field: 'path' }, { cause: error });
    case 'ENOSPC':
    case 'EDQUOT':
      return new PaddockError('no_space', 'the volume is full, or the disk of the server', {}, { cause: error });
    default:
      return error;
  }
}

/** Whether what was listed a moment ago is not there any more, or is something else; not that its volume is gone. */
export function isGone(error: unknown): boolean {
  return error instanceof PaddockError && ['not_found', 'invalid_argument'].includes(error.code) && error.detail.reason !== 'volume_not_found';
}

/** Throws `invalid_argument` for the root. */
export function placeOf(path: VolumePath): { readonly parent: VolumePath; readonly name: string } {
  const name = path.at(-1);
  if (name === undefined) throw new PaddockError('invalid_argument', 'path is the root of the volume, which is a directory and stays', { field: 'path' });
  return { parent: path.slice(0, -1), name };
}
