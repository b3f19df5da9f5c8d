import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { IncomingMessage } from 'node:http';
import { PaddockError } from '../../core/errors.ts';
import type { SandboxId } from '../../core/ids.ts';
import { readBodiesAsJson } from '../json-body.ts';
import { compileValidator } from '../validation.ts';
import { AccessTokens } from './access-token.ts';
import { admitRequest, withheld } from '../scopes.ts';
import { authenticate } from './authenticate.ts';
import { malformed, tooLargeAdvice } from './body.ts';
import { Connections, isLoopback } from './connections.ts';
import { explained, stale } from './data-plane-errors.ts';
import type { RouteDependencies, Scope, SuperserveDependencies } from './dependencies.ts';
import { answerTo, SuperserveError } from './errors.ts';
import { readSandboxId } from './ids.ts';
import { PreviewEntrance } from './preview-entrance.ts';
import { PreviewTokens } from './preview-token.ts';
import { agentRoutes } from './routes/agent.ts';
import { lifecycleRoutes } from './routes/lifecycle.ts';
import { observeRoutes } from './routes/observe.ts';
import { previewRoutes } from './routes/previews.ts';
import { notFound, sandboxRoutes } from './routes/sandboxes.ts';
import { secretRoutes } from './routes/secrets.ts';
import { snapshotRoutes } from './routes/snapshots.ts';
import { templateRoutes } from './routes/templates.ts';
import { unavailableRoutes } from './routes/unavailable.ts';
import { agentPrefix, controlPrefix, Routing, type AgentTarget } from './routing.ts';
import { invalidToken, Sockets } from './sockets.ts';
import { statusOf } from './status.ts';
import { Throttle } from './throttle.ts';

declare module 'fastify' {
  interface FastifyRequest {
    /** The sandbox whose inside a request of the data plane is for; its token has been checked. */
    agentTarget: SandboxId;
  }
}

const securityHeaders = { 'x-content-type-options': 'nosniff', 'x-frame-options': 'DENY', 'strict-transport-security': 'max-age=31536000' } as const;

/**
 * The Superserve wire: its calls as a fastify plugin, and what has to happen before the router sees a request. Translates; the rules are in
 * the core.
 */
export class SuperserveWire {
  /** Previews, for the data plane that all wires share. */
  readonly previews: PreviewEntrance;
  readonly sockets: Sockets;
  readonly #deps: RouteDependencies;
  readonly #routing: Routing;
  readonly #connections = new Connections();
  readonly #targets = new WeakMap<IncomingMessage, AgentTarget>();

  /** @param report gets failures of the server's own making outside requests. */
  constructor(given: SuperserveDependencies, report: (error: unknown) => void) {
    this.#deps = { ...given, tokens: new AccessTokens(given.keys.accessTokens, given.clock), previewTokens: new PreviewTokens(given.keys.previewTokens, given.clock) };
    this.#routing = new Routing(given.domain);
    const shared = { ...this.#deps, routing: this.#routing, connections: this.#connections };
    this.previews = new PreviewEntrance({ ...shared, tokens: this.#deps.previewTokens });
    this.sockets = new Sockets({ ...shared, origins: given.settings.origins }, report);
  }

  /** The URL under which the router finds a request of this wire; null for the others. */
  rewrite(request: IncomingMessage): string | null {
    const route = this.#routing.route(request);
    if (route === null || route.to === 'preview') return null;
    if (route.to === 'agent') this.#targets.set(request, route.target);
    return route.url;
  }

  /** Registers everything, with its own authentication and error shape. */
  readonly plugin = async (app: FastifyInstance): Promise<void> => {
    await app.register(this.#control, { prefix: controlPrefix });
    await app.register(this.#agent, { prefix: agentPrefix });
  };

  readonly #control = async (instance: FastifyInstance): Promise<void> => {
    const deps = this.#deps;
    const app = instance as Scope;
    const ofAddress = new Throttle(deps.settings.addressRate, 'this address');
    const ofTeam = new Throttle(deps.settings.teamRate, 'this team');
    prepare(app);
    app.setErrorHandler(async (error, request, reply) => sendError(error, request, reply));
    app.setNotFoundHandler(unknownCall);
    app.get('/health', async () => ({ status: 'ok', version: '0.1.0' }));
    await app.register(async (instance) => {
      const scope = instance as Scope;
      scope.setErrorHandler(async (error, request, reply) => sendError(await withoutDeleted(deps, error, request), request, reply));
      scope.addHook('onRequest', async (request, reply) => {
        // Everybody behind a gateway or reverse proxy has the loopback address.
        if (!isLoopback(request.ip)) ofAddress.take(request.ip, reply);
        request.principal = await authenticate(deps.access, request.headers);
        ofTeam.take(request.principal.teamId, reply);
        admitRequest(deps.access, request, reply);
      });
      scope.addHook('preSerialization', async (request, _reply, payload) => (request.principal?.scope === 'read' ? withheld(payload) : payload));
      readBodiesAsJson(scope, { malformed, advice: tooLargeAdvice });
      sandboxRoutes(scope, deps);
      lifecycleRoutes(scope, deps);
      snapshotRoutes(scope, deps);
      previewRoutes(scope, deps);
      observeRoutes(scope, deps);
      templateRoutes(scope, deps);
      secretRoutes(scope, deps);
      unavailableRoutes(scope);
    });
  };

  readonly #agent = async (instance: FastifyInstance): Promise<void> => {
    const { sandboxes, tokens, settings } = this.#deps;
    const app = instance as Scope;
    prepare(app);
    app.setErrorHandler(async (error, request, reply) => {
      const known = request.agentTarget === undefined ? error : await explained(sandboxes, request.agentTarget, error);
      // A 403 would make the clients ask for another token and try again.
      const refused = known instanceof PaddockError && known.code === 'permission_denied' ? new SuperserveError(422, 'unprocessable', known.message, { cause: known }) : known;
      return sendError(refused, request, reply);
    });
    app.setNotFoundHandler(unknownCall);
    app.addHook('onRequest', async (request, reply) => {
      const { origin } = request.headers;
      // Also where none is allowed: what a cache keeps of one page must not be given to another.
      if (settings.origins.length > 0) reply.header('vary', 'Origin');
      if (origin !== undefined && settings.origins.includes(origin)) reply.header('access-control-allow-origin', origin);
      if (request.method === 'OPTIONS') return;
      const id = this.#targets.get(request.raw)?.id ?? null;
      if (id === null) throw stale(null);
      const token = request.headers['x-access-token'];
      if (typeof token !== 'string' || !tokens.accepts(id, token)) throw invalidToken();
      request.agentTarget = id;
      request.principal = await sandboxes.ownerOf(id);
      reply.raw.once('close', this.#connections.enter(id, request.ip));
    });
    app.options('/*', async (_request, reply) => {
      const allowed = reply.hasHeader('access-control-allow-origin');
      if (allowed) reply.headers({ 'access-control-allow-methods': 'GET, POST, OPTIONS', 'access-control-allow-headers': 'X-Access-Token, Content-Type, X-Superserve-Sandbox-Id', 'access-control-max-age': 600 });
      return reply.code(204).send();
    });
    agentRoutes(app, this.#deps);
  };
}

function prepare(app: Scope): void {
  app.decorateRequest('agentTarget');
  app.decorateRequest('principal');
  app.setValidatorCompiler(compileValidator);
  app.setSerializerCompiler(() => JSON.stringify);
  app.addHook('onRequest', async (_request, reply) => {
    reply.headers(securityHeaders);
  });
}

/** A sandbox that was deleted is not found on this wire; the core still knows why it ended. */
async function withoutDeleted({ sandboxes }: RouteDependencies, error: unknown, request: FastifyRequest): Promise<unknown> {
  const id = readSandboxId((request.params as { id?: string } | undefined)?.id ?? '');
  if (!(error instanceof PaddockError) || error.code !== 'gone' || id === null) return error;
  const sandbox = await sandboxes.get(request.principal, { id }).catch(() => null);
  return sandbox === null || statusOf(sandbox) === 'deleted' ? notFound(id) : error;
}

async function unknownCall(request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
  const path = request.url.split('?', 1)[0]!.replace(agentPrefix, '').slice(0, 200);
  return sendError(new PaddockError('not_found', `there is nothing at ${request.method} ${path}`), request, reply);
}

function sendError(error: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const answer = answerTo(error, request.id);
  if (answer.status >= 500 && answer.status !== 503 && answer.status !== 507) request.log.error({ reqId: request.id, err: error, status: answer.status, route: request.routeOptions.url }, 'a request failed');
  return reply.code(answer.status).headers(answer.headers).send(answer.body);
}
