import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { Readable } from 'node:stream';
import { PaddockError } from '../core/errors.ts';

/** Bytes of a JSON body; above it the answer is 413. */
export const jsonBodyLimit = 10 * 1024 * 1024;

/** What a wire says about bodies that it refuses. */
export interface BodyTexts {
  readonly malformed?: string;
  /** What to do instead of sending a body that is too large. */
  readonly advice?: string;
}

/** Milliseconds a body may go without a single byte. */
const stallLimitMs = 60_000;

/**
 * Makes a scope read every body as JSON, whatever its content type says; clients of all ages send JSON with and without one. An
 * empty body is an empty object, because the SDKs send nothing where nothing is required.
 *
 * Reads the body itself instead of letting fastify do it: fastify closes the connection after a refused body while the client
 * still sends, and the client then sees a reset instead of the 413. Here the rest is read and thrown away.
 */
export function readBodiesAsJson(scope: FastifyInstance, texts: BodyTexts = {}): void {
  scope.removeAllContentTypeParsers();
  scope.addContentTypeParser('*', (_request: FastifyRequest, payload: Readable, done) => {
    readJson(payload, texts).then(
      (value) => done(null, value),
      // Handed on as a value and thrown by the hook below, for the reason given above.
      (error: unknown) => done(null, new RefusedBody(PaddockError.from(error))),
    );
  });
  scope.addHook('preValidation', async (request) => {
    if (request.body instanceof RefusedBody) throw request.body.reason;
    if (request.body === undefined) request.body = {}; // `null` is a value, and a wrong one
  });
}

/** Makes a scope leave bodies alone: the handler takes `request.raw` as a stream. */
export function leaveBodiesUnread(scope: FastifyInstance): void {
  scope.removeAllContentTypeParsers();
  scope.addContentTypeParser('*', (_request: FastifyRequest, _payload: Readable, done) => done(null, undefined));
}

class RefusedBody {
  readonly reason: PaddockError;
  constructor(reason: PaddockError) {
    this.reason = reason;
  }
}

async function readJson(payload: Readable, { malformed = 'The body is not valid JSON.', advice = 'Send large files with PUT /files/raw.' }: BodyTexts): Promise<unknown> {
  const bytes = await readAll(payload, jsonBodyLimit, advice);
  if (bytes.length === 0) return undefined;
  try {
    return JSON.parse(bytes.toString('utf8'));
  } catch {
    throw new PaddockError('invalid_argument', malformed);
  }
}

/** The whole of a stream; `too_large` as soon as it is longer than `limit`, and then the rest is drained. */
function readAll(payload: Readable, limit: number, advice: string): Promise<Buffer> {
  const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
  const chunks: Buffer[] = [];
  let length = 0;
  const stalled = setTimeout(() => fail(new PaddockError('deadline_exceeded', `The body has not gone on for ${stallLimitMs / 1000} s.`)), stallLimitMs);
  const fail = (error: Error): void => {
    clearTimeout(stalled);
    chunks.length = 0;
    payload.off('data', onData);
    payload.resume();
    reject(error);
  };
  const onData = (chunk: Buffer): void => {
    stalled.refresh();
    length += chunk.length;
    if (length > limit) fail(new PaddockError('too_large', `The JSON body is larger than ${limit / 1024 / 1024} MiB. ${advice}`));
    else chunks.push(chunk);
  };
  payload.on('data', onData);
  payload.once('end', () => {
    clearTimeout(stalled);
    resolve(chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks));
  });
  payload.once('error', fail);
  payload.once('close', () => {
    if (!payload.readableEnded) fail(new PaddockError('invalid_argument', 'The connection was closed before the whole body had arrived.'));
  });
  return promise;
}
