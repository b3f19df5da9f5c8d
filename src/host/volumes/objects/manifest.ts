import { Readable } from 'node:stream';
import { createGunzip, createGzip } from 'node:zlib';
import { pipeline } from 'node:stream/promises';
import { volumePathProblem } from '../../../core/volume.ts';
import type { VolumeUsage } from '../../../core/volume-storage.ts';
import { below, emptyDir, TreeEdit, type Chunk, type DirNode, type Stamp } from './tree.ts';

/** What a volume is at one moment. */
export interface Manifest {
  readonly root: DirNode;
  readonly usage: VolumeUsage;
  /** Another one each time it is written. */
  readonly revision: string;
}

interface Header extends VolumeUsage, Stamp {
  readonly format: number;
  readonly revision: string;
}

type Line = readonly [path: string, mode: number, modifiedAt: number, version: string, chunks?: readonly (readonly [id: string, bytes: number, sha256: string])[]];

const format = 1;
const linesAtOnce = 500;
/** Far above what 100,000 entries with the longest names come to. */
const mostBytes = 1024 * 1024 * 1024;
export const mostPackedBytes = 512 * 1024 * 1024;
const idPattern = /^[0-9a-z-]{1,64}$/;

/** A line of JSON for each file and directory, packed with gzip; some at a time, so that nothing else waits. */
export async function encodeManifest({ root, usage, revision }: Manifest): Promise<Buffer> {
  const packed: Buffer[] = [];
  await pipeline(Readable.from(linesOf(root, { format, revision, ...usage, modifiedAt: root.modifiedAt, version: root.version })), createGzip({ level: 1 }), async (parts: AsyncIterable<Buffer>) => {
    for await (const part of parts) packed.push(part);
  });
  return Buffer.concat(packed);
}

function* linesOf(root: DirNode, header: object): Generator<string> {
  let lines = [JSON.stringify(header)];
  for (const { path, node } of below(root)) {
    const common = [path.join('/'), node.mode, node.modifiedAt, node.version] as const;
    const line: Line = node.type === 'dir' ? common : [...common, node.chunks.map(({ id, bytes, sha256 }) => [id, bytes, sha256] as const)];
    lines.push(JSON.stringify(line));
    if (lines.length < linesAtOnce) continue;
    yield `${lines.join('\n')}\n`;
    lines = [];
  }
  yield `${lines.join('\n')}\n`;
}

/** Throws for what `encodeManifest` does not write: nothing in it may lead out of its volume. */
export async function decodeManifest(packed: Buffer): Promise<Manifest> {
  let header: Header | null = null;
  let stamp: Stamp = { modifiedAt: 0, version: '' };
  const edit = new TreeEdit(emptyDir(stamp), () => stamp);
  const take = (text: string): void => {
    if (header === null) {
      header = JSON.parse(text) as Header;
      if (header.format !== format) throw new Error(`a manifest of format ${header.format}; this server reads ${format}`);
      return;
    }
    const [path, mode, modifiedAt, version, chunks] = JSON.parse(text) as Line;
    const names = path.split('/');
    if (volumePathProblem(path) !== null || names.some((name) => name === '' || name === '.')) throw new Error('a manifest with an impossible path');
    stamp = { modifiedAt, version };
    if (chunks === undefined) return edit.makeDir(names);
    const parts = chunks.map(([id, bytes, sha256]): Chunk => {
      if (!idPattern.test(id) || !Number.isSafeInteger(bytes) || bytes < 0) throw new Error('a manifest with an impossible object');
      return { id, bytes, sha256 };
    });
    edit.put(names, { type: 'file', chunks: parts, size: parts.reduce((sum, { bytes }) => sum + bytes, 0), mode, ...stamp });
  };
  let [rest, bytes] = ['', 0];
  await pipeline(Readable.from([packed]), createGunzip(), async (parts: AsyncIterable<Buffer>) => {
    const decoder = new TextDecoder('utf-8', { fatal: true });
    for await (const part of parts) {
      bytes += part.length;
      if (bytes > mostBytes) throw new Error('a manifest that is too long');
      const lines = (rest + decoder.decode(part, { stream: true })).split('\n');
      rest = lines.pop()!;
      for (const line of lines) take(line);
    }
  });
  const { revision, entries, bytes: fileBytes, modifiedAt, version } = (header as Header | null) ?? failed();
  if (rest !== '' || edit.grown.entries !== entries || edit.grown.bytes !== fileBytes) failed();
  return { root: { ...edit.root, modifiedAt, version }, usage: edit.grown, revision };
}

function failed(): never {
  throw new Error('a manifest that is not whole');
}
