import { createHash } from 'node:crypto';
import { BuildFailure } from '../../core/templates/build-host.ts';

/** `sha256:` and 64 hexadecimal digits in lower case, the only algorithm that registries use. */
export type Digest = `sha256:${string}`;

export function parseDigest(text: unknown): Digest | null {
  return typeof text === 'string' && /^sha256:[0-9a-f]{64}$/.test(text) ? (text as Digest) : null;
}

export function digestOf(bytes: Uint8Array): Digest {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

/** What content is known by before it is fetched: OCI's descriptor. */
export interface Descriptor {
  readonly mediaType: string;
  readonly digest: Digest;
  /** Bytes. */
  readonly size: number;
}

/** The chunks as they come, and an error at the end, or as soon as it is certain, when they are not what the descriptor says. */
export async function* verified(chunks: AsyncIterable<Uint8Array>, { digest, size }: Descriptor, from: string): AsyncGenerator<Uint8Array> {
  const hash = createHash('sha256');
  let length = 0;
  for await (const chunk of chunks) {
    length += chunk.length;
    if (length > size) throw new BuildFailure('image_pull_failed', `${from} sent more than the ${size} bytes that ${digest} has`);
    hash.update(chunk);
    yield chunk;
  }
  if (length < size) throw new BuildFailure('image_pull_failed', `${from} has ${length} of the ${size} bytes of ${digest}`);
  const found = `sha256:${hash.digest('hex')}`;
  if (found !== digest) throw new BuildFailure('image_pull_failed', `${from} sent something else for ${digest}: its digest is ${found}`);
}

/** All of it, when it is not more than `most` bytes. */
export async function collect(chunks: AsyncIterable<Uint8Array>, most: number, what: string): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of chunks) {
    length += chunk.length;
    if (length > most) throw new BuildFailure('image_pull_failed', `${what} is longer than ${most} bytes`);
    parts.push(chunk);
  }
  return Buffer.concat(parts);
}
