import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { Connection } from '../connection.ts';
import type { ResponseHead } from '../pipeline/stage.ts';
import { endWith } from './blocked-page.ts';
import { type ExchangePlace, serveExchange } from './exchange.ts';
import type { BodySink, Front } from './front.ts';
import { hasHeader, headerPairs, headerValues } from './headers.ts';
import { drained, longestHead } from './http1-upstream.ts';
import { serveUpgrade } from './upgrade.ts';

const headersMs = 15_000;
const idleMs = 120_000;

/** A connection over which HTTP/1 is spoken. */
export interface Http1Session {
  readonly connection: Connection;
  readonly place: ExchangePlace;
  /** Called with what cannot be parsed, before the connection is ended. */
  onMalformed(): void;
  /** How many of its requests are being answered. */
  readonly running: number;
}

/**
 * HTTP/1 of guests, plain or out of TLS. Every request is parsed strictly and written anew, so that no server reads in it what was not judged
 * here (request smuggling). Bodies are streamed in both directions; each side waits for the other.
 */
export class Http1Server {
  readonly #server: Server;
  readonly #sessions = new WeakMap<Duplex, Http1Session>();

  constructor() {
    this.#server = createServer({
      maxHeaderSize: longestHead,
      headersTimeout: headersMs,
      requestTimeout: 0, // an upload may take as long as it takes
      keepAliveTimeout: idleMs,
      connectionsCheckingInterval: 5000,
      insecureHTTPParser: false,
      requireHostHeader: false, // its absence is answered below, in words
      shouldUpgradeCallback: isWebSocket, // whatever else a client wants to upgrade to stays HTTP/1, as the protocol allows
    });
    const onRequest = (request: IncomingMessage, response: ServerResponse): void => void this.#onRequest(request, response);
    this.#server.on('request', onRequest);
    this.#server.on('checkContinue', onRequest);
    this.#server.on('checkExpectation', onRequest);
    this.#server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
      const { connection, place } = this.#sessions.get(socket)!;
      void serveUpgrade({ request, client: socket as Socket, head }, connection, place);
    });
    this.#server.on('connect', (_, socket: Duplex) => endWith(socket as Socket, 405, { 'Content-Length': '0', Connection: 'close' }, ''));
    this.#server.on('clientError', (reason: NodeJS.ErrnoException, socket: Duplex) => this.#onClientError(reason, socket as Socket));
    // It never listens, but what looks after slow heads starts when it does.
    this.#server.emit('listening');
  }

  /** Takes over a socket whose first bytes look like HTTP. */
  serve(socket: Socket, session: Http1Session): void {
    this.#sessions.set(socket, session);
    // A server of its own for each socket would do the same; this one is given sockets by hand.
    this.#server.emit('connection', socket);
    socket.resume();
  }

  close(): void {
    this.#server.emit('close');
    this.#server.closeAllConnections();
  }

  async #onRequest(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const session = this.#sessions.get(request.socket)!;
    await serveExchange(new Http1Front(request, response, session.connection), session.place);
  }

  #onClientError(reason: NodeJS.ErrnoException, client: Socket): void {
    const session = this.#sessions.get(client);
    if (session === undefined || !client.writable || reason.code === 'ECONNRESET') return void client.destroy();
    session.onMalformed();
    // In the middle of another answer nothing can be said.
    if (session.running > 0) return void session.connection.client.resetAndDestroy();
    const status = reason.code === 'HPE_HEADER_OVERFLOW' ? 431 : reason.code === 'ERR_HTTP_REQUEST_TIMEOUT' ? 408 : 400;
    return endWith(client, status, { 'Content-Length': '0', Connection: 'close' }, '');
  }
}

class Http1Front implements Front {
  readonly method: string;
  readonly url: string;
  readonly headers: readonly string[];
  readonly http2 = false;
  readonly body: IncomingMessage | null;
  readonly gone: AbortSignal;
  readonly #request: IncomingMessage;
  readonly #response: ServerResponse;
  readonly #connection: Connection;

  constructor(request: IncomingMessage, response: ServerResponse, connection: Connection) {
    this.#request = request;
    this.#response = response;
    this.#connection = connection;
    this.method = request.method ?? 'GET';
    this.url = request.url ?? '';
    this.headers = request.rawHeaders;
    const empty = headerValues(request.rawHeaders, 'content-length').join() === '0' || !(hasHeader(request.rawHeaders, 'content-length') || hasHeader(request.rawHeaders, 'transfer-encoding'));
    this.body = empty ? null : request;
    const gone = new AbortController();
    this.gone = gone.signal;
    response.sendDate = false;
    request.on('error', () => {});
    response.on('error', () => {});
    response.on('close', () => {
      if (!response.writableFinished) gone.abort();
      // An answer may come before the end of the request; then nobody but the socket tells that the rest will not come.
      else if (!request.complete) request.socket.once('close', () => !request.complete && gone.abort());
    });
  }

  get trailers(): readonly string[] {
    return this.#request.rawTrailers;
  }

  get begun(): boolean {
    return this.#response.headersSent;
  }

  continue(): void {
    if (!this.begun) this.#response.writeContinue();
  }

  begin({ status, reason, headers }: ResponseHead): BodySink {
    const response = this.#response;
    response.writeHead(status, reason, headers as never);
    // Answers that come piece by piece start with their head; one that is there already goes out with it.
    response.cork();
    response.flushHeaders();
    process.nextTick(() => response.uncork());
    return {
      write: (chunk) => response.write(chunk),
      drained: () => drained(response),
      end: (trailers) => {
        if (trailers.length > 0) response.addTrailers(headerPairs(trailers));
        response.end();
      },
    };
  }

  abort(): void {
    this.#connection.client.resetAndDestroy();
  }
}

function isWebSocket(request: IncomingMessage): boolean {
  return request.method === 'GET' && request.headers.upgrade?.toLowerCase() === 'websocket';
}
