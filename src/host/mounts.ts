import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { ToolError, runTool } from './tool.ts';

/** A line of /proc/self/mountinfo: https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html */
export interface Mount {
  /** Of the file system, `major:minor`. */
  readonly device: string;
  /** Directory of the file system that is mounted. */
  readonly root: string;
  readonly point: string;
  readonly readOnly: boolean;
}

/** The mounts of this process's namespace, in the order they were made. */
export function mounts(): Mount[] {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const [, , device = '', root = '', point = '', options = ''] = line.split(' ');
      return { device, root: unescaped(root), point: unescaped(point), readOnly: options.split(',').includes('ro') };
    });
}

/** Those at a directory and below it, innermost and newest first, which is the order to take them away in. */
export function mountsAt(directory: string): Mount[] {
  return mounts().filter(({ point }) => point === directory || point.startsWith(`${directory}/`)).reverse();
}

/**
 * Takes away every mount at the directory and below it. Throws when one stays: whoever removes files afterwards would remove those of
 * the mount.
 */
export async function unmountAt(directory: string): Promise<void> {
  for (const { point } of mountsAt(directory)) await unmount(point);
  const [left] = mountsAt(directory);
  if (left !== undefined) throw new Error(`${left.point} is still mounted`);
}

/** A guest that was just killed may hold a mount for a moment longer, until its last thread is gone. */
export async function unmount(point: string, { patient = true } = {}): Promise<void> {
  for (let attempt = 0; ; attempt++) {
    try {
      await runTool('umount', [point]);
      return;
    } catch (reason) {
      if (reason instanceof ToolError && /not mounted|no mount point/.test(reason.stderr)) return; // somebody else was faster
      if (!patient || attempt >= 50 || !(reason instanceof ToolError) || !/busy/.test(reason.stderr)) throw reason;
      await sleep(50);
    }
  }
}

function unescaped(text: string): string {
  return text.replace(/\\(\d{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}
