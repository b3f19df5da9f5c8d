import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { mostLiveVolumes } from '../../core/volume-attachments.ts';
import { runTool } from '../tool.ts';

/** Where guests see what is mounted in their slot's directory for volumes. */
export const volumesInside = '/.paddock/volumes';

// Shared, so that what is mounted in it later is seen by a guest that has started before. Read-only, so that nobody inside can put a link
// in the place of a point.
const make = `mount -t tmpfs -o size=64k,nr_inodes=${mostLiveVolumes + 8},mode=0755,nosuid,nodev,noexec paddock-volumes "$0" &&
cd "$0" && mkdir "$@" && mount -o remount,ro "$0" && mount --make-shared "$0"`;

/** Makes a directory of numbered mount points for volumes. */
export async function makePoints(directory: string): Promise<void> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  await runTool('/bin/sh', ['-c', make, directory, ...Array.from({ length: mostLiveVolumes }, (_, point) => String(point))]);
}

export function pointIn(directory: string, point: number): string {
  return join(directory, String(point));
}
