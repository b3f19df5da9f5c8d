import { PassThrough, type Readable } from 'node:stream';
import { finished } from 'node:stream/promises';
import { ZipFile } from 'yazl';
import { PaddockError } from '../../core/errors.ts';
import type { FileEntry } from '../../core/host.ts';
import { baseName, isKernelTree } from './file-paths.ts';

/** Bytes of file content in one archive (contract, section 5.4). */
const mostBytes = 2 * 1024 ** 3;
const mostEntries = 200_000;
/** How deep one listing looks; what lies deeper is listed by itself. */
const depth = 64;

/** The part of a sandbox's files that an archive needs. */
export interface Tree {
  list(path: string, depth: number): Promise<{ readonly entries: readonly FileEntry[]; readonly truncated: boolean }>;
  read(path: string): Promise<{ readonly body: Readable }>;
}

/**
 * A directory as a zip archive, made while it is read: nothing is kept but the names. Every name begins with the directory's own. Symbolic
 * links, sockets, devices and the kernel's trees are left out; so is a file that cannot be read when its turn comes.
 *
 * @throws PaddockError `too_large` before anything is written, when the directory is above the limits.
 */
export async function zipDirectory(tree: Tree, path: string, signal: AbortSignal): Promise<Readable> {
  const entries = await allBelow(tree, path);
  const total = entries.reduce((sum, entry) => sum + (entry.type === 'file' ? entry.size : 0), 0);
  if (total > mostBytes) throw tooLarge(`${path} holds ${total} bytes; an archive has at most ${mostBytes}. Download its parts`);
  const zip = new ZipFile();
  const out = new PassThrough();
  const stop = (error: Error): void => void out.destroy(error);
  zip.on('error', stop);
  (zip.outputStream as Readable).on('error', stop).pipe(out);
  void fill(zip, tree, path, entries, out, signal).catch((error: unknown) => stop(PaddockError.from(error)));
  return out;
}

async function fill(zip: ZipFile, tree: Tree, path: string, entries: readonly FileEntry[], out: PassThrough, signal: AbortSignal): Promise<void> {
  const prefix = baseName(path);
  const nameOf = (entry: FileEntry): string => `${prefix}/${entry.path.slice(path === '/' ? 1 : path.length + 1)}`;
  let bytes = 0;
  zip.addEmptyDirectory(prefix, { mode: 0o40755 });
  for (const entry of entries) {
    if (signal.aborted || out.destroyed) return;
    const options = { mtime: new Date(entry.modifiedAt), mode: entry.mode & 0o777 };
    if (entry.type === 'dir') {
      zip.addEmptyDirectory(nameOf(entry), { ...options, mode: 0o40000 | options.mode });
      continue;
    }
    const body = await readable(tree, entry.path);
    if (body === null) continue;
    // A file may have grown since it was listed.
    body.on('data', (chunk: Buffer) => (bytes += chunk.length) > mostBytes && body.destroy(tooLarge(`the files of ${path} grew above ${mostBytes} bytes meanwhile`)));
    body.pause();
    zip.addReadStream(body, nameOf(entry), { ...options, mode: 0o100000 | options.mode });
    // One at a time: each is a connection into the sandbox.
    await finished(body, { signal });
  }
  zip.end();
}

async function readable(tree: Tree, path: string): Promise<Readable | null> {
  try {
    return (await tree.read(path)).body;
  } catch (error) {
    const { code } = PaddockError.from(error);
    if (code === 'not_found' || code === 'permission_denied' || code === 'invalid_argument') return null;
    throw error;
  }
}

/** Directories before what is in them. */
async function allBelow(tree: Tree, path: string): Promise<FileEntry[]> {
  const found: FileEntry[] = [];
  const waiting = [path];
  for (let directory = waiting.pop(); directory !== undefined; directory = waiting.pop()) {
    // From the top, so that the kernel's trees are never walked.
    const wanted = directory === '/' ? 1 : depth;
    const { entries, truncated } = await tree.list(directory, wanted);
    if (truncated || found.length + entries.length > mostEntries) throw tooLarge(`${path} has more than ${truncated ? entries.length : mostEntries} files, which is the most of one archive. Download its parts`);
    for (const entry of entries) {
      if (isKernelTree(entry.path) || (entry.type !== 'file' && entry.type !== 'dir')) continue;
      found.push(entry);
      const levels = entry.path.slice(directory === '/' ? 0 : directory.length).split('/').length - 1;
      if (entry.type === 'dir' && levels >= wanted) waiting.push(entry.path);
    }
  }
  return found;
}

function tooLarge(message: string): PaddockError {
  return new PaddockError('too_large', message);
}
