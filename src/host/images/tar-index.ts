import type { FileHandle } from 'node:fs/promises';
import { posix } from 'node:path';
import { BuildFailure } from '../../core/templates/build-host.ts';

/** Where the content of a file lies in a tar. Bytes. */
export interface TarPart {
  readonly offset: number;
  readonly size: number;
}

const blockBytes = 512;
const mostEntries = 10_000;
const mostExtensionBytes = 64 * 1024;
const mostLinks = 8;
const noTar = 'is no tar: decompress it if it is compressed';

/**
 * What a tar of an image has, by name, without reading the files: images in archives are read by offset. Links among them are followed,
 * because older archives hold layers that are alike once.
 *
 * @throws BuildFailure `image_pull_failed`
 */
export async function readTarIndex(file: FileHandle, path: string, signal: AbortSignal): Promise<ReadonlyMap<string, TarPart>> {
  const files = new Map<string, TarPart>();
  const links = new Map<string, string>();
  const fault = (problem: string): BuildFailure => new BuildFailure('image_pull_failed', `${path} ${problem}`);
  const { size: length } = await file.stat();
  if (length < blockBytes) throw fault(noTar);
  const header = Buffer.alloc(blockBytes);
  let next: Extension = {};
  for (let at = 0, count = 0; at + blockBytes <= length; count++) {
    signal.throwIfAborted();
    if (count > mostEntries) throw fault(`has more than ${mostEntries} files, which no image has`);
    await file.read(header, 0, blockBytes, at);
    if (header.every((byte) => byte === 0)) break;
    if (!isHeader(header)) throw fault(noTar);
    const offset = at + blockBytes;
    const type = String.fromCharCode(header[156] || 48);
    const size = next.size ?? number(header, 124, 12);
    if (!(size >= 0 && size <= length - offset)) throw fault('is a tar that ends too early');
    at = offset + Math.ceil(size / blockBytes) * blockBytes;
    if ('xgLK'.includes(type)) {
      if (size > mostExtensionBytes) throw fault('is a tar with a header that is too long');
      const content = Buffer.alloc(size);
      await file.read(content, 0, size, offset);
      if (type === 'x') next = { ...next, ...readRecords(content) };
      if (type === 'L') next = { ...next, path: text(content, 0, size) };
      if (type === 'K') next = { ...next, linkpath: text(content, 0, size) };
      continue;
    }
    const prefix = header.toString('latin1', 257, 263) === 'ustar\0' ? text(header, 345, 155) : '';
    const name = normal(next.path ?? (prefix === '' ? text(header, 0, 100) : `${prefix}/${text(header, 0, 100)}`));
    const target = next.linkpath ?? text(header, 157, 100);
    files.delete(name);
    links.delete(name);
    if (type === '0' || type === '7') files.set(name, Object.freeze({ offset, size }));
    if (type === '1') links.set(name, normal(target));
    if (type === '2') links.set(name, normal(posix.join(posix.dirname(name), target)));
    next = {};
  }
  for (const name of links.keys()) {
    let target: string | undefined = name;
    for (let i = 0; i < mostLinks && target !== undefined && links.has(target); i++) target = links.get(target);
    const part = files.get(target ?? '');
    if (part !== undefined) files.set(name, part);
  }
  return files;
}

/** What the next header says less well. */
interface Extension {
  readonly path?: string;
  readonly linkpath?: string;
  readonly size?: number;
}

/** `length key=value\n`, again and again (POSIX pax). */
function readRecords(content: Buffer): Extension {
  const found: { path?: string; linkpath?: string; size?: number } = {};
  for (let at = 0; at < content.length; ) {
    const space = content.indexOf(0x20, at);
    const length = Number(content.toString('latin1', at, space));
    if (space < 0 || !Number.isSafeInteger(length) || length <= space - at) break;
    const [, key, value = ''] = /^([^=]+)=(.*)\n$/s.exec(content.toString('utf8', space + 1, at + length)) ?? [];
    if (key === 'path') found.path = value;
    if (key === 'linkpath') found.linkpath = value;
    if (key === 'size') found.size = Number(value);
    at += length;
  }
  return found;
}

function isHeader(header: Buffer): boolean {
  const sum = header.reduce((all, byte, i) => all + (i >= 148 && i < 156 ? 0x20 : byte), 0);
  return sum === number(header, 148, 8);
}

/** Octal digits, or base 256 for what is too long for them. */
function number(header: Buffer, at: number, length: number): number {
  if (header[at] === 0x80) return Number(header.readBigUInt64BE(at + length - 8));
  const digits = text(header, at, length).trim();
  return /^[0-7]*$/.test(digits) ? Number.parseInt(digits || '0', 8) : Number.NaN;
}

function text(bytes: Buffer, at: number, length: number): string {
  return bytes.toString('utf8', at, at + length).split('\0', 1)[0]!;
}

function normal(name: string): string {
  return posix.normalize(name).replace(/^\/+|\/+$/g, '');
}
