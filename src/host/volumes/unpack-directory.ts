import { lstat, unlink } from 'node:fs/promises';
import { codeOf, inDirectory, type Directory } from './tree.ts';
import type { FileAttributes, UnpackTarget } from './unpack.ts';

/** An archive comes out into a directory. */
export class UnpackDirectory implements UnpackTarget {
  readonly #root: string;
  readonly assertRoom: () => Promise<void>;

  constructor(root: string, assertRoom: () => Promise<void>) {
    this.#root = root;
    this.assertRoom = assertRoom;
  }

  async makeDir(names: readonly string[], made: () => void): Promise<void> {
    await inDirectory(this.#root, names, async () => undefined, { made });
  }

  async putFile(names: readonly string[], { mode, modifiedAt }: FileAttributes, content: AsyncIterable<Buffer>, made: () => void): Promise<number | null> {
    const name = names.at(-1)!;
    return inDirectory(
      this.#root,
      names.slice(0, -1),
      async (directory) => {
        const replaced = await removeFile(directory, name);
        await using file = await directory.newFile(name, mode);
        await file.chmod(mode);
        for await (const chunk of content) {
          for (let at = 0; at < chunk.length; ) at += (await file.write(chunk, at)).bytesWritten;
        }
        if (modifiedAt !== null) await file.utimes(modifiedAt / 1000, modifiedAt / 1000);
        return replaced;
      },
      { made },
    );
  }
}

/** Resolves to what it had; null when there was none. */
async function removeFile(directory: Directory, name: string): Promise<number | null> {
  const old = await lstat(directory.at(name)).catch((error: unknown) => {
    if (codeOf(error) === 'ENOENT') return null;
    throw error;
  });
  if (old === null) return null;
  if (!old.isFile()) throw Object.assign(new Error('is a directory'), { code: 'EISDIR' });
  await unlink(directory.at(name));
  return old.size;
}
