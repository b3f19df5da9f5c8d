import { ServerResponse, type IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { WebSocketServer, type WebSocket } from 'ws';
import { goneError } from '../../core/ended.ts';
import type { SandboxId } from '../../core/ids.ts';
import type { Principal } from '../../core/principal.ts';
import type { Processes } from '../../core/processes.ts';
import type { Sandboxes } from '../../core/sandboxes.ts';
import { requestId } from '../../request-context.ts';
import type { AccessTokens } from './access-token.ts';
import type { Connections } from './connections.ts';
import { explained, stale, unavailable } from './data-plane-errors.ts';
import { answerTo, SuperserveError } from './errors.ts';
import { execSession } from './exec-session.ts';
import type { AgentTarget, Routing } from './routing.ts';
import { shut, type SessionContext } from './session.ts';
import { statusOf } from './status.ts';
import { terminalSession } from './terminal-session.ts';

interface SocketDeps {
  readonly routing: Routing;
  readonly sandboxes: Sandboxes;
  readonly processes: Processes;
  readonly tokens: AccessTokens;
  readonly connections: Connections;
  readonly origins: readonly string[];
}

interface Endpoint {
  readonly protocol: string;
  /** Bytes of one frame; a longer one ends the connection with 1009. */
  readonly maxPayload: number;
  readonly session: (socket: WebSocket, context: SessionContext) => Promise<void>;
}

const endpoints: Readonly<Record<string, Endpoint>> = Object.freeze({
  '/exec/connect': { protocol: 'superserve.exec.v1', maxPayload: 4 * 1024 * 1024, session: execSession },
  '/terminal': { protocol: 'superserve.terminal.v1', maxPayload: 64 * 1024, session: terminalSession },
});

/** Milliseconds between two pings; a client that has answered none since the last is gone. */
const pingMs = 30_000;
/** Milliseconds for a client that broke the rules to hear so. */
const lastWordMs = 3000;

/** The WebSockets of the data plane (contract, sections 10.2 and 10.3): everything up to the first frame, and their end. */
export class Sockets {
  readonly #deps: SocketDeps;
  readonly #servers: ReadonlyMap<string, WebSocketServer>;
  readonly #open = new Set<WebSocket>();
  readonly #report: (error: unknown) => void;

  /** @param report gets failures of the server's own making. */
  constructor(deps: SocketDeps, report: (error: unknown) => void) {
    this.#deps = deps;
    this.#report = report;
    this.#servers = new Map(
      Object.entries(endpoints).map(([path, { protocol, maxPayload }]) => {
        // Only the protocol is agreed to: the token beside it stays unsaid.
        const handleProtocols = (offered: Set<string>): string | false => (offered.has(protocol) ? protocol : false);
        return [path, new WebSocketServer({ noServer: true, maxPayload, handleProtocols, perMessageDeflate: false, clientTracking: false })] as const;
      }),
    );
  }

  claims(request: IncomingMessage): boolean {
    return this.#deps.routing.route(request)?.to === 'agent';
  }

  /** Takes over a connection that asks for another protocol, or answers it in plain HTTP. */
  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    socket.on('error', () => socket.destroy()); // the client is gone; 'close' tells the rest
    this.#upgrade(request, socket, head).catch((error: unknown) => refuse(request, socket, error, this.#report));
  }

  /** Says goodbye to everybody: the server stops. */
  close(): void {
    for (const socket of this.#open) shut(socket, 1001, 'the server is being stopped');
  }

  async #upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    const route = this.#deps.routing.route(request);
    if (route?.to !== 'agent') throw stale(null);
    const { target } = route;
    const endpoint = endpoints[target.path];
    const server = this.#servers.get(target.path);
    if (endpoint === undefined || server === undefined) throw new SuperserveError(404, 'not_found', `there is no WebSocket at ${target.path.slice(0, 80)}; there is ${Object.keys(endpoints).join(' and ')}`);
    this.#assertOrigin(request, target);
    const id = this.#authorised(request, target);
    const principal = await this.#enter(id);
    if (socket.destroyed) return;
    const leave = this.#deps.connections.enter(id, request.socket.remoteAddress);
    socket.once('close', leave);
    server.handleUpgrade(request, socket, head, (accepted) => void this.#serve(accepted, endpoint, { processes: this.#deps.processes, principal, id }));
  }

  /** A page of a foreign origin must not open a terminal with a token it has got hold of; programs send no origin. */
  #assertOrigin(request: IncomingMessage, target: AgentTarget): void {
    const { origin } = request.headers;
    if (target.path !== '/terminal' || origin === undefined || this.#deps.origins.includes(origin)) return;
    throw new SuperserveError(400, 'bad_request', `the origin ${origin.slice(0, 100)} may not open a terminal; PADDOCK_SUPERSERVE_ORIGINS names those that may`);
  }

  #authorised(request: IncomingMessage, { id }: AgentTarget): SandboxId {
    const offered = (request.headers['sec-websocket-protocol'] ?? '').split(',').map((each) => each.trim());
    const header = request.headers['x-access-token'];
    const token = offered.find((each) => each.startsWith('token.'))?.slice('token.'.length) ?? (typeof header === 'string' ? header : '');
    if (id === null || !this.#deps.tokens.accepts(id, token)) throw invalidToken();
    return id;
  }

  async #enter(id: SandboxId): Promise<Principal> {
    const { sandboxes } = this.#deps;
    try {
      const principal = await sandboxes.ownerOf(id);
      const sandbox = await sandboxes.get(principal, { id });
      const status = statusOf(sandbox);
      if (status === 'deleted') throw stale(id);
      // No activate can help it.
      if (status === 'failed') throw goneError(sandbox.end);
      if (status !== 'active') throw unavailable(id, status);
      return principal;
    } catch (error) {
      throw await explained(sandboxes, id, error);
    }
  }

  async #serve(socket: WebSocket, endpoint: Endpoint, context: SessionContext): Promise<void> {
    this.#open.add(socket);
    // A frame against the rules: ws has answered with its code. Cut at once, with the rest of the frame unread, the answer would be lost.
    socket.on('error', () => setTimeout(() => socket.terminate(), lastWordMs).unref());
    let alive = true;
    socket.on('pong', () => (alive = true));
    const pings = setInterval(() => {
      if (!alive) return socket.terminate();
      alive = false;
      return socket.ping();
    }, pingMs);
    socket.once('close', () => {
      clearInterval(pings);
      this.#open.delete(socket);
    });
    try {
      await endpoint.session(socket, context);
    } catch (error) {
      this.#report(error);
      shut(socket, 1011, 'the server failed');
    }
  }
}

/** 401, on which clients activate the sandbox for a new token. */
export function invalidToken(): SuperserveError {
  return new SuperserveError(401, 'auth_failed', 'the access token is missing, expired or of another sandbox; POST /sandboxes/{id}/activate gives a new one');
}

function refuse(request: IncomingMessage, socket: Duplex, error: unknown, report: (error: unknown) => void): void {
  if (socket.destroyed) return;
  // The HTTP server has let go of this connection, so the answer needs a response of its own.
  const response = new ServerResponse(request);
  response.shouldKeepAlive = false;
  response.assignSocket(socket as never);
  response.once('finish', () => socket.end());
  const id = requestId() ?? '-';
  const { status, headers, body } = answerTo(error, id);
  if (status === 500) report(error);
  const text = JSON.stringify(body);
  response.writeHead(status, { ...headers, 'x-request-id': id, 'content-type': 'application/json; charset=utf-8', 'content-length': Buffer.byteLength(text) });
  response.end(text);
}
