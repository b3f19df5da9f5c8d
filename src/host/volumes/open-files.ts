import { constants } from 'node:fs';
import { link, lstat, mkdir, open, readdir, readFile, readlink, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { parseVolumeId, type VolumeId } from '../../core/ids.ts';
import type { VolumePath } from '../../core/volume.ts';
import { mounts } from '../mounts.ts';
import type { ImageDisks } from './image-disks.ts';
import { pointIn, volumesInside } from './points.ts';
import { codeOf, inDirectory } from './tree.ts';

/** A file or directory of a mounted volume that a saved guest had open. */
export interface OpenFile {
  /** From the volume's root. */
  readonly path: VolumePath;
  readonly type: 'file' | 'dir';
  /** Its name among what the checkpoint keeps; null for directories. */
  readonly kept: string | null;
}

/** What a checkpoint keeps of one volume. */
export interface SavedVolume {
  readonly volumeId: VolumeId;
  /** Number of the mount. */
  readonly point: number;
  /** The directory that was mounted. */
  readonly root: VolumePath;
  readonly open: readonly OpenFile[];
}

/** A file that a guest has had open since before it was saved, and that was replaced since: the kernel does not know its path any more. */
export interface ReplacedFile {
  readonly ino: string;
  readonly point: number;
  readonly path: VolumePath;
}

/** Where those of a guest are written down, beside the directory in which its volumes are mounted. */
export function replacedFilesOf(points: string): string {
  return `${points}-replaced.json`;
}

const { O_NONBLOCK, O_RDONLY } = constants;
const lostSuffix = ' (deleted)';

/**
 * The files that guests have open in mounted volumes. A guest that is restored looks for each at its path, and whoever shares the volume may
 * have removed or replaced it by then: so a checkpoint keeps another name for each, beside the files that anybody can see.
 */
export class OpenFiles {
  readonly #disks: ImageDisks;

  constructor(disks: ImageDisks) {
    this.#disks = disks;
  }

  /**
   * Of a guest that has just been saved and still stands still: then its kernel has nothing open but what its programs have.
   *
   * @param pid of the guest's kernel
   * @param points the directory in which the volumes are mounted for it
   */
  async keep(checkpointId: string, pid: number, points: string, signal: AbortSignal): Promise<readonly SavedVolume[]> {
    const all = mounts();
    const saved: SavedVolume[] = [];
    const replaced = await readReplaced(points);
    for (const { device, root, point } of all) {
      if (!point.startsWith(`${points}/`)) continue;
      const volumeId = all.map((mount) => (mount.device === device ? this.#disks.mountedAt(mount.point) : null)).find((id) => id !== null);
      // None for one that was deleted by force: nothing of it can be kept.
      if (volumeId === undefined || volumeId === null) continue;
      const names = root.split('/').filter((name) => name !== '').slice(1);
      const number = Number(point.slice(points.length + 1));
      saved.push({ volumeId, point: number, root: names, open: await this.#keepOf(checkpointId, volumeId, { pid, point, number, root: names, replaced }, signal) });
    }
    return saved;
  }

  async #keepOf(checkpointId: string, volumeId: VolumeId, from: { readonly pid: number; readonly point: string; readonly number: number; readonly root: VolumePath; readonly replaced: readonly ReplacedFile[] }, signal: AbortSignal): Promise<readonly OpenFile[]> {
    const { dev } = await stat(from.point, { bigint: true });
    const found = new Map<string, OpenFile>();
    using place = await this.#disks.hold(volumeId);
    const aside = join(place.aside!, checkpointId);
    for (const fd of await readdir(`/proc/${from.pid}/fd`)) {
      signal.throwIfAborted();
      const descriptor = `/proc/${from.pid}/fd/${fd}`;
      const shown = await readlink(descriptor).catch(() => '');
      if (!shown.startsWith('/')) continue; // a socket, or whatever else has no path
      const about = await stat(descriptor, { bigint: true }).catch(() => null);
      if (about === null || about.dev !== dev || !(about.isFile() || about.isDirectory())) continue;
      const path = await this.#pathOf(shown, about.ino, place.files, from);
      if (path === null) continue; // the mount itself, or that of another number
      const key = path.join('/');
      if (found.has(key)) continue;
      if (about.isDirectory()) {
        found.set(key, { path, type: 'dir', kept: null });
        continue;
      }
      const kept = String(found.size);
      await mkdir(aside, { recursive: true, mode: 0o700 });
      if (!(await linked(place.files, path, join(aside, kept), about.ino))) await copyOf(descriptor, join(aside, kept), about);
      found.set(key, { path, type: 'file', kept });
    }
    return [...found.values()];
  }

  async #pathOf(shown: string, ino: bigint, files: string, { number, root, replaced }: { readonly number: number; readonly root: VolumePath; readonly replaced: readonly ReplacedFile[] }): Promise<VolumePath | null> {
    const marker = `${volumesInside}/${number}/`;
    const at = shown.indexOf(marker);
    if (at < 0) return replaced.find((file) => file.point === number && file.ino === String(ino))?.path ?? null;
    const names = [...root, ...shown.slice(at + marker.length).split('/')];
    const name = names.at(-1)!;
    if (!name.endsWith(lostSuffix)) return names;
    // The kernel says so of what has lost this name; a file may also be called that.
    const there = await inDirectory(files, names.slice(0, -1), (directory) => lstat(directory.at(name), { bigint: true })).catch(() => null);
    return there?.ino === ino ? names : [...names.slice(0, -1), name.slice(0, -lostSuffix.length)];
  }

  /** Lets go of what a checkpoint keeps. Succeeds when there is nothing. */
  async release(checkpointId: string, saved: readonly SavedVolume[]): Promise<void> {
    for (const { volumeId, open: files } of saved) {
      if (files.every(({ kept }) => kept === null)) continue;
      try {
        using place = await this.#disks.hold(volumeId);
        if (place.aside !== null) await rm(join(place.aside, checkpointId), { recursive: true, force: true });
      } catch (reason) {
        if (codeOf(reason) !== 'ENOENT') throw reason; // with its volume
      }
    }
  }
}

async function readReplaced(points: string): Promise<readonly ReplacedFile[]> {
  try {
    return JSON.parse(await readFile(replacedFilesOf(points), 'utf8')) as readonly ReplacedFile[];
  } catch (reason) {
    if (codeOf(reason) === 'ENOENT') return [];
    throw reason;
  }
}

/** Whether the file that is open has been given another name: not when somebody else's is at its path by now. */
async function linked(files: string, path: VolumePath, name: string, ino: bigint): Promise<boolean> {
  try {
    await inDirectory(files, path.slice(0, -1), (directory) => link(directory.at(path.at(-1)!), name));
  } catch (reason) {
    if (['ENOENT', 'ENOTDIR', 'ELOOP', 'EPERM', 'EMLINK'].includes(codeOf(reason) ?? '')) return false;
    throw reason;
  }
  if ((await lstat(name, { bigint: true })).ino === ino) return true;
  await rm(name, { force: true });
  return false;
}

/** A file that has lost its name can get none again; its content can. */
async function copyOf(descriptor: string, name: string, about: { readonly mode: bigint; readonly uid: bigint; readonly gid: bigint; readonly mtimeMs: bigint; readonly ino: bigint }): Promise<void> {
  await using source = await open(descriptor, O_RDONLY | O_NONBLOCK);
  if ((await source.stat({ bigint: true })).ino !== about.ino) throw new Error(`${descriptor} is another file by now`);
  await using target = await open(name, 'wx', 0o600);
  const chunk = Buffer.alloc(1024 * 1024);
  for (;;) {
    const { bytesRead } = await source.read(chunk);
    if (bytesRead === 0) break;
    for (let at = 0; at < bytesRead; ) at += (await target.write(chunk, at, bytesRead - at)).bytesWritten;
  }
  await target.chown(Number(about.uid), Number(about.gid));
  await target.chmod(Number(about.mode & 0o777n));
  const at = Number(about.mtimeMs) / 1000;
  await target.utimes(at, at);
}

/** For whoever names a file that a guest has open by the point where its volume is mounted. */
export function pointOf(points: string, { point }: SavedVolume): string {
  return pointIn(points, point);
}

export function isSavedVolume(value: Partial<SavedVolume> | null): value is SavedVolume {
  const isPath = (path: unknown): boolean => Array.isArray(path) && path.every((name) => typeof name === 'string' && name !== '' && name !== '.' && name !== '..' && !name.includes('/'));
  return (
    typeof value?.volumeId === 'string' && parseVolumeId(value.volumeId) !== null && Number.isInteger(value.point) && isPath(value.root) && Array.isArray(value.open) &&
    value.open.every((each: Partial<OpenFile> | null) => isPath(each?.path) && (each?.type === 'dir' ? each.kept === null : typeof each?.kept === 'string' && /^\d+$/.test(each.kept)))
  );
}
