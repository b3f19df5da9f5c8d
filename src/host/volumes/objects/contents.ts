import { Readable } from 'node:stream';
import type { TreeItem } from '../contents.ts';
import { readChunks, type ChunkPlace } from './chunks.ts';
import { below, entryOf, type DirNode } from './tree.ts';

const smallBytes = 256 * 1024;
const fetchedAtOnce = 16;

/** Everything below a directory with what is in it. Small files are fetched some at a time, which is what makes many of them fast. */
export async function* contentsOf(place: ChunkPlace, dir: DirNode): AsyncGenerator<TreeItem> {
  const waiting: Promise<TreeItem>[] = [];
  for (const { path, node } of below(dir)) {
    const entry = entryOf(path.at(-1)!, node);
    const item = async (): Promise<TreeItem> => {
      if (node.type === 'dir') return { path, entry, content: null };
      if (node.size > smallBytes) return { path, entry, content: Readable.from(readChunks(place, node), { objectMode: false }) };
      const parts: Buffer[] = [];
      for await (const part of readChunks(place, node)) parts.push(part);
      return { path, entry, content: Buffer.concat(parts) };
    };
    const coming = item();
    coming.catch(() => undefined); // thrown where it is waited for
    waiting.push(coming);
    if (waiting.length >= fetchedAtOnce) yield await waiting.shift()!;
  }
  for (const each of waiting) yield await each;
}
