import Fastify, { LogController, type FastifyBaseLogger, type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify';
import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { PaddockError } from './core/errors.ts';
import { FrontDoor } from './front-door.ts';
import { requestId } from './request-context.ts';
import { codeOf, operationsRoutes, wireOf } from './wire/operations.ts';
import type { Figures, RequestMeasures } from './wire/request-measures.ts';
import { collectRoutes } from './wire/openapi/document.ts';
import { openApiRoutes } from './wire/openapi/pages.ts';
import { listRoutes, type RouteTable } from './wire/route-table.ts';
import { DataPlane } from './wire/data-plane.ts';
import { authenticate } from './wire/declaw/authenticate.ts';
import { answerTo } from './wire/declaw/errors.ts';
import { declawWire } from './wire/declaw/index.ts';
import type { NamingTable } from './core/identity.ts';
import type { DeclawDependencies } from './wire/declaw/dependencies.ts';
import { declawNaming } from './wire/declaw/naming.ts';
import { declawProtocol } from './wire/declaw/openapi.ts';
import { HostEntrance, PortEntrance } from './wire/declaw/ports.ts';
import { SuperserveWire } from './wire/superserve/index.ts';
import { superserveProtocol } from './wire/superserve/openapi.ts';
import { superserveNaming } from './wire/superserve/naming.ts';
import type { SuperserveDependencies } from './wire/superserve/dependencies.ts';

/** What the server is put together from. */
export interface ServerDependencies extends Omit<DeclawDependencies, 'stopping'> {
  /** What only the Superserve wire needs. */
  readonly superserve: Omit<SuperserveDependencies, 'stopping' | keyof DeclawDependencies>;
  readonly log: FastifyBaseLogger;
  readonly version: string;
  /** The port, when it is open already; otherwise one is made. */
  readonly door?: FrontDoor;
  /** What is counted, and who may read it besides those who have a key; without it there is nothing at `/metrics`. */
  readonly metrics?: Figures & { readonly requests: RequestMeasures; readonly open: boolean };
}

/** The HTTP side of Paddock: one port, a wire per protocol, and the data plane in front of them. */
export interface Server {
  readonly app: FastifyInstance;
  /** Starts to listen; resolves to the URL that clients of this machine can use. */
  listen(host: string, port: number): Promise<string>;
  /**
   * Stops: takes nothing new, ends streams, gives requests under way `graceMs`, then cuts what is left.
   */
  close(): Promise<void>;
}

/** What each wire calls its sandboxes from within. */
export const naming: NamingTable = { declaw: declawNaming, superserve: superserveNaming };

/** Milliseconds for requests under way when the server stops. */
const graceMs = 1500;
/** Milliseconds after the grace for the last answers to get out. */
const lastAnswersMs = 500;

const limits = {
  /** The SDKs keep idle connections for 30 to 60 s. The server must wait longer, or a request meets a connection that is being closed. */
  keepAliveTimeout: 75_000,
  maxHeaderSize: 32 * 1024,
  headersTimeout: 60_000,
  /** None: uploads and streams take as long as they take. Bodies that stall have limits of their own. */
  requestTimeout: 0,
} as const;

/** Builds the server; nothing listens yet. The Declaw wire is at the root, the Superserve wire below `/superserve` and at hosts of its own. */
export async function buildServer(deps: ServerDependencies): Promise<Server> {
  const draining = new AbortController();
  const expired = new AbortController();
  const newId = (): string => requestId() ?? '-';
  const door = deps.door ?? openDoor(deps.version);
  const measures = deps.metrics?.requests;
  const stopping = { draining: draining.signal, expired: expired.signal };
  const superserve = new SuperserveWire({ ...deps, ...deps.superserve, stopping }, (err) => deps.log.error({ err }, 'a WebSocket failed'));
  const dataPlane = new DataPlane([superserve.previews, new HostEntrance(deps), new PortEntrance(deps)], newId, (err, reqId) => deps.log.error({ err, reqId }, 'port traffic failed'));
  let answer: RequestListener = () => {};
  const app = Fastify({
    loggerInstance: deps.log,
    logController: new LogController({ disableRequestLogging: true }),
    genReqId: newId,
    childLoggerFactory: (logger) => logger, // every line names its request already
    exposeHeadRoutes: false, // a HEAD of a stream or a file would do all the work of a GET
    requestTimeout: limits.requestTimeout,
    keepAliveTimeout: limits.keepAliveTimeout,
    forceCloseConnections: 'idle',
    return503OnClosing: false, // the SDKs would repeat it; what still comes in on an open connection is answered
    routerOptions: { ignoreTrailingSlash: true, maxParamLength: 256 },
    rewriteUrl: (request) => superserve.rewrite(request as IncomingMessage) ?? request.url ?? '/',
    frameworkErrors: (error, request, reply) => {
      if (superserve.rewrite(request.raw) !== null) return void (reply as FastifyReply).code(400).send({ error: { code: 'bad_request', message: `the URL cannot be read: ${error.message}` } });
      (reply as FastifyReply).code(400).send({ message: `The URL cannot be read: ${error.message}.`, code: 'invalid_argument' });
    },
    clientErrorHandler: refuseConnection,
    serverFactory: (handler) => {
      answer = (request, response) => {
        if (dataPlane.claims(request)) measurePort(measures, request, response);
        if (!dataPlane.handle(request, response)) handler(request, response);
      };
      return door.server;
    },
  });
  const routes = listRoutes(app);
  const described = collectRoutes(app);
  app.addHook('onRequest', async (request, reply) => {
    reply.header('x-request-id', request.id);
    measures?.began();
    if (measures !== undefined) reply.raw.once('close', () => measures.ended({ wire: wireOf(routeOf(request)), method: request.method, route: routeOf(request), status: reply.statusCode, seconds: reply.elapsedTime / 1000 }));
    // What would begin now would be cut soon. Nothing has happened, so the next server can be asked the same.
    if (draining.signal.aborted && (request.method === 'POST' || request.method === 'PUT')) throw new PaddockError('no_capacity', 'the server is stopping; try again in a moment', { retryAfterSeconds: 1 });
  });
  if (measures !== undefined) app.addHook('onError', async (request, _reply, error) => measures.failed(wireOf(routeOf(request)), codeOf(error)));
  app.addHook('onResponse', async (request, reply) => {
    // The route's pattern, not the URL: that may hold paths and whatever else clients put there.
    request.log.debug({ reqId: request.id, method: request.method, route: request.routeOptions.url, status: reply.statusCode, ms: Math.round(reply.elapsedTime * 10) / 10 }, 'request');
  });
  answerUnknownRoutes(app, routes);
  operationsRoutes(app, {
    version: deps.version,
    readiness: () => door.readiness,
    figures: deps.metrics ?? null,
    admitToFigures: async (request) => {
      if (deps.metrics?.open === false) await authenticate(deps.access, request.headers); // of any scope
    },
  });
  openApiRoutes(app, { declaw: declawProtocol, superserve: superserveProtocol }, described, deps.version);
  await app.register(declawWire, { ...deps, stopping });
  await app.register(superserve.plugin);
  await app.ready();
  door.admit({
    handle: answer,
    upgrades: (request) => superserve.sockets.claims(request) || dataPlane.claims(request),
    upgrade: (request, socket, head) => (superserve.sockets.claims(request) ? superserve.sockets : dataPlane).upgrade(request, socket, head),
  });

  return {
    app,
    listen: (host, port) => door.listen(host, port),
    close: async () => {
      draining.abort();
      dataPlane.close();
      superserve.sockets.close();
      const closed = Promise.all([app.close(), door.close()]);
      const over = await Promise.race([closed.then(() => true), sleep(graceMs, false)]);
      if (over) return;
      expired.abort();
      await Promise.race([closed, sleep(lastAnswersMs)]);
      door.server.closeAllConnections();
      await closed;
    },
  };
}

/** 404 for what does not exist, 405 with `Allow` for what exists with other methods. */
function answerUnknownRoutes(app: FastifyInstance, routes: RouteTable): void {
  app.setNotFoundHandler(async (request, reply) => {
    const path = request.url.split('?', 1)[0]!;
    const allowed = routes.methodsOf(path);
    if (allowed.length === 0) return reply.code(404).send({ message: `There is nothing at ${request.method} ${path.slice(0, 200)}.`, code: 'not_found' });
    return reply
      .code(405)
      .header('allow', allowed.join(', '))
      .send({ message: `${request.method} is not possible here; ${allowed.join(', ')} ${allowed.length === 1 ? 'is' : 'are'}.`, code: 'method_not_allowed' });
  });
  // For what fails before or outside a wire, such as a URL that cannot be decoded.
  app.setErrorHandler(async (error, request, reply) => {
    if (error instanceof PaddockError) {
      const { status, headers, body } = answerTo(error, request.id);
      return reply.code(status).headers(headers).send(body);
    }
    const status = (error as { statusCode?: number }).statusCode ?? 500;
    if (status >= 500) request.log.error({ reqId: request.id, err: error }, 'a request failed');
    return reply.code(status).send({ message: status >= 500 ? 'The server failed to answer this request.' : (error as Error).message, code: status >= 500 ? 'internal' : 'invalid_argument' });
  });
}

/** For bytes that never became a request: no route, no wire, only a status line by hand. */
function refuseConnection(error: NodeJS.ErrnoException, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy();
    return;
  }
  const [status, message] =
    error.code === 'HPE_HEADER_OVERFLOW'
      ? ['431 Request Header Fields Too Large', `The headers are larger than ${limits.maxHeaderSize / 1024} KiB.`]
      : error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
        ? ['408 Request Timeout', 'The request did not arrive in time.']
        : ['400 Bad Request', 'This is not a valid HTTP/1.1 request.'];
  const body = JSON.stringify({ message, code: 'invalid_argument' });
  socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`);
}

/** The port, closed. @param version is what `/health` says while nobody is at home. */
export function openDoor(version: string): FrontDoor {
  return new FrontDoor(version, limits);
}

/** The pattern of a request's route, below the wire's prefix; empty when there is none. */
function routeOf(request: FastifyRequest): string {
  return request.is404 ? '' : (request.routeOptions.url ?? '');
}

/** Traffic to programs inside sandboxes does not pass the router: all of it is one route. */
function measurePort(measures: RequestMeasures | undefined, request: IncomingMessage, response: ServerResponse): void {
  if (measures === undefined) return;
  const begun = performance.now();
  measures.began();
  response.once('close', () => measures.ended({ wire: 'ports', method: request.method ?? 'GET', route: 'port', status: response.statusCode, seconds: (performance.now() - begun) / 1000 }));
}
