import { mkdir, open, rm, statfs } from 'node:fs/promises';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { ToolError, runTool } from './tool.ts';

/**
 * What lies on a disk: the overlay of a guest, which is one unlinked file and needs hardly an inode, or a tree of files that the guest writes.
 */
export type DiskUse = 'overlay' | 'tree';

/**
 * The writable space of one guest: an ext4 file system of a fixed size in a sparse file. It does not outlive a crash of the machine, so it
 * needs no journal, and a full disk is the guest's alone.
 */
export interface Disk {
  /** Directory it is mounted at. */
  readonly mount: string;
  readonly sizeMb: number;
}

export async function makeDisk(image: string, mount: string, sizeMb: number, use: DiskUse = 'overlay'): Promise<Disk> {
  await removeDisk(image, mount);
  await mkdir(mount, { recursive: true, mode: 0o700 });
  const file = await open(image, 'wx', 0o600);
  try {
    await file.truncate(sizeMb * 1024 * 1024);
  } finally {
    await file.close();
  }
  await runTool('mkfs.ext4', ['-q', '-F', '-m', '0', ...(use === 'overlay' ? ['-N', '64'] : ['-i', '8192']), '-O', '^has_journal,^resize_inode', '-E', 'nodiscard,lazy_itable_init=1,root_owner=0:0', image]);
  // Not noexec: gVisor maps the overlay's pages as executable when the guest runs a program that it wrote.
  await runTool('mount', ['-o', 'loop,discard,noatime,nosuid,nodev', image, mount]);
  return { mount, sizeMb };
}

/** Succeeds when there is nothing to remove. The loop device frees itself with its last user. */
export async function removeDisk(image: string, mount: string): Promise<void> {
  if (isMounted(mount)) await unmount(mount);
  await rm(image, { force: true });
}

/** Unmounts everything below a directory, what was mounted last first. */
export async function unmountBelow(dir: string): Promise<void> {
  for (const point of [...mountPoints()].reverse()) if (point.startsWith(`${dir}/`)) await unmount(point);
}

/** A guest that was just killed may hold its disk for a moment longer, until its last thread is gone. */
export async function unmount(mount: string): Promise<void> {
  for (let attempt = 0; ; attempt++) {
    try {
      await runTool('umount', [mount]);
      return;
    } catch (reason) {
      if (attempt >= 50 || !(reason instanceof ToolError) || !/busy/.test(reason.stderr)) throw reason;
      await sleep(50);
    }
  }
}

export function isMounted(mount: string): boolean {
  return mountPoints().has(mount);
}

/** Mount points of this process's mount namespace, unescaped. */
export function mountPoints(): Set<string> {
  const points = new Set<string>();
  for (const line of readFileSync('/proc/self/mounts', 'utf8').split('\n')) {
    const point = line.split(' ')[1];
    if (point !== undefined) points.add(point.replace(/\\(\d{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8))));
  }
  return points;
}

/** Bytes that the guest has written and not deleted. */
export async function diskUsage(mount: string): Promise<number> {
  const stat = await statfs(mount);
  return (stat.blocks - stat.bfree) * stat.bsize;
}
