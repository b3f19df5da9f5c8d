import { finished, type Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGzip } from 'node:zlib';
import { pack } from 'tar-stream';
import { PaddockError } from '../../core/errors.ts';
import type { VolumeId } from '../../core/ids.ts';
import type { VolumeStorage } from '../../core/volume-storage.ts';

/** Everything in a volume as a tar.gz, as fast as it is read. */
export function packed(storage: Pick<VolumeStorage, 'walk' | 'get'>, id: VolumeId, signal: AbortSignal): Readable {
  const tar = pack();
  const gzip = createGzip({ level: 1 });
  const add = async (): Promise<void> => {
    for await (const { path, entry } of storage.walk(id, [])) {
      signal.throwIfAborted();
      const name = path.join('/');
      const mtime = new Date(entry.modifiedAt);
      if (entry.type === 'dir') {
        tar.entry({ name: `${name}/`, type: 'directory', mode: entry.mode, mtime });
        continue;
      }
      // Opened anew: it may have been replaced since it was listed, and its length must be that of what is sent.
      const opened = await storage.get(id, path).catch((error: unknown) => {
        if (error instanceof PaddockError && ['not_found', 'invalid_argument'].includes(error.code)) return null; // removed since
        throw error;
      });
      if (opened === null) continue;
      const { entry: now, body } = opened;
      await pipeline(body, tar.entry({ name, size: now.size, mode: now.mode, mtime: new Date(now.modifiedAt) }), { signal });
    }
    tar.finalize();
  };
  const fail = (error: unknown): void => {
    tar.destroy();
    gzip.destroy(error instanceof Error ? error : new Error(String(error)));
  };
  finished(gzip, () => tar.destroy());
  signal.addEventListener('abort', () => fail(signal.reason), { once: true });
  gzip.on('error', () => undefined);
  pipeline(tar, gzip).catch(fail);
  add().catch(fail);
  return gzip;
}
