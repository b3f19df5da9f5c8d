import type { Readable } from 'node:stream';
import type { RequestHead, ResponseHead } from '../pipeline/stage.ts';

/** Somewhere to write a body. `write` returns false when `drained` should be waited for. */
export interface BodySink {
  write(chunk: Buffer): boolean;
  /** Rejects when nothing more can be written. */
  drained(): Promise<void>;
  /** @param trailers name, value, name, value */
  end(trailers: readonly string[]): void;
}

/** The guest's side of one exchange, whatever version of HTTP it speaks. */
export interface Front {
  readonly method: string;
  /** The request target as it came: a path, or an absolute URL. */
  readonly url: string;
  /** Name, value, name, value, as they came; over HTTP/2 with a `Host`. */
  readonly headers: readonly string[];
  /** Whether the answer may come over HTTP/2. */
  readonly http2: boolean;
  /** Null when the request has none. */
  readonly body: Readable | null;
  /** Complete when the body has ended. */
  readonly trailers: readonly string[];
  /** Aborted when the guest has gone before everything was said on both sides. */
  readonly gone: AbortSignal;
  /** Whether an answer was begun. */
  readonly begun: boolean;
  continue(): void;
  begin(head: ResponseHead, bodyless: boolean): BodySink;
  /** Ends the exchange in a way that is no orderly end. */
  abort(): void;
}

export interface UpstreamReply {
  readonly head: ResponseHead;
  readonly body: Readable;
  readonly trailers: readonly string[];
}

/** The server's side of one exchange. */
export interface UpstreamExchange {
  readonly sink: BodySink;
  readonly reply: Promise<UpstreamReply>;
  destroy(): void;
}

/** Sends a request; without a body it is complete. `onContinue` is called when the server wants the body. */
export type Send = (head: RequestHead, hasBody: boolean, onContinue: () => void) => Promise<UpstreamExchange>;
