import { Agent, createServer, request as httpRequest, type ClientRequest, type ClientRequestArgs, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { formatAddress } from '../core/network/addresses.ts';
import type { Destination, Verdict } from '../core/network/decide.ts';
import { blockedBody, blockedPage, endWith } from './blocked-page.ts';
import { protocolFault, type Connection } from './connection.ts';
import type { Dialled } from './dial.ts';
import { hasHeader, passedOn } from './http-headers.ts';
import { targetOf } from './http-target.ts';
import { pump } from './splice.ts';

const longestHead = 65_536;
const headersMs = 15_000;
const idleMs = 120_000;

/**
 * Plain HTTP/1 of sandboxes with rules about names. Every request is parsed strictly, judged by the host that it names, and written anew,
 * so that no server reads in it what was not judged here (request smuggling). Bodies are streamed in both directions; each side waits for
 * the other.
 */
export class HttpProxy {
  readonly #server: Server;
  readonly #sessions = new WeakMap<Duplex, Session>();

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
    const onRequest = (request: IncomingMessage, response: ServerResponse): void => this.#guard(request.socket, () => this.#onRequest(request, response))();
    this.#server.on('request', onRequest);
    this.#server.on('checkContinue', onRequest);
    this.#server.on('checkExpectation', onRequest);
    this.#server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => this.#guard(socket, () => this.#onUpgrade(request, socket as Socket, head))());
    this.#server.on('connect', (_, socket: Duplex) => endWith(socket as Socket, 405, { 'Content-Length': '0', Connection: 'close' }, ''));
    this.#server.on('clientError', (reason: NodeJS.ErrnoException, socket: Duplex) => this.#onClientError(reason, socket as Socket));
    // It never listens, but what looks after slow heads starts when it does.
    this.#server.emit('listening');
  }

  /** Takes over a connection whose first bytes look like HTTP. `dialling` is the connection to its first destination, for the first request that wants it. */
  serve(connection: Connection, dialling: Promise<Dialled>): void {
    this.#sessions.set(connection.client, new Session(connection, dialling));
    // A server of its own for each socket would do the same; this one is given sockets by hand.
    this.#server.emit('connection', connection.client);
    connection.client.resume();
  }

  close(): void {
    this.#server.emit('close');
    this.#server.closeAllConnections();
  }

  /** Messages that Node's parser takes and its writer does not, such as an answer with the status 099, end one connection and nothing else. */
  #guard<A extends unknown[]>(client: Duplex, work: (...args: A) => void): (...args: A) => void {
    return (...args) => {
      try {
        work(...args);
      } catch (reason) {
        const connection = this.#sessions.get(client)?.connection;
        connection?.fail(connection.destination, `The HTTP message cannot be passed on: ${(reason as Error).message}.`);
      }
    };
  }

  #onRequest(request: IncomingMessage, response: ServerResponse): void {
    const session = this.#sessions.get(request.socket)!;
    const { connection } = session;
    response.sendDate = false;
    request.on('error', () => {});
    response.on('error', () => {});
    const target = targetOf(request, connection.destination.port);
    if (target.kind === 'broken') return answer(response, 400, { 'Content-Type': 'text/plain', 'Content-Length': String(target.why.length + 1), Connection: 'close' }, `${target.why}\n`);
    const verdict = connection.guest.decide(target.destination);
    if (!verdict.allowed) {
      connection.note(target.destination, verdict, 'blocked');
      return answerBlocked(response, target.destination, verdict);
    }
    const bodyless = !hasHeader(request.rawHeaders, 'content-length') && !hasHeader(request.rawHeaders, 'transfer-encoding');
    const method = request.method ?? 'GET';
    const extra = bodyless && ['POST', 'PUT', 'PATCH'].includes(method) ? ['Content-Length', '0'] : [];
    const upstream = session.request(target.destination, { method, path: target.path, headers: [...passedOn(request.rawHeaders, extra), 'Connection', 'keep-alive'] });
    session.begin();
    response.on('close', () => {
      session.end();
      if (!response.writableFinished) upstream.destroy();
    });
    upstream.on('continue', () => response.writeContinue());
    upstream.on('response', this.#guard(request.socket, (incoming: IncomingMessage) => relay(incoming, response, (work) => this.#guard(request.socket, work))));
    upstream.on('error', (reason) => {
      if (response.destroyed) return;
      if (reason instanceof DialError && reason.dialled.kind === 'blocked' && !response.headersSent) {
        connection.note(reason.dialled.destination, reason.dialled.verdict, 'blocked');
        answerBlocked(response, reason.dialled.destination, reason.dialled.verdict);
      } else if (reason instanceof DialError && reason.dialled.kind === 'failed') {
        connection.fail(reason.dialled.destination, reason.dialled.reason, reason.dialled.verdict);
      } else {
        connection.client.resetAndDestroy();
      }
    });
    // Before the pipe, which ends the request.
    request.on('end', this.#guard(request.socket, () => {
      if (request.rawTrailers.length > 0) upstream.addTrailers(pairs(request.rawTrailers));
    }));
    request.pipe(upstream);
    return undefined;
  }

  #onUpgrade(request: IncomingMessage, client: Socket, head: Buffer): void {
    const session = this.#sessions.get(client)!;
    const { connection } = session;
    const target = targetOf(request, connection.destination.port);
    if (target.kind === 'broken') return endWith(client, 400, { 'Content-Length': '0', Connection: 'close' }, '');
    const verdict = connection.guest.decide(target.destination);
    if (!verdict.allowed) {
      connection.note(target.destination, verdict, 'blocked');
      return blockedPage(client, target.destination, verdict);
    }
    const upstream = session.request(target.destination, { method: request.method ?? 'GET', path: target.path, headers: passedOn(request.rawHeaders, ['Connection', 'Upgrade', 'Upgrade', 'websocket']) });
    upstream.on('upgrade', (incoming, socket, upstreamHead) => {
      client.write(headOf(incoming, ['Connection', 'Upgrade', 'Upgrade', 'websocket']));
      if (upstreamHead.length > 0) client.write(upstreamHead);
      if (head.length > 0) socket.write(head);
      pump(socket as Socket, client);
      pump(client, socket as Socket);
    });
    upstream.on('response', (incoming) => {
      // It declined. The body's framing ends here: its end is the connection's.
      client.write(headOf(incoming, ['Connection', 'close'], true));
      incoming.pipe(client);
    });
    upstream.on('error', (reason) => {
      if (reason instanceof DialError && reason.dialled.kind === 'blocked') {
        connection.note(reason.dialled.destination, reason.dialled.verdict, 'blocked');
        blockedPage(client, reason.dialled.destination, reason.dialled.verdict);
      } else if (reason instanceof DialError && reason.dialled.kind === 'failed') {
        connection.fail(reason.dialled.destination, reason.dialled.reason, reason.dialled.verdict);
      } else {
        client.resetAndDestroy();
      }
    });
    client.on('close', () => upstream.destroy());
    upstream.end();
    return undefined;
  }

  #onClientError(reason: NodeJS.ErrnoException, client: Socket): void {
    const session = this.#sessions.get(client);
    if (session === undefined || !client.writable || reason.code === 'ECONNRESET') return void client.destroy();
    session.connection.note(session.connection.destination, protocolFault('The HTTP request is malformed.'), 'blocked');
    // In the middle of another answer nothing can be said.
    if (session.busy) return void client.resetAndDestroy();
    const status = reason.code === 'HPE_HEADER_OVERFLOW' ? 431 : reason.code === 'ERR_HTTP_REQUEST_TIMEOUT' ? 408 : 400;
    return endWith(client, status, { 'Content-Length': '0', Connection: 'close' }, '');
  }
}

/** A dial that did not come to a connection, as an error of the request that wanted it. */
class DialError extends Error {
  readonly dialled: Exclude<Dialled, { kind: 'connected' }>;

  constructor(dialled: Exclude<Dialled, { kind: 'connected' }>) {
    super(dialled.kind === 'failed' ? dialled.reason : dialled.verdict.reason);
    this.dialled = dialled;
  }
}

/** One client's connection, and the connections to servers that its requests share. */
class Session {
  readonly connection: Connection;
  readonly #agent: Agent;
  #first: Promise<Dialled> | null;
  #running = 0;

  constructor(connection: Connection, dialling: Promise<Dialled>) {
    this.connection = connection;
    this.#first = dialling;
    this.#agent = new Agent({ keepAlive: true, maxSockets: 1, maxTotalSockets: 8, timeout: 0 });
    // Keyed by the host of the options; `destination` comes along.
    this.#agent.createConnection = (options, callback) => {
      void this.#connect((options as unknown as { destination: Destination }).destination).then(
        (socket) => callback?.(null, socket),
        (reason: Error) => callback?.(reason, null as never),
      );
      return undefined;
    };
    connection.client.on('close', () => this.#agent.destroy());
  }

  get busy(): boolean {
    return this.#running > 0;
  }

  begin(): void {
    this.#running++;
  }

  end(): void {
    this.#running--;
  }

  request(destination: Destination, { method, path, headers }: { method: string; path: string; headers: string[] }): ClientRequest {
    const host = destination.name ?? formatAddress(destination.address ?? 0);
    const args: ClientRequestArgs & { destination: Destination } = { agent: this.#agent, host, port: destination.port, method, path, headers: headers as never, setHost: false, setDefaultHeaders: false, maxHeaderSize: longestHead, destination };
    return httpRequest(args);
  }

  async #connect(destination: Destination): Promise<Socket> {
    const first = this.#first;
    this.#first = null;
    let dialled = first === null ? null : await first;
    const fits = dialled !== null && (dialled.kind !== 'connected' || dialled.intake === null) && this.connection.destination.name === destination.name && (destination.name !== null || this.connection.destination.address === destination.address);
    if (!fits && dialled?.kind === 'connected') dialled.socket.destroy();
    if (dialled === null || !fits || (dialled.kind === 'connected' && dialled.socket.destroyed)) dialled = await this.connection.dial(destination);
    if (dialled.kind !== 'connected') throw new DialError(dialled);
    const { socket } = dialled;
    socket.allowHalfOpen = false;
    socket.resume();
    // A server that ends an idle connection ends the client's, which would otherwise send into the void.
    socket.on('close', () => {
      if (!this.busy && !this.connection.client.destroyed) this.connection.client.end();
    });
    return socket;
  }
}

function relay(incoming: IncomingMessage, response: ServerResponse, guard: (work: () => void) => () => void): void {
  if (incoming.statusCode === undefined) return;
  const closing = /(^|,)\s*close\s*(,|$)/i.test(incoming.headers.connection ?? '') ? ['Connection', 'close'] : [];
  response.writeHead(incoming.statusCode, incoming.statusMessage ?? '', passedOn(incoming.rawHeaders, closing));
  // Answers that come piece by piece start with their head.
  response.flushHeaders();
  incoming.on('end', guard(() => {
    if (incoming.rawTrailers.length > 0) response.addTrailers(pairs(incoming.rawTrailers));
  }));
  incoming.on('error', () => response.destroy());
  incoming.on('aborted', () => response.socket?.resetAndDestroy());
  incoming.pipe(response);
}

function answer(response: ServerResponse, status: number, headers: Record<string, string>, body: string): void {
  response.writeHead(status, headers);
  response.end(body);
}

function answerBlocked(response: ServerResponse, destination: Destination, verdict: Verdict): void {
  const { headers, body } = blockedBody(destination, verdict);
  answer(response, 403, headers, body);
}

function headOf(incoming: IncomingMessage, extra: readonly string[], withoutFraming = false): string {
  const headers = passedOn(incoming.rawHeaders, extra);
  const lines: string[] = [];
  for (let i = 0; i < headers.length; i += 2) if (!withoutFraming || headers[i]!.toLowerCase() !== 'transfer-encoding') lines.push(`${headers[i]}: ${headers[i + 1]}\r\n`);
  return `HTTP/1.1 ${incoming.statusCode} ${incoming.statusMessage ?? ''}\r\n${lines.join('')}\r\n`;
}

function isWebSocket(request: IncomingMessage): boolean {
  return request.method === 'GET' && request.headers.upgrade?.toLowerCase() === 'websocket';
}

function pairs(raw: readonly string[]): [string, string][] {
  const list: [string, string][] = [];
  for (let i = 0; i + 1 < raw.length; i += 2) list.push([raw[i]!, raw[i + 1]!]);
  return list;
}
