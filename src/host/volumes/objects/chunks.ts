import { createHash } from 'node:crypto';
import type { Bucket } from './bucket.ts';
import type { Chunk, FileNode } from './tree.ts';

/** The longest object with a part of a file. Of each stream a few are in memory. */
export const chunkBytes = 4 * 1024 * 1024;
const uploadsAtOnce = 16;
const bytesAtOnce = 2 * chunkBytes;

export interface ChunkPlace {
  readonly bucket: Bucket;
  /** Name of the object with a chunk. */
  readonly keyOf: (chunkId: string) => string;
}

/** Chunks that are under way into the store, so many at once as memory allows. */
export class ChunkUploads {
  readonly #place: ChunkPlace;
  readonly #newId: () => string;
  readonly #underWay = new Set<Promise<void>>();
  #bytes = 0;
  #failed: { readonly error: unknown } | null = null;
  /** Whatever may have arrived. */
  readonly begun: Chunk[] = [];

  constructor(place: ChunkPlace, newId: () => string) {
    this.#place = place;
    this.#newId = newId;
  }

  /** Resolves when there is room for the next one. Throws what an earlier one failed with. */
  async add(body: Buffer): Promise<Chunk> {
    while (this.#underWay.size > 0 && (this.#underWay.size >= uploadsAtOnce || this.#bytes + body.length > bytesAtOnce)) await Promise.race(this.#underWay);
    this.#assertFine();
    const chunk = Object.freeze({ id: this.#newId(), bytes: body.length, sha256: sumOf(body) });
    this.begun.push(chunk);
    this.#bytes += body.length;
    const arriving = this.#upload(chunk.id, body).finally(() => {
      this.#bytes -= body.length;
      this.#underWay.delete(arriving);
    });
    this.#underWay.add(arriving);
    return chunk;
  }

  /** All of a file, as it comes; it has arrived when `arrived` resolves. */
  async addFile(content: AsyncIterable<Uint8Array> | Iterable<Uint8Array>): Promise<readonly Chunk[]> {
    const chunks: Chunk[] = [];
    let [parts, bytes]: [Uint8Array[], number] = [[], 0];
    const flush = async (): Promise<void> => {
      if (bytes > 0) chunks.push(await this.add(Buffer.concat(parts, bytes)));
      [parts, bytes] = [[], 0];
    };
    for await (const part of content) {
      for (let at = 0; at < part.length; ) {
        const piece = part.subarray(at, at + chunkBytes - bytes);
        parts.push(piece);
        bytes += piece.length;
        at += piece.length;
        if (bytes === chunkBytes) await flush();
      }
    }
    await flush();
    return chunks;
  }

  /** Throws when one of them has not arrived. */
  async arrived(): Promise<void> {
    await this.ended();
    this.#assertFine();
  }

  /** Waits until nothing is under way any more. */
  async ended(): Promise<void> {
    await Promise.all(this.#underWay);
  }

  async #upload(id: string, body: Buffer): Promise<void> {
    try {
      await this.#place.bucket.put(this.#place.keyOf(id), body);
    } catch (error) {
      this.#failed ??= { error };
    }
  }

  #assertFine(): void {
    if (this.#failed !== null) throw this.#failed.error;
  }
}

/** The bytes of a file, each chunk checked before any of it is given out, and the next one fetched meanwhile. */
export async function* readChunks({ bucket, keyOf }: ChunkPlace, { chunks }: FileNode): AsyncGenerator<Buffer> {
  const fetchAt = (i: number): Promise<Buffer> | null => {
    const chunk = chunks[i];
    if (chunk === undefined) return null;
    const fetching = fetchChunk(bucket, keyOf(chunk.id), chunk);
    fetching.catch(() => undefined); // thrown where it is waited for
    return fetching;
  };
  let next = fetchAt(0);
  for (let i = 1; next !== null; i++) {
    const body = await next;
    next = fetchAt(i);
    yield body;
  }
}

async function fetchChunk(bucket: Bucket, key: string, { bytes, sha256 }: Chunk): Promise<Buffer> {
  const stored = await bucket.get(key, bytes);
  if (stored === null) throw new Error(`the object ${key} is gone from the store of volumes`);
  if (stored.body.length !== bytes || sumOf(stored.body) !== sha256) throw new Error(`the object ${key} in the store of volumes is not what was written`);
  return stored.body;
}

function sumOf(body: Buffer): string {
  return createHash('sha256').update(body).digest('base64');
}
