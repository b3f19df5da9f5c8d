import type { FileAttributes, UnpackTarget } from '../unpack.ts';
import type { ChunkUploads } from './chunks.ts';
import { nodeAt, type Stamp, type TreeEdit } from './tree.ts';

/** An archive comes out into a tree that is no volume's yet, with its files in chunks that may still be under way. */
export class UnpackTree implements UnpackTarget {
  readonly #edit: TreeEdit;
  readonly #uploads: ChunkUploads;
  readonly #stamp: () => Stamp;

  constructor(edit: TreeEdit, uploads: ChunkUploads, stamp: () => Stamp) {
    this.#edit = edit;
    this.#uploads = uploads;
    this.#stamp = stamp;
  }

  async assertRoom(): Promise<void> {}

  async makeDir(names: readonly string[], made: () => void): Promise<void> {
    this.#edit.makeDir(names, made);
  }

  async putFile(names: readonly string[], { mode, modifiedAt }: FileAttributes, content: AsyncIterable<Buffer>, made: () => void): Promise<number | null> {
    this.#edit.makeDir(names.slice(0, -1), made);
    const chunks = await this.#uploads.addFile(content);
    const size = chunks.reduce((sum, { bytes }) => sum + bytes, 0);
    const stamp = this.#stamp();
    const replaced = this.#sizeOf(names);
    this.#edit.put(names, { type: 'file', chunks, size, mode, modifiedAt: modifiedAt ?? stamp.modifiedAt, version: stamp.version }, made);
    return replaced;
  }

  #sizeOf(names: readonly string[]): number | null {
    try {
      const node = nodeAt(this.#edit.root, names);
      return node.type === 'file' ? node.size : null;
    } catch {
      return null;
    }
  }
}
