import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { chmod, chown, mkdir, open, readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseVolumeId, type VolumeId } from '../../core/ids.ts';
import { Turns } from '../../core/turns.ts';
import type { HostLog } from '../log.ts';
import { mounts, unmount, unmountAt } from '../mounts.ts';
import { runTool, ToolError } from '../tool.ts';
import { DiskGuard } from './disk-guard.ts';
import { empty, idsIn, type VolumeDisks, type VolumePlace } from './disks.ts';
import { volumeOwner } from './tree.ts';

export interface ImageOptions {
  /** Bytes of files that a volume takes, and how many files and directories. */
  readonly bytes: number;
  readonly entries: number;
  /** Free bytes of the disk below which volumes take nothing more, and above which they do again. Default 1 GiB and 1.5 GiB. */
  readonly stopBelow?: number;
  readonly goOnAbove?: number;
  /** Whether a checkpoint is still there: names that were kept for others are let go. */
  readonly isKept: (checkpointId: string) => boolean;
  readonly log: HostLog;
}

const idleAfterMs = 60_000;
const lookForIdleMs = 10_000;
const bytesPerInode = 256;
const journalMb = 8;

interface Mounted {
  users: number;
  lastUse: number;
}

/**
 * Each volume on a file system of its own, an ext4 in a sparse file: whoever writes to it, a sandbox above all, finds it full when it is,
 * and nothing else suffers. Mounted when it is needed and unmounted when it has not been for a while. `<id>/disk.img` is the image,
 * `<id>/fs` where it is mounted, `<id>/ro` the same for those who may only read.
 *
 * One image must never be mounted through two devices, so it stays mounted while anything else uses its file system, and a device that
 * is there is used again.
 */
export class ImageDisks implements VolumeDisks {
  readonly #root: string;
  readonly #options: ImageOptions;
  readonly #mounted = new Map<VolumeId, Mounted>();
  readonly #turns = new Turns<VolumeId>();
  readonly #guard: DiskGuard;
  readonly #timer: NodeJS.Timeout;

  /** @param root as the kernel calls it: without links. */
  constructor(root: string, options: ImageOptions) {
    this.#root = root;
    this.#options = options;
    this.#guard = new DiskGuard({
      directory: root,
      stopBelow: options.stopBelow ?? 1024 ** 3,
      goOnAbove: options.goOnAbove ?? 1.5 * 1024 ** 3,
      mounted: () => [...this.#mounted.keys()].map((id) => this.#fs(id)),
      log: options.log,
    });
    this.#timer = setInterval(() => void this.#releaseIdle(idleAfterMs), lookForIdleMs);
    this.#timer.unref();
  }

  async make(id: VolumeId): Promise<void> {
    await mkdir(this.#dir(id), { recursive: true, mode: 0o700 });
    await this.#turns.take(id, async () => {
      await this.#format(this.#image(id));
      await this.#mount(id);
    });
  }

  hold(id: VolumeId): Promise<VolumePlace> {
    return this.#turns.take(id, () => this.#hold(id));
  }

  /** Where a volume that is held is read-only, whoever asks. */
  async readOnly(id: VolumeId): Promise<Pick<VolumePlace, 'files' | 'aside'>> {
    const point = join(this.#dir(id), 'ro');
    const place = { files: join(point, 'files'), aside: join(point, 'aside') };
    return this.#turns.take(id, async () => {
      if (mounts().some((mount) => mount.point === point && mount.readOnly)) return place;
      await mkdir(point, { recursive: true, mode: 0o700 });
      if (!isMounted(point)) await runTool('mount', ['--bind', this.#fs(id), point]);
      // In two steps, because a bind takes no options: until the second nobody knows of it.
      await runTool('mount', ['-o', 'remount,bind,ro,nosuid,nodev,noatime', point]);
      return place;
    });
  }

  /** The volume whose file system is mounted there for the server; null when none is. */
  mountedAt(point: string): VolumeId | null {
    const [name = '', last] = point.startsWith(`${this.#root}/`) ? point.slice(this.#root.length + 1).split('/') : [];
    return last === 'fs' && point === this.#fs(name as VolumeId) ? parseVolumeId(name) : null;
  }

  async remove(id: VolumeId): Promise<void> {
    await this.#turns.take(id, async () => {
      this.#mounted.delete(id);
      // What still reads or mounts it, by force, keeps the files until it is done; new ones find nothing.
      for (const point of [join(this.#dir(id), 'ro'), this.#fs(id)]) if (isMounted(point)) await runTool('umount', ['--lazy', point]);
      await rm(this.#dir(id), { recursive: true, force: true });
    });
  }

  async sweep(known: ReadonlySet<VolumeId>): Promise<void> {
    for (const id of await idsIn(this.#root)) {
      if (!known.has(id)) await this.remove(id);
      // Made before there were images. It moves now, while nobody can write to it.
      else if (!existsSync(this.#image(id)) && existsSync(join(this.#dir(id), 'files'))) await this.#turns.take(id, () => this.#move(id));
      else if (isMounted(this.#fs(id))) await this.#turns.take(id, () => this.#mount(id)); // sandboxes may use it
      else await empty(join(this.#dir(id), 'incoming')); // that of an image is emptied when it is mounted
    }
  }

  /** Takes every mount away, and waits until the kernel has let go of the images: after the last sandbox. */
  async end(): Promise<void> {
    clearInterval(this.#timer);
    await unmountAt(this.#root);
    for (let attempt = 0; attempt < 250 && loopDevices().some(({ file }) => file.startsWith(`${this.#root}/`)); attempt++) await sleep(20);
  }

  /** Unmounts what nobody uses; what sandboxes use stays for them. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#guard.close();
    for (const id of await idsIn(this.#root)) if (isMounted(this.#fs(id)) && !this.#mounted.has(id)) this.#mounted.set(id, { users: 0, lastUse: 0 });
    for (const mounted of this.#mounted.values()) mounted.users = 0;
    await this.#releaseIdle(0);
  }

  async #hold(id: VolumeId): Promise<VolumePlace> {
    const mounted = await this.#mount(id);
    mounted.users++;
    let held = true;
    const fs = this.#fs(id);
    return {
      files: join(fs, 'files'),
      incoming: join(fs, 'incoming'),
      aside: join(fs, 'aside'),
      [Symbol.dispose]: () => {
        if (!held) return;
        held = false;
        mounted.users--;
        mounted.lastUse = Date.now();
      },
    };
  }

  async #mount(id: VolumeId): Promise<Mounted> {
    const known = this.#mounted.get(id);
    if (known !== undefined) return known;
    const fs = this.#fs(id);
    if (!isMounted(fs)) {
      if (!existsSync(this.#image(id))) throw Object.assign(new Error(`there is no ${this.#image(id)}`), { code: 'ENOENT' });
      await mkdir(fs, { recursive: true, mode: 0o700 });
      await mountImage(this.#image(id), fs);
    }
    if (await makeMissing(join(fs, 'files'), 0o755)) await chown(join(fs, 'files'), volumeOwner, volumeOwner);
    for (const name of ['incoming', 'aside']) await makeMissing(join(fs, name), 0o700);
    await empty(join(fs, 'incoming'));
    await rm(join(fs, 'ballast'), { force: true }); // the guard decides anew
    for (const name of await readdir(join(fs, 'aside'))) if (!this.#options.isKept(name)) await rm(join(fs, 'aside', name), { recursive: true, force: true });
    const mounted = { users: 0, lastUse: Date.now() };
    this.#mounted.set(id, mounted);
    return mounted;
  }

  async #releaseIdle(afterMs: number): Promise<void> {
    const since = Date.now() - afterMs;
    for (const [id, mounted] of this.#mounted) {
      if (mounted.users > 0 || mounted.lastUse > since) continue;
      await this.#turns.take(id, async () => {
        if (mounted.users > 0 || this.#mounted.get(id) !== mounted) return;
        await this.#unmount(id).then((done) => done && this.#mounted.delete(id));
      }).catch((reason: unknown) => this.#options.log.warn({ err: reason, volume: id }, 'a volume cannot be unmounted'));
    }
  }

  /** False when somebody else uses the file system. */
  async #unmount(id: VolumeId): Promise<boolean> {
    const [fs, ro] = [this.#fs(id), join(this.#dir(id), 'ro')];
    const all = mounts();
    const device = all.find(({ point }) => point === fs)?.device;
    if (device === undefined) return true;
    if (all.some((mount) => mount.device === device && mount.point !== fs && mount.point !== ro)) return false;
    try {
      if (all.some(({ point }) => point === ro)) await unmount(ro, { patient: false });
      await unmount(fs, { patient: false });
      return true;
    } catch (reason) {
      if (reason instanceof ToolError && /busy/.test(reason.stderr)) return false; // a file of it is being read
      throw reason;
    }
  }

  async #format(image: string): Promise<void> {
    const { bytes, entries } = this.#options;
    const inodes = entries + 4096;
    // Room for the files themselves, and for what the file system needs for them.
    const size = Math.ceil((bytes * 1.01 + inodes * bytesPerInode * 1.02) / 1_048_576 + journalMb + 4) * 1_048_576;
    const file = await open(image, 'wx', 0o600);
    try {
      await file.truncate(size);
    } finally {
      await file.close();
    }
    await runTool('mkfs.ext4', ['-q', '-F', '-b', '4096', '-I', String(bytesPerInode), '-m', '0', '-N', String(inodes), '-J', `size=${journalMb}`, '-O', '^resize_inode', '-E', 'nodiscard,lazy_itable_init=1,lazy_journal_init=1,root_owner=0:0', image]);
  }

  /** All of it or nothing: the name of the image comes last. */
  async #move(id: VolumeId): Promise<void> {
    const dir = this.#dir(id);
    const [image, point] = [join(dir, 'moving.img'), join(dir, 'moving')];
    if (isMounted(point)) await unmount(point);
    await rm(image, { force: true });
    await this.#format(image);
    await mkdir(point, { recursive: true, mode: 0o700 });
    await mountImage(image, point);
    try {
      await runTool('cp', ['-a', join(dir, 'files'), join(point, 'files')], { timeoutMs: 600_000 });
      await runTool('chown', ['-R', '-h', `${volumeOwner}:${volumeOwner}`, join(point, 'files')], { timeoutMs: 600_000 });
      await chmod(join(point, 'files'), 0o755);
      await runTool('sync', ['-f', join(point, 'files')], { timeoutMs: 600_000 });
    } finally {
      await unmount(point);
    }
    await rename(image, this.#image(id));
    for (const name of ['moving', 'files', 'incoming']) await rm(join(dir, name), { recursive: true, force: true });
  }

  #dir(id: VolumeId): string {
    return join(this.#root, id);
  }

  #image(id: VolumeId): string {
    return join(this.#root, id, 'disk.img');
  }

  #fs(id: VolumeId): string {
    return join(this.#root, id, 'fs');
  }
}

async function mountImage(image: string, point: string): Promise<void> {
  const options = 'noatime,nosuid,nodev,discard';
  for (let attempt = 0; ; attempt++) {
    const device = deviceOf(image);
    try {
      await runTool('mount', device === null ? ['-t', 'ext4', '-o', `loop,${options}`, image, point] : ['-t', 'ext4', '-o', options, device, point]);
      return;
    } catch (reason) {
      // A device that was on its way out when it was looked at.
      if (attempt >= 3) throw reason;
    }
  }
}

/** The loop device that a mount of before has left for this file. */
function deviceOf(image: string): string | null {
  return loopDevices().find(({ file }) => file === image)?.device ?? null;
}

function loopDevices(): { readonly device: string; readonly file: string }[] {
  return readdirSync('/sys/block').flatMap((name) => {
    if (!name.startsWith('loop')) return [];
    try {
      return [{ device: `/dev/${name}`, file: readFileSync(`/sys/block/${name}/loop/backing_file`, 'utf8').trim() }];
    } catch {
      return []; // not in use
    }
  });
}

function isMounted(point: string): boolean {
  return mounts().some((mount) => mount.point === point);
}

/** True when it is new. */
async function makeMissing(directory: string, mode: number): Promise<boolean> {
  try {
    await mkdir(directory, { mode });
    return true;
  } catch (reason) {
    if ((reason as NodeJS.ErrnoException).code !== 'EEXIST') throw reason;
    return false;
  }
}
