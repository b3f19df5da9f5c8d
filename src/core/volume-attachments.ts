import { PaddockError } from './errors.ts';
import type { GuestFiles } from './host.ts';
import type { VolumeId } from './ids.ts';
import type { Principal } from './principal.ts';
import { parseVolumePath, type VolumePath } from './volume.ts';
import type { Volumes } from './volumes.ts';

/** A volume that a create asks for. */
export interface VolumeAttachment {
  readonly volumeId: VolumeId;
  /** Absolute, inside the sandbox. */
  readonly mountPath: string;
  readonly mode: 'copy' | 'mount' | 'mount-ro';
  /** A directory of the volume instead of all of it. */
  readonly subpath?: string;
}

/** Puts files into a guest that has just started. */
export type GuestFiller = (files: GuestFiles, signal: AbortSignal) => Promise<void>;

const systemDirectories: ReadonlySet<string> = new Set(['etc', 'usr', 'proc', 'sys', 'dev', 'bin', 'sbin', 'lib', 'lib64', 'var', 'run', 'boot']);
const writesAtOnce = 8;

/** Throws `invalid_argument` naming the field for what cannot be attached, or not yet. */
export function assertAttachable(attachments: readonly VolumeAttachment[]): void {
  const taken = new Set<string>();
  for (const [i, { mountPath, mode, subpath }] of attachments.entries()) {
    const field = `volumes[${i}]`;
    if (mode !== 'copy') throw invalid(`${field}.mode`, `is ${mode}, which is not available yet, and is refused rather than ignored; copy is: the sandbox gets the files of the volume as its own`);
    const names = parseVolumePath(`${field}.mount_path`, mountPath);
    if (!mountPath.startsWith('/')) throw invalid(`${field}.mount_path`, 'must be absolute');
    if (names.length === 0 || systemDirectories.has(names[0]!)) throw invalid(`${field}.mount_path`, `must not be / or in a directory of the system (${[...systemDirectories].map((each) => `/${each}`).join(', ')})`);
    if (taken.has(names.join('/'))) throw invalid(`${field}.mount_path`, 'is that of another volume too');
    taken.add(names.join('/'));
    if (subpath !== undefined) parseVolumePath(`${field}.subpath`, subpath);
  }
}

/** Copies volumes into new sandboxes. */
export class VolumeAttachments {
  readonly #volumes: Volumes;

  constructor(volumes: Volumes) {
    this.#volumes = volumes;
  }

  /** Looks at what is asked for before anything is made. Null when that is nothing. */
  async prepare(principal: Principal, attachments: readonly VolumeAttachment[]): Promise<GuestFiller | null> {
    const sources: { readonly id: VolumeId; readonly from: VolumePath; readonly to: string }[] = [];
    for (const [i, { volumeId, mountPath, subpath }] of attachments.entries()) {
      await this.#volumes.get(principal, volumeId);
      const from = parseVolumePath('subpath', subpath ?? '');
      const { type } = await this.#volumes.storage.info(volumeId, from);
      if (type !== 'dir') throw invalid(`volumes[${i}].subpath`, 'is a file of the volume, and must be a directory');
      sources.push({ id: volumeId, from, to: `/${parseVolumePath('mount_path', mountPath).join('/')}` });
    }
    if (sources.length === 0) return null;
    return async (files, signal) => {
      for (const { id, from, to } of sources) await this.#copy(id, from, to, files, signal);
    };
  }

  async #copy(id: VolumeId, from: VolumePath, to: string, files: GuestFiles, signal: AbortSignal): Promise<void> {
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
      throw error instanceof PaddockError && error.code === 'not_found' ? new PaddockError('conflict', 'a volume was changed or deleted while it was copied; try again', {}, { cause: error }) : error;
    }
  }
}

function invalid(field: string, what: string): PaddockError {
  return new PaddockError('invalid_argument', `${field} ${what}`, { field });
}
