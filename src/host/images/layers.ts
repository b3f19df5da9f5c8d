import { Readable, type Transform } from 'node:stream';
import { createGunzip, createZstdDecompress } from 'node:zlib';
import { BuildFailure } from '../../core/templates/build-host.ts';

const gzipMagic = Buffer.from([0x1f, 0x8b]);
const zstdMagic = Buffer.from([0x28, 0xb5, 0x2f, 0xfd]);
const longestMagic = zstdMagic.length;
const chunkBytes = 256 * 1024;
const mib = 1_048_576;
const progressEveryMs = 1000;

/** The tar in a layer. How it is compressed is seen from its first bytes: what manifests say about it is wrong now and then. */
export async function* decompressed(chunks: AsyncIterable<Uint8Array>, layer: string): AsyncGenerator<Uint8Array> {
  const iterator = chunks[Symbol.asyncIterator]();
  const first: Uint8Array[] = [];
  const left = async function* (): AsyncGenerator<Uint8Array> {
    yield* first;
    for (let next = await iterator.next(); next.done !== true; next = await iterator.next()) yield next.value;
  };
  try {
    for (let length = 0; length < longestMagic; ) {
      const next = await iterator.next();
      if (next.done === true) break;
      first.push(next.value);
      length += next.value.length;
    }
    const transform = decompressorFor(Buffer.concat(first).subarray(0, longestMagic));
    if (transform === null) yield* left();
    else yield* through(Readable.from(left(), { objectMode: false, highWaterMark: chunkBytes }), transform, layer);
  } finally {
    await iterator.return?.();
  }
}

async function* through(source: Readable, transform: Transform, layer: string): AsyncGenerator<Uint8Array> {
  source.on('error', (reason) => transform.destroy(reason));
  source.pipe(transform);
  try {
    yield* transform as AsyncIterable<Uint8Array>;
    // A decompressor may be content with less than everything; the digest is over all of it.
    source.unpipe(transform);
    for await (const rest of source as AsyncIterable<Uint8Array>) void rest;
  } catch (reason) {
    if (source.errored !== null) throw source.errored;
    throw new BuildFailure('image_pull_failed', `${layer} is damaged: ${(reason as Error).message}`, { cause: reason });
  } finally {
    transform.destroy();
    source.destroy();
  }
}

/** Says now and then how far a layer is. */
export async function* reported(chunks: AsyncIterable<Uint8Array>, layer: string, onProgress: (line: string) => void): AsyncGenerator<Uint8Array> {
  let bytes = 0;
  let saidAt = performance.now();
  for await (const chunk of chunks) {
    bytes += chunk.length;
    yield chunk;
    if (performance.now() - saidAt < progressEveryMs) continue;
    saidAt = performance.now();
    onProgress(`pulling ${layer}, ${formatMib(bytes)}`);
  }
  onProgress(`pulled ${layer}, ${formatMib(bytes)}`);
}

function formatMib(bytes: number): string {
  return `${bytes < 10 * mib ? (bytes / mib).toFixed(1) : Math.round(bytes / mib)} MiB`;
}

function decompressorFor(head: Buffer): Transform | null {
  if (head.subarray(0, gzipMagic.length).equals(gzipMagic)) return createGunzip({ chunkSize: chunkBytes });
  if (head.equals(zstdMagic)) return createZstdDecompress({ chunkSize: chunkBytes });
  return null;
}
