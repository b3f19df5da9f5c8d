import { boundedTo } from './bounded.ts';
import { PaddockError } from './errors.ts';
import type { GuestFiles } from './host.ts';
import type { SandboxRef, VolumeId } from './ids.ts';
import type { Principal } from './principal.ts';
import type { Sandboxes } from './sandboxes.ts';
import { parseVolumePath, volumePathProblem, type Volume } from './volume.ts';
import { tooLarge, type VolumeContents, type Volumes } from './volumes.ts';

/** What the kernel of a sandbox makes up: there is nothing in them to be kept. */
const synthetic: ReadonlySet<string> = new Set(['proc', 'sys', 'dev']);
const stallMs = 60_000;

/** Makes volumes from directories of running sandboxes. Whatever the guest says, the new volume keeps to its limits and its own directory. */
export class VolumeCaptures {
  readonly #volumes: Volumes;
  readonly #sandboxes: Sandboxes;

  constructor(deps: { readonly volumes: Volumes; readonly sandboxes: Sandboxes }) {
    this.#volumes = deps.volumes;
    this.#sandboxes = deps.sandboxes;
  }

  async capture(principal: Principal, ref: SandboxRef, path: string, name: string, signal: AbortSignal): Promise<Volume> {
    const names = parseVolumePath('path', path);
    if (!path.startsWith('/')) throw new PaddockError('invalid_argument', 'path must be absolute', { field: 'path' });
    if (names.length === 0 || synthetic.has(names[0]!)) throw new PaddockError('invalid_argument', 'path must be a directory of files, not /, /proc, /sys or /dev', { field: 'path' });
    return this.#sandboxes.inside(principal, ref, async ({ files }) => {
      const root = `/${names.join('/')}`;
      const { type } = await files.info(root, 'root', signal);
      if (type !== 'dir') throw new PaddockError('invalid_argument', `path ${root} is not a directory`, { field: 'path' });
      return this.#volumes.make(principal, name, async (id) => (await this.#take(files, root, id, signal)) ?? this.#copy(files, root, id, signal));
    });
  }

  /** As one stream; null when the agent cannot. */
  async #take(files: GuestFiles, root: string, id: VolumeId, signal: AbortSignal): Promise<VolumeContents | null> {
    const { storage, settings } = this.#volumes;
    const tree = await files.pack(root, signal);
    if (tree === null) return null;
    const limit = { bytes: settings.maxVolumeBytes, entries: settings.maxVolumeEntries };
    // What is beside the content of the files has a bound of its own where it is unpacked.
    const bounded = boundedTo(Number.MAX_SAFE_INTEGER, tree, { tooLarge: () => tooLarge('the directory', limit.bytes), stallMs, signal });
    try {
      const { bytes, entries, skipped, firstSkipped } = await storage.unpackTree(id, bounded, limit, signal);
      return { bytes, entries, metadata: skipped === 0 ? {} : { skipped_links_and_special_files: String(skipped), first_skipped: firstSkipped ?? '' } };
    } finally {
      bounded.destroy();
      tree.destroy();
    }
  }

  async #copy(files: GuestFiles, root: string, id: VolumeId, signal: AbortSignal): Promise<VolumeContents> {
    const { storage, settings } = this.#volumes;
    let [bytes, entries, skipped] = [0, 0, 0];
    let firstSkipped = '';
    const count = (): void => {
      if (++entries > settings.maxVolumeEntries) throw new PaddockError('too_large', `${root} has more than ${settings.maxVolumeEntries} files and directories, the limit of a volume`);
    };
    const directories: (readonly string[])[] = [[]];
    for (let directory = directories.pop(); directory !== undefined; directory = directories.pop()) {
      const listed = await ifThere(files.list([root, ...directory].join('/'), 'root', 1, signal));
      if (listed === null) continue;
      if (listed.truncated) throw new PaddockError('too_large', `${[root, ...directory].join('/')} has more files than can be listed at once`);
      for (const entry of listed.entries) {
        signal.throwIfAborted();
        const below = [...directory, entry.name];
        const shown = below.join('/');
        if (entry.name === '' || entry.name === '.' || entry.name.includes('/')) throw new PaddockError('unprocessable', 'the sandbox lists a file with an impossible name');
        const problem = volumePathProblem(shown);
        if (problem !== null) throw new PaddockError('unprocessable', `${shown.slice(0, 200)} ${problem}, and cannot be kept in a volume`);
        if (entry.type === 'dir') {
          count();
          await storage.makeDir(id, below);
          directories.push(below);
        } else if (entry.type === 'file') {
          count();
          bytes += await this.#file(files, [root, ...below].join('/'), id, below, entry.mode, settings.maxVolumeBytes - bytes, signal);
        } else {
          skipped++;
          firstSkipped ||= shown;
        }
      }
    }
    await storage.settle(id);
    const counted = await storage.usage(id);
    return { ...counted, metadata: skipped === 0 ? {} : { skipped_links_and_special_files: String(skipped), first_skipped: firstSkipped } };
  }

  /** How many bytes it has; one that has gone since it was listed has none. */
  async #file(files: GuestFiles, source: string, id: VolumeId, path: readonly string[], mode: number, left: number, signal: AbortSignal): Promise<number> {
    const read = await ifThere(files.read(source, 'root', signal));
    if (read === null) return 0;
    const bounded = boundedTo(left, read.body, { tooLarge: () => tooLarge('the directory', this.#volumes.settings.maxVolumeBytes), stallMs, signal });
    try {
      await using file = await this.#volumes.storage.receive(id, bounded, { durable: false });
      await this.#volumes.storage.put(id, path, file, mode & 0o777);
      return file.bytes;
    } catch (error) {
      throw bounded.errored instanceof PaddockError ? bounded.errored : error;
    } finally {
      bounded.destroy();
      read.body.destroy();
    }
  }
}

async function ifThere<T>(work: Promise<T>): Promise<T | null> {
  try {
    return await work;
  } catch (error) {
    if (error instanceof PaddockError && error.code === 'not_found') return null;
    throw error;
  }
}
