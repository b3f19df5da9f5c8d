import { finished, PassThrough, type Readable, Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGzip } from 'node:zlib';
import { type Header, pack, type Pack } from 'tar-stream';
import type { TreeItem } from './contents.ts';

/** A tar, packed with gzip, as fast as it is read. */
export function packed(contents: AsyncIterable<TreeItem>, signal: AbortSignal): Readable {
  const tar = packedTree(contents, signal);
  const gzip = createGzip({ level: 1 });
  finished(gzip, () => tar.destroy());
  gzip.on('error', () => undefined);
  pipeline(tar, gzip).catch((error: unknown) => gzip.destroy(error instanceof Error ? error : new Error(String(error))));
  return gzip;
}

export function packedTree(contents: AsyncIterable<TreeItem>, signal: AbortSignal): Readable {
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
  addAll(tar, contents, signal).catch(fail);
  return out;
}

async function addAll(tar: Pack, contents: AsyncIterable<TreeItem>, signal: AbortSignal): Promise<void> {
  for await (const { path, entry, content } of contents) {
    signal.throwIfAborted();
    const name = path.join('/');
    const mtime = new Date(entry.modifiedAt);
    if (content === null) {
      tar.entry({ name: `${name}/`, type: 'directory', mode: entry.mode, mtime });
      continue;
    }
    const header = { name, size: entry.size, mode: entry.mode, mtime };
    if (Buffer.isBuffer(content)) await added(tar, header, content);
    else await pipeline(content, ofLength(entry.size), tar.entry(header), { signal });
  }
  tar.finalize();
}

/** What has become shorter since it was looked at is as long as it is now. */
function added(tar: Pack, header: Partial<Header> & { name: string }, content: Buffer): Promise<void> {
  return new Promise((resolve, reject) => {
    tar.entry(header, content, (error) => (error ? reject(error) : resolve()));
  });
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
