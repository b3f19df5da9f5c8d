import { performServerHandshake, type IncomingHttpHeaders, type ServerHttp2Session, type ServerHttp2Stream } from 'node:http2';
import type { Socket } from 'node:net';
import type { ResponseHead } from '../pipeline/stage.ts';
import { type ExchangePlace, serveExchange } from './exchange.ts';
import type { BodySink, Front } from './front.ts';
import { headerObject, headerValues, hasHeader, withoutHeaders } from './headers.ts';
import { drained, longestHead } from './http1-upstream.ts';
import { sendTrailers } from './http2-upstream.ts';

const idleMs = 120_000;
const internalError = 2;

/** Limits of one guest's connection. Floods of resets and of continuations end it: the library counts them. */
const options = {
  settings: { maxConcurrentStreams: 128, maxHeaderListSize: longestHead, enablePush: false, enableConnectProtocol: false, initialWindowSize: 1 << 18 },
  maxSessionMemory: 16,
  maxHeaderListPairs: 256,
  maxOutstandingPings: 10,
  maxSettings: 32,
  strictSingleValueFields: false, // many servers send some of them twice
  streamResetBurst: 200,
  streamResetRate: 50,
};

/** Serves HTTP/2 on a socket that has come out of TLS. */
export function serveHttp2(socket: Socket, place: ExchangePlace): void {
  const session: ServerHttp2Session = performServerHandshake(socket, options as never);
  session.setTimeout(idleMs, () => session.close());
  session.on('error', () => socket.destroy());
  session.on('stream', ((stream: ServerHttp2Stream, headers: IncomingHttpHeaders, _: number, raw: string[]) => {
    stream.on('error', () => {}); // 'close' follows
    void serveExchange(new Http2Front(stream, headers, raw), place);
  }) as never);
}

class Http2Front implements Front {
  readonly method: string;
  readonly url: string;
  readonly headers: readonly string[];
  readonly http2 = true;
  readonly body: ServerHttp2Stream | null;
  readonly gone: AbortSignal;
  trailers: readonly string[] = [];
  begun = false;
  readonly #stream: ServerHttp2Stream;

  constructor(stream: ServerHttp2Stream, headers: IncomingHttpHeaders, raw: readonly string[]) {
    this.#stream = stream;
    this.method = String(headers[':method'] ?? '');
    const path = String(headers[':path'] ?? '');
    // Another scheme is another URL, and refused as one.
    this.url = headers[':scheme'] === 'https' ? path : `${String(headers[':scheme'])}://${String(headers[':authority'])}${path}`;
    this.headers = http1Headers(raw);
    this.body = stream.endAfterHeaders ? null : stream;
    const gone = new AbortController();
    this.gone = gone.signal;
    stream.on('trailers', ((_: IncomingHttpHeaders, __: number, rawTrailers?: string[]) => (this.trailers = rawTrailers ?? [])) as never);
    stream.on('close', () => {
      if (!stream.writableFinished) gone.abort();
    });
  }

  continue(): void {
    if (!this.begun && !this.#stream.destroyed && !this.#stream.closed) this.#stream.additionalHeaders({ ':status': 100 });
  }

  begin({ status, headers }: ResponseHead, bodyless: boolean): BodySink {
    const stream = this.#stream;
    // Node's own check comes too late for another answer.
    if (!(status >= 200 && status <= 599)) throw Object.assign(new Error('no status of an answer'), { code: 'ERR_HTTP2_STATUS_INVALID' });
    let trailing: readonly string[] = [];
    stream.on('wantTrailers', () => sendTrailers(stream, trailing));
    stream.respond({ ':status': status, ...headerObject(withoutHeaders(headers, (name) => name === 'connection')) }, { endStream: bodyless, waitForTrailers: !bodyless, sendDate: false } as never);
    this.begun = true;
    return {
      write: (chunk) => stream.write(chunk),
      drained: () => drained(stream),
      end: (trailers) => {
        trailing = trailers;
        if (!bodyless) stream.end();
      },
    };
  }

  abort(): void {
    this.#stream.close(internalError);
  }
}

/** As HTTP/1 would have them: the authority as `Host`, pieces of `Cookie` together. Two names for the host stay two, and are refused. */
function http1Headers(raw: readonly string[]): string[] {
  const authority = headerValues(raw, ':authority');
  const hosts = headerValues(raw, 'host');
  const headers = withoutHeaders(raw, (name) => name.startsWith(':') || name === 'cookie' || name === 'host');
  for (const host of new Set([...authority, ...hosts])) headers.unshift('host', host);
  if (hasHeader(raw, 'cookie')) headers.push('cookie', headerValues(raw, 'cookie').join('; '));
  return headers;
}
