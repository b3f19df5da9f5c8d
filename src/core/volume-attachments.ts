import { PaddockError } from './errors.ts';
import type { GuestFiles, VolumeMount } from './host.ts';
import type { VolumeId } from './ids.ts';
import type { Principal } from './principal.ts';
import type { Sandbox } from './sandbox.ts';
import { parseVolumePath, type VolumePath } from './volume.ts';
import { volumeGone, type Volumes } from './volumes.ts';

/** A volume that a create asks for. */
export interface VolumeAttachment {
  readonly volumeId: VolumeId;
  /** Absolute, inside the sandbox. */
  readonly mountPath: string;
  /** Files of its own, or those that others see and change too, to be changed or only read. */
  readonly mode: 'copy' | 'mount' | 'mount-ro';
  /** A directory of the volume instead of all of it. */
  readonly subpath?: string;
}

/** Puts files into a guest that has just started. */
export type GuestFiller = (files: GuestFiles, signal: AbortSignal) => Promise<void>;

/** What attachments come to: files to be copied, null for none, and volumes to be mounted. */
export interface PreparedVolumes {
  readonly fill: GuestFiller | null;
  readonly mounts: readonly VolumeMount[];
}

/** Of one sandbox, mounted. */
export const mostLiveVolumes = 16;

const systemDirectories: ReadonlySet<string> = new Set(['etc', 'usr', 'proc', 'sys', 'dev', 'bin', 'sbin', 'lib', 'lib64', 'var', 'run', 'boot']);
const writesAtOnce = 8;

/** Throws `invalid_argument` naming the field for what cannot be attached. */
export function assertAttachable(attachments: readonly VolumeAttachment[]): void {
  const taken: { readonly names: VolumePath; readonly live: boolean }[] = [];
  for (const [i, { mountPath, mode, subpath }] of attachments.entries()) {
    const field = `volumes[${i}]`;
    const names = parseVolumePath(`${field}.mount_path`, mountPath);
    if (!mountPath.startsWith('/')) throw invalid(`${field}.mount_path`, 'must be absolute');
    if (names.length === 0 || systemDirectories.has(names[0]!)) throw invalid(`${field}.mount_path`, `must not be / or in a directory of the system (${[...systemDirectories].map((each) => `/${each}`).join(', ')})`);
    if (names[0] === '.paddock') throw invalid(`${field}.mount_path`, 'must not be in /.paddock, where the sandbox keeps what it is run with');
    const live = mode !== 'copy';
    for (const other of taken) {
      const shared = Math.min(names.length, other.names.length);
      if (names.slice(0, shared).join('/') !== other.names.slice(0, shared).join('/')) continue;
      if (names.length === other.names.length) throw invalid(`${field}.mount_path`, 'is that of another volume too');
      // A copy would be written into the other volume, and a mount would hide what is there.
      if (live || other.live) throw invalid(`${field}.mount_path`, 'lies inside that of another volume, or the other way round, and one of them is mounted');
    }
    taken.push({ names, live });
    if (subpath !== undefined) parseVolumePath(`${field}.subpath`, subpath);
  }
  const live = taken.filter((each) => each.live).length;
  if (live > mostLiveVolumes) throw invalid('volumes', `has ${live} volumes to be mounted; the limit is ${mostLiveVolumes}`);
}

/** Brings volumes into new sandboxes. */
export class VolumeAttachments {
  readonly #volumes: Volumes;

  constructor(volumes: Volumes) {
    this.#volumes = volumes;
  }

  /** Looks at what is asked for before anything is made. */
  async prepare(principal: Principal, attachments: readonly VolumeAttachment[]): Promise<PreparedVolumes> {
    const copies: { readonly id: VolumeId; readonly from: VolumePath; readonly to: string }[] = [];
    const mounts: VolumeMount[] = [];
    for (const [i, { volumeId, mountPath, mode, subpath = '' }] of attachments.entries()) {
      if (mode !== 'copy' && !this.#volumes.storage.mountable) throw invalid(`volumes[${i}].mode`, `cannot be ${mode}: this server keeps volumes in an object store (PADDOCK_VOLUME_STORE), and nothing there can be mounted; use copy, and commit what is to be kept`);
      const { name } = await this.#volumes.get(principal, volumeId);
      const from = parseVolumePath('subpath', subpath);
      const { type } = await this.#volumes.storage.info(volumeId, from);
      if (type !== 'dir') throw invalid(`volumes[${i}].subpath`, 'is a file of the volume, and must be a directory');
      const to = `/${parseVolumePath('mount_path', mountPath).join('/')}`;
      if (mode === 'copy') copies.push({ id: volumeId, from, to });
      else mounts.push(Object.freeze({ volumeId, name, mountPath: to, subpath: from, readOnly: mode === 'mount-ro' }));
    }
    const fill: GuestFiller = async (files, signal) => {
      for (const { id, from, to } of copies) await this.#copy(id, from, to, files, signal);
    };
    return { fill: copies.length === 0 ? null : fill, mounts };
  }

  /** Throws `conflict` naming the volume that a saved sandbox needs and that is not there any more. */
  async assertPresent(principal: Pick<Principal, 'teamId'>, mounts: readonly VolumeMount[] = []): Promise<void> {
    for (const mount of mounts) if (!(await this.#volumes.exists(principal, mount.volumeId))) throw volumeGone(mount);
  }

  /** A sandbox runs with its volumes, which it may change from now on without anybody's knowing. */
  began({ id, policy }: Pick<Sandbox, 'id' | 'policy'>): void {
    this.#volumes.mountedIn(id, policy.volumes ?? []);
  }

  /** A sandbox has ended: what it left in its volumes is counted. */
  ended({ id }: Pick<Sandbox, 'id'>): void {
    this.#volumes.unmountedFrom(id);
  }

  /** As one stream where the agent takes one; else file by file. */
  async #copy(id: VolumeId, from: VolumePath, to: string, files: GuestFiles, signal: AbortSignal): Promise<void> {
    const tree = this.#volumes.storage.packTree(id, from, signal);
    try {
      if (await files.unpack(to, undefined, tree, signal)) return;
    } catch (error) {
      throw changedMeanwhile(error);
    } finally {
      tree.destroy();
    }
    await this.#copyEach(id, from, to, files, signal);
  }

  async #copyEach(id: VolumeId, from: VolumePath, to: string, files: GuestFiles, signal: AbortSignal): Promise<void> {
    const { storage } = this.#volumes;
    await files.makeDir(to, undefined, signal);
    const underWay = new Set<Promise<unknown>>();
    try {
      for await (const { path, entry } of storage.walk(id, from)) {
        signal.throwIfAborted();
        const target = [to, ...path.slice(from.length)].join('/');
        if (entry.type === 'dir') {
          await files.makeDir(target, undefined, signal);
          continue;
        }
        const writing = (async () => {
          const { entry: now, body } = await storage.get(id, path);
          try {
            await files.write(target, undefined, body, signal, now.mode);
          } finally {
            body.destroy();
          }
        })();
        underWay.add(writing);
        writing.then(
          () => underWay.delete(writing),
          () => undefined, // thrown by whoever waits for it
        );
        if (underWay.size >= writesAtOnce) await Promise.race(underWay);
      }
      await Promise.all(underWay);
    } catch (error) {
      await Promise.allSettled(underWay);
      throw changedMeanwhile(error);
    }
  }
}

function changedMeanwhile(error: unknown): unknown {
  return error instanceof PaddockError && error.code === 'not_found' ? new PaddockError('conflict', 'a volume was changed or deleted while it was copied; try again', {}, { cause: error }) : error;
}

function invalid(field: string, what: string): PaddockError {
  return new PaddockError('invalid_argument', `${field} ${what}`, { field });
}
