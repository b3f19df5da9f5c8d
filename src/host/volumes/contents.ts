import type { Readable } from 'node:stream';
import { deepestVolumePath, type VolumeEntry, type VolumePath } from '../../core/volume.ts';
import { entryOf } from './entries.ts';
import { codeOf, type Directory } from './tree.ts';

/** A file or directory below another one; `path` begins there. A file has its bytes, as many as `entry.size` says or fewer. */
export interface TreeItem {
  readonly path: VolumePath;
  readonly entry: VolumeEntry;
  readonly content: Buffer | Readable | null;
}

/** So much of a file is read at once; of larger ones a part at a time. */
const smallBytes = 256 * 1024;
const openAtOnce = 16;
/** What cannot be opened, or is not there any more: links, sockets, what somebody has just removed. */
const passedOver: ReadonlySet<string | undefined> = new Set(['ENOENT', 'ELOOP', 'ENXIO', 'EACCES', 'ENOTDIR', 'ENODEV']);

/**
 * Everything below a directory with what is in it, directories before their contents, each directory by name. Each name is opened once, without
 * following it, and is what it is found to be then. Small files are read some at a time, which is what makes many of them fast.
 */
export async function* contentsBelow(directory: Directory, path: VolumePath, depth: number): AsyncGenerator<TreeItem> {
  const names: string[] = [];
  for await (const name of directory.names()) names.push(name);
  names.sort();
  for (let at = 0; at < names.length; at += openAtOnce) {
    for (const item of await Promise.all(names.slice(at, at + openAtOnce).map((name) => look(directory, name)))) {
      if (item === null) continue;
      const below = [...path, item.entry.name];
      if (item.entry.type === 'dir') {
        yield { path: below, entry: item.entry, content: null };
        if (depth + 1 >= deepestVolumePath) continue;
        const next = await directory.enter(item.entry.name).catch(nullIfPassedOver);
        if (next === null) continue;
        await using opened = next;
        yield* contentsBelow(opened, below, depth + 1);
      } else if (item.content !== null) {
        yield { path: below, entry: item.entry, content: item.content };
      } else {
        yield* large(directory, below);
      }
    }
  }
}

/** Null for what is neither file nor directory; without content what is large. */
async function look(directory: Directory, name: string): Promise<{ readonly entry: VolumeEntry; readonly content: Buffer | null } | null> {
  const handle = await directory.openFile(name).catch(nullIfPassedOver);
  if (handle === null) return null;
  await using file = handle;
  const stat = await file.stat({ bigint: true });
  const entry = entryOf(name, stat);
  if (entry === null || entry.type === 'dir' || entry.size > smallBytes) return entry === null ? null : { entry, content: null };
  const content = Buffer.alloc(entry.size);
  let read = 0;
  while (read < content.length) {
    const { bytesRead } = await file.read(content, read, content.length - read, read);
    if (bytesRead === 0) break;
    read += bytesRead;
  }
  return { entry, content: content.subarray(0, read) };
}

async function* large(directory: Directory, path: VolumePath): AsyncGenerator<TreeItem> {
  const name = path.at(-1)!;
  const handle = await directory.openFile(name).catch(nullIfPassedOver);
  if (handle === null) return;
  await using file = handle;
  const entry = entryOf(name, await file.stat({ bigint: true }));
  if (entry?.type !== 'file') return;
  yield { path, entry, content: entry.size === 0 ? Buffer.alloc(0) : file.createReadStream({ start: 0, end: entry.size - 1, highWaterMark: smallBytes }) };
}

function nullIfPassedOver(reason: unknown): null {
  if (passedOver.has(codeOf(reason))) return null;
  throw reason;
}
