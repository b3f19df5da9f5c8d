import { finished, PassThrough, type Readable, Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGzip } from 'node:zlib';
import { pack, type Pack } from 'tar-stream';
import type { VolumeId } from '../../core/ids.ts';
import type { VolumePath } from '../../core/volume.ts';
import type { VolumeStorage } from '../../core/volume-storage.ts';
import { isGone } from './tree.ts';

type Source = Pick<VolumeStorage, 'walk' | 'get'>;

/** Everything in a volume as a tar.gz, as fast as it is read. */
export function packed(storage: Source, id: VolumeId, signal: AbortSignal): Readable {
  const tar = packedTree(storage, id, [], signal);
  const gzip = createGzip({ level: 1 });
  finished(gzip, () => tar.destroy());
  gzip.on('error', () => undefined);
  pipeline(tar, gzip).catch((error: unknown) => gzip.destroy(error instanceof Error ? error : new Error(String(error))));
  return gzip;
}

/** Everything below a directory of a volume as a tar, named from there. */
export function packedTree(storage: Source, id: VolumeId, from: VolumePath, signal: AbortSignal): Readable {
  const tar = pack();
  const out = new PassThrough();
  const fail = (error: unknown): void => {
    tar.destroy();
    out.destroy(error instanceof Error ? error : new Error(String(error)));
  };
  const abort = (): void => fail(signal.reason);
  signal.addEventListener('abort', abort, { once: true });
  finished(out, () => {
    signal.removeEventListener('abort', abort);
    tar.destroy();
  });
  out.on('error', () => undefined); // whoever reads it is told by the stream
  pipeline(tar, out).catch(fail);
  addAll(tar, storage, id, from, signal).catch(fail);
  return out;
}

async function addAll(tar: Pack, storage: Source, id: VolumeId, from: VolumePath, signal: AbortSignal): Promise<void> {
  for await (const { path, entry } of storage.walk(id, from)) {
    signal.throwIfAborted();
        const name = path.slice(from.length).join('/');
    const mtime = new Date(entry.modifiedAt);
    if (entry.type === 'dir') {
      tar.entry({ name: `${name}/`, type: 'directory', mode: entry.mode, mtime });
      continue;
    }
    // Opened anew: it may have been replaced since it was listed, and its length must be that of what is sent.
    const opened = await storage.get(id, path).catch((error: unknown) => {
      if (isGone(error)) return null;
      throw error;
    });
    if (opened === null) continue;
    const { entry: now, body } = opened;
    await pipeline(body, ofLength(now.size), tar.entry({ name, size: now.size, mode: now.mode, mtime: new Date(now.modifiedAt) }), { signal });
  }
  tar.finalize();
}

const zeros = Buffer.alloc(65_536);

/** A file that shrinks while it is read keeps the length that its header has promised; what is missing reads as zeros. */
function ofLength(size: number): Transform {
  let left = size;
  return new Transform({
    transform(chunk: Buffer, _encoding, done) {
      left -= chunk.length;
      done(null, chunk);
    },
    flush(done) {
      for (; left > 0; left -= zeros.length) this.push(left < zeros.length ? zeros.subarray(0, left) : zeros);
      done();
    },
  });
}
