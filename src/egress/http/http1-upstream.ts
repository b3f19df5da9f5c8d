import { type Agent, request as httpRequest, type ClientRequest, type ClientRequestArgs, type IncomingMessage } from 'node:http';
import type { RequestHead } from '../pipeline/stage.ts';
import type { UpstreamExchange, UpstreamReply } from './front.ts';
import { hasHeader, headerPairs, headerValues, passedOn } from './headers.ts';

export const longestHead = 65_536;
const repeatable = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE', 'PUT', 'DELETE']);
const expectBody = new Set(['POST', 'PUT', 'PATCH']);

export interface Http1Options {
  readonly agent: Agent;
  /** Name of the pool of connections within the agent. */
  readonly pool: string;
  /** What the agent needs to open a connection. */
  readonly place: object;
}

/** One exchange over HTTP/1.1. A request that a server may get twice is repeated once, when the connection that it was given had just been closed. */
export function sendHttp1(head: RequestHead, hasBody: boolean, onContinue: () => void, options: Http1Options): UpstreamExchange {
  const replied = Promise.withResolvers<UpstreamReply>();
  replied.promise.catch(() => {});
  let request: ClientRequest;
  let destroyed = false;
  const start = (again: boolean): void => {
    request = openHttp1(head, hasBody, options);
    request.on('continue', onContinue);
    request.on('upgrade', (_, socket) => {
      socket.destroy();
      replied.reject(new Error('the server changed the protocol without being asked'));
    });
    request.on('response', (incoming: IncomingMessage) => {
      try {
        replied.resolve(replyOf(incoming));
      } catch (reason) {
        replied.reject(reason as Error);
        incoming.destroy();
      }
    });
    request.on('error', (reason) => {
      if (again && !destroyed && !hasBody && request.reusedSocket && repeatable.has(head.method)) start(false);
      else replied.reject(reason);
    });
    if (!hasBody) request.end();
  };
  start(true);
  return {
    sink: {
      write: (chunk) => request.write(chunk),
      drained: () => drained(request),
      end: (trailers) => {
        if (trailers.length > 0) request.addTrailers(headerPairs(trailers));
        request.end();
      },
    },
    reply: replied.promise,
    destroy: () => {
      destroyed = true;
      request.destroy();
    },
  };
}

/** A request whose head is written as it is; with a body it is framed by the length that it says, or else in chunks. */
export function openHttp1(head: RequestHead, hasBody: boolean, { agent, pool, place }: Http1Options, extra: readonly string[] = ['Connection', 'keep-alive']): ClientRequest {
  const headers = [...head.headers, ...extra];
  if (hasBody && !hasHeader(headers, 'content-length')) headers.push('Transfer-Encoding', 'chunked');
  if (!hasBody && expectBody.has(head.method) && !hasHeader(headers, 'content-length')) headers.push('Content-Length', '0');
  const args: ClientRequestArgs = { ...place, agent, host: pool, port: head.port, method: head.method, path: head.target, headers: headers as never, setHost: false, setDefaultHeaders: false, maxHeaderSize: longestHead };
  return httpRequest(args);
}

/** @throws Error for an answer in a transfer coding that nobody undoes, and that nobody could look into. */
export function replyOf(incoming: IncomingMessage): UpstreamReply {
  incoming.on('error', () => {}); // whoever reads it is told
  if (headerValues(incoming.rawHeaders, 'transfer-encoding').some((coding) => coding.trim().toLowerCase() !== 'chunked')) {
    throw Object.assign(new Error('the answer has a transfer coding other than chunked'), { code: 'HPE_INVALID_TRANSFER_ENCODING' });
  }
  return {
    head: { status: incoming.statusCode ?? 502, reason: incoming.statusMessage ?? '', headers: passedOn(incoming.rawHeaders) },
    body: incoming,
    get trailers() {
      return incoming.rawTrailers;
    },
  };
}

/** When more can be written; rejects when nothing will be. */
export function drained(stream: NodeJS.EventEmitter & { readonly destroyed: boolean }): Promise<void> {
  return new Promise((resolve, reject) => {
    const settle = (): void => {
      stream.off('drain', onDrain).off('close', onClose);
    };
    const onDrain = (): void => {
      settle();
      resolve();
    };
    const onClose = (): void => {
      settle();
      reject(new Error('the connection was closed'));
    };
    if (stream.destroyed) return onClose();
    stream.on('drain', onDrain).on('close', onClose);
    return undefined;
  });
}
