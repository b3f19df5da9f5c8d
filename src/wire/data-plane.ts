import { ServerResponse, type IncomingHttpHeaders, type IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { PaddockError } from '../core/errors.ts';
import { forwardRequest, forwardUpgrade } from './forward.ts';

/** A program inside a sandbox, and the part of the request that is its own. */
export interface PortTarget {
  /** The sandbox as the client wrote it. */
  readonly sandbox: string;
  /** The port as the client wrote it. */
  readonly port: string;
  /** Path and query for the program: the client's own bytes, beginning with a slash. */
  readonly path: string;
  /** What was taken off in front of the path; shown to the program as `X-Forwarded-Prefix`. Empty when nothing was. */
  readonly prefix: string;
}

/** A connection to a program. */
export interface OpenTarget {
  readonly tunnel: Duplex;
  /** The `Host` that the program is to see. */
  readonly host: string;
  /** Instead of the target's own. */
  readonly path?: string;
  /** Instead of the client's `Cookie`; null for none. */
  readonly cookie?: string | null;
  /** The program has an origin of its own, so it may set cookies for it. */
  readonly ownOrigin?: boolean;
  /** What the target's address begins with for everybody outside, when that is not what came here. */
  readonly publicScheme?: 'https';
}

/** What an entrance makes of a request: a way to the program, or an answer of its own. */
export type Opened = OpenTarget | { readonly answer: { readonly status: number; readonly headers: Readonly<Record<string, string>> } };

/** Made once: an abort without a reason makes an exception with a stack for every request. */
const clientLeft = new PaddockError('conflict', 'the client has left');

/** One way to name a port of a sandbox, with its own authentication and error shape. Each wire gives one. */
export interface Entrance {
  /** The target a request names, or null when the request is for somebody else. */
  claims(request: IncomingMessage): PortTarget | null;
  /** A connection to the program. Throws what `failure` can present: no key, no sandbox, a bad port, nothing listening. */
  open(target: PortTarget, headers: IncomingHttpHeaders, signal: AbortSignal, request: IncomingMessage): Promise<Opened>;
  /** Headers, in lower case, that are for Paddock and never reach the program. */
  privateHeaders(headers: IncomingHttpHeaders): Promise<ReadonlySet<string>>;
  /** What a client is told; `requestId` is where the log has more. */
  failure(error: unknown, requestId: string): { readonly status: number; readonly headers: Readonly<Record<string, string>>; readonly body: object };
}

/**
 * HTTP and WebSocket traffic from outside to programs inside sandboxes. Runs before the router: the router would decode the path, and the
 * path is not ours.
 */
export class DataPlane {
  readonly #entrances: readonly Entrance[];
  readonly #newId: () => string;
  readonly #report: (error: PaddockError, requestId: string) => void;
  readonly #upgraded = new Set<Duplex>();

  /**
   * @param newId names a request that failed.
   * @param report gets every failure of the server's own making.
   */
  constructor(entrances: readonly Entrance[], newId: () => string, report: (error: PaddockError, requestId: string) => void) {
    this.#entrances = entrances;
    this.#newId = newId;
    this.#report = report;
  }

  claims(request: IncomingMessage): boolean {
    return this.#find(request) !== null;
  }

  /** Answers a request if it is for a port of a sandbox; false when it is not. */
  handle(request: IncomingMessage, response: ServerResponse): boolean {
    const found = this.#find(request);
    if (found === null) return false;
    void this.#serve(found, request, response);
    return true;
  }

  /** Takes over a connection that asks for another protocol. */
  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    socket.on('error', () => socket.destroy()); // the client is gone; 'close' tells the rest
    const found = this.#find(request);
    if (found === null) {
      socket.destroy();
      return;
    }
    this.#upgraded.add(socket);
    socket.once('close', () => this.#upgraded.delete(socket));
    void this.#serveUpgrade(found, request, socket, head);
  }

  /** Cuts the upgraded connections, which the HTTP server no longer knows of. */
  close(): void {
    for (const socket of this.#upgraded) socket.destroy();
  }

  #find(request: IncomingMessage): { entrance: Entrance; target: PortTarget } | null {
    for (const entrance of this.#entrances) {
      const target = entrance.claims(request);
      if (target !== null) return { entrance, target };
    }
    return null;
  }

  async #serve({ entrance, target }: { entrance: Entrance; target: PortTarget }, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const left = new AbortController();
    response.once('close', () => left.abort(clientLeft));
    try {
      const withhold = await entrance.privateHeaders(request.headers);
      const opened = await entrance.open(target, request.headers, left.signal, request);
      if ('answer' in opened) response.writeHead(opened.answer.status, { ...opened.answer.headers, 'content-length': 0 }).end();
      else await forwardRequest({ request, response, target, withhold, ...opened });
    } catch (error) {
      if (!left.signal.aborted) this.#fail(entrance, error, response);
    }
  }

  async #serveUpgrade({ entrance, target }: { entrance: Entrance; target: PortTarget }, request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    const left = new AbortController();
    socket.once('close', () => left.abort(clientLeft));
    try {
      const withhold = await entrance.privateHeaders(request.headers);
      const opened = await entrance.open(target, request.headers, left.signal, request);
      if ('answer' in opened) throw new PaddockError('internal', 'an upgrade was answered without one');
      await forwardUpgrade({ request, socket, head, target, withhold, ...opened });
    } catch (error) {
      if (left.signal.aborted) return;
      // The HTTP server has let go of this connection, so the answer needs a response of its own.
      const response = new ServerResponse(request);
      response.shouldKeepAlive = false;
      response.assignSocket(socket as never);
      response.once('finish', () => socket.end());
      this.#fail(entrance, error, response);
    }
  }

  #fail(entrance: Entrance, reason: unknown, response: ServerResponse): void {
    if (response.headersSent) {
      response.destroy(); // a cut answer must not look like a complete one
      return;
    }
    const requestId = this.#newId();
    const { status, headers, body } = entrance.failure(reason, requestId);
    if (status === 500) this.#report(PaddockError.from(reason), requestId);
    const text = JSON.stringify(body);
    response.writeHead(status, { ...headers, 'content-type': 'application/json; charset=utf-8', 'content-length': Buffer.byteLength(text), 'x-request-id': requestId });
    response.end(text);
  }
}
