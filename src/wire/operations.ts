import type { FastifyInstance, FastifyRequest } from 'fastify';
import { PaddockError } from '../core/errors.ts';
import type { Figures } from './request-measures.ts';

export interface OperationsDependencies {
  readonly version: string;
  readonly readiness: () => 'recovering' | 'ready' | 'draining';
  /** Null for none. */
  readonly figures: Figures | null;
  /** Throws when the request may not see the figures. */
  readonly admitToFigures: (request: FastifyRequest) => Promise<void>;
}

/** What probes and monitoring ask, outside of every protocol: whether the process lives, whether it serves, and what it has done. */
export function operationsRoutes(app: FastifyInstance, { version, readiness, figures, admitToFigures }: OperationsDependencies): void {
  app.get('/health', async () => ({ status: 'ok', version }));

  app.get('/ready', async (_request, reply) => {
    const status = readiness();
    reply.header('cache-control', 'no-store');
    return status === 'ready' ? { status } : reply.code(503).header('retry-after', '1').send({ status });
  });

  if (figures === null) return;
  app.get('/metrics', async (request, reply) => {
    await admitToFigures(request);
    return reply.header('content-type', figures.contentType).header('cache-control', 'no-store').send(await figures.text());
  });
}

/** The wire that a route belongs to, for the figures. */
export function wireOf(route: string): string {
  if (route === '' || route === '/health' || route === '/ready' || route === '/metrics' || route.startsWith('/docs') || route.startsWith('/openapi')) return 'server';
  return route.startsWith('/superserve') || route.startsWith('/.superserve') ? 'superserve' : 'declaw';
}

/** A failure in a word of a closed set: the core's, or a wire's own. */
export function codeOf(error: unknown): string {
  if (error instanceof PaddockError) return error.code;
  const { code, statusCode } = error as { code?: unknown; statusCode?: unknown };
  if (typeof code === 'string' && /^[a-z_]{1,40}$/.test(code)) return code;
  return typeof statusCode === 'number' && statusCode < 500 ? 'invalid_argument' : 'internal';
}
