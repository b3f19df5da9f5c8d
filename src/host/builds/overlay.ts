import { mkdir, rm, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { runTool } from '../tool.ts';

export interface OverlayMount {
  /** Directory of ours with a `root` to mount at, and room for links. */
  readonly home: string;
  /** Trees, lowest first. Without `writable` two at least. */
  readonly lower: readonly string[];
  /** Directories of one file system that is this overlay's alone. */
  readonly writable?: { readonly upper: string; readonly work: string };
}

/** More than the kernel takes: https://docs.kernel.org/filesystems/overlayfs.html#multiple-lower-layers */
export const mostLayers = 400;

/**
 * Uppers have to be layers by themselves: nothing may refer to the layers that were below, so directories are not moved by a note
 * (`redirect_dir`; a rename says EXDEV, as on any overlay of Docker's, and `mv` copies), and content is never left below (`metacopy`).
 */
const features = 'redirect_dir=nofollow,metacopy=off,index=off,xino=off,nodev,nosuid';

export function overlayRoot(home: string): string {
  return join(home, 'root');
}

/** Mounts layers over each other. All mount options must fit in 4 KiB, so the layers have numbers for names there. */
export async function mountOverlay({ home, lower, writable }: OverlayMount): Promise<void> {
  const links = join(home, 'below');
  const point = overlayRoot(home);
  await rm(links, { recursive: true, force: true });
  await mkdir(links, { recursive: true, mode: 0o700 });
  await mkdir(point, { recursive: true, mode: 0o700 });
  await Promise.all(lower.map((tree, number) => symlink(tree, join(links, String(number)))));
  const options = [`lowerdir=${lower.map((_, number) => number).reverse().join(':')}`, features];
  if (writable === undefined) options.push('ro');
  else {
    await Promise.all([symlink(writable.upper, join(links, 'upper')), symlink(writable.work, join(links, 'work'))]);
    // What a guest has written is made durable when it is a layer, not before.
    options.push('upperdir=upper,workdir=work,volatile');
  }
  // Newer versions of mount(8) have another way into the kernel, which takes 256 bytes.
  await runTool('mount', ['-t', 'overlay', 'overlay', '-o', options.join(','), point], { cwd: links, env: { LIBMOUNT_FORCE_MOUNT2: 'always' } });
}
