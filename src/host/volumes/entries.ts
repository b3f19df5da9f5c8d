import type { BigIntStats } from 'node:fs';
import { lstat } from 'node:fs/promises';
import type { VolumeEntry } from '../../core/volume.ts';
import { codeOf, type Directory } from './tree.ts';

/** Null when there is nothing. */
export async function statIn(directory: Directory, name: string): Promise<BigIntStats | null> {
  return lstat(directory.at(name), { bigint: true }).catch((error: unknown) => {
    if (codeOf(error) === 'ENOENT') return null;
    throw error;
  });
}

export async function entriesOf(directory: Directory): Promise<VolumeEntry[]> {
  const entries: VolumeEntry[] = [];
  for await (const name of directory.names()) {
    const stat = await statIn(directory, name);
    const entry = stat === null ? null : entryOf(name, stat);
    if (entry !== null) entries.push(entry);
  }
  return entries.sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** Null for what is neither file nor directory: a volume has nothing else to show. */
export function entryOf(name: string, stat: BigIntStats): VolumeEntry | null {
  if (!stat.isFile() && !stat.isDirectory()) return null;
  return {
    name,
    type: stat.isFile() ? 'file' : 'dir',
    size: stat.isFile() ? Number(stat.size) : 0,
    mode: Number(stat.mode & 0o777n),
    modifiedAt: Number(stat.mtimeMs),
    version: [stat.ino, stat.mtimeNs, stat.size].map((part) => part.toString(36)).join('-'),
  };
}
