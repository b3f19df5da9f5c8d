import { PaddockError } from '../../core/errors.ts';
import type { VolumeMount } from '../../core/host.ts';
import { runTool } from '../tool.ts';
import type { ImageDisks } from './image-disks.ts';
import { pointIn } from './points.ts';
import { codeOf, inDirectory } from './tree.ts';

/** Makes volumes appear in the slots of guests. */
export class VolumeBinds {
  readonly #disks: ImageDisks;

  constructor(disks: ImageDisks) {
    this.#disks = disks;
  }

  /**
   * Mounts each volume at the point of its number in `points`. A `subpath` is walked without following links, and what the walk held open at
   * its end is mounted: nobody can lead it elsewhere in between. With `restoring`, one that was removed is made again, empty, because the
   * guest cannot go on without it. Throws `conflict` naming the volume that is gone.
   */
  async bind(points: string, volumes: readonly VolumeMount[], { restoring }: { readonly restoring: boolean }): Promise<void> {
    for (const [point, volume] of volumes.entries()) {
      try {
        using place = await this.#disks.hold(volume.volumeId);
        if (restoring) await inDirectory(place.files, volume.subpath, async () => undefined, { made: () => {} });
        const root = volume.readOnly ? (await this.#disks.readOnly(volume.volumeId)).files : place.files;
        await inDirectory(root, volume.subpath, (directory) => runTool('mount', ['--no-canonicalize', '--bind', directory.path, pointIn(points, point)]));
      } catch (reason) {
        throw explainedFor(volume, reason);
      }
    }
  }
}

function explainedFor({ name, volumeId, subpath }: VolumeMount, reason: unknown): unknown {
  const shown = `the volume ${JSON.stringify(name)} (${volumeId})`;
  switch (codeOf(reason)) {
    case 'ENOENT':
      return new PaddockError('conflict', subpath.length === 0 ? `${shown} is gone` : `${shown} is gone, or has no directory ${subpath.join('/')}`, { reason: 'volume_missing' }, { cause: reason });
    case 'ENOTDIR':
    case 'ELOOP':
      return new PaddockError('invalid_argument', `${shown}: the subpath ${subpath.join('/')} is not a directory`, { field: 'volumes' }, { cause: reason });
    default:
      return reason;
  }
}
