import { createHash } from 'node:crypto';
import { gunzipSync, gzipSync } from 'node:zlib';

export interface ArchiveEntry {
  readonly name: string;
  readonly data?: string | Uint8Array;
  /** As in a tar header: 0 file, 1 hard link, 2 symbolic link, 3 and 4 devices, 5 directory, 6 FIFO. */
  readonly type?: string;
  readonly link?: string;
  readonly mode?: number;
  /** What the header claims, when that is not the truth. */
  readonly size?: number;
}

/** A tar.gz written by hand, because no tool writes the hostile ones. */
export function archive(...entries: readonly ArchiveEntry[]): Buffer {
  return gzipSync(tar(...entries));
}

export function tar(...entries: readonly ArchiveEntry[]): Buffer {
  return Buffer.concat([...entries.flatMap(blocks), Buffer.alloc(1024)]);
}

export function blocks({ name, data = '', type = '0', link = '', mode = 0o644, size }: ArchiveEntry): Buffer[] {
  const body = Buffer.from(data as string);
  const header = Buffer.alloc(512);
  header.write(name, 0, 100);
  header.write(`${mode.toString(8).padStart(7, '0')}\0${'0'.repeat(7)}\0${'0'.repeat(7)}\0`, 100);
  header.write(`${(size ?? body.length).toString(8).padStart(11, '0')}\0${(1_700_000_000).toString(8).padStart(11, '0')}\0`, 124);
  header.write('        ', 148);
  header.write(type, 156);
  header.write(link, 157, 100);
  header.write('ustar\0', 257);
  header.write('00', 263);
  header.write(`${[...header].reduce((sum, byte) => sum + byte, 0).toString(8).padStart(6, '0')}\0 `, 148);
  return [header, body, Buffer.alloc((512 - (body.length % 512)) % 512)];
}

/** Name → type and digest of a tar.gz: short names only, which is all that tests use. */
export function contentsOf(bytes: Uint8Array): Record<string, string> {
  const plain = gunzipSync(bytes);
  const found: Record<string, string> = {};
  for (let at = 0; at + 512 <= plain.length && plain[at] !== 0; ) {
    const text = (from: number, to: number): string => plain.toString('utf8', at + from, at + to).split('\0', 1)[0]!;
    const size = Number.parseInt(text(124, 136), 8);
    const type = text(156, 157);
    found[text(0, 100)] = type === '5' ? 'dir' : `${text(100, 108).trim().slice(-3)} ${digest(plain.subarray(at + 512, at + 512 + size))}`;
    at += 512 + Math.ceil(size / 512) * 512;
  }
  return found;
}

export function digest(data: string | Uint8Array): string {
  return createHash('sha256').update(data).digest('hex').slice(0, 16);
}
