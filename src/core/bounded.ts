import { Transform, type Readable } from 'node:stream';
import { PaddockError } from './errors.ts';

export interface BoundedOptions {
  /** What is thrown after `limit` bytes. */
  readonly tooLarge: () => PaddockError;
  /** Fails a body that goes without a byte for this long. */
  readonly stallMs?: number;
  readonly signal?: AbortSignal;
}

/** The same bytes, failing after `limit`, and when the body breaks off. The body itself is left open, so that an answer can still go out. */
export function boundedTo(limit: number, body: Readable, { tooLarge, stallMs, signal }: BoundedOptions): Transform {
  let bytes = 0;
  const bounded = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      bytes += chunk.length;
      stalled?.refresh();
      if (bytes > limit) done(tooLarge());
      else done(null, chunk);
    },
  });
  const stalled =
    stallMs === undefined ? undefined : setTimeout(() => bounded.destroy(new PaddockError('deadline_exceeded', `the body has not gone on for ${stallMs / 1000} s`)), stallMs);
  const abort = (): void => void bounded.destroy(new PaddockError('invalid_argument', 'the caller left before the end'));
  if (signal?.aborted === true) abort();
  signal?.addEventListener('abort', abort, { once: true });
  // Whoever reads it is told by the stream; without any listener Node would end the server.
  bounded.on('error', () => undefined);
  body.once('error', (error) => bounded.destroy(error));
  body.once('close', () => {
    if (!body.readableEnded) bounded.destroy(new PaddockError('invalid_argument', 'the body broke off before its end'));
  });
  bounded.once('close', () => {
    clearTimeout(stalled);
    signal?.removeEventListener('abort', abort);
    body.unpipe(bounded);
  });
  return body.pipe(bounded);
}
