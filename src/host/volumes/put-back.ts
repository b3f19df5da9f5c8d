import { constants, type Stats } from 'node:fs';
import { type FileHandle, link, lstat, mkdir, open, rmdir, unlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Turns } from '../../core/turns.ts';
import type { VolumePath } from '../../core/volume.ts';
import type { HostLog } from '../log.ts';
import { mounts } from '../mounts.ts';
import { runTool } from '../tool.ts';
import type { ImageDisks } from './image-disks.ts';
import { type OpenFile, pointOf, type ReplacedFile, replacedFilesOf, type SavedVolume } from './open-files.ts';
import { codeOf, Directory, inDirectory } from './tree.ts';

/** From the kernel's headers; Node does not name it. */
const O_PATH = 0o10_000_000;

type Undo = () => Promise<unknown>;

/**
 * Makes the files that a saved guest had open be at their paths for as long as it takes to restore it. One that is missing gets its name
 * back for that moment, which those who share the volume may see; over one that was replaced the old one is mounted, in the guest's slot only.
 */
export class PutBack {
  readonly #disks: ImageDisks;
  readonly #log: HostLog;
  /** Restores that change the same volume: one must not take away what the other waits for. */
  readonly #turns = new Turns<string>();

  constructor(disks: ImageDisks, log: HostLog) {
    this.#disks = disks;
    this.#log = log;
  }

  async during<T>(checkpointId: string, points: string, saved: readonly SavedVolume[], work: () => Promise<T>): Promise<T> {
    const inNeed = saved.filter(({ open: files }) => files.length > 0);
    if (inNeed.length === 0) return work();
    const ids = [...new Set(inNeed.map(({ volumeId }) => volumeId))].sort();
    const outcome = await this.#inTurns(ids, async () => {
      const undo: Undo[] = [];
      const replaced: ReplacedFile[] = [];
      try {
        for (const volume of inNeed) await this.#putBack(checkpointId, points, volume, undo, replaced);
        if (replaced.length > 0) await writeFile(replacedFilesOf(points), JSON.stringify(replaced), { mode: 0o600 });
        // Nothing to be taken away again: then nobody has to wait.
        return undo.length === 0 ? null : { value: await work() };
      } finally {
        for (const step of undo.reverse()) await step().catch((reason: unknown) => this.#log.warn({ err: reason, checkpoint: checkpointId }, 'a file that was put back for a restore could not be taken away again'));
      }
    });
    return outcome === null ? work() : outcome.value;
  }

  #inTurns<T>(ids: readonly string[], work: () => Promise<T>): Promise<T> {
    const [first, ...rest] = ids;
    return first === undefined ? work() : this.#turns.take(first, () => this.#inTurns(rest, work));
  }

  async #putBack(checkpointId: string, points: string, volume: SavedVolume, undo: Undo[], replaced: ReplacedFile[]): Promise<void> {
    using place = await this.#disks.hold(volume.volumeId);
    const aside = join(place.aside!, checkpointId);
    for (const file of [...volume.open].sort((a, b) => a.path.length - b.path.length)) {
      const parent = await this.#parentOf(place.files, file.path, undo);
      await using _open = parent;
      const name = file.path.at(-1)!;
      const there = await lstatIfThere(parent.at(name));
      if (file.type === 'dir') {
        if (there === null) await this.#makeDir(parent, name, place.files, file.path, undo);
        continue;
      }
      const kept = join(aside, file.kept!);
      const wanted = await lstatIfThere(kept);
      if (wanted === null || wanted.ino === there?.ino) continue; // gone with another server's memory of it: whatever is there must do
      if (there === null) {
        await link(kept, parent.at(name));
        undo.push(() => inDirectory(place.files, file.path.slice(0, -1), async (directory) => (await lstatIfThere(directory.at(name)))?.ino === wanted.ino && unlink(directory.at(name))).catch(ignoreMissing));
      } else if (there.isFile()) {
        // As the volume itself is mounted for this guest, which does not exist yet.
        const isReadOnly = mounts().some((mount) => mount.point === pointOf(points, volume) && mount.readOnly);
        const source = isReadOnly ? join((await this.#disks.readOnly(volume.volumeId)).aside!, checkpointId, file.kept!) : kept;
        undo.push(await mountOver(source, wanted.ino, points, volume, file));
        replaced.push({ ino: String(wanted.ino), point: volume.point, path: file.path });
      }
    }
  }

  /** The directory that a path lies in, with what is missing of it made. */
  async #parentOf(files: string, path: VolumePath, undo: Undo[]): Promise<Directory> {
    let directory = await Directory.open(files);
    for (const [depth, name] of path.slice(0, -1).entries()) {
      const before = directory;
      try {
        if ((await lstatIfThere(before.at(name))) === null) await this.#makeDir(before, name, files, path.slice(0, depth + 1), undo);
        directory = await before.enter(name);
      } finally {
        await before[Symbol.asyncDispose]();
      }
    }
    return directory;
  }

  async #makeDir(parent: Directory, name: string, files: string, path: VolumePath, undo: Undo[]): Promise<void> {
    try {
      await mkdir(parent.at(name), 0o755);
    } catch (reason) {
      if (codeOf(reason) === 'EEXIST') return;
      throw reason;
    }
    // Unless somebody has put something into it meanwhile.
    undo.push(() => inDirectory(files, path.slice(0, -1), (directory) => rmdir(directory.at(name))).catch(ignoreMissing));
  }
}

/**
 * Nobody can lead this elsewhere: what is mounted over, and what is unmounted, is what was opened and looked at.
 */
async function mountOver(kept: string, ino: number, points: string, volume: SavedVolume, { path }: OpenFile): Promise<Undo> {
  const below = path.slice(volume.root.length);
  return inDirectory(pointOf(points, volume), below.slice(0, -1), async (directory) => {
    const name = directory.at(below.at(-1)!);
    {
      await using target = await open(name, O_PATH | constants.O_NOFOLLOW);
      await runTool('mount', ['--no-canonicalize', '--bind', kept, descriptorOf(target)]);
    }
    const mounted = await open(name, O_PATH | constants.O_NOFOLLOW);
    if ((await mounted.stat()).ino !== ino) {
      await mounted.close();
      throw new Error(`${path.join('/')} was changed while the sandbox was restored`);
    }
    return async () => {
      try {
        await runTool('umount', ['--no-canonicalize', '--lazy', descriptorOf(mounted)]);
      } finally {
        await mounted.close();
      }
    };
  });
}

function descriptorOf({ fd }: FileHandle): string {
  return `/proc/${process.pid}/fd/${fd}`;
}

async function lstatIfThere(path: string): Promise<Stats | null> {
  return lstat(path).catch((reason: unknown) => {
    if (codeOf(reason) === 'ENOENT') return null;
    throw reason;
  });
}

function ignoreMissing(reason: unknown): void {
  if (!['ENOENT', 'ENOTEMPTY', 'ENOTDIR', 'ELOOP'].includes(codeOf(reason) ?? '')) throw reason;
}
