import { Transform, type Readable } from 'node:stream';
import { createBrotliDecompress, createGunzip, createInflate, createInflateRaw, createZstdDecompress } from 'node:zlib';
import { Refusal } from './stage.ts';

/** A body that unpacks to more than this may be no more than so many times its packed size: what one request costs stays in proportion. */
const freeBytes = 64 << 20;
const largestRatio = 200;
const mostCodings = 3;

/** What `Accept-Encoding` may ask for of a server whose answers are looked into. */
export const readableCodings: ReadonlySet<string> = new Set(['gzip', 'x-gzip', 'deflate', 'br', 'zstd', 'identity']);

/** Only codings that can be undone are asked for, and no pieces: two halves of a value are no value to a search. */
export function readableOnly(headers: readonly string[]): string[] {
  const kept: string[] = [];
  for (let i = 0; i < headers.length; i += 2) {
    const name = headers[i]!.toLowerCase();
    if (name === 'range' || name === 'if-range' || name === 'a-im' || name === 'sec-websocket-extensions') continue;
    if (name !== 'accept-encoding') kept.push(headers[i]!, headers[i + 1]!);
    else kept.push(headers[i]!, headers[i + 1]!.split(',').filter((coding) => readableCodings.has(coding.split(';', 1)[0]!.trim().toLowerCase())).join(',') || 'identity');
  }
  return kept;
}

/** The codings of a body, outermost last; empty for one that is plain. @throws Refusal for one that cannot be undone. */
export function codingsOf(contentEncoding: string): string[] {
  const codings = contentEncoding.toLowerCase().split(',').map((coding) => coding.trim()).filter((coding) => coding !== '' && coding !== 'identity');
  if (codings.length > mostCodings || codings.some((coding) => !readableCodings.has(coding))) throw unreadable(`has the content coding ${JSON.stringify(contentEncoding.slice(0, 100))}`);
  return codings;
}

/** The body without its codings, with back-pressure, within bounds. Errors of the source and of the coding are errors of what is returned. */
export function decoded(source: Readable, codings: readonly string[]): Readable {
  let [packed, unpacked] = [0, 0];
  source.on('data', (chunk: Buffer) => (packed += chunk.length));
  source.pause();
  let stream: Readable = source;
  for (const coding of codings.toReversed()) stream = chained(stream, decoderOf(coding));
  const bound = new Transform({
    transform: (chunk: Buffer, _, done) => {
      unpacked += chunk.length;
      if (unpacked > freeBytes && unpacked > packed * largestRatio) done(unreadable(`unpacks to more than ${largestRatio} times its size`));
      else done(null, chunk);
    },
  });
  return chained(stream, bound);
}

function chained(from: Readable, to: Transform): Transform {
  from.on('error', (reason) => to.destroy(reason));
  from.on('close', () => {
    if (!from.readableEnded) to.destroy(new Error('the body ended before its end'));
  });
  to.on('error', () => {}); // whoever reads it is told, if anybody still does
  to.on('close', () => from.destroy());
  return from.pipe(to);
}

function decoderOf(coding: string): Transform {
  switch (coding) {
    case 'br':
      return createBrotliDecompress();
    case 'zstd':
      return createZstdDecompress();
    case 'deflate':
      return new Inflate();
    default:
      return createGunzip();
  }
}

/** `deflate` is a zlib stream (RFC 9110 section 8.4.1.2); some servers send one without its frame. */
class Inflate extends Transform {
  #inner: Transform | null = null;

  override _transform(chunk: Buffer, _: string, done: (reason?: Error | null) => void): void {
    if (this.#inner === null) {
      this.#inner = (chunk[0]! & 0x0f) === 8 ? createInflate() : createInflateRaw();
      this.#inner.on('data', (data: Buffer) => {
        if (!this.push(data)) this.#inner!.pause();
      });
      this.#inner.on('error', (reason) => this.destroy(reason));
    }
    this.#inner.write(chunk, () => done());
  }

  override _read(size: number): void {
    this.#inner?.resume();
    super._read(size);
  }

  override _flush(done: (reason?: Error | null) => void): void {
    if (this.#inner === null) return done();
    this.#inner.on('end', () => done());
    this.#inner.end();
    return undefined;
  }

  override _destroy(reason: Error | null, done: (reason?: Error | null) => void): void {
    this.#inner?.destroy();
    done(reason);
  }
}

function unreadable(why: string): Refusal {
  return new Refusal(502, 'unreadable_response', `The answer ${why}, so it cannot be looked into.`, 'failed');
}
