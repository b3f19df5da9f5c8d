import { mkdir, open, rm, statfs } from 'node:fs/promises';
import { unmountAt } from './mounts.ts';
import { runTool } from './tool.ts';

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
  await unmountAt(mount);
  await rm(image, { force: true });
}

/** Bytes that the guest has written and not deleted. */
export async function diskUsage(mount: string): Promise<number> {
  const stat = await statfs(mount);
  return (stat.blocks - stat.bfree) * stat.bsize;
}
