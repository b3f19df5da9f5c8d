import type { ClientHttp2Session, ClientHttp2Stream, Http2Stream, IncomingHttpHeaders, OutgoingHttpHeaders } from 'node:http2';
import type { RequestHead } from '../pipeline/stage.ts';
import type { UpstreamExchange, UpstreamReply } from './front.ts';
import { headerObject, headerValues, passedOn, withoutHeaders } from './headers.ts';
import { drained } from './http1-upstream.ts';

const [internalError, refusedStream, cancelled] = [2, 7, 8];

/** The server has not looked at the request. */
export class RefusedStream extends Error {}

/** Ends a stream with trailers, or as broken off when the other side has sent some that cannot be passed on. */
export function sendTrailers(stream: Http2Stream, trailers: readonly string[]): void {
  try {
    stream.sendTrailers(headerObject(trailers));
  } catch {
    stream.close(internalError);
  }
}

/** One exchange over HTTP/2. */
export function sendHttp2(session: ClientHttp2Session, head: RequestHead, hasBody: boolean, onContinue: () => void): UpstreamExchange {
  const headers: OutgoingHttpHeaders = {
    ':method': head.method,
    ':scheme': head.scheme,
    ':authority': headerValues(head.headers, 'host')[0],
    ':path': head.target,
    ...headerObject(withoutHeaders(head.headers, (name) => name === 'host')),
    // What calls of gRPC end with; every client here can take them.
    te: 'trailers',
  };
  const stream: ClientHttp2Stream = session.request(headers, { endStream: !hasBody, waitForTrailers: hasBody } as never);
  const replied = Promise.withResolvers<UpstreamReply>();
  replied.promise.catch(() => {});
  let trailing: readonly string[] = [];
  let sending: readonly string[] = [];
  stream.on('continue', onContinue);
  stream.on('trailers', (_, __, raw?: string[]) => (trailing = raw ?? []));
  stream.on('wantTrailers', () => sendTrailers(stream, sending));
  stream.on('response', ((parsed: IncomingHttpHeaders & { ':status'?: number }, _: number, raw: string[]) =>
    replied.resolve({
      head: { status: parsed[':status'] ?? 502, reason: '', headers: passedOn(raw) },
      body: stream,
      get trailers() {
        return trailing;
      },
    })) as never);
  const unread = (): boolean => stream.rstCode === refusedStream;
  stream.on('error', (reason) => replied.reject(unread() ? new RefusedStream(reason.message) : reason));
  stream.on('close', () => replied.reject(unread() ? new RefusedStream('the server refused the request') : new Error('the server gave the request up')));
  return {
    sink: {
      write: (chunk) => stream.write(chunk),
      drained: () => drained(stream),
      end: (trailers) => {
        sending = trailers;
        stream.end();
      },
    },
    reply: replied.promise,
    destroy: () => {
      // Told as what it is: an end without an error could be taken for the end of the body.
      if (!stream.closed) stream.close(cancelled);
      stream.destroy();
    },
  };
}
