import { Agent as HttpAgent } from 'node:http';
import { Agent as HttpsAgent } from 'node:https';
import { addAbortSignal, type Readable } from 'node:stream';
import { rootCertificates } from 'node:tls';
import { DeleteObjectCommand, GetObjectCommand, ListObjectsV2Command, PutObjectCommand, S3Client } from '@aws-sdk/client-s3';
import { statusOf, unreachable } from './faults.ts';

export interface BucketOptions {
  readonly bucket: string;
  readonly endpoint: string | null;
  readonly region: string;
  readonly pathStyle: boolean;
  readonly credentials: { readonly accessKeyId: string; readonly secretAccessKey: string; readonly sessionToken: string | null };
  /** PEM of authorities that are trusted beside the known ones. */
  readonly extraCa: string | null;
  /** How long one attempt may take; for tests. */
  readonly attemptMs?: number;
}

/** That there is no such object, or that it has this tag. */
export type PutCondition = 'absent' | { readonly etag: string };

export interface StoredObject {
  readonly body: Buffer;
  /** For a `PutCondition`. */
  readonly etag: string | null;
}

const connectMs = 5_000;
const attempts = 3;
const connections = 64;

/**
 * One bucket, as little of it as every S3-compatible server has: whole objects of bounded size, put, fetched, removed and listed. Each call has a
 * deadline and is tried again by itself. Throws `no_capacity` when the server cannot be reached or refuses.
 */
export class Bucket {
  readonly #client: S3Client;
  readonly #bucket: string;
  readonly #attemptMs: number;
  readonly #closing = new AbortController();
  /** Until the server says that it has no conditional writes. */
  #conditional = true;

  constructor({ bucket, endpoint, region, pathStyle, credentials: { accessKeyId, secretAccessKey, sessionToken }, extraCa, attemptMs = 30_000 }: BucketOptions) {
    this.#bucket = bucket;
    this.#attemptMs = attemptMs;
    this.#client = new S3Client({
      region,
      ...(endpoint === null ? {} : { endpoint }),
      forcePathStyle: pathStyle,
      credentials: { accessKeyId, secretAccessKey, ...(sessionToken === null ? {} : { sessionToken }) },
      maxAttempts: attempts,
      // Sums of our own are kept in manifests; those of the SDK in trailers are unknown to many servers.
      requestChecksumCalculation: 'WHEN_REQUIRED',
      responseChecksumValidation: 'WHEN_REQUIRED',
      requestHandler: {
        connectionTimeout: Math.min(connectMs, attemptMs),
        requestTimeout: attemptMs,
        throwOnRequestTimeout: true,
        httpAgent: new HttpAgent({ keepAlive: true, maxSockets: connections }),
        httpsAgent: new HttpsAgent({ keepAlive: true, maxSockets: connections, ...(extraCa === null ? {} : { ca: [...rootCertificates, extraCa] }) }),
      },
    });
  }

  /**
   * Replaces an object whole or not at all. With a condition, only while that holds, on servers that look at it: null when it does not.
   * A failure may leave either: `mayHaveArrived` is false only for one that the server has refused.
   */
  async put(key: string, body: Buffer, condition: PutCondition | null = null): Promise<{ readonly etag: string | null } | null> {
    const conditional = this.#conditional && condition !== null;
    try {
      const { ETag } = await this.#client.send(new PutObjectCommand({ Bucket: this.#bucket, Key: key, Body: body, ContentLength: body.length, ...(conditional ? (condition === 'absent' ? { IfNoneMatch: '*' } : { IfMatch: condition.etag }) : {}) }), this.#deadline());
      return { etag: ETag ?? null };
    } catch (error) {
      const status = statusOf(error);
      if (conditional && status === 412) return null;
      if (conditional && status === 501) {
        this.#conditional = false;
        return this.put(key, body);
      }
      throw unreachable(error);
    }
  }

  /** Null when there is none. One of more than `most` bytes is a fault. */
  async get(key: string, most: number): Promise<StoredObject | null> {
    for (let attempt = 1; ; attempt++) {
      try {
        const { Body, ETag, ContentLength = 0 } = await this.#client.send(new GetObjectCommand({ Bucket: this.#bucket, Key: key }), this.#deadline());
        const stream = Body as Readable;
        if (ContentLength > most) {
          stream.destroy();
          throw new Error(`the object ${key} has ${ContentLength} bytes, and ${most} at most were written`);
        }
        return { body: await collected(stream, most, AbortSignal.timeout(this.#attemptMs)), etag: ETag ?? null };
      } catch (error) {
        if (statusOf(error) === 404 && (error as Error).name !== 'NoSuchBucket') return null;
        // The client itself tries again what fails before the first byte.
        if (!(error instanceof BrokeOff) || attempt === attempts) throw unreachable(error);
      }
    }
  }

  /** Succeeds when there is none. */
  async remove(key: string): Promise<void> {
    try {
      await this.#client.send(new DeleteObjectCommand({ Bucket: this.#bucket, Key: key }), this.#deadline());
    } catch (error) {
      if (statusOf(error) !== 404) throw unreachable(error);
    }
  }

  /** Names that begin with `prefix`; with `level`, each only up to the next slash, which is in it. */
  async *list(prefix: string, level = false): AsyncGenerator<string> {
    let token: string | undefined;
    do {
      let page;
      try {
        page = await this.#client.send(new ListObjectsV2Command({ Bucket: this.#bucket, Prefix: prefix, ...(level ? { Delimiter: '/' } : {}), ...(token === undefined ? {} : { ContinuationToken: token }) }), this.#deadline());
      } catch (error) {
        throw unreachable(error);
      }
      for (const { Key } of page.Contents ?? []) if (Key !== undefined) yield Key;
      for (const { Prefix } of page.CommonPrefixes ?? []) if (Prefix !== undefined) yield Prefix;
      token = page.IsTruncated === true ? page.NextContinuationToken : undefined;
    } while (token !== undefined);
  }

  /** What is under way ends. */
  close(): void {
    this.#closing.abort();
    this.#client.destroy();
  }

  #deadline(): { readonly abortSignal: AbortSignal } {
    return { abortSignal: AbortSignal.any([this.#closing.signal, AbortSignal.timeout(this.#attemptMs * attempts)]) };
  }
}

class BrokeOff extends Error {}

async function collected(stream: Readable, most: number, signal: AbortSignal): Promise<Buffer> {
  const parts: Buffer[] = [];
  let bytes = 0;
  try {
    for await (const part of addAbortSignal(signal, stream) as AsyncIterable<Buffer>) {
      bytes += part.length;
      if (bytes > most) throw new Error(`an object has more than the ${most} bytes that were written`);
      parts.push(part);
    }
  } catch (cause) {
    throw new BrokeOff(cause instanceof Error ? cause.message : String(cause), { cause });
  }
  return Buffer.concat(parts, bytes);
}
