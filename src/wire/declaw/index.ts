import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { PaddockError } from '../../core/errors.ts';
import { leaveBodiesUnread, readBodiesAsJson } from '../json-body.ts';
import { compileValidator } from '../validation.ts';
import { admitRequest, withheld } from '../scopes.ts';
import { authenticate } from './authenticate.ts';
import { Cursors } from './cursor.ts';
import type { DeclawDependencies, RouteDependencies, Scope } from './dependencies.ts';
import { answerTo } from './errors.ts';
import { parsePublicId, sandboxNotFound } from './ids.ts';
import { Presenter } from './present.ts';
import { commandRoutes } from './routes/commands.ts';
import { fileRoutes } from './routes/files.ts';
import { networkRoutes } from './routes/network.ts';
import { ptyRoutes } from './routes/pty.ts';
import { sandboxRoutes } from './routes/sandboxes.ts';
import { snapshotRoutes } from './routes/snapshots.ts';
import { stdioRoutes } from './routes/stdio.ts';
import { templateRoutes } from './routes/templates.ts';
import { unavailableRoutes } from './routes/unavailable.ts';
import { vaultRoutes } from './routes/vault.ts';
import { volumeFileRoutes } from './routes/volume-files.ts';
import { volumeRoutes } from './routes/volumes.ts';

declare module 'fastify' {
  interface FastifyRequest {
    /** The body of a create as it came, for the echo. */
    received: Readonly<Record<string, unknown>>;
  }
}

/**
 * The Declaw wire as a fastify plugin: every endpoint of its contract, in its own scope with its own authentication, validation and
 * error shape. Translates; the rules are in the core.
 */
export async function declawWire(instance: FastifyInstance, given: DeclawDependencies): Promise<void> {
  const app = instance as Scope;
  const deps: RouteDependencies = {
    ...given,
    present: new Presenter(given.tokens, given.domain),
    cursors: new Cursors(given.cursorKey),
  };
  app.decorateRequest('received');
  app.decorateRequest('principal');
  app.setValidatorCompiler(compileValidator);
  // Answers are built by hand in one place each; response schemas would only copy them once more.
  app.setSerializerCompiler(() => JSON.stringify);
  app.setErrorHandler(async (error, request, reply) => sendError(await explained(deps, error, request), request, reply));
  app.addHook('onRequest', async (request, reply) => {
    request.principal = await authenticate(deps.access, request.headers);
    admitRequest(deps.access, request, reply);
  });
  app.addHook('preSerialization', async (request, _reply, payload) => (request.principal?.scope === 'read' ? withheld(payload) : payload));
  readBodiesAsJson(app);

  sandboxRoutes(app, deps);
  snapshotRoutes(app, deps);
  commandRoutes(app, deps);
  stdioRoutes(app, deps);
  ptyRoutes(app, deps);
  fileRoutes(app, deps);
  networkRoutes(app, deps);
  volumeRoutes(app, deps);
  volumeFileRoutes(app, deps);
  templateRoutes(app, deps);
  vaultRoutes(app, deps);
  await app.register(async (scope) => {
    leaveBodiesUnread(scope); // archives, for example: refused without being read
    unavailableRoutes(scope as Scope);
  });
}

/** The core says that something is missing; which sandbox it was, in the words of this wire, is known here. */
async function explained(deps: RouteDependencies, error: unknown, request: FastifyRequest): Promise<unknown> {
  const id = (request.params as { id?: string } | undefined)?.id;
  if (!(error instanceof PaddockError) || error.code !== 'not_found' || id === undefined) return error;
  try {
    await deps.sandboxes.get(request.principal, parsePublicId(id));
    return error; // the sandbox is there: it is a file or process that is missing
  } catch (reason) {
    return PaddockError.from(reason).code === 'not_found' ? sandboxNotFound(id) : reason;
  }
}

function sendError(error: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const answer = answerTo(error, request.id);
  if (answer.status >= 500) request.log.error({ reqId: request.id, err: error, status: answer.status, route: request.routeOptions.url }, 'a request failed');
  return reply.code(answer.status).headers(answer.headers).send(answer.body);
}
